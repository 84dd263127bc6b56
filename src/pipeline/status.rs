//! The daemon as it is at one moment, in the six blocks that the status page, `stunetd top` and the dashboard share. No patient data, no UIDs.

use super::board::Board;
use super::jobs::shown;
use super::line::{self, Counted, Waiting};
use super::street::EngineFacts;
use crate::fault::Code;
use crate::intake::disks::{Disks, Room};
use crate::ledger::{Reader, State, Which};
use crate::sys::clock::{Accuracy, Clock};
use crate::telemetry::metrics::ModelRole;
use crate::telemetry::names::{self, Name};
use crate::telemetry::reading::Reading;
use crate::telemetry::{JobState, Metrics, Place, Post, Stage};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Parked jobs that are shown; the rest is counted.
const PARKED: u64 = 20;
/// Of a longer line only those that came first are put in order: the page is asked for again and again.
const LINE: u64 = 2000;

/// Where the numbers come from.
#[derive(Clone)]
pub struct Status {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Who works at what.
    pub board: Board,
    /// What is to be done and what was done.
    pub ledger: Arc<dyn Reader>,
    /// Room.
    pub disks: Arc<Disks>,
    /// Where the network runs.
    pub engine: EngineFacts,
    /// Watched folders.
    pub folders: usize,
    /// Where DICOM is listened for.
    pub dicom: Option<String>,
    /// How long anybody may take to get ahead.
    pub deadline: Duration,
    /// How far the journal was counted.
    pub counted: Counted,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// When the daemon was started.
    pub started: Instant,
}

/// The six blocks. Counts are those since the daemon was started, unless they say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of stunetd.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_s: u64,
    /// Is it fine?
    pub fine: Fine,
    /// What comes and goes.
    pub flow: Flow,
    /// How long things take, by stage.
    pub time: Vec<StageTime>,
    /// What is being done this moment.
    pub work: Vec<Working>,
    /// Whose turn comes next; at most twenty.
    pub waiting: Vec<Waiting>,
    /// Device, memory, disks.
    pub machine: Machine,
    /// Where studies come from.
    pub edges: Edges,
    /// Models that serve.
    pub models: Vec<Model>,
    /// Failures by code.
    pub failures: BTreeMap<String, u64>,
    /// Jobs that can not be done as they are, latest first; at most twenty.
    pub parked: Vec<Parked>,
}

/// Is it fine?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fine {
    /// `ready`, `starting` or `ending`.
    pub state: String,
    /// What somebody should look at; empty when all is well.
    pub attention: Vec<String>,
    /// Age of the oldest job that is not done or parked, s.
    pub oldest_job_s: u64,
    /// Half of the studies were published within this time after their last slice, s.
    pub turnaround_p50_s: Option<f64>,
    /// 95 of 100 were.
    pub turnaround_p95_s: Option<f64>,
}

/// What comes and goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Series that files still come for.
    pub series_open: u64,
    /// Series taken as complete.
    pub series_complete: u64,
    /// Series, or parts of them, that are not processed.
    pub series_refused: u64,
    /// The same, and jobs that were parked, by who can do something about it: `expected` (nobody has to), `source`, `system`.
    pub refused: BTreeMap<String, u64>,
    /// Results published.
    pub published: u64,
    /// Jobs now, by state.
    pub jobs: BTreeMap<String, u64>,
    /// Jobs in the ledger that are done.
    pub done: u64,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageTime {
    /// Its name.
    pub stage: String,
    /// Jobs that went through.
    pub jobs: u64,
    /// Mean time of one, s.
    pub mean_s: Option<f64>,
    /// 95 of 100 took at most this, s.
    pub p95_s: Option<f64>,
    /// Time spent waiting for the next stage, s.
    pub waited_s: f64,
}

/// What somebody is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Working {
    /// Where.
    pub stage: String,
    /// For which job.
    pub job: Option<u64>,
    /// For how long, s.
    pub seconds: u64,
    /// Windows done, where it is known.
    pub done: Option<u64>,
    /// Of how many.
    pub of: Option<u64>,
}

/// Device, memory, disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Number format of the network.
    pub precision: String,
    /// Share of the time since the start that the device worked.
    pub busy: f64,
    /// Host memory that jobs in work have reserved, bytes.
    pub reserved_bytes: u64,
    /// The most that they may.
    pub host_memory_bytes: u64,
    /// What the process holds, bytes.
    pub resident_bytes: u64,
    /// Mean time of a transaction of the ledger, s.
    pub commit_mean_s: Option<f64>,
    /// `enough`, `low` or `full`.
    pub room: String,
    /// Disks.
    pub disks: Vec<Disk>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// `state`, `spool` or `output`.
    pub place: String,
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
}

/// Where studies come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    /// Watched folders.
    pub folders: u64,
    /// Files whose header was read.
    pub files: u64,
    /// Address that DICOM is listened for at.
    pub dicom: Option<String>,
    /// Associations open now.
    pub associations_open: u64,
    /// Associations by what became of them.
    pub associations: BTreeMap<String, u64>,
    /// Objects of the network by what became of them.
    pub objects: BTreeMap<String, u64>,
    /// Where results go.
    pub destinations: Vec<Destination>,
}

/// Where results go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Its configured name.
    pub name: String,
    /// It can be reached, as far as is known.
    pub up: bool,
    /// Results on their way to it, by state.
    pub results: BTreeMap<String, u64>,
    /// Age of the oldest that waits, s.
    pub oldest_s: u64,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The first twelve digits of its digest.
    pub digest: String,
}

/// A job that can not be done as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// Its number.
    pub job: u64,
    /// Why, as a code.
    pub code: String,
    /// Who can do something about it: `expected` (nobody has to), `source` or `system`.
    pub kind: String,
    /// Why, in words.
    pub meaning: String,
    /// What to do.
    pub action: String,
    /// For how long, s.
    pub age_s: u64,
}

impl Status {
    /// Tells the metrics what is only known when it is asked for: how long the oldest job of each state has been there, what happened since the
    /// last time, how right the clock is.
    pub fn bring_up_to_date(&self) {
        self.counted.tell(&*self.ledger, &self.metrics);
        self.metrics.clock(Accuracy::of_the_machine().ok());
        let Ok(ages) = self.ledger.oldest() else { return };
        for state in JobState::ALL {
            let age = ages.iter().find(|(of, _)| shown(*of) == Some(state)).map_or(Duration::ZERO, |(_, age)| *age);
            self.metrics.oldest_job(state, age);
        }
    }

    /// How things are now.
    pub fn snapshot(&self) -> Snapshot {
        self.bring_up_to_date();
        let room = self.disks.room();
        let reading = self.metrics.read();
        let uptime = self.clock.monotonic().saturating_duration_since(self.started);
        let parked = self.parked();
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: uptime.as_secs(),
            fine: self.fine(&reading, room),
            flow: self.flow(&reading),
            time: Stage::ALL.iter().map(|stage| stage_time(&reading, *stage)).collect(),
            work: self.work(),
            waiting: self.waiting(),
            machine: self.machine(&reading, room, uptime),
            edges: self.edges(&reading),
            models: models(&reading),
            failures: whole(reading.by(&names::FAULTS_TOTAL, "code")),
            parked,
        }
    }

    fn fine(&self, reading: &Reading, room: Room) -> Fine {
        let count = |name: &Name, labels: &[(&str, &str)]| reading.value(name, labels) as u64;
        let state = match (count(&names::DRAINING, &[]), count(&names::READY, &[])) {
            (1.., _) => "ending",
            (_, 0) => "starting",
            _ => "ready",
        };
        let mut attention = Vec::new();
        match room {
            Room::Enough => {}
            Room::Low => attention.push("Little space on a disk: results come without pictures and NIfTI files.".to_owned()),
            Room::Full => attention.push("No space on a disk: nothing is taken until there is some.".to_owned()),
        }
        match count(&names::JOBS, &[("state", "parked")]) {
            0 => {}
            1 => attention.push("One study can not be done as it is.".to_owned()),
            n => attention.push(format!("{n} studies can not be done as they are.")),
        }
        let now = self.clock.monotonic();
        for beat in self.board.beats().iter().filter(|beat| beat.is_late(now, self.deadline)) {
            let job = beat.job.map_or(String::new(), |job| format!(" with job {job}"));
            attention.push(format!("`{}` gets no further{job}.", beat.post.name()));
        }
        for name in reading.all(&names::DESTINATION_UP, "destination") {
            if count(&names::DESTINATION_UP, &[("destination", name.as_str())]) == 0 {
                attention.push(format!("The destination `{name}` can not be reached."));
            }
            if count(&names::OUTBOX_OBJECTS, &[("destination", name.as_str()), ("state", "parked")]) > 0 {
                attention.push(format!("The destination `{name}` has refused results."));
            }
        }
        if count(&names::CONFIG_LAST_RELOAD_SUCCESSFUL, &[]) == 0 && state == "ready" {
            attention.push("The configuration file has mistakes; the one before is in use.".to_owned());
        }
        let turnaround = reading.spread(&names::TURNAROUND_SECONDS, &[]);
        let open = [JobState::Queued, JobState::Working, JobState::Waiting];
        let age = |state: JobState| count(&names::OLDEST_JOB_AGE_SECONDS, &[("state", state.name())]);
        Fine {
            state: state.to_owned(),
            attention,
            oldest_job_s: open.into_iter().map(age).max().unwrap_or(0),
            turnaround_p50_s: turnaround.quantile(0.5),
            turnaround_p95_s: turnaround.quantile(0.95),
        }
    }

    fn flow(&self, reading: &Reading) -> Flow {
        let sum = |name: &Name| reading.value(name, &[]) as u64;
        let counts = self.ledger.counts().unwrap_or_default();
        let jobs = counts.iter().filter_map(|(state, n)| Some((shown(*state)?.name().to_owned(), *n)));
        Flow {
            series_open: sum(&names::SERIES_OPEN),
            series_complete: sum(&names::SERIES_CLOSED_TOTAL),
            series_refused: sum(&names::SERIES_REFUSED_TOTAL),
            refused: whole(reading.by(&names::REFUSALS_TOTAL, "kind")),
            published: reading.value(&names::JOBS_ENDED_TOTAL, &[("result", "published")]) as u64,
            jobs: jobs.collect(),
            done: counts.iter().find(|(state, _)| *state == State::Done).map_or(0, |(_, n)| *n),
        }
    }

    fn work(&self) -> Vec<Working> {
        let now = self.clock.monotonic();
        let stages = self.board.beats().into_iter().filter(|beat| beat.post != Post::Intake);
        stages
            .map(|beat| Working {
                stage: beat.post.name().to_owned(),
                job: beat.job.map(|job| job.0),
                seconds: now.saturating_duration_since(beat.since).as_secs(),
                done: beat.progress.map(|p| p.done as u64),
                of: beat.progress.map(|p| p.of as u64),
            })
            .collect()
    }

    fn waiting(&self) -> Vec<Waiting> {
        let which = Which { states: vec![State::Queued], limit: Some(LINE), ..Which::default() };
        let jobs = self.ledger.jobs(&which).unwrap_or_default();
        line::line(jobs, &self.board.beats(), self.metrics.usual_times(), self.clock.monotonic())
    }

    fn machine(&self, reading: &Reading, room: Room, uptime: Duration) -> Machine {
        let bytes = |name: &Name, labels: &[(&str, &str)]| reading.value(name, labels) as u64;
        let disk = |place: &Place| {
            let of = [("place", place.name())];
            let (free_bytes, used_bytes) = (bytes(&names::SPOOL_FREE_BYTES, &of), bytes(&names::SPOOL_USED_BYTES, &of));
            (free_bytes + used_bytes > 0).then(|| Disk { place: place.name().to_owned(), free_bytes, used_bytes })
        };
        Machine {
            device: self.engine.device.clone(),
            precision: self.engine.precision.clone(),
            busy: reading.value(&names::DEVICE_BUSY_SECONDS_TOTAL, &[]) / uptime.as_secs_f64().max(1.0),
            reserved_bytes: bytes(&names::QUEUE_BYTES, &[("queue", "host")]),
            host_memory_bytes: bytes(&names::QUEUE_LIMIT_BYTES, &[("queue", "host")]),
            resident_bytes: bytes(&names::RESIDENT_MEMORY, &[]),
            commit_mean_s: reading.spread(&names::LEDGER_COMMIT_DURATION_SECONDS, &[]).mean(),
            room: match room {
                Room::Enough => "enough",
                Room::Low => "low",
                Room::Full => "full",
            }
            .to_owned(),
            disks: Place::ALL.iter().filter_map(disk).collect(),
        }
    }

    fn edges(&self, reading: &Reading) -> Edges {
        Edges {
            folders: self.folders as u64,
            files: reading.value(&names::FILES_READ_TOTAL, &[]) as u64,
            dicom: self.dicom.clone(),
            associations_open: reading.value(&names::ASSOCIATIONS_ACTIVE, &[]) as u64,
            associations: whole(reading.by(&names::ASSOCIATIONS_TOTAL, "result")),
            objects: whole(reading.by(&names::NETWORK_INSTANCES_TOTAL, "result")),
            destinations: reading.all(&names::DESTINATION_UP, "destination").into_iter().map(|name| destination(reading, name)).collect(),
        }
    }

    fn parked(&self) -> Vec<Parked> {
        let which = Which { states: vec![State::Parked], ..Which::default() };
        let mut jobs = self.ledger.jobs(&which).unwrap_or_default();
        jobs.sort_by_key(|job| std::cmp::Reverse(job.changed));
        let now = self.ledger.now();
        jobs.into_iter()
            .take(PARKED as usize)
            .map(|job| {
                let name = job.progress.problem.map(|problem| problem.code).unwrap_or_default();
                let code = Code::from_name(&name);
                Parked {
                    job: job.id.0,
                    meaning: code.map_or("", Code::meaning).to_owned(),
                    action: code.map_or("", Code::action).to_owned(),
                    kind: code.map_or("", |code| code.kind().name()).to_owned(),
                    code: name,
                    age_s: now.since(job.changed).as_secs(),
                }
            })
            .collect()
    }
}

fn destination(reading: &Reading, name: String) -> Destination {
    let of = [("destination", name.as_str())];
    let state = |state: String| {
        let count = reading.value(&names::OUTBOX_OBJECTS, &[("destination", name.as_str()), ("state", state.as_str())]);
        (state, count as u64)
    };
    let states: BTreeSet<String> = reading.all(&names::OUTBOX_OBJECTS, "state").into_iter().collect();
    Destination {
        up: reading.value(&names::DESTINATION_UP, &of) > 0.0,
        results: states.into_iter().map(state).collect(),
        oldest_s: reading.value(&names::OUTBOX_OLDEST_AGE_SECONDS, &of) as u64,
        name,
    }
}

fn stage_time(reading: &Reading, stage: Stage) -> StageTime {
    let of = [("stage", stage.name())];
    let spread = reading.spread(&names::STAGE_DURATION_SECONDS, &of);
    StageTime {
        stage: stage.name().to_owned(),
        jobs: spread.count,
        mean_s: spread.mean(),
        p95_s: spread.quantile(0.95),
        waited_s: reading.value(&names::BACKPRESSURE_SECONDS_TOTAL, &of),
    }
}

fn models(reading: &Reading) -> Vec<Model> {
    let label =
        |labels: &[(String, String)], name: &str| labels.iter().find(|(key, _)| key == name).map_or(String::new(), |(_, v)| v.clone());
    let all = reading.labels(&names::MODEL_INFO).into_iter().filter(|l| label(l, "role") == ModelRole::Production.name());
    all.map(|l| Model { name: label(&l, "model"), version: label(&l, "version"), digest: label(&l, "digest12") }).collect()
}

/// Counts are whole numbers.
fn whole(values: Vec<(String, f64)>) -> BTreeMap<String, u64> {
    values.into_iter().map(|(name, value)| (name, value as u64)).collect()
}
