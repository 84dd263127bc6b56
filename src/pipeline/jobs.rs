//! The daemon's jobs: what intake finds complete becomes rows of the ledger, rows become claims, and the end of work becomes rows again.
//!
//! Nothing is begun that the ledger does not know of, and nothing is done before the ledger says so. When the ledger can not take the end
//! of a job (a full disk), that end is kept and told again until it can; should the daemon die before, the job is done again, and the
//! result that lies there already counts.

use super::work::JobId;
use crate::config::Destination;
use crate::delivery;
use crate::dicom::SeriesKey;
use crate::fault::{Code, Fault};
use crate::ledger::{
    Change, Claim, Closing, Job, Lease, Ledger, LedgerError, Object, Priority, Problem, Published, Reader, State, Token, Which,
};
use crate::telemetry::{JobState, Metrics, Urgency};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a claim holds without being renewed. Only another process could take a job over, and the ledger of a single machine has one.
pub const HOLD: Duration = Duration::from_secs(3600);
/// First pause after a failure that may pass; doubled with every further one.
pub const PAUSE_FIRST: Duration = Duration::from_secs(5);
/// Longest such pause.
const PAUSE_LONGEST: Duration = Duration::from_secs(600);

/// The jobs of this process.
pub struct Jobs {
    ledger: Arc<dyn Ledger>,
    lease: Lease,
    claimed: BTreeMap<JobId, Claimed>,
    untold: VecDeque<(JobId, Change)>,
    metrics: Arc<Metrics>,
}

/// A job in the street.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// What everything about it is reported with.
    pub token: Token,
    /// Its series.
    pub series: SeriesKey,
    /// Failures that may pass, in a row, before this attempt.
    failures: u32,
}

impl Jobs {
    /// `owner` names this process; `model` is the digest that jobs are pinned to when they are claimed, until a rule names another.
    pub fn new(ledger: Arc<dyn Ledger>, owner: String, model: String, metrics: Arc<Metrics>) -> Jobs {
        let lease = Lease { owner, hold: HOLD, model };
        Jobs { ledger, lease, claimed: BTreeMap::new(), untold: VecDeque::new(), metrics }
    }

    /// From now on jobs are claimed for this model, by its digest.
    pub fn serve_with(&mut self, model: String) {
        self.lease.model = model;
    }

    /// Names this process.
    pub fn owner(&self) -> &str {
        &self.lease.owner
    }

    /// The ledger.
    pub fn ledger(&self) -> &dyn Ledger {
        &*self.ledger
    }

    /// Series are complete. Returns once that is durable, for all of them.
    pub fn close(&self, closings: Vec<Closing>) -> Result<(), Fault> {
        self.ledger.commit(closings.into_iter().map(Change::Close).collect())?;
        self.count();
        Ok(())
    }

    /// Whether the ledger says that a series was closed in this very state.
    pub fn is_closed(&self, series: &SeriesKey, print: &str) -> bool {
        self.ledger.closed(series).is_ok_and(|closed| closed.as_deref() == Some(print))
    }

    /// The next job that may begin now, if there is one; its attempt is counted. Nothing is begun while ends wait to be told.
    pub fn claim(&mut self) -> Result<Option<Job>, Fault> {
        if !self.untold.is_empty() {
            return Ok(None);
        }
        let Some(Claim { token, job }) = self.ledger.claim(&self.lease)? else { return Ok(None) };
        let claimed = Claimed { token, series: job.series.clone(), failures: job.progress.failures };
        self.claimed.insert(job.id, claimed);
        self.count();
        Ok(Some(job))
    }

    /// A claimed job is done with this model, by its digest.
    pub fn pin(&self, job: JobId, model: &str) -> Result<(), Fault> {
        let Some(claimed) = self.claimed.get(&job).filter(|_| model != self.lease.model) else { return Ok(()) };
        self.ledger.commit(vec![Change::Pin { token: claimed.token, model: model.into() }])?;
        Ok(())
    }

    /// Whether this is still the claim that a job is in work for. The outcome of an earlier one says nothing about the job.
    pub fn is_current(&self, job: JobId, token: Option<Token>) -> bool {
        self.claimed.get(&job).is_some_and(|claimed| Some(claimed.token) == token)
    }

    /// A job that was claimed here and has not ended.
    pub fn claimed(&self, job: JobId) -> Option<&Claimed> {
        self.claimed.get(&job)
    }

    /// Whether a job of this series is in the street.
    pub fn works_on(&self, series: &SeriesKey) -> bool {
        self.claimed.values().any(|claimed| claimed.series == *series)
    }

    /// Names of the folders with results of a series.
    pub fn results_of(&self, series: &SeriesKey) -> Result<BTreeSet<String>, Fault> {
        let which = Which { states: vec![State::Done], uid: Some(series.series.clone()), ..Which::default() };
        let done = self.ledger.jobs(&which)?.into_iter().filter(|job| job.series == *series);
        Ok(done.filter_map(|job| Some(job.result?.folder)).collect())
    }

    /// Its result is published.
    pub fn finish(&mut self, job: JobId, ended: Finished) {
        let Finished { result, destinations, doubtful } = ended;
        self.end(job, |c| Change::Finish { token: c.token, result, destinations, doubtful });
    }

    /// It can not be done.
    pub fn park(&mut self, job: JobId, fault: &Fault) {
        self.end(job, |c| Change::Park { token: c.token, problem: problem(fault) });
    }

    /// It failed for now; how long it waits grows with every failure, but for a full disk: space may return at any time.
    pub fn postpone(&mut self, job: JobId, fault: &Fault) -> Duration {
        let failures = self.claimed.get(&job).map_or(0, |c| c.failures).min(if fault.code == Code::DiskFull { 0 } else { 10 });
        let pause = PAUSE_FIRST.saturating_mul(1 << failures).min(PAUSE_LONGEST);
        self.end(job, |c| Change::Postpone { token: c.token, pause, problem: problem(fault) });
        pause
    }

    /// It was given up because the daemon ends.
    pub fn release(&mut self, job: JobId) {
        self.end(job, |c| Change::Release { token: c.token });
    }

    /// Its files are no longer what it was queued for.
    pub fn outdate(&mut self, job: JobId) {
        self.end(job, |c| Change::Outdate { token: c.token });
    }

    /// The daemon ends because of it: its row stays as it is, and the next start counts that as a crash.
    pub fn leave(&mut self, job: JobId) {
        self.claimed.remove(&job);
    }

    fn end(&mut self, job: JobId, change: impl FnOnce(&Claimed) -> Change) {
        if let Some(claimed) = self.claimed.remove(&job) {
            self.untold.push_back((job, change(&claimed)));
            self.tell();
        }
    }

    /// Tells the ledger what it could not take before; false when it still can not.
    pub fn tell(&mut self) -> bool {
        while let Some((job, change)) = self.untold.front() {
            match self.ledger.commit(vec![change.clone()]) {
                Ok(_) => {}
                // A person ended the job meanwhile, or it was taken over: what they said counts.
                Err(LedgerError::Stale(_)) => tracing::info!(%job, "its end is not wanted any more"),
                Err(error) => {
                    let fault = Fault::from(error);
                    self.metrics.fault(fault.code);
                    tracing::warn!(%job, code = %fault.code, "the ledger can not be written; tried again: {}", fault.detail);
                    return false;
                }
            }
            self.untold.pop_front();
        }
        self.count();
        true
    }

    /// Whether ends wait to be told.
    pub fn is_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// How long until a job that waits has its turn.
    pub fn next_due(&self) -> Option<Duration> {
        self.ledger.next_due().ok().flatten()
    }

    /// Jobs in the street whose claim holds no more, each with that claim: a person ended them, or their model was rolled back.
    pub fn lost(&self) -> Vec<(JobId, Token)> {
        let holds = |id: &JobId, claimed: &Claimed| match Reader::job(&*self.ledger, *id) {
            Ok(Some(job)) => job.progress.held.is_some_and(|held| held.token == claimed.token),
            Ok(None) => false,
            // Not known: the ledger is asked again before anything is published.
            Err(_) => true,
        };
        self.claimed.iter().filter(|(id, claimed)| !holds(id, claimed)).map(|(id, claimed)| (*id, claimed.token)).collect()
    }

    /// Results published so far are known to be whole.
    pub fn verified(&self) {
        if let Err(error) = self.ledger.commit(vec![Change::Verified]) {
            tracing::debug!("no check point: {error}");
        }
    }

    /// Jobs in the street.
    pub fn in_work(&self) -> usize {
        self.claimed.len()
    }

    /// Tells the metrics how many jobs are where.
    pub fn count(&self) {
        let Ok(counts) = self.ledger.counts() else { return };
        for (state, count) in counts {
            if let Some(state) = shown(state) {
                self.metrics.jobs_are(state, count);
            }
        }
    }
}

/// As metrics say it; none for what is over.
pub fn shown(state: State) -> Option<JobState> {
    match state {
        State::Queued => Some(JobState::Queued),
        State::Running => Some(JobState::Working),
        State::Waiting => Some(JobState::Waiting),
        State::Parked => Some(JobState::Parked),
        State::Done | State::Cancelled | State::Superseded => None,
    }
}

/// As metrics say it.
pub fn urgency(priority: Priority) -> Urgency {
    match priority {
        Priority::Stat => Urgency::Stat,
        Priority::Routine => Urgency::Routine,
        Priority::Batch => Urgency::Batch,
    }
}

/// A fault as the ledger keeps it.
pub fn problem(fault: &Fault) -> Problem {
    Problem { code: fault.code.name().into(), detail: fault.detail.clone() }
}

/// A published result, and who is to get it.
pub struct Finished {
    /// The result.
    pub result: Published,
    /// Names of destinations.
    pub destinations: Vec<String>,
    /// It was there before this job published it, so a destination may have it from an earlier life of the ledger.
    pub doubtful: bool,
}

/// The result in a folder, as its manifest tells, and which of the destinations get it.
pub fn finished(dir: &Path, destinations: &[Destination], doubtful: bool) -> Result<Finished, Fault> {
    let manifest = delivery::published(dir)?;
    // It was there a moment ago.
    let manifest = manifest.ok_or_else(|| Fault::new(Code::DiskUnreadable, "The manifest of the published result is gone."))?;
    let destinations = delivery::recipients(destinations, &manifest);
    let objects = manifest.outputs.into_iter().map(|o| Object { file: o.file, bytes: o.bytes, sha256: o.sha256 });
    let folder = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let result = Published { folder, identity: manifest.identity, objects: objects.collect() };
    Ok(Finished { result, destinations, doubtful })
}
