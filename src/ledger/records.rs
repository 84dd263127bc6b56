//! What the ledger knows: plain records without SQL.

use super::names::{DeliveryState, Event, Origin, Priority, State};
use crate::dicom::SeriesKey;
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// A number that names a row.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        pub struct $name(pub u64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.0.fmt(f) }
        }
    };
}
pub(super) use number;

number! {
    /// A job, for good.
    JobId
}
number! {
    /// The delivery of one result to one destination, for good.
    DeliveryId
}
number! {
    /// One claim of one worker. Later claims have larger numbers; what comes with an older one than the row's is refused.
    Token
}
number! {
    /// A place in the journal.
    Seq
}

/// A moment: milliseconds since 1970 UTC. For dates by the wall clock, for deadlines by a time that nobody sets (see [`super::Reader::now`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Moment(pub i64);

impl Moment {
    /// Later by this much.
    pub fn plus(self, by: Duration) -> Moment {
        Moment(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier`; zero when before.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Moment {
        Moment(0).plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl From<Moment> for SystemTime {
    fn from(moment: Moment) -> SystemTime {
        SystemTime::UNIX_EPOCH + moment.since(Moment(0))
    }
}

/// Why something is not done, in a stable code and words without patient data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A name of [`crate::fault::Code`]; an older ledger may hold names that are no more.
    pub code: String,
    /// What exactly.
    pub detail: String,
}

/// Who has a job or a delivery in work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The process.
    pub owner: String,
    /// The claim.
    pub token: Token,
    /// Until when, unless renewed.
    pub until: Moment,
    /// Nothing else runs beside it.
    pub alone: bool,
}

/// A study's volume on its way to its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// The series it is made of.
    #[serde(serialize_with = "key")]
    pub series: SeriesKey,
    /// Names the content of the volume; the pipeline says how.
    pub input: String,
    /// As asked for.
    pub priority: Priority,
    /// The rule that chose it when it was queued; none when nothing says so.
    pub rule: Option<String>,
    /// The rule that took it as the best of its study; none when the rule takes all that match.
    #[serde(skip)]
    pub contest: Option<String>,
    /// When it was queued: the date that its objects carry.
    pub created: Moment,
    /// When its state changed last.
    pub changed: Moment,
    /// Digest of the model that it was claimed for, or made with.
    pub model: Option<String>,
    /// Its result.
    pub result: Option<Published>,
    /// Where it is.
    #[serde(flatten)]
    pub progress: Progress,
}

fn key<S: serde::Serializer>(key: &SeriesKey, s: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeStruct;
    let mut out = s.serialize_struct("SeriesKey", 2)?;
    out.serialize_field("study", &key.study)?;
    out.serialize_field("series", &key.series)?;
    out.end()
}

/// Where a job is, and how often it was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The state.
    pub state: State,
    /// Claims so far; each is counted before its work begins.
    pub attempts: u32,
    /// Failures that may pass, in a row.
    pub failures: u32,
    /// How often the process died while it had this job.
    pub crashes: u32,
    /// How often it died while it had this job alone.
    pub crashes_alone: u32,
    /// It runs alone, because it may be what kills the process.
    pub suspect: bool,
    /// Waiting: not before this.
    pub not_before: Option<Moment>,
    /// Running: who has it.
    pub held: Option<Held>,
    /// Why it waits or is parked.
    pub problem: Option<Problem>,
    /// What it is sorted by first; a suspect has at most the usual.
    #[serde(skip)]
    pub rank: Priority,
    /// Its place in the line.
    #[serde(skip)]
    pub line: u64,
}

/// A published result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Name of its folder in the output folder.
    pub folder: String,
    /// Identity of the result (`identity` of its manifest).
    pub identity: String,
    /// Its files.
    #[serde(skip)]
    pub objects: Vec<Object>,
}

/// A file of a published result, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Name in the folder.
    pub file: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// A result on its way to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Its number; deliveries to a destination go in this order.
    pub id: DeliveryId,
    /// Whose result.
    pub job: JobId,
    /// Name of the destination in the configuration.
    pub destination: String,
    /// The state.
    pub state: DeliveryState,
    /// Claims so far.
    pub attempts: u32,
    /// It may have arrived although nobody heard so: ask the destination before sending again.
    pub doubtful: bool,
    /// How often the destination said no since a person last had it tried again.
    pub refusals: u32,
    /// How often it was sent again although nobody could tell whether it was there.
    pub resends: u32,
    /// Storage commitment: the transaction in which the destination was asked last to keep it.
    pub transaction: Option<String>,
    /// What the destination said to that: it keeps it, or it does not.
    pub committed: Option<bool>,
    /// Waiting: not before this.
    pub not_before: Option<Moment>,
    /// Sending: who has it.
    pub held: Option<Held>,
    /// Why it waits or is parked; after delivery a warning of the destination.
    pub problem: Option<Problem>,
    /// When it was put into the outbox.
    pub created: Moment,
    /// When its state changed last.
    pub changed: Moment,
}

/// What a destination is still to get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outbox {
    /// Its name.
    pub destination: String,
    /// Deliveries that are open.
    pub open: u64,
    /// Deliveries that it refuses.
    pub parked: u64,
    /// How long the oldest open one has been there.
    pub oldest: Duration,
    /// How long until one that no worker has may be sent; none when there is none.
    pub due: Option<Duration>,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its place.
    pub seq: Seq,
    /// When.
    pub at: Moment,
    /// Of which job.
    pub job: Option<JobId>,
    /// To which destination, when it is about a delivery.
    pub destination: Option<String>,
    /// What happened.
    pub event: Event,
    /// State before.
    pub from: Option<String>,
    /// State after.
    pub to: Option<String>,
    /// Who did it: a process, or a person.
    pub who: String,
    /// Why.
    pub problem: Option<Problem>,
}

/// Transitions of jobs from one state to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    /// State before; none of a new job.
    pub from: Option<String>,
    /// State after; none of one that is forgotten.
    pub to: Option<String>,
    /// How many.
    pub count: u64,
}

/// An instance that came over the network and was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Its series.
    #[serde(skip)]
    pub series: SeriesKey,
    /// SOP Instance UID.
    pub sop_instance: String,
    /// Where the file is, below the spool.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A file that can not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusedFile {
    /// Where it came from.
    pub origin: Origin,
    /// From the network: where it is kept, below the spool. In a watched folder: what stands for its path.
    pub place: String,
    /// Size in bytes.
    pub bytes: u64,
    /// When it was last modified.
    pub modified: Moment,
    /// A name of [`crate::fault::Code`].
    pub code: String,
    /// When it was found first; the ledger's own time counts.
    pub first: Moment,
    /// When it was found last in a new state, or by a new process.
    pub last: Moment,
}

/// What is known of a series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeriesRecord {
    /// Which one.
    #[serde(serialize_with = "key")]
    pub series: SeriesKey,
    /// When it was found complete last.
    pub closed: Option<Moment>,
    /// Since when it is complete and waits for the rest of its study.
    pub waiting: Option<Moment>,
    /// How often it was found complete.
    pub closings: u32,
    /// Why parts of it are not processed.
    pub refusals: Vec<Problem>,
    /// Acknowledged instances.
    pub instances: u64,
}
