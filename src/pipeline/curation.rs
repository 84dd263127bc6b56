//! Cases out of folders: watches the folders of curated cases and what was received, and has a child process make cases of what has settled.
//!
//! ```text
//! <curated>/<any name>/     one case: label objects, their image or not, perhaps signoff.toml and structures.toml
//! ```
//!
//! A folder is looked at again when anything in it changes. Label objects that come over the network are cases, too; the results that this daemon
//! sent away and gets back are found to be a model's own, and refused. Beside that studies without labels are kept, as many as are wanted.

mod child;
mod folders;

use crate::config::Config;
use crate::dicom::SeriesKey;
use crate::fault::{Code, Fault};
use crate::intake::spool::Spool;
use crate::ledger::{CaseKind, CaseState, Change, Ledger, Problem, State, TrainingChange, Which};
use crate::sys::clock::Clock;
use crate::sys::shutdown::Shutdown;
use crate::training::store::worker::{Answer, Request, Setting};
use crate::training::store::{Link, Store, registry};
use child::Child;
use crossbeam::channel::select;
use folders::{Settling, print_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// Received instances that are asked for at a time.
const PAGE: u64 = 1000;
/// After so many looks the list of received instances is read from its beginning.
const AFRESH: u64 = 60;
/// Studies that are kept in one look, so that label objects do not wait for long.
const KEPT_AT_ONCE: usize = 2;

/// Labels whose image was not there are looked at again after this.
const AGAIN: Duration = Duration::from_secs(300);
/// A folder that failed so often is given up until it changes.
const MOST_FAILURES: u32 = 3;

/// What the thread needs.
pub struct CurationPlan {
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// Names this process.
    pub owner: String,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Ends the daemon.
    pub shutdown: Shutdown,
    /// The program that is started as `PROGRAM case-worker`: this binary.
    pub program: PathBuf,
}

/// The thread; ended when dropped, after the daemon's shutdown began.
pub struct Curation {
    thread: Option<JoinHandle<()>>,
}

impl Curation {
    /// Starts it.
    ///
    /// # Errors
    /// The store can not be opened; no thread.
    pub fn start(plan: CurationPlan, config: &Config) -> Result<Curation, Fault> {
        let spool = config.receives().then(|| config.spool.path.clone());
        let mut curator = Curator {
            store: Store::open(&config.state)?,
            setting: Setting {
                state: config.state.clone(),
                model: config.model.path.clone(),
                results: config.output.path.clone(),
                step: config.model.step.get(),
                mirror: config.model.mirror,
                min_slices: config.intake.min_slices,
                threads: 1,
            },
            roots: config.training.curated.clone(),
            watched: config.watch.iter().map(|watch| watch.path.clone()).collect(),
            keep_studies: config.training.keep_studies,
            spool,
            settling: Settling::new(config.intake.quiet.0),
            seen: BTreeSet::new(),
            read: 0,
            looks: 0,
            labels: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            waiting: BTreeMap::new(),
            failures: BTreeMap::new(),
            child: None,
            plan,
        };
        let run = move || curator.run();
        let thread = std::thread::Builder::new().name("curation".into()).spawn(run);
        let thread = thread.map_err(|e| Fault::new(Code::InternalBug, format!("no thread for cases: {e}")).caused_by(e))?;
        Ok(Curation { thread: Some(thread) })
    }
}

impl Drop for Curation {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the hook.
            let _ = thread.join();
        }
    }
}

struct Curator {
    plan: CurationPlan,
    store: Store,
    setting: Setting,
    roots: Vec<PathBuf>,
    watched: Vec<PathBuf>,
    spool: Option<PathBuf>,
    keep_studies: usize,
    settling: Settling,
    /// Received series that were looked at, and how many received instances.
    seen: BTreeSet<SeriesKey>,
    read: u64,
    looks: u64,
    /// Received series of label objects, with their folders.
    labels: BTreeMap<SeriesKey, PathBuf>,
    /// Series that can not be kept.
    passed_over: BTreeSet<SeriesKey>,
    /// Folders whose image was not there, and since when.
    waiting: BTreeMap<PathBuf, Instant>,
    /// How often each folder failed in a row.
    failures: BTreeMap<PathBuf, u32>,
    child: Option<Child>,
}

impl Curator {
    fn run(&mut self) {
        let (clock, shutdown) = (self.plan.clock.clone(), self.plan.shutdown.clone());
        loop {
            if let Err(fault) = self.look()
                && !shutdown.is_draining()
            {
                tracing::warn!(code = %fault.code, "cases: {} It is tried again.", fault.detail);
                self.child = None;
            }
            let timer = clock.after(LOOK);
            select! {
                recv(timer) -> _ => {}
                recv(shutdown.draining()) -> _ => return,
            }
        }
    }

    /// One look at everything. The child goes when there is nothing for it to do, and its memory with it.
    fn look(&mut self) -> Result<(), Fault> {
        let (mut busy, mut failed) = (false, None);
        for (folder, received) in self.folders()? {
            let Some(print) = print_of(&folder) else { continue };
            let now = self.plan.clock.monotonic();
            if !self.settling.is_settled(&folder, &print, now) || self.is_handled(&folder, &print)? || self.waits(&folder, now) {
                continue;
            }
            busy = true;
            // One that fails does not keep the others waiting.
            let admitted = self.admit(&folder, &print, received);
            if let Err(fault) = admitted.or_else(|fault| self.failed(&folder, &print, fault)) {
                failed = Some(fault);
            }
            if self.plan.shutdown.is_draining() {
                return Ok(());
            }
        }
        busy |= self.keep()?;
        if !busy {
            self.child = None;
        }
        failed.map_or(Ok(()), Err)
    }

    /// The folders that may be cases, and whether they were received.
    fn folders(&mut self) -> Result<Vec<(PathBuf, bool)>, Fault> {
        let mut found = Vec::new();
        for root in &self.roots {
            // A share that is not there now comes back.
            found.extend(folders::below(root).into_iter().map(|folder| (folder, false)));
        }
        self.received()?;
        found.extend(self.labels.values().map(|folder| (folder.clone(), true)));
        Ok(found)
    }

    /// Looks for label objects among the series that came since the last look.
    fn received(&mut self) -> Result<(), Fault> {
        let Some(spool) = &self.spool else { return Ok(()) };
        loop {
            let page = self.plan.ledger.received(self.read, PAGE)?;
            for instance in &page {
                if self.seen.insert(instance.series.clone()) && folders::is_label_object(&spool.join(&instance.path)) {
                    let path = spool.join(&instance.path);
                    let folder = path.parent().unwrap_or(spool).to_path_buf();
                    self.labels.insert(instance.series.clone(), folder);
                }
            }
            self.read += page.len() as u64;
            if page.len() as u64 == PAGE {
                continue;
            }
            // Instances whose time was over are gone from the list, and those behind them moved up: from time to time all are read again.
            self.looks += 1;
            if self.looks.is_multiple_of(AFRESH) {
                self.read = 0;
            }
            return Ok(());
        }
    }

    /// Whether the folder, as it is, was made a case or refused.
    fn is_handled(&self, folder: &Path, print: &str) -> Result<bool, Fault> {
        Ok(self.store.links()?.iter().any(|link| link.folder == folder && link.print == print))
    }

    fn admit(&mut self, folder: &Path, print: &str, received: bool) -> Result<(), Fault> {
        let ledger = self.plan.ledger.clone();
        let mut inactive = registry::inactive(&*ledger)?;
        // Labels that were changed before anybody signed for them: the new ones count.
        let earlier = self.pending_of(folder)?;
        inactive.extend(earlier.iter().cloned());
        let mut request = Request::Admit { folder: folder.into(), print: print.into(), places: Vec::new(), inactive, received };
        let mut answer = self.ask(&request)?;
        if let (Answer::Refused { study: Some(study), .. }, Request::Admit { places, .. }) = (&answer, &mut request) {
            *places = self.places(study)?;
            answer = self.ask(&request)?;
        }
        match answer {
            Answer::Made { case, problem } => {
                let stored = self.store.case(&case)?;
                let problem = problem.map(|(code, detail)| Problem { code, detail });
                if let Err(fault) = registry::register(&self.store, &*ledger, &stored, problem, &self.plan.owner) {
                    if fault.code != Code::CasesLeak {
                        return Err(fault);
                    }
                    // It would put a person on both sides: nothing may be learned from anybody as long as it is there.
                    self.store.remove(&case)?;
                    self.store.unlink(&case)?;
                    return self.reject(folder, print, Problem { code: fault.code.name().into(), detail: fault.detail }, true);
                }
                self.forget_refusal(folder, print)?;
                for old in earlier.iter().filter(|old| **old != case) {
                    let (id, who) = (old.clone(), self.plan.owner.clone());
                    let change = TrainingChange::DecideCase { id, state: CaseState::Refused, labels: None, problem: None, who };
                    ledger.commit(vec![Change::Training(change)])?;
                }
                tracing::info!(case, "a curated case");
            }
            Answer::Refused { code, detail, .. } => {
                tracing::warn!(code, "a folder of the curated ones gives no case: {detail}");
                let wait = code == Code::CasesNoImage.name();
                if wait {
                    self.waiting.insert(folder.into(), self.plan.clock.monotonic());
                }
                self.reject(folder, print, Problem { code, detail }, !wait)?;
            }
        }
        Ok(())
    }

    /// Whether its image was not there a moment ago: labels may come before it.
    fn waits(&self, folder: &Path, now: Instant) -> bool {
        self.waiting.get(folder).is_some_and(|since| now.saturating_duration_since(*since) < AGAIN)
    }

    /// A folder that was refused while its image was not there is a case now.
    fn forget_refusal(&mut self, folder: &Path, print: &str) -> Result<(), Fault> {
        self.waiting.remove(folder);
        let id = registry::name_of_folder(&self.store, folder, print);
        if self.plan.ledger.cases()?.iter().any(|row| row.id == id) {
            let change = TrainingChange::RemoveCase { id: id.clone(), who: self.plan.owner.clone() };
            self.plan.ledger.commit(vec![Change::Training(change)])?;
            self.store.unlink(&id)?;
        }
        Ok(())
    }

    /// Remembers why a folder, as it is, gives no case; `for_good`: until it changes.
    fn reject(&self, folder: &Path, print: &str, problem: Problem, for_good: bool) -> Result<(), Fault> {
        registry::reject(&self.store, &*self.plan.ledger, folder, print, problem, &self.plan.owner)?;
        self.store.link(Link {
            case: registry::name_of_folder(&self.store, folder, print),
            folder: folder.into(),
            print: if for_good { print.into() } else { String::new() },
            issuer: String::new(),
            patient_id: String::new(),
            study: String::new(),
            series: Vec::new(),
        })
    }

    /// What fails again and again may be what kills the child: it is not tried for ever.
    fn failed(&mut self, folder: &Path, print: &str, fault: Fault) -> Result<(), Fault> {
        let failures = self.failures.entry(folder.into()).or_default();
        *failures += 1;
        if *failures < MOST_FAILURES || fault.code.area() != "internal" || fault.code == Code::InternalShutdown {
            return Err(fault);
        }
        self.failures.remove(folder);
        self.reject(folder, print, Problem { code: fault.code.name().into(), detail: fault.detail }, true)
    }

    /// Cases of this folder that wait for a reader.
    fn pending_of(&self, folder: &Path) -> Result<Vec<String>, Fault> {
        let links = self.store.links()?;
        let rows = self.plan.ledger.cases()?;
        let pending = |case: &String| rows.iter().any(|row| row.id == *case && row.state == CaseState::Pending);
        Ok(links.into_iter().filter(|link| link.folder == folder).map(|link| link.case).filter(pending).collect())
    }

    /// Where the image of a study may lie: received series first, then watched folders.
    fn places(&self, study: &str) -> Result<Vec<PathBuf>, Fault> {
        let mut places = Vec::new();
        if let Some(spool) = &self.spool {
            let series = self.plan.ledger.series(study)?;
            let of_study = series.iter().filter(|record| record.series.study == study);
            places.extend(of_study.map(|record| Spool::folder_below(spool, study, &record.series.series)).filter(|folder| folder.is_dir()));
        }
        places.extend(self.watched.iter().filter(|folder| folder.is_dir()).cloned());
        Ok(places)
    }

    /// Keeps studies that were segmented, the newest first, until there are as many as are wanted; whether there was something to do.
    fn keep(&mut self) -> Result<bool, Fault> {
        let rows = self.plan.ledger.cases()?;
        let kept = rows.iter().filter(|row| row.kind == CaseKind::Unlabelled && row.state == CaseState::Accepted).count();
        if kept >= self.keep_studies {
            return Ok(false);
        }
        let known: BTreeSet<String> = self.store.links()?.into_iter().map(|link| link.study).collect();
        let which = Which { states: vec![State::Done], ..Which::default() };
        let mut jobs = self.plan.ledger.jobs(&which)?;
        jobs.retain(|job| !known.contains(&job.series.study) && !self.passed_over.contains(&job.series));
        jobs.reverse();
        let mut wanted = (self.keep_studies - kept).min(KEPT_AT_ONCE);
        let mut busy = false;
        for job in jobs {
            if wanted == 0 || self.plan.shutdown.is_draining() {
                break;
            }
            self.passed_over.insert(job.series.clone());
            let inactive = registry::inactive(&*self.plan.ledger)?;
            for folder in self.places_of(&job.series)? {
                busy = true;
                let request = Request::Keep { folder, series: job.series.series.clone(), inactive: inactive.clone() };
                if let Answer::Made { case, .. } = self.ask(&request)? {
                    let stored = self.store.case(&case)?;
                    registry::register(&self.store, &*self.plan.ledger, &stored, None, &self.plan.owner)?;
                    wanted -= 1;
                    break;
                }
            }
        }
        Ok(busy)
    }

    fn places_of(&self, series: &SeriesKey) -> Result<Vec<PathBuf>, Fault> {
        let mut places = self.places(&series.study)?;
        if let Some(spool) = &self.spool {
            let own = Spool::folder_below(spool, &series.study, &series.series);
            places.retain(|place| *place == own || !place.starts_with(spool));
        }
        Ok(places)
    }

    fn ask(&mut self, request: &Request) -> Result<Answer, Fault> {
        let child = match &mut self.child {
            Some(child) => child,
            none => none.insert(Child::start(&self.plan.program, &self.setting)?),
        };
        let answer = child.ask(request, &self.plan.shutdown);
        if answer.is_err() {
            self.child = None;
        }
        answer
    }
}
