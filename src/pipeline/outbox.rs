//! The outbox at work: one thread for each destination takes what the ledger has for it, in order, and writes down what became of it.
//!
//! A destination that fails is left alone for a while, longer each time; nothing is tried in vain for every result that waits. What
//! was refused some times is parked; everything else is tried for ever.

use super::board::{Board, Seat};
use super::jobs::{HOLD, PAUSE_FIRST, problem, urgency};
use crate::audit::{Audit, Event, Node, Study};
use crate::config::{Destination, DestinationKind};
use crate::delivery::{self, Clerk, Confirmed, Failure, Parcel, REFUSALS, Transport, Verdict};
use crate::fault::{Code, Fault};
use crate::intake::commitment::Commitments;
use crate::ledger::{Change, Delivery, DeliveryClaim, Lease, Ledger, LedgerError, Token};
use crate::sys::clock::Clock;
use crate::sys::crash::{self, Point};
use crate::sys::shutdown::Shutdown;
use crate::telemetry::metrics::Attempt;
use crate::telemetry::{Metrics, Post, Stage};
use crossbeam::channel::{Receiver, Sender, bounded, select};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// First pause after a failure of a destination; doubled with every further one.
const BREAK_FIRST: Duration = Duration::from_secs(2);
/// Longest pause.
const BREAK_LONGEST: Duration = Duration::from_secs(600);
/// After so many failures in a row a destination counts as down.
const DOWN_AFTER: u32 = 3;
/// After so many answers that may mean no, or not now, a delivery is parked.
const DOUBTED: u32 = 10;
/// Metrics are brought up to date at least this often.
const TICK: Duration = Duration::from_secs(15);

/// What the workers share.
#[derive(Clone)]
pub struct OutboxPlan {
    /// What is to be delivered.
    pub ledger: Arc<dyn Ledger>,
    /// Where results lie.
    pub output: PathBuf,
    /// Names this process.
    pub owner: String,
    /// What is being done, for all to see.
    pub board: Board,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Hears of what is sent.
    pub audit: Audit,
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// The running workers.
pub struct Outbox {
    destinations: Vec<Destination>,
    bells: Vec<Bell>,
    /// Disconnects when the last worker has ended.
    ended: Receiver<()>,
}

/// Wakes a worker.
struct Bell {
    ring: Sender<()>,
    /// A person wants it tried now.
    now: Arc<AtomicBool>,
}

impl Outbox {
    /// Starts a worker for each destination. What can not be used, such as a certificate, is a fault.
    pub fn start(plan: &OutboxPlan, destinations: &[Destination]) -> Result<Outbox, Fault> {
        let (ending, ended) = bounded(0);
        let mut bells = Vec::with_capacity(destinations.len());
        for destination in destinations {
            let transport = delivery::open(destination)?;
            plan.metrics.delivery.destination(&destination.name, &Confirmed::ALL.map(Confirmed::name));
            let (ring, rung) = bounded(1);
            let now = Arc::new(AtomicBool::new(false));
            let worker = Worker {
                plan: plan.clone(),
                commitments: Commitments::new(plan.ledger.clone(), plan.metrics.clone()),
                destination: destination.clone(),
                transport,
                lease: Lease { owner: plan.owner.clone(), hold: HOLD, model: String::new() },
                seat: plan.board.seat(),
                failures: 0,
                not_before: None,
                rung,
                now: now.clone(),
            };
            let ending: Sender<()> = ending.clone();
            std::thread::Builder::new()
                .name(format!("send-{}", destination.name))
                .spawn(move || {
                    worker.run();
                    drop(ending);
                })
                .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for `{}`: {e}", destination.name)).caused_by(e))?;
            bells.push(Bell { ring, now });
        }
        for left in plan.ledger.outbox()?.iter().filter(|o| o.open > 0 && !destinations.iter().any(|d| d.name == o.destination)) {
            let (destination, results) = (&left.destination, left.open);
            tracing::warn!(destination, results, "results wait for a destination that is not in the configuration");
        }
        Ok(Outbox { destinations: destinations.to_vec(), bells, ended })
    }

    /// The destinations.
    pub fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// There may be something new.
    pub fn ring(&self) {
        for bell in &self.bells {
            // Full: it has been rung already.
            let _ = bell.ring.try_send(());
        }
    }

    /// A person has changed something: whoever waits for a destination to come back tries now.
    pub fn hurry(&self) {
        self.bells.iter().for_each(|bell| bell.now.store(true, Ordering::Release));
        self.ring();
    }

    /// Waits until the workers have ended, at most this long; to be called when the shutdown signal drains. What a worker leaves is
    /// asked about after the next start.
    pub fn join(self, clock: &dyn Clock, patience: Duration, shutdown: &Shutdown) {
        let too_long = clock.after(patience);
        select! {
            recv(self.ended) -> _ => {}
            recv(too_long) -> _ => tracing::warn!("a destination did not answer within the drain time: it is asked after the next start"),
            recv(shutdown.abandoning()) -> _ => {}
        }
    }
}

/// The thread of one destination.
struct Worker {
    plan: OutboxPlan,
    commitments: Commitments,
    destination: Destination,
    transport: Box<dyn Transport>,
    lease: Lease,
    seat: Seat,
    /// Failures of the destination in a row.
    failures: u32,
    /// It is left alone until then.
    not_before: Option<Instant>,
    rung: Receiver<()>,
    now: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let wait = self.turn();
            self.seat.rest();
            self.transport.rest();
            self.hear();
            let timer = self.plan.clock.after(wait);
            select! {
                recv(self.rung) -> _ => {}
                recv(timer) -> _ => {}
                recv(self.plan.shutdown.draining()) -> _ => return,
            }
        }
    }

    /// Delivers what may be delivered now; how long to wait then.
    fn turn(&mut self) -> Duration {
        if self.now.swap(false, Ordering::AcqRel) {
            self.not_before = None;
        }
        while !self.plan.shutdown.is_draining() {
            let due = self.count();
            if let Some(at) = self.not_before {
                let wait = at.saturating_duration_since(self.plan.clock.monotonic());
                if !wait.is_zero() {
                    return wait.min(TICK);
                }
            }
            match due {
                Some(Duration::ZERO) => {}
                other => return other.unwrap_or(TICK).min(TICK),
            }
            match self.plan.ledger.claim_delivery(&self.destination.name, &self.lease) {
                Ok(Some(claim)) => self.deliver(claim),
                Ok(None) => return TICK,
                Err(error) => {
                    self.ledger_failed(error);
                    return PAUSE_FIRST;
                }
            }
        }
        TICK
    }

    /// Tells the metrics what waits; how long until something of it may be sent.
    fn count(&self) -> Option<Duration> {
        let name = &self.destination.name;
        let own = self.plan.ledger.outbox().ok()?.into_iter().find(|o| o.destination == *name);
        let (open, parked, oldest) = own.as_ref().map_or((0, 0, Duration::ZERO), |o| (o.open, o.parked, o.oldest));
        self.plan.metrics.delivery.outbox(name, open, parked, oldest);
        own.and_then(|o| o.due)
    }

    fn deliver(&mut self, claim: DeliveryClaim) {
        let DeliveryClaim { token, delivery } = claim;
        crash::point(Point::DeliveryClaimed);
        self.seat.begin(Post::Outbox, Some(delivery.job), 0);
        let mut study = None;
        let verdict = match Parcel::open(&*self.plan.ledger, &self.plan.output, &delivery, &self.destination) {
            Ok(parcel) => {
                study = self.audited(&parcel);
                // What is tried for ever is begun once.
                if let Some(study) = study.as_ref().filter(|_| delivery.attempts <= 1) {
                    self.plan.audit.record(&Event::Begun { study, to: &node_of(&self.destination) });
                }
                let verdict = self.send(&parcel, token);
                self.learn(&verdict);
                verdict
            }
            Err(fault) => Verdict::own(fault),
        };
        crash::point(Point::DeliveryEnded);
        let queried = matches!(verdict, Verdict::Delivered { confirmed: Confirmed::Query, .. });
        let change = self.conclude(&delivery, token, verdict);
        if let Some(study) = study {
            self.audit_end(&study, &change, queried);
        }
        self.tell(change);
        self.hear();
    }

    /// Takes reports of storage commitment. One that can not be written down is as good as one that never came: the destination is asked.
    fn hear(&mut self) {
        for report in self.transport.reports() {
            match self.commitments.take(&report) {
                Ok(true) => {}
                Ok(false) => tracing::warn!(destination = self.destination.name, "a report of storage commitment that nobody asked for"),
                Err(fault) => {
                    self.plan.metrics.fault(fault.code);
                    tracing::warn!(destination = self.destination.name, code = %fault.code, "a report of storage commitment is lost");
                }
            }
        }
    }

    fn send(&mut self, parcel: &Parcel, token: Token) -> Verdict {
        let mut desk = Desk { ledger: &*self.plan.ledger, seat: &self.seat, token };
        let transport = &mut self.transport;
        let sent = catch_unwind(AssertUnwindSafe(|| transport.deliver(parcel, &mut desk)));
        sent.unwrap_or_else(|_| {
            self.plan.metrics.panicked(Stage::Deliver);
            let fault = Fault::new(Code::InternalBug, format!("the delivery to `{}` panicked", self.destination.name));
            Verdict::Failed { failure: Failure::Final, doubtful: true, fault }
        })
    }

    /// The study of a parcel, as far as it has DICOM objects; none when nobody is told.
    fn audited(&self, parcel: &Parcel) -> Option<Study> {
        let objects: Vec<_> = parcel.items.iter().filter_map(|item| Some((item, item.identity.as_ref()?))).collect();
        let (first, identity) = objects.first().filter(|_| self.plan.audit.is_on())?;
        let mut study = Study { patient: self.plan.audit.patient(&first.path), ..Study::named(identity.study_uid.as_str()) };
        for (_, identity) in &objects {
            *study.classes.entry(identity.sop_class_uid.to_string()).or_default() += 1;
        }
        Some(study)
    }

    /// Tells of a transfer that has ended. One that is tried again has not.
    fn audit_end(&self, study: &Study, change: &Change, already: bool) {
        let failed = match change {
            Change::Delivered { .. } | Change::AwaitCommitment { .. } => None,
            Change::ParkDelivery { problem, .. } => Some(Code::from_name(&problem.code).map_or("", Code::name)),
            _ => return,
        };
        self.plan.audit.record(&Event::Sent { study, to: &node_of(&self.destination), already, failed });
    }

    /// What a verdict says of the destination: after failures it is left alone for a while.
    fn learn(&mut self, verdict: &Verdict) {
        let name = &self.destination.name;
        let fault = match verdict {
            Verdict::Failed { failure, fault, .. } if *failure != Failure::Final => fault,
            _ => {
                if self.failures >= DOWN_AFTER {
                    tracing::info!(destination = name, "works again");
                }
                (self.failures, self.not_before) = (0, None);
                self.plan.metrics.delivery.is_up(name, true);
                return;
            }
        };
        self.failures = self.failures.saturating_add(1);
        let pause = jittered(BREAK_FIRST.saturating_mul(1 << (self.failures - 1).min(16)).min(BREAK_LONGEST));
        self.not_before = Some(self.plan.clock.monotonic() + pause);
        if self.failures == DOWN_AFTER {
            self.plan.metrics.fault(fault.code);
            self.plan.metrics.delivery.is_up(name, false);
            tracing::warn!(destination = name, code = %fault.code, "does not work: {} {} {}", fault.detail, fault.causes(), fault.code.action());
        } else {
            tracing::debug!(destination = name, code = %fault.code, retry_in_s = pause.as_secs(), "failed: {} {}", fault.detail, fault.causes());
        }
    }

    /// What the ledger is told.
    fn conclude(&self, delivery: &Delivery, token: Token, verdict: Verdict) -> Change {
        let (name, metrics, job) = (&self.destination.name, &self.plan.metrics, delivery.job);
        let (failure, doubtful, fault) = match verdict {
            Verdict::Delivered { confirmed, warning } => {
                metrics.delivery.attempt(name, if confirmed == Confirmed::Query { Attempt::AlreadyThere } else { Attempt::Delivered });
                metrics.delivery.verified(name, confirmed.name());
                let attempts = delivery.attempts;
                if let Ok(Some(job)) = self.plan.ledger.job(job) {
                    metrics.delivered_after(urgency(job.priority), self.plan.ledger.now().since(job.created));
                }
                match &warning {
                    None => tracing::info!(%job, destination = name, attempts, "delivered"),
                    Some(fault) => tracing::warn!(%job, destination = name, attempts, code = %fault.code, "delivered: {}", fault.detail),
                }
                return Change::Delivered { token, warning: warning.as_ref().map(problem) };
            }
            Verdict::Asked { warning } => {
                metrics.delivery.attempt(name, Attempt::Delivered);
                tracing::info!(%job, destination = name, attempts = delivery.attempts, "delivered; storage commitment is awaited");
                let waits = || Fault::new(Code::DeliveryUncommitted, "It was asked to, and its answer is awaited.");
                let problem = problem(&warning.unwrap_or_else(waits));
                return Change::AwaitCommitment { token, pause: self.destination.commitment_wait.0, problem };
            }
            Verdict::Failed { failure, doubtful, fault } => (failure, doubtful, fault),
        };
        let refused = matches!(failure, Failure::Refused | Failure::Doubted);
        let limit = if failure == Failure::Doubted { DOUBTED } else { REFUSALS };
        if failure == Failure::Final || (refused && delivery.refusals + 1 >= limit) {
            metrics.delivery.attempt(name, Attempt::Parked);
            metrics.fault(fault.code);
            tracing::warn!(%job, destination = name, code = %fault.code, "delivery parked: {} {}", fault.detail, fault.code.action());
            return Change::ParkDelivery { token, doubtful, problem: problem(&fault) };
        }
        let (attempt, pause) = match failure {
            // Its turn comes first when the destination is back.
            Failure::Unreachable => (Attempt::Unreachable, Duration::ZERO),
            // Others have their turn meanwhile: this one alone may be what the destination can not take.
            Failure::Passing | Failure::Final => (Attempt::Postponed, growing(delivery.attempts)),
            Failure::Doubted | Failure::Refused => (Attempt::Refused, growing(delivery.refusals + 1)),
        };
        metrics.delivery.attempt(name, attempt);
        Change::PostponeDelivery { token, pause, doubtful, refused, problem: problem(&fault) }
    }

    /// Writes it down, and tries until that works or the daemon ends.
    fn tell(&self, change: Change) {
        loop {
            match self.plan.ledger.commit(vec![change.clone()]) {
                Ok(_) => return,
                Err(LedgerError::Stale(_)) => return tracing::info!(destination = self.destination.name, "its end is not wanted any more"),
                Err(error) => self.ledger_failed(error),
            }
            let again = self.plan.clock.after(PAUSE_FIRST);
            select! {
                recv(again) -> _ => {}
                recv(self.plan.shutdown.draining()) -> _ => return,
            }
        }
    }

    fn ledger_failed(&self, error: LedgerError) {
        let fault = Fault::from(error);
        self.plan.metrics.fault(fault.code);
        let destination = &self.destination.name;
        tracing::warn!(destination, code = %fault.code, "the ledger can not be written; tried again: {}", fault.detail);
    }
}

/// A destination, as it is told of.
fn node_of(destination: &Destination) -> Node {
    let host = |address: &str| address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    match destination.kind {
        DestinationKind::Cstore => Node {
            name: destination.ae_title.as_ref().map_or_else(|| destination.name.clone(), ToString::to_string),
            address: host(&destination.address),
        },
        DestinationKind::Stow => {
            Node { name: destination.name.clone(), address: destination.url.as_ref().map_or_else(String::new, |url| url.host().to_owned()) }
        }
        DestinationKind::Folder => Node { name: destination.name.clone(), address: String::new() },
    }
}

/// What a transport does with one delivery, written down.
struct Desk<'w> {
    ledger: &'w dyn Ledger,
    seat: &'w Seat,
    token: Token,
}

impl Clerk for Desk<'_> {
    fn resend(&mut self) -> Result<(), Fault> {
        Ok(self.ledger.commit(vec![Change::Resend { token: self.token }]).map(|_| ())?)
    }

    fn asks(&mut self, transaction: &str) -> Result<(), Fault> {
        let change = Change::AskCommitment { token: self.token, transaction: transaction.into() };
        Ok(self.ledger.commit(vec![change]).map(|_| ())?)
    }

    fn moved(&mut self) {
        self.seat.moved();
    }
}

/// The pause before a delivery has its turn again.
fn growing(times: u32) -> Duration {
    BREAK_FIRST.saturating_mul(1 << times.saturating_sub(1).min(16)).min(BREAK_LONGEST)
}

/// Up to a quarter more, so that destinations that went down together are not all called at once.
fn jittered(pause: Duration) -> Duration {
    // The keys of a new hasher are random.
    let share = RandomState::new().build_hasher().finish() % 256;
    pause + pause.mul_f64(share as f64 / 1024.0)
}
