//! The intake thread of the daemon: looks at the folders, lets series settle, sends them down the street, and handles what
//! comes out.
//!
//! The scan is the truth. Notices of the system only make a look come sooner; a series is taken when a look after its
//! quiet time finds it unchanged.

use super::published::Published;
use super::stages::{Input, refusal};
use super::street::{End, Outcome, Street};
use super::work::JobId;
use crate::config::Config;
use crate::dicom::{PixelFormat, SeriesKey};
use crate::fault::{Class, Code, Fault};
use crate::intake::reception::Reception;
use crate::intake::scan::ScanLimits;
use crate::intake::settle::Settle;
use crate::intake::spool;
use crate::intake::tree::{Print, Tree};
use crate::intake::watch::{Dirty, Watcher};
use crate::models::Generation;
use crate::series::{self, Policy, Series};
use crate::sys::clock::Clock;
use crate::sys::shutdown::Shutdown;
use crate::telemetry::log::keyed_hash;
use crate::telemetry::{JobState, Metrics};
use crate::volume::decode::{Decoder, plane_digest};
use crossbeam::channel::{RecvError, never, select};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks that notices ask for come at most this often, so that a study that is being copied is not looked at for every file.
const PAUSE: Duration = Duration::from_millis(250);
/// A series whose sender released its association is taken when it stays unchanged for this long: the rest of it may come over a next
/// one.
const AFTER_RELEASE: Duration = Duration::from_secs(5);
/// First pause after a failure that may pass; doubled with every further one.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// Longest such pause.
const RETRY_LONGEST: Duration = Duration::from_secs(600);

/// The intake and all it knows.
pub struct Service {
    street: Street,
    tree: Tree,
    settle: Settle<SeriesKey, Print>,
    watcher: Watcher,
    dirty: Dirty,
    reception: Option<Arc<Reception>>,
    /// Series whose senders are done with them, since the last look.
    delivered: BTreeSet<SeriesKey>,
    /// Roots that could not be read at the last look; told once.
    unreadable: BTreeSet<PathBuf>,
    published: Published,
    policy: Policy,
    model: Arc<Generation>,
    decoder: Arc<Decoder>,
    /// Volumes of series that were taken and for which there was no room in the street.
    backlog: VecDeque<(SeriesKey, Series, Instant)>,
    /// Which series a job belongs to.
    jobs: BTreeMap<JobId, SeriesKey>,
    /// Failures that may pass, in a row, of a series.
    failures: BTreeMap<SeriesKey, u32>,
    parked: BTreeSet<SeriesKey>,
    rescan: Duration,
    drain: Duration,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

/// What the service is built from.
pub struct ServicePlan {
    /// The running street.
    pub street: Street,
    /// The configuration.
    pub config: Config,
    /// What takes objects from the network, if anything does.
    pub reception: Option<Arc<Reception>>,
    /// The model.
    pub model: Arc<Generation>,
    /// Runs the codecs, for series that need pixels to be told apart.
    pub decoder: Arc<Decoder>,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

impl Service {
    /// Starts to listen to the watched folders and reads what has been published before.
    pub fn new(plan: ServicePlan) -> Result<Service, Fault> {
        let ServicePlan { street, config, reception, model, decoder, clock, metrics, shutdown } = plan;
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
        let policy = Policy { irregular: config.intake.irregular, min_slices: config.intake.min_slices, ..Policy::default() };
        Ok(Service {
            street,
            tree: Tree::new(roots, ScanLimits::default()),
            settle: Settle::new(config.intake.quiet.0),
            watcher,
            dirty: Dirty::none(),
            reception,
            delivered: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            published: Published::read(&config.output.path)?,
            policy,
            model,
            decoder,
            backlog: VecDeque::new(),
            jobs: BTreeMap::new(),
            failures: BTreeMap::new(),
            parked: BTreeSet::new(),
            rescan: config.intake.rescan.0,
            drain: config.drain.0,
            clock,
            metrics,
            shutdown,
        })
    }

    /// Works until the shutdown signal, then lets the work in flight finish. Ends with a fault when the process can not go on.
    pub fn run(mut self) -> Result<(), Fault> {
        let mut fatal = None;
        let mut next_full = self.clock.monotonic();
        let mut earliest = next_full;
        self.metrics.ready.set(1);
        let arrived = self.reception.as_ref().map_or_else(never, |reception| reception.arrivals().rung().clone());
        loop {
            let wake = self.next_look(earliest, next_full);
            let timer = self.clock.after(wake.saturating_duration_since(self.clock.monotonic()));
            select! {
                recv(self.watcher.rung()) -> _ => self.notice(),
                recv(arrived) -> _ => self.arrived(),
                recv(timer) -> _ => {}
                recv(self.street.outcomes()) -> outcome => match self.outcome(outcome) {
                    Ok(()) => self.submit_backlog(),
                    Err(fault) => { fatal = Some(fault); break }
                },
                recv(self.shutdown.draining()) -> _ => break,
            }
            let now = self.clock.monotonic();
            if now >= next_full {
                self.dirty = Dirty::All;
                next_full = now + self.rescan;
            }
            if now >= self.next_look(earliest, next_full) {
                self.look(now);
                earliest = now + PAUSE;
            }
        }
        self.end(fatal)
    }

    /// When to look next: at the periodic time, or, not before `earliest`, after a notice or when a series may be quiet.
    fn next_look(&self, earliest: Instant, next_full: Instant) -> Instant {
        let mut at = next_full;
        if !self.dirty.is_none() {
            at = at.min(earliest);
        }
        // While the street is full nothing more is taken, so nothing is due.
        match self.settle.next_due() {
            Some(due) if self.backlog.is_empty() => at.min(due.max(earliest)),
            _ => at,
        }
    }

    fn notice(&mut self) {
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
        let (found, errors) = self.tree.look(dirty);
        self.metrics.scanned(self.clock.monotonic().saturating_duration_since(now), found.files, found.bytes);
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

        let look = self.settle.look(now, self.tree.series());
        for key in std::mem::take(&mut self.delivered) {
            self.settle.hint(&key, now + AFTER_RELEASE);
        }
        for key in look.reopened {
            tracing::info!(series = keyed_hash(&key.series), "a series changed after it was taken");
            self.metrics.series_reopened();
            self.published.forget(&key);
            self.unpark(&key);
        }
        for key in look.quiet {
            if !self.backlog.is_empty() {
                break;
            }
            self.take(&key);
        }
        self.metrics.series_open.set(self.settle.open() as i64);
    }

    /// Sends the volumes of a quiet series down the street, or tells why not.
    fn take(&mut self, key: &SeriesKey) {
        // Changed since the look: the next look sees it.
        let Some(loaded) = self.tree.load(key) else { return };
        let Some(since) = self.settle.take(key) else { return };
        self.metrics.series_closed();
        let name = keyed_hash(&key.series);
        let files = ScanLimits::default().file;
        let digest = |path: &Path, frame: u32, format: &PixelFormat| plane_digest(path, frame, format, &files, &self.decoder);
        let grouped = series::group(loaded.instances, loaded.refused, &self.policy, &digest);
        let refusals = grouped.rejected.into_iter().map(|r| r.refusal);
        let (accepted, held): (Vec<Series>, Vec<Series>) = grouped.series.into_iter().partition(|s| refusal(s, &self.model).is_none());
        for refusal in refusals.chain(held.iter().filter_map(|s| refusal(s, &self.model))) {
            tracing::info!(series = name, code = %refusal.code, "not processed: {}", refusal.detail);
            self.metrics.series_refused(refusal.code);
        }
        for series in accepted {
            if self.published.holds(&series) {
                tracing::debug!(series = name, "has its result already");
            } else {
                tracing::info!(series = name, slices = series.planes.len(), "complete");
                self.backlog.push_back((key.clone(), series, since));
            }
        }
        self.submit_backlog();
    }

    fn submit_backlog(&mut self) {
        while let Some((key, series, since)) = self.backlog.pop_front() {
            match self.street.submit(Input::Series(vec![series]), since) {
                Ok(job) => {
                    self.jobs.insert(job, key);
                }
                Err(Input::Series(mut back)) => {
                    self.backlog.extend(back.pop().map(|series| (key, series, since)));
                    self.backlog.rotate_right(1);
                    return;
                }
                Err(Input::Nifti(_)) => return,
            }
        }
    }

    /// Handles the end of a job; a fault that the process can not go on with is returned.
    fn outcome(&mut self, outcome: Result<Outcome, RecvError>) -> Result<(), Fault> {
        // The street's threads end only after it was closed.
        let Ok(Outcome { job, end, times }) = outcome else {
            return Err(Fault::new(Code::InternalBug, "the stages have ended by themselves"));
        };
        let Some(key) = self.jobs.remove(&job) else { return Ok(()) };
        let series = keyed_hash(&key.series);
        match end {
            Ok(End::Published(receipt)) => {
                let seconds = times.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>();
                let folder = receipt.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                tracing::info!(%job, series, folder, seconds = (seconds * 10.0).round() / 10.0, "published");
                self.failures.remove(&key);
            }
            Ok(End::AlreadyPublished(folder)) => {
                let folder = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                tracing::info!(%job, series, folder, "has its result already");
                self.failures.remove(&key);
            }
            Err(fault) if fault.code == Code::InternalShutdown => {
                tracing::info!(%job, series, "given up, to be done again after the next start")
            }
            Err(fault) => {
                self.metrics.fault(fault.code);
                let cause = cause(&fault);
                match fault.class {
                    Class::Fatal => return Err(fault),
                    Class::Retryable => {
                        let pause = self.failed_again(&key);
                        let seconds = pause.as_secs();
                        tracing::warn!(%job, series, code = %fault.code, retry_in_s = seconds, "failed for now: {} {cause}", fault.detail);
                    }
                    Class::Poison => {
                        tracing::warn!(%job, series, code = %fault.code, "parked: {} {cause} {}", fault.detail, fault.code.action());
                        self.metrics.job_parked(fault.code);
                        if self.parked.insert(key) {
                            self.metrics.job_moved(None, Some(JobState::Parked));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Has a series offered again after a pause that grows with each failure.
    fn failed_again(&mut self, key: &SeriesKey) -> Duration {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = RETRY_FIRST.saturating_mul(1 << (*failures).min(10)).min(RETRY_LONGEST);
        *failures += 1;
        self.settle.again(key, self.clock.monotonic() + pause);
        pause
    }

    fn unpark(&mut self, key: &SeriesKey) {
        self.failures.remove(key);
        if self.parked.remove(key) {
            self.metrics.job_moved(Some(JobState::Parked), None);
        }
    }

    /// Lets the work in flight finish within the drain time, then gives it up.
    fn end(mut self, fatal: Option<Fault>) -> Result<(), Fault> {
        self.metrics.ready.set(0);
        self.metrics.draining.set(1);
        if fatal.is_some() {
            self.shutdown.abandon();
        }
        tracing::info!(jobs = self.jobs.len(), "ending: work in flight is finished");
        self.backlog.clear();
        self.street.close();
        let too_long = self.clock.after(self.drain);
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
                    tracing::warn!(jobs = self.jobs.len(), "not done within the drain time: given up");
                    self.shutdown.abandon();
                }
            }
        }
        self.street.join();
        tracing::info!("ended");
        fatal.map_or(Ok(()), Err)
    }
}

/// What lies behind a fault, for the log.
fn cause(fault: &Fault) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(fault);
    while let Some(error) = source {
        let said = error.to_string();
        if !fault.detail.contains(&said) && !text.contains(&said) {
            text += &format!("({said})");
        }
        source = error.source();
    }
    text
}
