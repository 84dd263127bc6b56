//! The stages as threads, joined by bounded channels.
//!
//! ```text
//! submit ─▶ dispatcher ─▶ prepare ×P ─▶ device ─▶ finish ×F ─▶ deliver ─▶ outcomes
//!                            └─ header alone corrected ─▶┘
//! ```
//! * Every job ends in exactly one outcome: published, published before, or a fault. A panic is a fault too.
//! * Each thread takes from its channel until the other end is gone, so closing the entrance empties the street from
//!   front to back, and nobody waits for a stage that has ended.
//! * Only the dispatcher waits for memory, before it holds anything.
//! * The device thread owns the engine; tensors never leave it.

use super::board::{Board, Seat};
use super::budget::{Budget, Denied, Permit};
use super::channels;
use super::clinic::Clinic;
use super::estimate::host_bytes;
use super::stages::{self, Input, Order, Read};
use super::work::{Envelope, JobId, Ticket, Times, Token, Work};
use crate::config::Format;
use crate::delivery::Receipt;
use crate::fault::{Class, Code, Fault};
use crate::intake::disks::{Disks, Room};
use crate::ledger::Ledger;
use crate::models::Generation;
use crate::results::Replaced;
use crate::segment::Engine;
use crate::sys::clock::Clock;
use crate::sys::cores::Cores;
use crate::sys::crash::{self, Point};
use crate::sys::shutdown::Shutdown;
use crate::telemetry::{Ended, Metrics, Post, Stage};
use crossbeam::channel::{Receiver, Sender, bounded, select};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Opens the engine of a model; called on the device thread, and again after a panic there and for another model.
pub type EngineFactory = Arc<dyn Fn(&Generation) -> Result<Opened, Fault> + Send + Sync>;

/// An engine and what it turned out to be.
pub struct Opened {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// Where it computes and in which numbers, after `auto` is resolved.
    pub facts: EngineFacts,
}

/// Where an engine computes and in which numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFacts {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// `f32`, `bf16` or `f16`.
    pub precision: String,
}

/// What the street is built from.
pub struct Plan {
    /// The model that is opened at the start. Each case names its own when it is submitted.
    pub model: Arc<Generation>,
    /// Bytes that cases in work may hold together.
    pub host_memory: u64,
    /// Asked before anything is published whether the job is still wanted; none without a ledger.
    pub ledger: Option<Arc<dyn Ledger>>,
    /// Where what is optional is left out while there is little room; none: it never is.
    pub disks: Option<Arc<Disks>>,
    /// Opens the engine.
    pub engine: EngineFactory,
    /// Threads.
    pub cores: Cores,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// How a job ended, said once for each job.
pub struct Outcome {
    /// The job.
    pub job: JobId,
    /// The claim that it was done for: one job may be in the street for two of them, when it was put back into the line meanwhile.
    pub token: Option<Token>,
    /// How.
    pub end: Result<End, Fault>,
    /// How long each stage took.
    pub times: Times,
}

/// How a job ended well.
pub enum End {
    /// A result was published.
    Published(Box<Receipt>),
    /// The same result had been published before, here.
    AlreadyPublished(PathBuf),
}

/// What waiting for an outcome gives.
pub enum Next {
    /// One.
    Outcome(Box<Outcome>),
    /// None in this time.
    Nothing,
    /// None any more: the street is closed and empty.
    Over,
}

/// The running stages.
pub struct Street {
    entrance: Option<Sender<Work<Input>>>,
    outcomes: Receiver<Outcome>,
    hungry: Receiver<()>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What every thread of the street knows.
struct Shared {
    facts: EngineFacts,
    board: Board,
    clinic: Clinic,
    budget: Budget,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    ledger: Option<Arc<dyn Ledger>>,
    disks: Option<Arc<Disks>>,
    /// Jobs that are not wanted any more, each for the claim that was lost.
    unwanted: Mutex<BTreeSet<(JobId, Option<Token>)>>,
}

/// The tail of the street as one thread sees it.
#[derive(Clone)]
struct Place {
    shared: Arc<Shared>,
    outcomes: Sender<Outcome>,
}

impl Street {
    /// Opens the engine and starts the threads; returns once the engine is ready.
    pub fn start(plan: Plan) -> Result<Street, Fault> {
        let (ready, facts) = bounded(1);
        let (to_device, prepared) = bounded(channels::TO_DEVICE);
        let (to_finish, labelled) = bounded(channels::TO_FINISH);
        let (to_deliver, finished) = bounded(channels::TO_DELIVER);
        let (to_prepare, claimed) = bounded(channels::TO_PREPARE);
        let (entrance, waiting) = bounded(channels::WAITING);
        let (tell, outcomes) = bounded(channels::OUTCOMES);
        let (ring, hungry) = bounded(1);
        let (place_known, place) = bounded::<Place>(1);

        // The engine is opened on the thread that will own it, before there is anything for the thread to do.
        let (factory, model) = (plan.engine.clone(), plan.model);
        let corrected = to_finish.clone();
        let mut threads = vec![spawn("device", move || {
            let engine = match open(&factory, &model) {
                Ok(opened) => {
                    let _ = ready.send(Ok(opened.facts));
                    Owned { model: model.digest.clone(), engine: opened.engine }
                }
                Err(fault) => return drop(ready.send(Err(fault))),
            };
            if let Ok(place) = place.recv() {
                device(&place, engine, &factory, &prepared, &to_finish);
            }
        })?];
        let facts = select! {
            recv(facts) -> facts => facts.unwrap_or_else(|_| Err(Fault::new(Code::InternalBug, "the device thread ended while opening the engine")))?,
            recv(plan.shutdown.abandoning()) -> _ => return Err(Fault::new(Code::InternalShutdown, "while the model was being loaded")),
        };
        let shared = Arc::new(Shared {
            budget: Budget::new(plan.host_memory, plan.metrics.clone()),
            facts,
            board: Board::new(plan.clock.clone()),
            clinic: Clinic::default(),
            clock: plan.clock,
            metrics: plan.metrics,
            shutdown: plan.shutdown,
            ledger: plan.ledger,
            disks: plan.disks,
            unwanted: Mutex::default(),
        });
        let place = Place { shared: shared.clone(), outcomes: tell };
        let _ = place_known.send(place.clone());

        let here = place.clone();
        threads.push(spawn("dispatcher", move || dispatch(&here, &waiting, &to_prepare, &ring))?);
        for i in 0..plan.cores.prepare {
            let (here, claimed, to_device, to_finish) = (place.clone(), claimed.clone(), to_device.clone(), corrected.clone());
            threads.push(spawn(&format!("prepare-{i}"), move || prepare(&here, &claimed, &to_device, &to_finish))?);
        }
        for i in 0..plan.cores.finish {
            let (here, labelled, to_deliver) = (place.clone(), labelled.clone(), to_deliver.clone());
            threads.push(spawn(&format!("finish-{i}"), move || finish(&here, &labelled, &to_deliver))?);
        }
        threads.push(spawn("deliver", move || deliver(&place, &finished))?);
        Ok(Street { entrance: Some(entrance), outcomes, hungry, shared, threads })
    }

    /// Puts a case in front of the street; gives it back when the waiting line is full or the street is closed. `replaces`: the earlier
    /// result of a series that has changed.
    pub fn submit(&self, ticket: Ticket, input: Input, order: &Arc<Order>, replaces: Option<Replaced>) -> Result<(), Input> {
        let Some(entrance) = &self.entrance else { return Err(input) };
        let visit = self.shared.clinic.enter();
        let envelope = Envelope { ticket, order: order.clone(), permit: None, replaces, times: Times::default(), visit };
        entrance.try_send(Work { envelope, body: input }).map_err(|refused| refused.into_inner().body)
    }

    /// Whether nobody waits in front of the street: then one more job will not wait for others of its kind.
    pub fn is_hungry(&self) -> bool {
        self.entrance.as_ref().is_some_and(Sender::is_empty)
    }

    /// For `select!`: rings when the street may have become hungry.
    pub fn hungry(&self) -> &Receiver<()> {
        &self.hungry
    }

    /// What is done for this claim of a job is not wanted any more: it ends at its next step, as `ledger.stale_token`.
    pub fn give_up(&self, job: JobId, token: Token) {
        self.shared.lock().insert((job, Some(token)));
    }

    /// Lets nothing more in. The outcomes end when everything inside has come out.
    pub fn close(&mut self) {
        self.entrance = None;
    }

    /// The next outcome, waited for at most `patience`.
    pub fn outcome(&self, patience: Duration) -> Next {
        match self.outcomes.recv_timeout(patience) {
            Ok(outcome) => Next::Outcome(Box::new(outcome)),
            Err(e) if e.is_timeout() => Next::Nothing,
            Err(_) => Next::Over,
        }
    }

    /// For `select!`: one message for each job that was submitted; disconnects after the last when the street is closed.
    pub fn outcomes(&self) -> &Receiver<Outcome> {
        &self.outcomes
    }

    /// What the engine turned out to be.
    pub fn facts(&self) -> &EngineFacts {
        &self.shared.facts
    }

    /// What is being done now.
    pub fn board(&self) -> &Board {
        &self.shared.board
    }

    /// Whether there is clinical work.
    pub fn clinic(&self) -> &Clinic {
        &self.shared.clinic
    }

    /// Waits until all threads have ended; outcomes nobody took are dropped. To be called after [`Street::close`].
    pub fn join(mut self) {
        self.close();
        while self.outcomes.recv().is_ok() {}
        for thread in self.threads.drain(..) {
            // A stage thread panics only outside its guard; the hook has told about it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(JobId, Option<Token>)>> {
        self.unwanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no point in going on with a job.
    fn is_over(&self, ticket: &Ticket) -> bool {
        self.shutdown.is_abandoning() || self.lock().contains(&(ticket.job, ticket.token))
    }

    /// What is written of a job: all that was asked for, or, with little room on the disks, what has to be.
    fn formats(&self, job: JobId, asked: &[Format]) -> Vec<Format> {
        let has_to_be = |format: &Format| !matches!(format, Format::Preview | Format::Nifti);
        let little = || self.disks.as_ref().is_some_and(|disks| disks.room() > Room::Enough);
        if !asked.iter().any(has_to_be) || asked.iter().all(has_to_be) || !little() {
            return asked.to_vec();
        }
        let (written, left): (Vec<Format>, Vec<Format>) = asked.iter().copied().partition(has_to_be);
        for format in left {
            self.metrics.optional_skipped(format.name());
            tracing::warn!(%job, format = format.name(), "left out: little space");
        }
        written
    }

    /// The claim of a job still holds, or there is nobody to ask.
    fn still_wanted(&self, ticket: &Ticket) -> Result<(), Fault> {
        match (&self.ledger, ticket.token) {
            (Some(ledger), Some(token)) => Ok(ledger.renew(token, super::jobs::HOLD)?),
            _ => Ok(()),
        }
    }
}

impl Place {
    /// Runs a stage on a datum. `None`: it failed, panicked or is given up, and the outcome has been told.
    fn step<I, O>(
        &self,
        seat: &Seat,
        stage: Stage,
        work: Work<I>,
        run: impl FnOnce(I, &mut Envelope) -> Result<O, Fault>,
    ) -> Option<Work<O>> {
        let Work { mut envelope, body } = work;
        if self.shared.is_over(&envelope.ticket) {
            self.end(envelope, Err(self.given_up()));
            return None;
        }
        let start = self.shared.clock.monotonic();
        seat.begin(Post::Stage(stage), Some(envelope.ticket.job), envelope.permit.as_ref().map_or(0, Permit::bytes));
        let result = catch_unwind(AssertUnwindSafe(|| run(body, &mut envelope)));
        seat.rest();
        let took = self.shared.clock.monotonic().saturating_duration_since(start);
        envelope.times.add(stage, took);
        self.shared.metrics.stage_done(stage, took);
        let result = result.unwrap_or_else(|_| {
            self.shared.metrics.panicked(stage);
            // What it said may stem from the input; the place is in the log.
            Err(Fault::new(Code::InternalBug, format!("the stage `{}` panicked", stage.name())))
        });
        match result {
            Ok(body) => Some(Work { envelope, body }),
            Err(fault) => {
                self.end(envelope, Err(fault));
                None
            }
        }
    }

    /// Hands a datum to the next stage.
    fn hand_on<T>(&self, stage: Stage, next: &Sender<Work<T>>, work: Work<T>) {
        crash::point(match stage {
            Stage::Read | Stage::Prepare => Point::HandedToDevice,
            Stage::Segment => Point::HandedToFinish,
            Stage::Finish | Stage::Deliver => Point::HandedToDeliver,
        });
        let start = self.shared.clock.monotonic();
        if let Err(refused) = next.send(work) {
            let fault = Fault::new(Code::InternalBug, format!("the stage after `{}` has ended", stage.name()));
            self.end(refused.into_inner().envelope, Err(fault));
        }
        self.shared.metrics.backpressure(stage, self.shared.clock.monotonic().saturating_duration_since(start));
    }

    /// The daemon ends, or else a person has ended the job.
    fn given_up(&self) -> Fault {
        let ends = self.shared.shutdown.is_draining();
        Fault::new(if ends { Code::InternalShutdown } else { Code::LedgerStaleToken }, "")
    }

    /// Tells how a job ended, after its memory was given back.
    fn end(&self, envelope: Envelope, end: Result<End, Fault>) {
        let Envelope { ticket: Ticket { job, since, urgency, token, .. }, permit, times, .. } = envelope;
        drop(permit);
        let shared = &self.shared;
        shared.lock().remove(&(job, token));
        let ended = match &end {
            Ok(End::Published(_)) => {
                shared.metrics.turnaround(urgency, shared.clock.monotonic().saturating_duration_since(since));
                Ended::Published
            }
            Ok(End::AlreadyPublished(_)) => Ended::AlreadyPublished,
            Err(fault) if matches!(fault.code, Code::InternalShutdown | Code::LedgerStaleToken) => Ended::Abandoned,
            Err(fault) if fault.class == Class::Retryable || fault.code == Code::ModelCanary => Ended::Retried,
            Err(_) => Ended::Parked,
        };
        shared.metrics.job_ended(ended);
        let end = end.map_err(|fault| fault.of_job(job.to_string()));
        crash::point(Point::OutcomeTold);
        // Nobody listens once the street's owner is gone.
        let _ = self.outcomes.send(Outcome { job, token, end, times });
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Fault> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for `{name}`: {e}")).caused_by(e))
}

fn open(factory: &EngineFactory, model: &Generation) -> Result<Opened, Fault> {
    catch_unwind(AssertUnwindSafe(|| factory(model))).unwrap_or_else(|_| Err(Fault::new(Code::InternalBug, "opening the engine panicked")))
}

/// The engine of a model that is not open. Where it computes does not depend on the model: memory and identities are told before it is open.
fn open_another(factory: &EngineFactory, model: &Generation, facts: &EngineFacts) -> Result<Box<dyn Engine>, Fault> {
    let opened = open(factory, model)?;
    if opened.facts == *facts {
        return Ok(opened.engine);
    }
    let (now, before) = (&opened.facts, facts);
    let detail =
        format!("the engine computes on {} in {}, and did on {} in {}", now.device, now.precision, before.device, before.precision);
    Err(Fault::new(Code::InternalBug, detail))
}

/// Claims one case after the other: waits for its memory, then for a prepare thread.
fn dispatch(place: &Place, waiting: &Receiver<Work<Input>>, to_prepare: &Sender<Work<Input>>, ring: &Sender<()>) {
    let Shared { facts, shutdown, budget, .. } = &*place.shared;
    for mut work in waiting {
        // Full: it has been rung already.
        let _ = ring.try_send(());
        if shutdown.is_draining() {
            place.end(work.envelope, Err(place.given_up()));
            continue;
        }
        let need = match host_bytes(&work.body, &work.envelope.order.model.manifest, facts) {
            Ok(need) => need,
            Err(fault) => {
                place.end(work.envelope, Err(fault));
                continue;
            }
        };
        match budget.acquire(need, shutdown.draining()) {
            Ok(permit) => work.envelope.permit = Some(permit),
            Err(Denied::Stopped) => {
                place.end(work.envelope, Err(place.given_up()));
                continue;
            }
            Err(Denied::TooLarge { need, limit }) => {
                place.end(work.envelope, Err(stages::too_large(need, limit)));
                continue;
            }
        }
        crash::point(Point::HandedToPrepare);
        if let Err(refused) = to_prepare.send(work) {
            place.end(refused.into_inner().envelope, Err(Fault::new(Code::InternalBug, "the prepare stage has ended")));
        }
    }
}

fn prepare(
    place: &Place,
    claimed: &Receiver<Work<Input>>,
    to_device: &Sender<Work<stages::Ready>>,
    to_finish: &Sender<Work<stages::Labelled>>,
) {
    let Shared { facts, board, .. } = &*place.shared;
    let seat = board.seat();
    for work in claimed {
        let read = |input, envelope: &mut Envelope| stages::read(input, &envelope.order, facts);
        let Some(work) = place.step(&seat, Stage::Read, work, read) else { continue };
        let Work { envelope, body } = work;
        let volume = match body {
            Read::Volume(volume) => volume,
            Read::AlreadyPublished(path) => {
                place.end(envelope, Ok(End::AlreadyPublished(path)));
                continue;
            }
            Read::Corrected(labelled) => {
                place.hand_on(Stage::Read, to_finish, Work { envelope, body: *labelled });
                continue;
            }
        };
        let work = Work { envelope, body: volume };
        if let Some(work) = place.step(&seat, Stage::Prepare, work, |volume, envelope| stages::prepare(*volume, &envelope.order)) {
            place.hand_on(Stage::Prepare, to_device, work);
        }
    }
}

/// An engine and the digest of its model.
struct Owned {
    model: String,
    engine: Box<dyn Engine>,
}

/// Labels one case after the other. The engine of the last model stays open; a case of another one opens that in its place.
fn device(
    place: &Place,
    engine: Owned,
    factory: &EngineFactory,
    prepared: &Receiver<Work<stages::Ready>>,
    to_finish: &Sender<Work<stages::Labelled>>,
) {
    let Shared { facts, board, metrics, .. } = &*place.shared;
    let seat = board.seat();
    // Empty after a panic: what the engine held is not trusted any more.
    let mut owned = Some(engine);
    for work in prepared {
        let ticket = work.envelope.ticket;
        let done = place.step(&seat, Stage::Segment, work, |ready, envelope| {
            let model = &envelope.order.model;
            let mut engine = match owned.take().filter(|owned| owned.model == model.digest) {
                Some(owned) => owned.engine,
                None => open_another(factory, model, facts)?,
            };
            let mut windows = 0;
            let labelled = stages::segment(engine.as_mut(), ready, &envelope.order, &mut |progress| {
                metrics.windows((progress.done.saturating_sub(windows)) as u64);
                windows = progress.done;
                seat.progress(progress);
                !place.shared.is_over(&ticket)
            });
            envelope.times.engine = engine.timings();
            if let Some(memory) = engine.memory() {
                metrics.device.memory(&facts.device, memory.used, memory.reserved, memory.limit);
            }
            metrics.device.out_of_memory(engine.steps_down(), matches!(&labelled, Err(fault) if fault.code == Code::DeviceOutOfMemory));
            owned = Some(Owned { model: model.digest.clone(), engine });
            labelled.inspect(|l| metrics.voxels(l.labels.labels().len() as u64))
        });
        if let Some(work) = done {
            place.hand_on(Stage::Segment, to_finish, work);
        }
    }
}

fn finish(place: &Place, labelled: &Receiver<Work<stages::Labelled>>, to_deliver: &Sender<Work<stages::Finished>>) {
    let Shared { facts, board, .. } = &*place.shared;
    let seat = board.seat();
    for work in labelled {
        let done = place.step(&seat, Stage::Finish, work, |labelled, envelope| {
            let formats = place.shared.formats(envelope.ticket.job, &envelope.order.formats);
            stages::finish(labelled, &envelope.order, &formats, facts, envelope.ticket.dated, envelope.replaces.take())
        });
        if let Some(work) = done {
            place.hand_on(Stage::Finish, to_deliver, work);
        }
    }
}

fn deliver(place: &Place, finished: &Receiver<Work<stages::Finished>>) {
    let Shared { board, .. } = &*place.shared;
    let seat = board.seat();
    for work in finished {
        if let Some(work) = place.step(&seat, Stage::Deliver, work, |finished, envelope| {
            place.shared.still_wanted(&envelope.ticket)?;
            stages::deliver(finished, &envelope.order)
        }) {
            place.end(work.envelope, Ok(End::Published(Box::new(work.body))));
        }
    }
}
