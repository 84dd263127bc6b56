//! The intake thread of the daemon: looks at the folders, lets series settle, writes them into the ledger, claims their jobs and sends them
//! down the street, and handles what comes out.
//!
//! The scan is the truth. Notices of the system only make a look come sooner; a series is complete when a look after its
//! quiet time finds it unchanged. What is to be done is in the ledger: the line there may be long, the street takes one
//! job after the other.

mod closing;
mod models;
mod reload;
mod retention;
mod told;

pub use models::{Models, serving, take_out, tell};
pub use reload::Reload;

use super::board::Seat;
use super::choice::{Choice, Chosen};
use super::jobs::{Jobs, PAUSE_FIRST, finished};
use super::outbox::Outbox;
use super::stages::Order;
use super::street::{End, Outcome, Street};
use super::work::JobId;
use crate::audit::Audit;
use crate::config::Config;
use crate::dicom::SeriesKey;
use crate::fault::{Class, Code, Fault};
use crate::intake::disks::{AGAIN, Disks};
use crate::intake::doors::Doors;
use crate::intake::reception::Reception;
use crate::intake::scan::ScanLimits;
use crate::intake::select::Rule;
use crate::intake::settle::{Quiet, Settle, Told};
use crate::intake::spool;
use crate::intake::tree::{Print, Tree};
use crate::intake::watch::{Dirty, Watcher};
use crate::ledger::Ledger;
use crate::series::Policy;
use crate::sys::clock::Clock;
use crate::sys::crash::{self, Point};
use crate::sys::notify::Notifier;
use crate::sys::shutdown::Shutdown;
use crate::telemetry::log::keyed_hash;
use crate::telemetry::{Metrics, Post, Stage, Transport};
use crate::volume::decode::Decoder;
use crossbeam::channel::{Receiver, RecvError, never, select};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks that notices ask for come at most this often, so that a study that is being copied is not looked at for every file.
const PAUSE: Duration = Duration::from_millis(250);
/// A series whose sender released its association is taken when it stays unchanged for this long: the rest of it may come over a next
/// one.
const AFTER_RELEASE: Duration = Duration::from_secs(3);
/// A series that changed while it is in work is looked at again after this.
const BUSY: Duration = Duration::from_secs(1);
/// Volumes whose headers are kept from the closing of their series until their turn; others are read again.
const KEPT: usize = 16;
/// Results older than this count as safe on disk, however the daemon ends.
const CHECK_POINT: Duration = Duration::from_secs(3600);
/// What was given up at the end of the drain time stops at its next step; the end takes at most this long.
const LAST_STEPS: Duration = Duration::from_secs(60);

/// The intake and all it knows.
pub struct Service {
    street: Street,
    jobs: Jobs,
    tree: Tree,
    settle: Settle<SeriesKey, Print>,
    watcher: Watcher,
    dirty: Dirty,
    reception: Option<Arc<Reception>>,
    /// Series whose senders are done with them, since the last look.
    delivered: BTreeSet<SeriesKey>,
    /// When the first notice came since the last look.
    noticed: Option<Instant>,
    /// When all folders were last looked at; before, nothing is known of the files of jobs that an earlier process left.
    looked: Option<Instant>,
    /// Names what, beside its files, decides what becomes of a series.
    rules: String,
    /// Roots that could not be read at the last look; told once.
    unreadable: BTreeSet<PathBuf>,
    policy: Policy,
    choice: Choice,
    models: Models,
    order: Order,
    config: Config,
    decoder: Arc<Decoder>,
    /// Headers of volumes that were closed a moment ago.
    kept: BTreeMap<Name, Chosen>,
    /// When the files of volumes that were closed by this process last changed.
    since: BTreeMap<Name, Instant>,
    /// Not before this is a job claimed, after the ledger failed or had none.
    next_claim: Option<Instant>,
    commands: Receiver<()>,
    reload: Option<Reload>,
    doors: Option<Doors>,
    notifier: Notifier,
    seat: Arc<Seat>,
    outbox: Outbox,
    disks: Arc<Disks>,
    audit: Audit,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

/// Whether series of a study are still coming in.
fn is_open(settle: &Settle<SeriesKey, Print>, study: &str) -> bool {
    settle.known().any(|(key, taken)| !taken && key.study == study)
}

/// A volume: its series, and what names its content.
type Name = (SeriesKey, String);

/// What the service is built from.
pub struct ServicePlan {
    /// The running street.
    pub street: Street,
    /// What is to be done, and what was done.
    pub ledger: Arc<dyn Ledger>,
    /// Names this process.
    pub owner: String,
    /// Rings when a person's command has changed the ledger.
    pub commands: Receiver<()>,
    /// Who delivers results.
    pub outbox: Outbox,
    /// The configuration.
    pub config: Config,
    /// Where it came from, and who asks to read it again; none when it stays as it is.
    pub reload: Option<Reload>,
    /// Who may associate, if anything listens.
    pub doors: Option<Doors>,
    /// The service manager.
    pub notifier: Notifier,
    /// Whether there is room for anything new.
    pub disks: Arc<Disks>,
    /// What takes objects from the network, if anything does.
    pub reception: Option<Arc<Reception>>,
    /// Which series are segmented, by which models.
    pub rules: Vec<Rule>,
    /// The configured ones, and what serves in their place.
    pub models: Models,
    /// How every case is treated, but for the model.
    pub order: Order,
    /// Runs the codecs, for series that need pixels to be told apart.
    pub decoder: Arc<Decoder>,
    /// Hears of what is read and written.
    pub audit: Audit,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// What names the state of a series beside its files.
fn print(policy: &Policy, choice: &Choice) -> String {
    format!("{} {policy:?} {}", env!("CARGO_PKG_VERSION"), choice.print())
}

fn quiet(config: &Config) -> Quiet {
    Quiet { least: config.intake.quiet_min.0, most: config.intake.quiet.0 }
}

impl Service {
    /// Starts to listen to the watched folders.
    pub fn new(plan: ServicePlan) -> Service {
        let ServicePlan {
            street,
            ledger,
            owner,
            commands,
            outbox,
            config,
            reload,
            doors,
            notifier,
            disks,
            reception,
            rules,
            models,
            order,
            decoder,
            audit,
            clock,
            metrics,
            shutdown,
        } = plan;
        let mut roots: Vec<PathBuf> = config.watch.iter().map(|w| w.path.clone()).collect();
        let received = spool::series_root(&config.spool.path);
        // What was received stays to be done when nothing more is received.
        if reception.is_some() || received.is_dir() {
            roots.push(received);
        }
        let (watcher, problem) = Watcher::start(&roots);
        if let Some(problem) = problem {
            tracing::warn!(rescan = %config.intake.rescan, "no notices of changes, only the periodic look: {problem}");
        }
        let policy = Policy::of(&config);
        let choice = Choice::new(rules, &order, config.intake.study_quiet.0, metrics.clone());
        let rules = print(&policy, &choice);
        let seat = Arc::new(street.board().seat());
        let alive = {
            let seat = seat.clone();
            Arc::new(move || seat.moved())
        };
        Service {
            street,
            jobs: Jobs::new(ledger, owner, choice.first_model(), metrics.clone()),
            tree: Tree::new(roots, ScanLimits::default()).telling(alive),
            settle: Settle::new(quiet(&config)),
            watcher,
            dirty: Dirty::none(),
            reception,
            delivered: BTreeSet::new(),
            noticed: None,
            looked: None,
            rules,
            unreadable: BTreeSet::new(),
            policy,
            choice,
            models,
            order,
            config,
            decoder,
            kept: BTreeMap::new(),
            since: BTreeMap::new(),
            next_claim: None,
            commands,
            reload,
            doors,
            notifier,
            seat,
            outbox,
            disks,
            audit,
            clock,
            metrics,
            shutdown,
        }
    }

    /// Works until the shutdown signal, then lets the work in flight finish. Ends with a fault when the process can not go on.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut fatal = None;
        let mut next_full = self.clock.monotonic();
        let mut earliest = next_full;
        let mut check_point = next_full + CHECK_POINT;
        let mut next_removal = next_full;
        self.jobs.count();
        self.metrics.ready.set(1);
        self.metrics.config_read(Some(self.clock.wall()));
        self.notifier.ready();
        let hangup = self.reload.as_ref().map_or_else(never, |reload| reload.asked.clone());
        let arrived = self.reception.as_ref().map_or_else(never, |reception| reception.arrivals().rung().clone());
        let mut taking = true;
        loop {
            let wake = match taking {
                true => self.next_look(earliest, next_full).min(self.next_claim.unwrap_or(next_full)),
                false => self.clock.monotonic() + AGAIN,
            };
            let timer = self.clock.after(wake.saturating_duration_since(self.clock.monotonic()));
            select! {
                recv(self.watcher.rung()) -> _ => self.notice(),
                recv(arrived) -> _ => self.arrived(),
                recv(timer) -> _ => {}
                recv(self.street.outcomes()) -> outcome => match self.outcome(outcome) {
                    Ok(()) => self.next_claim = Some(self.clock.monotonic()),
                    Err(fault) => { fatal = Some(fault); break }
                },
                recv(self.street.hungry()) -> _ => self.next_claim = Some(self.clock.monotonic()),
                recv(self.commands) -> _ => self.commanded(),
                recv(hangup) -> _ => self.read_again(),
                recv(self.shutdown.draining()) -> _ => break,
            }
            self.seat.begin(Post::Intake, None, 0);
            let now = self.clock.monotonic();
            if now >= next_full {
                self.dirty = Dirty::All;
                next_full = now + self.config.intake.rescan.0;
            }
            taking = self.disks.take();
            if taking && now >= self.next_look(earliest, next_full) {
                self.look(now);
                earliest = now + PAUSE;
            }
            if now >= next_removal {
                next_removal = now + self.remove_expired();
            }
            if now >= check_point {
                self.jobs.verified();
                check_point = now + CHECK_POINT;
            }
            if taking && self.next_claim.is_some_and(|at| now >= at) {
                self.claim();
            }
            self.seat.rest();
        }
        self.seat.rest();
        self.end(fatal)
    }

    /// When to look next: at the periodic time, or, not before `earliest`, after a notice or when a series may be quiet.
    fn next_look(&self, earliest: Instant, next_full: Instant) -> Instant {
        let mut at = next_full;
        if !self.dirty.is_none() {
            at = at.min(earliest);
        }
        let due = [self.settle.next_due(), self.choice.studies.next_due(|study| is_open(&self.settle, study))];
        due.into_iter().flatten().fold(at, |at, due| at.min(due.max(earliest)))
    }

    fn notice(&mut self) {
        self.noticed.get_or_insert(self.clock.monotonic());
        match self.watcher.take() {
            Dirty::All => self.dirty = Dirty::All,
            Dirty::Folders(folders) => folders.into_iter().for_each(|folder| self.dirty.add(folder)),
        }
    }

    /// Notes which series their senders are done with.
    fn arrived(&mut self) {
        let Some(reception) = &self.reception else { return };
        for key in reception.arrivals().take() {
            self.dirty.add(reception.root());
            self.dirty.add(reception.folder_of(&key));
            self.delivered.insert(key);
        }
    }

    fn look(&mut self, now: Instant) {
        let mut dirty = std::mem::replace(&mut self.dirty, Dirty::none());
        for key in self.settle.due(now) {
            self.tree.folders_of(&key).into_iter().for_each(|folder| dirty.add(folder));
        }
        // What a notice told of came after it; anything else may have come at any time since the last look at everything.
        let noticed = self.noticed.take();
        let after = if dirty == Dirty::All { self.looked.replace(now) } else { noticed };
        let (found, errors) = self.tree.look(dirty);
        self.metrics.scanned(self.clock.monotonic().saturating_duration_since(now), found.files, found.bytes);
        // What lies in the spool was counted when it was received.
        for (files, bytes) in self.config.watch.iter().filter_map(|watch| found.by_root.get(&watch.path)) {
            self.metrics.arrived(Transport::Folder, *files, *bytes);
        }
        for (code, count) in found.refused {
            tracing::debug!(%code, count, "files that can not be used");
            self.metrics.instances_rejected(code, count);
        }
        let unreadable: BTreeSet<PathBuf> = errors.iter().map(|(root, _)| root.clone()).collect();
        for (root, error) in errors.iter().filter(|(root, _)| !self.unreadable.contains(root)) {
            // Watched folders stand in the configuration; they name no patient.
            tracing::warn!(folder = %root.display(), code = %Code::DiskUnreadable, "a watched folder can not be read: {error}");
            self.metrics.fault(Code::DiskUnreadable);
        }
        self.unreadable = unreadable;

        let told = |changed: &[SeriesKey]| {
            let progress = self.tree.progress(changed);
            progress.into_iter().map(|(key, (files, wholeness))| (key, Told { files, wholeness })).collect()
        };
        let look = self.settle.look(now, after, self.tree.series(), told);
        for key in std::mem::take(&mut self.delivered) {
            self.settle.hint(&key, now + AFTER_RELEASE);
        }
        for key in look.reopened {
            tracing::info!(series = keyed_hash(&key.series), "a series changed after it was taken");
            self.metrics.series_reopened();
        }
        for (key, evidence) in look.complete {
            self.seat.moved();
            self.take(&key, evidence);
        }
        let settle = &self.settle;
        for (study, since) in self.choice.studies.due(now, |study| is_open(settle, study)) {
            self.seat.moved();
            self.take_study(&study, since);
        }
        self.metrics.series_open.set(self.settle.open() as i64);
        self.next_claim = Some(now);
    }

    /// Sends jobs down the street as long as it takes one at once.
    fn claim(&mut self) {
        self.next_claim = None;
        if self.looked.is_none() {
            return;
        }
        if !self.jobs.tell() {
            return self.claim_after(PAUSE_FIRST);
        }
        while self.street.is_hungry() {
            match self.jobs.claim() {
                Ok(Some(job)) => self.send(job),
                Ok(None) => {
                    if self.jobs.in_work() == 0 && self.jobs.next_due().is_none() {
                        // Nothing is left to be done, so whatever is kept is of volumes that were done before.
                        self.kept.clear();
                        self.since.clear();
                    }
                    break;
                }
                Err(fault) => {
                    self.metrics.fault(fault.code);
                    tracing::warn!(code = %fault.code, "no work can be claimed: {}", fault.detail);
                    return self.claim_after(PAUSE_FIRST);
                }
            }
        }
        if self.jobs.is_untold() {
            self.claim_after(PAUSE_FIRST);
        } else if let Some(due) = self.jobs.next_due() {
            self.claim_after(due);
        }
    }

    fn claim_after(&mut self, pause: Duration) {
        self.next_claim = Some(self.clock.monotonic() + pause);
    }

    /// A person has changed the ledger.
    fn commanded(&mut self) {
        for (job, token) in self.jobs.lost() {
            tracing::info!(%job, "its claim was taken back by a person's command");
            self.street.give_up(job, token);
        }
        self.adopt();
        self.jobs.count();
        self.outbox.hurry();
        self.next_claim = Some(self.clock.monotonic());
    }

    /// Handles the end of a job; a fault that the process can not go on with is returned.
    fn outcome(&mut self, outcome: Result<Outcome, RecvError>) -> Result<(), Fault> {
        // The street's threads end only after it was closed.
        let Ok(Outcome { job, token, end, times }) = outcome else {
            return Err(Fault::new(Code::InternalBug, "the stages have ended by themselves"));
        };
        crash::point(Point::OutcomeTaken);
        // Of a claim that was taken back, and the job may be in work again: this one counts no more.
        if !self.jobs.is_current(job, token) {
            return Ok(());
        }
        let Some(claimed) = self.jobs.claimed(job) else { return Ok(()) };
        let (series, study) = (keyed_hash(&claimed.series.series), claimed.series.study.clone());
        let end = end.and_then(|end| match end {
            End::Published(receipt) => Ok((Some(receipt.dir.clone()), finished(&receipt.dir, self.outbox.destinations(), false)?)),
            End::AlreadyPublished(folder) => Ok((None, finished(&folder, self.outbox.destinations(), true)?)),
        });
        match end {
            Ok((new, ended)) => {
                let seconds = (times.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>() * 10.0).round() / 10.0;
                if let Some(dir) = &new {
                    self.tell_created(&study, dir, &ended.result);
                    self.count_outputs(dir);
                }
                let folder = ended.result.folder.clone();
                self.jobs.finish(job, ended);
                self.outbox.ring();
                tracing::info!(%job, series, folder, seconds, "{}", if new.is_some() { "published" } else { "has its result already" });
            }
            Err(fault) => {
                // A case that waited for memory got nowhere: its first stage stands for that.
                let stage = times.reached.unwrap_or(Stage::Read);
                return self.failed(job, &series, stage, fault);
            }
        }
        Ok(())
    }

    fn failed(&mut self, job: JobId, series: &str, stage: Stage, fault: Fault) -> Result<(), Fault> {
        match fault.code {
            Code::InternalShutdown => {
                tracing::info!(%job, series, "given up, to be done again after the next start");
                self.jobs.release(job);
                return Ok(());
            }
            Code::LedgerStaleToken => {
                tracing::info!(%job, series, "its end is not wanted any more");
                self.jobs.leave(job);
                return Ok(());
            }
            Code::ModelCanary => {
                self.metrics.fault(fault.code);
                tracing::error!(%job, series, code = %fault.code, "its model serves no more: {} {}", fault.detail, fault.code.action());
                self.withdraw_model(job, &fault);
                return Ok(());
            }
            _ => self.metrics.fault(fault.code),
        }
        let cause = fault.causes();
        match fault.class {
            Class::Fatal => {
                self.jobs.leave(job);
                return Err(fault);
            }
            Class::Retryable => {
                self.metrics.flow.retried(stage, fault.code);
                let seconds = self.jobs.postpone(job, &fault).as_secs();
                tracing::warn!(%job, series, code = %fault.code, retry_in_s = seconds, "failed for now: {} {cause}", fault.detail);
            }
            Class::Poison => {
                tracing::warn!(%job, series, code = %fault.code, "parked: {} {cause} {}", fault.detail, fault.code.action());
                self.metrics.job_parked(fault.code);
                self.jobs.park(job, &fault);
            }
        }
        Ok(())
    }

    /// Lets the work in flight finish within the drain time, then gives it up.
    fn end(mut self, fatal: Option<Fault>) -> Result<(), Fault> {
        self.metrics.ready.set(0);
        self.metrics.draining.set(1);
        self.notifier.stopping(self.config.drain.0 + LAST_STEPS);
        if fatal.is_some() {
            self.shutdown.abandon();
        }
        tracing::info!(jobs = self.jobs.in_work(), "ending: work in flight is finished");
        self.street.close();
        let too_long = self.clock.after(self.config.drain.0);
        let mut fatal = fatal;
        loop {
            select! {
                recv(self.street.outcomes()) -> outcome => {
                    if outcome.is_err() {
                        break;
                    }
                    if let Err(fault) = self.outcome(outcome) {
                        fatal.get_or_insert(fault);
                        self.shutdown.abandon();
                    }
                }
                recv(too_long) -> _ => {
                    tracing::warn!(jobs = self.jobs.in_work(), "not done within the drain time: given up");
                    self.shutdown.abandon();
                }
            }
        }
        self.street.join();
        self.jobs.tell();
        self.shutdown.drain();
        self.outbox.join(&*self.clock, self.config.drain.0, &self.shutdown);
        tracing::info!("ended");
        fatal.map_or(Ok(()), Err)
    }
}
