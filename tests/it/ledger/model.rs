//! The reference: a ledger in memory that says in plain words what every ledger has to do. It shares no rule with the real one.

use super::training::Book;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use stunetd::dicom::SeriesKey;
use stunetd::ledger::*;
use stunetd::sys::clock::Clock;

#[derive(Clone, Default)]
struct Tables {
    jobs: BTreeMap<JobId, Job>,
    objects: BTreeMap<JobId, Vec<Object>>,
    outbox: BTreeMap<DeliveryId, Delivery>,
    journal: Vec<Entry>,
    series: Vec<SeriesRecord>,
    received: Vec<Received>,
    refused: Vec<RefusedFile>,
    expired: Vec<(SeriesKey, String)>,
    leaving: BTreeMap<SeriesKey, BTreeSet<String>>,
    prints: BTreeMap<SeriesKey, String>,
    arrived: BTreeMap<String, Moment>,
    /// Journal lines written so far, lines that were removed included.
    seq: u64,
    last_job: u64,
    last_delivery: u64,
    tokens: u64,
    line: u64,
    verified: u64,
    done: BTreeMap<JobId, u64>,
    book: Book,
}

/// What survives a crash: everything that was committed.
#[derive(Clone)]
pub struct Disk {
    tables: Arc<Mutex<Tables>>,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

pub struct Model {
    disk: Disk,
    wall: Moment,
    start: Instant,
}

/// The wall clock for dates, another for deadlines.
#[derive(Clone, Copy)]
struct Now {
    date: Moment,
    deadline: Moment,
}

type Done = Result<(), LedgerError>;

impl Disk {
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Disk {
        Disk { tables: Arc::default(), limits, clock }
    }

    pub fn open(&self) -> (Model, Opening) {
        let model = Model { disk: self.clone(), wall: self.clock.wall().into(), start: self.clock.monotonic() };
        let now = model.times();
        let mut t = model.lock();
        let mut opening = Opening { fresh: t.seq == 0, ..Opening::default() };
        t.write(now, None, None, Event::Opened, (None, None), "test", None);
        let running: Vec<JobId> = t.jobs.values().filter(|j| j.progress.state == State::Running).map(|j| j.id).collect();
        for id in running {
            t.died(now, self.limits, id);
            if t.jobs[&id].progress.state == State::Parked { opening.parked += 1 } else { opening.requeued += 1 }
        }
        let sending: Vec<DeliveryId> = t.outbox.values().filter(|d| d.state == DeliveryState::Sending).map(|d| d.id).collect();
        opening.doubtful = sending.len() as u64;
        sending.into_iter().for_each(|id| t.delivery_died(now, id));
        let longest = now.deadline.plus(Duration::from_secs(3600));
        t.jobs.values_mut().for_each(|j| j.progress.not_before = j.progress.not_before.map(|at| at.min(longest)));
        t.outbox.values_mut().for_each(|d| d.not_before = d.not_before.map(|at| at.min(longest)));
        drop(t);
        (model, opening)
    }
}

impl Tables {
    #[allow(clippy::too_many_arguments, reason = "the columns of the journal")]
    fn write(
        &mut self,
        now: Now,
        job: Option<JobId>,
        destination: Option<&str>,
        event: Event,
        states: (Option<&str>, Option<&str>),
        who: &str,
        problem: Option<Problem>,
    ) -> u64 {
        self.seq += 1;
        let (from, to) = (states.0.map(str::to_owned), states.1.map(str::to_owned));
        let destination = destination.map(str::to_owned);
        self.journal.push(Entry { seq: Seq(self.seq), at: now.date, job, destination, event, from, to, who: who.into(), problem });
        self.seq
    }

    /// Changes a job as `how` says, and tells the journal.
    fn change(&mut self, now: Now, id: JobId, event: Event, who: &str, how: impl FnOnce(&mut Job)) {
        let mut job = self.jobs.remove(&id).expect("known");
        let from = job.progress.state;
        how(&mut job);
        if job.progress.state != State::Running {
            job.progress.held = None;
        }
        if job.progress.state != State::Waiting {
            job.progress.not_before = None;
        }
        job.changed = now.date;
        let (to, problem) = (job.progress.state, job.progress.problem.clone());
        let seq = self.write(now, Some(id), None, event, (Some(from.name()), Some(to.name())), who, problem);
        self.done.remove(&id);
        if to == State::Done {
            self.done.insert(id, seq);
        }
        self.jobs.insert(id, job);
    }

    fn change_delivery(&mut self, now: Now, id: DeliveryId, event: Event, who: &str, how: impl FnOnce(&mut Delivery)) {
        let mut d = self.outbox.remove(&id).expect("known");
        let from = d.state;
        how(&mut d);
        if d.state != DeliveryState::Sending {
            d.held = None;
        }
        if d.state != DeliveryState::Waiting {
            d.not_before = None;
        }
        d.changed = now.date;
        let states = (Some(from.name()), Some(d.state.name()));
        self.write(now, Some(d.job), Some(&d.destination.clone()), event, states, who, d.problem.clone());
        self.outbox.insert(id, d);
    }

    fn waits_for_delivery(&self, job: JobId) -> bool {
        use DeliveryState::*;
        self.outbox.values().any(|d| d.job == job && !matches!(d.state, Delivered | Cancelled))
    }

    fn next_line(&mut self) -> u64 {
        self.line += 1;
        self.line
    }

    fn died(&mut self, now: Now, limits: Limits, id: JobId) {
        let (held, line) = (self.jobs[&id].progress.held.clone().expect("running"), self.next_line());
        self.change(now, id, Event::Crashed, &held.owner, |job| {
            let p = &mut job.progress;
            p.crashes += 1;
            if held.alone {
                p.crashes_alone += 1;
            }
            p.state = State::Queued;
            if p.crashes >= limits.suspect_after {
                (p.suspect, p.line) = (true, line);
                if p.rank == Priority::Stat {
                    p.rank = Priority::Routine;
                }
            }
            if p.crashes_alone >= limits.park_after {
                p.state = State::Parked;
                let detail = format!("{} crashes, {} of them while it ran alone.", p.crashes, p.crashes_alone);
                p.problem = Some(Problem { code: "job.crashed_the_daemon".into(), detail });
            }
        });
    }

    fn delivery_died(&mut self, now: Now, id: DeliveryId) {
        let who = self.outbox[&id].held.clone().expect("sending").owner;
        self.change_delivery(now, id, Event::Crashed, &who, |d| {
            let kept = d.committed == Some(true);
            d.state = if kept { DeliveryState::Delivered } else { DeliveryState::Pending };
            d.doubtful = !kept;
        });
    }

    fn holder(&self, token: Token) -> Result<(JobId, String), LedgerError> {
        let holds = |j: &&Job| j.progress.held.as_ref().is_some_and(|h| h.token == token);
        let job = self.jobs.values().find(holds).ok_or(LedgerError::Stale(token))?;
        Ok((job.id, job.progress.held.clone().expect("held").owner))
    }

    fn sender(&self, token: Token) -> Result<(DeliveryId, String), LedgerError> {
        let holds = |d: &&Delivery| d.held.as_ref().is_some_and(|h| h.token == token);
        let d = self.outbox.values().find(holds).ok_or(LedgerError::Stale(token))?;
        Ok((d.id, d.held.clone().expect("held").owner))
    }

    fn series_of(&mut self, key: &SeriesKey) -> &mut SeriesRecord {
        if !self.series.iter().any(|s| s.series == *key) {
            self.series.push(SeriesRecord {
                series: key.clone(),
                closed: None,
                waiting: None,
                closings: 0,
                refusals: vec![],
                instances: 0,
            });
        }
        self.series.iter_mut().find(|s| s.series == *key).expect("just made")
    }

    fn publish(&mut self, now: Now, id: JobId, (event, who): (Event, &str), result: Published, to: &[String], doubtful: bool) {
        let mut objects = result.objects.clone();
        objects.sort_by(|a, b| a.file.cmp(&b.file));
        self.objects.insert(id, objects);
        self.change(now, id, event, who, |job| {
            let p = &mut job.progress;
            (p.state, p.failures, p.problem) = (State::Done, 0, None);
            job.result = Some(Published { objects: vec![], ..result });
        });
        for destination in to {
            if self.outbox.values().any(|d| d.job == id && d.destination == *destination) {
                continue;
            }
            self.last_delivery += 1;
            let d = Delivery {
                id: DeliveryId(self.last_delivery),
                job: id,
                destination: destination.clone(),
                state: DeliveryState::Pending,
                attempts: 0,
                doubtful,
                refusals: 0,
                resends: 0,
                transaction: None,
                committed: None,
                not_before: None,
                held: None,
                problem: None,
                created: now.date,
                changed: now.date,
            };
            self.outbox.insert(d.id, d);
            self.write(now, Some(id), Some(destination), Event::Queued, (None, Some("pending")), "outbox", None);
        }
    }

    /// Of all deliveries of a job, those in one of these states get another one.
    fn deliveries(&mut self, now: Now, job: JobId, from: &[DeliveryState], to: DeliveryState, event: Event, who: &str) -> usize {
        let ids: Vec<_> = self.outbox.values().filter(|d| d.job == job && from.contains(&d.state)).map(|d| d.id).collect();
        for id in &ids {
            self.change_delivery(now, *id, event, who, |d| {
                d.state = to;
                if event == Event::Retried {
                    (d.problem, d.refusals, d.resends) = (None, 0, 0);
                    (d.transaction, d.committed) = (None, None);
                }
            });
        }
        ids.len()
    }

    fn cancel_deliveries(&mut self, now: Now, job: JobId, who: &str) -> usize {
        use DeliveryState::*;
        self.deliveries(now, job, &[Pending, Waiting, Parked], Cancelled, Event::Cancelled, who)
    }

    fn close(&mut self, now: Now, closing: Closing) -> Done {
        let record = self.series_of(&closing.series);
        record.closings += 1;
        record.closed = Some(now.date);
        record.waiting = None;
        record.refusals = closing.refusals;
        self.prints.insert(closing.series.clone(), closing.print);
        for volume in &closing.volumes {
            if volume.input.is_empty() {
                return Err(LedgerError::Invalid("input"));
            }
            let known = self.jobs.values().find(|j| j.series == closing.series && j.input == volume.input).map(|j| j.id);
            if known.is_none() && self.expired.contains(&(closing.series.clone(), volume.input.clone())) {
                continue;
            }
            let id = known.unwrap_or_else(|| {
                self.last_job += 1;
                let (id, line) = (JobId(self.last_job), self.next_line());
                let progress = Progress {
                    state: State::Queued,
                    attempts: 0,
                    failures: 0,
                    crashes: 0,
                    crashes_alone: 0,
                    suspect: false,
                    not_before: None,
                    held: None,
                    problem: None,
                    rank: volume.priority,
                    line,
                };
                let job = Job {
                    id,
                    series: closing.series.clone(),
                    input: volume.input.clone(),
                    priority: volume.priority,
                    rule: volume.rule.clone(),
                    contest: None,
                    created: now.date,
                    changed: now.date,
                    model: None,
                    result: None,
                    progress,
                };
                self.jobs.insert(id, job);
                self.write(now, Some(id), None, Event::Queued, (None, Some("queued")), "intake", None);
                id
            });
            self.jobs.get_mut(&id).expect("known").contest.clone_from(&volume.contest);
            match (self.jobs[&id].progress.state, volume.result.clone()) {
                (State::Queued | State::Waiting | State::Superseded, Some(result)) => {
                    self.publish(now, id, (Event::Adopted, "intake"), result, &volume.destinations, true)
                }
                (State::Superseded, None) => {
                    let line = self.next_line();
                    self.change(now, id, Event::Queued, "intake", |j| (j.progress.state, j.progress.line) = (State::Queued, line));
                }
                _ => {}
            }
        }
        let others: Vec<(JobId, State)> = self
            .jobs
            .values()
            .filter(|j| j.series == closing.series && !closing.volumes.iter().any(|v| v.input == j.input))
            .map(|j| (j.id, j.progress.state))
            .collect();
        for (id, state) in others {
            match state {
                State::Queued | State::Waiting | State::Parked => {
                    self.change(now, id, Event::Superseded, "intake", |j| j.progress.state = State::Superseded)
                }
                State::Done => drop(self.cancel_deliveries(now, id, "intake")),
                _ => {}
            }
        }
        Ok(())
    }

    fn forget_idle(&mut self, series: &SeriesKey) {
        if !self.jobs.values().any(|j| j.series == *series) && !self.received.iter().any(|r| r.series == *series) {
            self.forget_series(series);
        }
    }

    fn forget_series(&mut self, series: &SeriesKey) {
        self.series.retain(|s| s.series != *series);
        self.prints.remove(series);
        self.expired.retain(|(s, _)| s != series);
        self.leaving.remove(series);
    }

    fn known(&self, id: JobId) -> Result<State, LedgerError> {
        self.jobs.get(&id).map(|j| j.progress.state).ok_or(LedgerError::UnknownJob(id))
    }

    fn apply(&mut self, now: Now, change: Change) -> Done {
        let wrong = |job, state, wish| Err(LedgerError::WrongState { job, state, wish });
        if let Change::Retry { who, .. } | Change::Cancel { who, .. } = &change
            && who.is_empty()
        {
            return Err(LedgerError::Invalid("person"));
        }
        match change {
            Change::Receive(received) => {
                self.series_of(&received.series.clone()).instances += u64::from(!self.received.iter().any(|r| r.path == received.path));
                if !self.received.iter().any(|r| r.path == received.path) {
                    self.arrived.insert(received.path.clone(), now.date);
                    self.expired.retain(|(series, _)| *series != received.series);
                    self.received.push(received);
                }
                Ok(())
            }
            Change::Close(closing) => self.close(now, closing),
            Change::Wait { series } => {
                self.series_of(&series).waiting = Some(now.date);
                Ok(())
            }
            Change::Other { series, problem } => {
                let record = self.series_of(&series);
                if record.closed.is_none() && record.waiting.is_none() {
                    (record.closed, record.refusals) = (Some(now.date), vec![problem]);
                }
                Ok(())
            }
            Change::Finish { token, result, destinations, doubtful } => {
                let (id, who) = self.holder(token)?;
                self.publish(now, id, (Event::Finished, &who), result, &destinations, doubtful);
                Ok(())
            }
            Change::Postpone { token, pause, problem } => {
                let (id, who) = self.holder(token)?;
                self.change(now, id, Event::Postponed, &who, |j| {
                    let p = &mut j.progress;
                    (p.state, p.not_before, p.problem) = (State::Waiting, Some(now.deadline.plus(pause)), Some(problem));
                    p.failures += 1;
                });
                Ok(())
            }
            Change::Park { token, problem } => {
                let (id, who) = self.holder(token)?;
                self.change(now, id, Event::Parked, &who, |j| (j.progress.state, j.progress.problem) = (State::Parked, Some(problem)));
                Ok(())
            }
            Change::Release { token } => {
                let (id, who) = self.holder(token)?;
                self.change(now, id, Event::Released, &who, |j| j.progress.state = State::Queued);
                Ok(())
            }
            Change::Pin { token, model } => {
                let (id, _) = self.holder(token)?;
                if self.book.is_withdrawn(&model) {
                    return Err(LedgerError::Stale(token));
                }
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.model = Some(model);
                }
                Ok(())
            }
            Change::Outdate { token } => {
                let (id, who) = self.holder(token)?;
                self.change(now, id, Event::Superseded, &who, |j| j.progress.state = State::Superseded);
                self.prints.remove(&self.jobs[&id].series);
                Ok(())
            }
            Change::Retry { job, who } => match self.known(job)? {
                State::Parked | State::Waiting | State::Cancelled => {
                    let line = self.next_line();
                    self.change(now, job, Event::Retried, &who, |j| {
                        let p = &mut j.progress;
                        (p.state, p.failures, p.crashes_alone, p.problem, p.line) = (State::Queued, 0, 0, None, line);
                    });
                    Ok(())
                }
                State::Done => {
                    use DeliveryState::*;
                    if self.deliveries(now, job, &[Parked, Waiting, Cancelled], Pending, Event::Retried, &who) == 0 {
                        let line = self.next_line();
                        self.change(now, job, Event::Retried, &who, |j| (j.progress.state, j.progress.line) = (State::Queued, line));
                    }
                    Ok(())
                }
                state => wrong(job, state, "trying it again"),
            },
            Change::Cancel { job, who } => match self.known(job)? {
                State::Queued | State::Waiting | State::Parked | State::Running => {
                    self.change(now, job, Event::Cancelled, &who, |j| j.progress.state = State::Cancelled);
                    Ok(())
                }
                State::Done if self.cancel_deliveries(now, job, &who) > 0 => Ok(()),
                state => wrong(job, state, "ending it"),
            },
            Change::Reopen { job, who, problem } => match self.known(job)? {
                State::Done => {
                    let line = self.next_line();
                    self.change(now, job, Event::Reopened, &who, |j| {
                        (j.progress.state, j.progress.line, j.progress.problem) = (State::Queued, line, Some(problem))
                    });
                    Ok(())
                }
                state => wrong(job, state, "making it again"),
            },
            Change::Delivered { token, warning } => {
                let (id, who) = self.sender(token)?;
                self.change_delivery(now, id, Event::Finished, &who, |d| {
                    (d.state, d.doubtful, d.problem) = (DeliveryState::Delivered, false, warning)
                });
                Ok(())
            }
            Change::PostponeDelivery { token, pause, doubtful, refused, problem } => {
                let (id, who) = self.sender(token)?;
                self.change_delivery(now, id, Event::Postponed, &who, |d| {
                    (d.state, d.not_before, d.problem) = (DeliveryState::Waiting, Some(now.deadline.plus(pause)), Some(problem));
                    d.doubtful = d.doubtful || doubtful;
                    d.refusals += u32::from(refused);
                });
                Ok(())
            }
            Change::Resend { token } => {
                let (id, who) = self.sender(token)?;
                self.change_delivery(now, id, Event::Resent, &who, |d| d.resends += 1);
                Ok(())
            }
            Change::AskCommitment { token, transaction } => {
                if transaction.is_empty() {
                    return Err(LedgerError::Invalid("transaction"));
                }
                let (id, who) = self.sender(token)?;
                self.change_delivery(now, id, Event::Asked, &who, |d| (d.transaction, d.committed) = (Some(transaction), None));
                Ok(())
            }
            Change::AwaitCommitment { token, pause, problem } => {
                let (id, who) = self.sender(token)?;
                let answer = self.outbox[&id].committed;
                let event = if answer == Some(true) { Event::Finished } else { Event::Postponed };
                self.change_delivery(now, id, event, &who, |d| match answer {
                    Some(true) => (d.state, d.doubtful, d.problem) = (DeliveryState::Delivered, false, only_a_warning(problem)),
                    other => {
                        let wait = if other.is_none() { pause } else { Duration::ZERO };
                        (d.state, d.not_before) = (DeliveryState::Waiting, Some(now.deadline.plus(wait)));
                        (d.doubtful, d.problem) = (true, Some(problem));
                    }
                });
                Ok(())
            }
            Change::Committed { transaction, kept, pause, problem } => {
                use DeliveryState::*;
                let Some(d) = self.outbox.values().find(|d| d.transaction.as_ref() == Some(&transaction)).cloned() else { return Ok(()) };
                match (d.state, kept) {
                    (Sending, _) if d.committed.is_none() => self.change_delivery(now, d.id, Event::Answered, &d.destination, |d| {
                        d.committed = Some(kept);
                        d.refusals += u32::from(!kept);
                    }),
                    (Pending | Waiting | Parked, true) => self.change_delivery(now, d.id, Event::Finished, &d.destination, |d| {
                        (d.state, d.doubtful, d.committed) = (Delivered, false, Some(true));
                        d.problem = d.problem.take().and_then(only_a_warning);
                    }),
                    (Pending | Waiting, false) if d.committed.is_none() => {
                        self.change_delivery(now, d.id, Event::Postponed, &d.destination, |d| {
                            (d.state, d.not_before) = (Waiting, Some(now.deadline.plus(pause)));
                            (d.doubtful, d.committed, d.problem) = (true, Some(false), Some(problem));
                            d.refusals += 1;
                        })
                    }
                    _ => {}
                }
                Ok(())
            }
            Change::ParkDelivery { token, doubtful, problem } => {
                let (id, who) = self.sender(token)?;
                self.change_delivery(now, id, Event::Parked, &who, |d| {
                    (d.state, d.problem, d.doubtful) = (DeliveryState::Parked, Some(problem), d.doubtful || doubtful)
                });
                Ok(())
            }
            Change::Training(change) => {
                let pinned: Vec<JobId> = match &change {
                    TrainingChange::Rollback { slot, .. } => {
                        let goes = self.book.serves(slot);
                        let pinned = |j: &&Job| j.progress.state == State::Running && j.model.as_ref() == Some(&goes);
                        self.jobs.values().filter(pinned).map(|j| j.id).collect()
                    }
                    _ => vec![],
                };
                self.book.apply(now.date, change, pinned.len())?;
                for id in pinned {
                    let who = self.jobs[&id].progress.held.clone().expect("running").owner;
                    self.change(now, id, Event::Repinned, &who, |j| j.progress.state = State::Queued);
                }
                Ok(())
            }
            Change::Verified => {
                self.verified = self.seq;
                Ok(())
            }
            Change::Discard { series, paths } => {
                let before = self.received.len();
                self.received.retain(|r| r.series != series || !paths.contains(&r.path));
                let gone = (before - self.received.len()) as u64;
                self.series_of(&series).instances -= gone;
                let jobs: Vec<JobId> = self.jobs.values().filter(|j| j.series == series).map(|j| j.id).collect();
                for job in &jobs {
                    self.write(now, Some(*job), None, Event::Discarded, (None, None), "retention", None);
                }
                if !self.expired.iter().any(|(s, _)| *s == series) {
                    self.forget_idle(&series);
                }
                Ok(())
            }
            Change::Forget { job } => {
                use DeliveryState::*;
                let state = self.known(job)?;
                let open = self.outbox.values().any(|d| d.job == job && matches!(d.state, Pending | Sending | Waiting));
                if open || matches!(state, State::Queued | State::Running | State::Waiting) {
                    return wrong(job, state, "forgetting it");
                }
                let gone = self.jobs.remove(&job).expect("known");
                self.objects.remove(&job);
                self.done.remove(&job);
                self.outbox.retain(|_, d| d.job != job);
                self.prints.remove(&gone.series);
                if !self.jobs.values().any(|j| j.series == gone.series) {
                    self.forget_series(&gone.series);
                    self.received.retain(|r| r.series != gone.series);
                }
                self.write(now, Some(job), None, Event::Forgotten, (Some(state.name()), None), "retention", None);
                Ok(())
            }
            Change::Expire { job } => {
                use DeliveryState::*;
                let state = self.known(job)?;
                let open = self.outbox.values().any(|d| d.job == job && !matches!(d.state, Delivered | Cancelled));
                if open || !matches!(state, State::Done | State::Cancelled | State::Superseded) {
                    return wrong(job, state, "removing its result");
                }
                let gone = self.jobs.remove(&job).expect("known");
                self.objects.remove(&job);
                self.done.remove(&job);
                self.outbox.retain(|_, d| d.job != job);
                if state != State::Superseded {
                    self.expired.push((gone.series, gone.input));
                }
                self.write(now, Some(job), None, Event::Forgotten, (Some(state.name()), None), "retention", None);
                Ok(())
            }
            Change::ForgetSeries { series } => {
                self.forget_idle(&series);
                Ok(())
            }
            Change::Leave { series, files } => {
                self.series_of(&series);
                self.leaving.remove(&series);
                if !files.is_empty() {
                    self.leaving.insert(series, files.into_iter().collect());
                }
                Ok(())
            }
            Change::Left { series } => {
                self.series_of(&series);
                self.leaving.remove(&series);
                Ok(())
            }
            Change::Purged { who, name } => {
                let problem = Problem { code: "purged".into(), detail: name };
                self.write(now, None, None, Event::Purged, (None, None), &who, Some(problem));
                Ok(())
            }
            Change::Refuse(files) => {
                for mut file in files {
                    let known = self.refused.iter().position(|f| f.place == file.place).map(|at| self.refused.remove(at));
                    (file.first, file.last) = (known.map_or(now.date, |f| f.first), now.date);
                    self.refused.push(file);
                }
                let over = self.refused.len().saturating_sub(MOST_REFUSED as usize);
                self.refused.drain(..over);
                Ok(())
            }
            Change::ForgetRefused { before } => {
                self.refused.retain(|f| f.last >= before);
                Ok(())
            }
            Change::ForgetJournal { before } => {
                self.journal.retain(|e| e.at >= before);
                Ok(())
            }
        }
    }
}

fn only_a_warning(problem: Problem) -> Option<Problem> {
    (problem.code == "delivery.coerced").then_some(problem)
}

impl Model {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.disk.tables.lock().expect("tables")
    }

    fn times(&self) -> Now {
        let deadline = self.wall.plus(self.disk.clock.monotonic() - self.start);
        Now { date: self.disk.clock.wall().into(), deadline }
    }

    /// Makes all changes or none.
    fn together<T>(&self, make: impl FnOnce(&mut Tables, Now) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let now = self.times();
        let mut tables = self.lock();
        let mut copy = tables.clone();
        let value = make(&mut copy, now)?;
        *tables = copy;
        Ok(value)
    }
}

impl Reader for Model {
    fn now(&self) -> Moment {
        self.disk.clock.wall().into()
    }

    fn instance(&self) -> Result<String, LedgerError> {
        Ok("reference".into())
    }

    fn job(&self, id: JobId) -> Result<Option<Job>, LedgerError> {
        Ok(self.lock().jobs.get(&id).cloned())
    }

    fn jobs(&self, which: &Which) -> Result<Vec<Job>, LedgerError> {
        let tables = self.lock();
        let fits = |j: &&Job| {
            (which.states.is_empty() || which.states.contains(&j.progress.state) || (which.undelivered && tables.waits_for_delivery(j.id)))
                && which.uid.as_ref().is_none_or(|uid| j.series.series == *uid || j.series.study == *uid)
                && which.after.is_none_or(|after| j.id > after)
        };
        Ok(tables.jobs.values().filter(fits).take(which.limit.map_or(usize::MAX, |n| n as usize)).cloned().collect())
    }

    fn counts(&self) -> Result<Vec<(State, u64)>, LedgerError> {
        let tables = self.lock();
        Ok(State::ALL.iter().map(|s| (*s, tables.jobs.values().filter(|j| j.progress.state == *s).count() as u64)).collect())
    }

    fn next_due(&self) -> Result<Option<Duration>, LedgerError> {
        let now = self.times().deadline;
        Ok(self.lock().jobs.values().filter_map(|j| j.progress.not_before).min().map(|at| at.since(now)))
    }

    fn oldest(&self) -> Result<Vec<(State, Duration)>, LedgerError> {
        let (now, tables) = (self.now(), self.lock());
        let of = |state: State| tables.jobs.values().filter(|j| j.progress.state == state).map(|j| now.since(j.created)).max();
        Ok([State::Parked, State::Queued, State::Running, State::Waiting].into_iter().filter_map(|s| Some((s, of(s)?))).collect())
    }

    fn objects(&self, job: JobId) -> Result<Vec<Object>, LedgerError> {
        Ok(self.lock().objects.get(&job).cloned().unwrap_or_default())
    }

    fn deliveries(&self, job: JobId) -> Result<Vec<Delivery>, LedgerError> {
        Ok(self.lock().outbox.values().filter(|d| d.job == job).cloned().collect())
    }

    fn transaction(&self, uid: &str) -> Result<Option<Delivery>, LedgerError> {
        Ok(self.lock().outbox.values().find(|d| d.transaction.as_deref() == Some(uid)).cloned())
    }

    fn outbox(&self) -> Result<Vec<Outbox>, LedgerError> {
        use DeliveryState::*;
        let (date, deadline, tables) = (self.now(), self.times().deadline, self.lock());
        let mut all = BTreeMap::new();
        for d in tables.outbox.values().filter(|d| !matches!(d.state, Delivered | Cancelled)) {
            let nothing = Outbox { destination: d.destination.clone(), open: 0, parked: 0, oldest: Duration::ZERO, due: None };
            let one = all.entry(d.destination.clone()).or_insert(nothing);
            if d.state == Parked {
                one.parked += 1;
                continue;
            }
            one.open += 1;
            one.oldest = one.oldest.max(date.since(d.created));
            if d.state != Sending {
                let due = d.not_before.map_or(Duration::ZERO, |at| at.since(deadline));
                one.due = Some(one.due.map_or(due, |other| other.min(due)));
            }
        }
        Ok(all.into_values().collect())
    }

    fn journal(&self, job: Option<JobId>) -> Result<Vec<Entry>, LedgerError> {
        Ok(self.lock().journal.iter().filter(|e| e.job == job).cloned().collect())
    }

    fn transitions(&self, after: Seq) -> Result<(Seq, Vec<Transition>), LedgerError> {
        let tables = self.lock();
        let mut counts = std::collections::BTreeMap::<_, u64>::new();
        for e in tables.journal.iter().filter(|e| e.seq > after && e.job.is_some() && e.destination.is_none() && e.from != e.to) {
            *counts.entry((e.from.clone(), e.to.clone())).or_default() += 1;
        }
        let last = tables.journal.last().map_or(after, |e| e.seq.max(after));
        Ok((last, counts.into_iter().map(|((from, to), count)| Transition { from, to, count }).collect()))
    }

    fn unverified(&self) -> Result<Vec<JobId>, LedgerError> {
        let tables = self.lock();
        Ok(tables.done.iter().filter(|(_, seq)| **seq > tables.verified).map(|(id, _)| *id).collect())
    }

    fn series(&self, uid: &str) -> Result<Vec<SeriesRecord>, LedgerError> {
        let tables = self.lock();
        let named = |s: &&SeriesRecord| {
            s.series.study == uid || s.series.series == uid || tables.received.iter().any(|r| r.series == s.series && r.sop_instance == uid)
        };
        Ok(tables.series.iter().filter(named).cloned().collect())
    }

    fn closed(&self, series: &SeriesKey) -> Result<Option<String>, LedgerError> {
        Ok(self.lock().prints.get(series).cloned())
    }

    fn expired(&self, before: Moment, limit: u64) -> Result<Vec<Job>, LedgerError> {
        use DeliveryState::*;
        let t = self.lock();
        let delivered =
            |id: JobId| t.outbox.values().filter(|d| d.job == id).all(|d| matches!(d.state, Delivered | Cancelled) && d.changed < before);
        let ended = |j: &&Job| matches!(j.progress.state, State::Done | State::Cancelled | State::Superseded) && j.changed < before;
        Ok(t.jobs.values().filter(ended).filter(|j| delivered(j.id)).take(limit as usize).cloned().collect())
    }

    fn idle(&self, before: Moment, skip: u64, limit: u64) -> Result<Vec<SeriesKey>, LedgerError> {
        let t = self.lock();
        let idle = |s: &&SeriesRecord| {
            s.closed.is_some_and(|at| at < before)
                && !t.jobs.values().any(|j| j.series == s.series)
                && !t.received.iter().any(|r| r.series == s.series)
        };
        Ok(t.series.iter().filter(idle).skip(skip as usize).take(limit as usize).map(|s| s.series.clone()).collect())
    }

    fn leaving(&self) -> Result<BTreeMap<SeriesKey, BTreeSet<String>>, LedgerError> {
        Ok(self.lock().leaving.clone())
    }

    fn settled(&self, before: Moment, parked_before: Moment, limit: u64) -> Result<Vec<SeriesKey>, LedgerError> {
        let t = self.lock();
        let over = |job: &&Job| {
            let deliveries_over = t
                .outbox
                .values()
                .filter(|d| d.job == job.id)
                .all(|d| matches!(d.state, DeliveryState::Delivered | DeliveryState::Cancelled) && d.changed < before);
            let by = if job.progress.state == State::Parked { parked_before } else { before };
            deliveries_over && job.progress.state.is_final() && job.changed < by
        };
        let quiet = |s: &&SeriesRecord| {
            s.closed.is_some_and(|at| at < before)
                && t.received.iter().filter(|r| r.series == s.series).all(|r| t.arrived[&r.path] < before)
                && t.jobs.values().filter(|j| j.series == s.series).all(|j| over(&j))
        };
        let whole = |study: &str| t.series.iter().filter(|s| s.series.study == study).all(|s| quiet(&s));
        let mut found: Vec<SeriesKey> =
            t.series.iter().filter(|s| s.instances > 0 && whole(&s.series.study)).map(|s| s.series.clone()).collect();
        found.truncate(limit as usize);
        Ok(found)
    }

    fn received_of(&self, series: &SeriesKey) -> Result<Vec<Received>, LedgerError> {
        Ok(self.lock().received.iter().filter(|r| r.series == *series).cloned().collect())
    }

    fn refused(&self, limit: u64) -> Result<Vec<RefusedFile>, LedgerError> {
        Ok(self.lock().refused.iter().rev().take(limit as usize).cloned().collect())
    }

    fn unknown(&self, paths: Vec<String>) -> Result<Vec<String>, LedgerError> {
        let tables = self.lock();
        Ok(paths.into_iter().filter(|path| !tables.received.iter().any(|r| r.path == *path)).collect())
    }

    fn received(&self, skip: u64, limit: u64) -> Result<Vec<Received>, LedgerError> {
        Ok(self.lock().received.iter().skip(skip as usize).take(limit as usize).cloned().collect())
    }

    fn active(&self) -> Result<Vec<Active>, LedgerError> {
        Ok(self.lock().book.active.values().cloned().collect())
    }

    fn cases(&self) -> Result<Vec<CaseRow>, LedgerError> {
        Ok(self.lock().book.cases.values().cloned().collect())
    }

    fn patients(&self) -> Result<Vec<Patient>, LedgerError> {
        Ok(self.lock().book.patients.values().cloned().collect())
    }

    fn runs(&self) -> Result<Vec<RunRow>, LedgerError> {
        Ok(self.lock().book.runs.clone())
    }

    fn audit(&self) -> Result<Vec<AuditEntry>, LedgerError> {
        Ok(self.lock().book.audit.clone())
    }
}

impl Ledger for Model {
    fn commit(&self, changes: Vec<Change>) -> Result<Seq, LedgerError> {
        self.together(|tables, now| {
            changes.into_iter().try_for_each(|change| tables.apply(now, change))?;
            Ok(Seq(tables.seq))
        })
    }

    fn claim(&self, lease: &Lease) -> Result<Option<Claim>, LedgerError> {
        self.together(|t, now| {
            let lost = |p: &Progress| p.held.as_ref().is_some_and(|h| h.owner != lease.owner && h.until < now.deadline);
            let lost: Vec<JobId> = t.jobs.values().filter(|j| lost(&j.progress)).map(|j| j.id).collect();
            lost.into_iter().for_each(|id| t.died(now, self.disk.limits, id));

            let mine: Vec<&Held> = t.jobs.values().filter_map(|j| j.progress.held.as_ref()).filter(|h| h.owner == lease.owner).collect();
            if mine.iter().any(|h| h.alone) || t.book.is_withdrawn(&lease.model) {
                return Ok(None);
            }
            let nothing_runs = mine.is_empty();
            let may =
                |p: &Progress| p.state == State::Queued || (p.state == State::Waiting && p.not_before.is_some_and(|at| at <= now.deadline));
            let first = t.jobs.values().filter(|j| may(&j.progress)).min_by_key(|j| (std::cmp::Reverse(j.progress.rank), j.progress.line));
            let Some((id, suspect)) = first.map(|j| (j.id, j.progress.suspect)) else { return Ok(None) };
            if suspect && !nothing_runs {
                return Ok(None);
            }
            t.tokens += 1;
            let token = Token(t.tokens);
            t.change(now, id, Event::Claimed, &lease.owner, |j| {
                j.model = Some(lease.model.clone());
                j.progress.state = State::Running;
                j.progress.attempts += 1;
                j.progress.held = Some(Held { owner: lease.owner.clone(), token, until: now.deadline.plus(lease.hold), alone: suspect });
            });
            Ok(Some(Claim { token, job: t.jobs[&id].clone() }))
        })
    }

    fn claim_delivery(&self, destination: &str, lease: &Lease) -> Result<Option<DeliveryClaim>, LedgerError> {
        self.together(|t, now| {
            let lost = |d: &&Delivery| d.held.as_ref().is_some_and(|h| h.owner != lease.owner && h.until < now.deadline);
            let lost: Vec<DeliveryId> = t.outbox.values().filter(lost).map(|d| d.id).collect();
            lost.into_iter().for_each(|id| t.delivery_died(now, id));
            let may = |d: &&Delivery| {
                d.destination == destination
                    && (d.state == DeliveryState::Pending
                        || (d.state == DeliveryState::Waiting && d.not_before.is_some_and(|at| at <= now.deadline)))
            };
            let Some(id) = t.outbox.values().find(may).map(|d| d.id) else { return Ok(None) };
            t.tokens += 1;
            let token = Token(t.tokens);
            t.change_delivery(now, id, Event::Claimed, &lease.owner, |d| {
                d.state = DeliveryState::Sending;
                d.attempts += 1;
                d.held = Some(Held { owner: lease.owner.clone(), token, until: now.deadline.plus(lease.hold), alone: false });
            });
            Ok(Some(DeliveryClaim { token, delivery: t.outbox[&id].clone() }))
        })
    }

    fn renew(&self, token: Token, hold: Duration) -> Result<(), LedgerError> {
        self.together(|t, now| {
            let held =
                t.jobs.values_mut().filter_map(|j| j.progress.held.as_mut()).chain(t.outbox.values_mut().filter_map(|d| d.held.as_mut()));
            let mut held = held.filter(|h| h.token == token);
            held.next().map(|h| h.until = now.deadline.plus(hold)).ok_or(LedgerError::Stale(token))
        })
    }
}
