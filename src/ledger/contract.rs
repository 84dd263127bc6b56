//! What every ledger does, whatever it is made of.

use super::change::{Change, Claim, DeliveryClaim, Lease};
use super::error::LedgerError;
use super::names::State;
use super::records::{Delivery, Entry, Job, JobId, Moment, Object, Outbox, Received, RefusedFile, Seq, SeriesRecord, Token, Transition};
use super::training::{Active, AuditEntry, CaseRow, Patient, RunRow};
use crate::dicom::SeriesKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Looks things up. Never blocks a writer.
pub trait Reader: Send + Sync {
    /// What the wall clock says: the time of dates. Deadlines go by what it said when the ledger was opened and the monotonic time since, so
    /// that a clock that is set back or forth moves none.
    fn now(&self) -> Moment;

    /// Names this ledger: a number that was drawn when it was begun.
    fn instance(&self) -> Result<String, LedgerError>;

    /// A job.
    fn job(&self, id: JobId) -> Result<Option<Job>, LedgerError>;

    /// Jobs in the order of their numbers.
    fn jobs(&self, which: &Which) -> Result<Vec<Job>, LedgerError>;

    /// How many jobs are in each state.
    fn counts(&self) -> Result<Vec<(State, u64)>, LedgerError>;

    /// How long until the next waiting job's turn comes; none when none waits.
    fn next_due(&self) -> Result<Option<Duration>, LedgerError>;

    /// How long the oldest job that is queued, running, waiting or parked has been there, for each of these states with any.
    fn oldest(&self) -> Result<Vec<(State, Duration)>, LedgerError>;

    /// The files of a job's result, by name.
    fn objects(&self, job: JobId) -> Result<Vec<Object>, LedgerError>;

    /// The deliveries of a job's result.
    fn deliveries(&self, job: JobId) -> Result<Vec<Delivery>, LedgerError>;

    /// The delivery that a destination was asked about in a transaction of storage commitment.
    fn transaction(&self, uid: &str) -> Result<Option<Delivery>, LedgerError>;

    /// What is open or refused, by destination, for those that have something.
    fn outbox(&self) -> Result<Vec<Outbox>, LedgerError>;

    /// The journal of a job; without one, of the ledger itself.
    fn journal(&self, job: Option<JobId>) -> Result<Vec<Entry>, LedgerError>;

    /// Jobs whose result was published after the last [`Change::Verified`] or clean end.
    fn unverified(&self) -> Result<Vec<JobId>, LedgerError>;

    /// What is known of the series that a UID names: its study's, its own, or that of an acknowledged instance.
    fn series(&self, uid: &str) -> Result<Vec<SeriesRecord>, LedgerError>;

    /// How many transitions of jobs the journal has after a place, by state before and after, and its last place.
    fn transitions(&self, after: Seq) -> Result<(Seq, Vec<Transition>), LedgerError>;

    /// The state in which a series was closed last, as [`super::Closing::print`] said: closing it again in the same state changes nothing.
    fn closed(&self, series: &SeriesKey) -> Result<Option<String>, LedgerError>;

    /// Jobs that came to their end before `before`, at most `limit`: done, cancelled or superseded, every delivery made or ended before then.
    fn expired(&self, before: Moment, limit: u64) -> Result<Vec<Job>, LedgerError>;

    /// Series without jobs and without acknowledged instances that were found complete before `before`, by number; at most `limit` of those
    /// after the first `skip`.
    fn idle(&self, before: Moment, skip: u64, limit: u64) -> Result<Vec<SeriesKey>, LedgerError>;

    /// Series whose files are leaving their watched folder, with the names of the files.
    fn leaving(&self) -> Result<BTreeMap<SeriesKey, BTreeSet<String>>, LedgerError>;

    /// Series of which instances were received, at most `limit`, of studies that came to their end: every job done, ended or superseded
    /// before `before`, or parked before `parked_before`; every delivery made or ended before `before`; nothing received or found complete
    /// since. A refused delivery is no end.
    fn settled(&self, before: Moment, parked_before: Moment, limit: u64) -> Result<Vec<SeriesKey>, LedgerError>;

    /// Acknowledged instances of one series.
    fn received_of(&self, series: &SeriesKey) -> Result<Vec<Received>, LedgerError>;

    /// Files that can not be used, at most `limit`, those that came last first.
    fn refused(&self, limit: u64) -> Result<Vec<RefusedFile>, LedgerError>;

    /// Those of these paths below the spool of which no acknowledged instance is known, in the same order.
    fn unknown(&self, paths: Vec<String>) -> Result<Vec<String>, LedgerError>;

    /// Acknowledged instances in the order of their arrival, at most `limit` of those after the first `skip`.
    fn received(&self, skip: u64, limit: u64) -> Result<Vec<Received>, LedgerError>;

    /// Which generation serves in place of each configured model, for those that have another than their own.
    fn active(&self) -> Result<Vec<Active>, LedgerError>;

    /// The curated cases, by name.
    fn cases(&self) -> Result<Vec<CaseRow>, LedgerError>;

    /// The patients of the cases, by key.
    fn patients(&self) -> Result<Vec<Patient>, LedgerError>;

    /// The training runs, in their order.
    fn runs(&self) -> Result<Vec<RunRow>, LedgerError>;

    /// The audit of models and cases, whole.
    fn audit(&self) -> Result<Vec<AuditEntry>, LedgerError>;
}

/// Which jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// In one of these states; empty: in any.
    pub states: Vec<State>,
    /// Also, whatever their state, those with deliveries that are open or refused.
    pub undelivered: bool,
    /// Of a series or study with this UID.
    pub uid: Option<String>,
    /// With larger numbers than this.
    pub after: Option<JobId>,
    /// At most so many; none: all.
    pub limit: Option<u64>,
}

/// Looks things up and writes them down.
pub trait Ledger: Reader {
    /// Makes all the changes, or none and tells why. Returns once they are durable.
    fn commit(&self, changes: Vec<Change>) -> Result<Seq, LedgerError>;

    /// The next job, if one may begin now. The attempt is counted, durably, before this returns.
    ///
    /// First come jobs of higher priority, then those that are longer in the line. A suspect begins only when the owner has nothing else in work,
    /// and nothing begins while the owner has a suspect in work, or for a model that was rolled back. Jobs of other owners whose lease ran out are first put back, as after a crash.
    fn claim(&self, lease: &Lease) -> Result<Option<Claim>, LedgerError>;

    /// The next delivery to a destination, likewise.
    fn claim_delivery(&self, destination: &str, lease: &Lease) -> Result<Option<DeliveryClaim>, LedgerError>;

    /// The claim still holds, and goes on for this long; else [`LedgerError::Stale`]. To be asked right before anything is published.
    fn renew(&self, token: Token, hold: Duration) -> Result<(), LedgerError>;
}

/// When a job is suspected of killing the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After so many crashes a job goes to the end of the line and runs alone.
    pub suspect_after: u32,
    /// After so many crashes while alone it is parked.
    pub park_after: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { suspect_after: 2, park_after: 3 }
    }
}

/// What was found when a ledger was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// There was none before.
    pub fresh: bool,
    /// It is older than the one that was here last.
    pub restored: bool,
    /// Jobs that were running, put back into the line.
    pub requeued: u64,
    /// Jobs that were running, parked.
    pub parked: u64,
    /// Deliveries that were being sent, put back as doubtful.
    pub doubtful: u64,
}
