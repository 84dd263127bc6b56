//! What may be written into the ledger.

use super::names::Priority;
use super::records::{Delivery, Job, JobId, Moment, Problem, Published, Received, RefusedFile, Token};
use super::training::TrainingChange;
use crate::dicom::SeriesKey;
use crate::telemetry::Evidence;
use std::time::Duration;

/// One step. The steps of one commit happen together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An instance came over the network and is on disk.
    Receive(Received),
    /// A series was found complete: its volumes become jobs.
    Close(Closing),
    /// A series is complete, and waits for the rest of its study.
    Wait {
        /// Which.
        series: SeriesKey,
    },
    /// A series of objects was found that are never segmented. Nothing changes where more is known of it.
    Other {
        /// Which.
        series: SeriesKey,
        /// Why not.
        problem: Problem,
    },
    /// The job's result is published; `destinations` are to get it.
    Finish {
        /// The worker's claim.
        token: Token,
        /// The result.
        result: Published,
        /// Names of destinations.
        destinations: Vec<String>,
        /// An earlier life of the ledger may have sent it: every destination is asked first.
        doubtful: bool,
    },
    /// It failed for now.
    Postpone {
        /// The worker's claim.
        token: Token,
        /// How long it waits.
        pause: Duration,
        /// Why.
        problem: Problem,
    },
    /// It can not be done.
    Park {
        /// The worker's claim.
        token: Token,
        /// Why.
        problem: Problem,
    },
    /// The worker ends and gives the job back undone; this is no failure.
    Release {
        /// The worker's claim.
        token: Token,
    },
    /// It is done with another model than the lease named. Refused as [`super::LedgerError::Stale`] for a model that was rolled back.
    Pin {
        /// The worker's claim.
        token: Token,
        /// Digest of the model.
        model: String,
    },
    /// The files are no longer what the job was queued for.
    Outdate {
        /// The worker's claim.
        token: Token,
    },
    /// A person wants it tried again: a job that is parked, waiting or cancelled; or of one that is done, the deliveries that were refused, or
    /// else its result, which is made again if it is not there.
    Retry {
        /// Which.
        job: JobId,
        /// Who wants it.
        who: String,
    },
    /// A person wants it ended: a job that is not done, or the open deliveries of one that is.
    Cancel {
        /// Which.
        job: JobId,
        /// Who wants it.
        who: String,
    },
    /// The published result is damaged: it is made again.
    Reopen {
        /// Which; it has to be done.
        job: JobId,
        /// Who found out.
        who: String,
        /// What is wrong.
        problem: Problem,
    },
    /// The destination has it; a warning may have come with the answer.
    Delivered {
        /// The worker's claim.
        token: Token,
        /// What the destination said beside yes.
        warning: Option<Problem>,
    },
    /// The delivery failed for now.
    PostponeDelivery {
        /// The worker's claim.
        token: Token,
        /// How long it waits.
        pause: Duration,
        /// Whether the object may have arrived nevertheless.
        doubtful: bool,
        /// Whether the destination said no, rather than not now; counted.
        refused: bool,
        /// Why.
        problem: Problem,
    },
    /// It is sent again although nobody can tell whether it is there; counted before it is done.
    Resend {
        /// The worker's claim.
        token: Token,
    },
    /// The destination is about to be asked to commit itself to keeping it (storage commitment).
    AskCommitment {
        /// The worker's claim.
        token: Token,
        /// Transaction UID.
        transaction: String,
    },
    /// It was sent, and the destination was asked: the answer is waited for.
    AwaitCommitment {
        /// The worker's claim.
        token: Token,
        /// At most this long; then it is asked about like everything doubtful.
        pause: Duration,
        /// Why it waits, or what the destination said beside yes when it got it.
        problem: Problem,
    },
    /// A destination answered. Where no delivery has the transaction, nothing changes.
    Committed {
        /// Transaction UID.
        transaction: String,
        /// Whether it keeps it.
        kept: bool,
        /// How long a delivery that it does not keep waits before it is asked about.
        pause: Duration,
        /// Why a delivery that it does not keep waits.
        problem: Problem,
    },
    /// The destination refuses it.
    ParkDelivery {
        /// The worker's claim.
        token: Token,
        /// Whether something of it may have arrived nevertheless.
        doubtful: bool,
        /// Why.
        problem: Problem,
    },
    /// A step of models or of what they learn from.
    Training(TrainingChange),
    /// Every result that is done so far was compared with the disk.
    Verified,
    /// Acknowledged instances whose files are gone: their time is over.
    Discard {
        /// Of this series.
        series: SeriesKey,
        /// Paths below the spool.
        paths: Vec<String>,
    },
    /// The row of a job whose files are gone may go too. It has to be final, without open deliveries.
    Forget {
        /// Which.
        job: JobId,
    },
    /// The result of a job is removed, its time is over: its row goes too, and the volume is not done again. It has to be done, cancelled or
    /// superseded, without open or refused deliveries.
    Expire {
        /// Which.
        job: JobId,
    },
    /// What is known of a series may go: it has no jobs and no acknowledged instances, or its row stays.
    ForgetSeries {
        /// Which.
        series: SeriesKey,
    },
    /// Files of a series are about to leave their watched folder: from now on those that are still there are no new state of it.
    Leave {
        /// Which.
        series: SeriesKey,
        /// Names each file in its state; the pipeline says how.
        files: Vec<String>,
    },
    /// They have left.
    Left {
        /// Which.
        series: SeriesKey,
    },
    /// A person had all removed that there was of a study.
    Purged {
        /// Who.
        who: String,
        /// Names the study without telling which it is.
        name: String,
    },
    /// Files that can not be used were found. Of one at a place that is known, what is new is kept; of all, the [`MOST_REFUSED`] that came last.
    Refuse(Vec<RefusedFile>),
    /// Refused files that were last found before this may be forgotten.
    ForgetRefused {
        /// The first moment that stays.
        before: Moment,
    },
    /// Journal lines before this may go.
    ForgetJournal {
        /// The first moment that stays.
        before: Moment,
    },
}

/// So many refused files are remembered.
pub const MOST_REFUSED: u64 = 10_000;

/// A series that was found complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Which.
    pub series: SeriesKey,
    /// How that is known.
    pub evidence: Evidence,
    /// Names the state in which it was found; see [`super::Reader::closed`].
    pub print: String,
    /// Its volumes that are to be segmented. Jobs of the series for other volumes that nobody has begun are superseded, and open deliveries
    /// of such that are done are cancelled.
    pub volumes: Vec<NewVolume>,
    /// Why other parts of it are not processed.
    pub refusals: Vec<Problem>,
}

/// A volume that is to be segmented, unless the ledger has a job for it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Names its content.
    pub input: String,
    /// What comes first.
    pub priority: Priority,
    /// The rule that chose it, `all` where the configuration has none.
    pub rule: Option<String>,
    /// The rule that took it as the best of its study; none when the rule takes all that match.
    pub contest: Option<String>,
    /// Its result, when one lies there already: the job is done from the start.
    pub result: Option<Published>,
    /// Who is to get such a result.
    pub destinations: Vec<String>,
}

/// A worker's wish for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The process; another name for every start.
    pub owner: String,
    /// How long the claim holds without being renewed.
    pub hold: Duration,
    /// Digest of the model that the job is pinned to, unless [`Change::Pin`] names another; empty for deliveries.
    pub model: String,
}

/// A job that now belongs to the worker who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// To be shown with everything the worker reports.
    pub token: Token,
    /// The job, as claimed.
    pub job: Job,
}

/// A delivery that now belongs to the worker who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryClaim {
    /// To be shown with everything the worker reports.
    pub token: Token,
    /// The delivery, as claimed.
    pub delivery: Delivery,
}
