//! What travels down the street.

use super::budget::Permit;
use crate::telemetry::Stage;
use std::fmt;
use std::time::{Duration, Instant};

/// Names a job as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A datum with its envelope: whose it is, and the memory it may hold.
pub struct Work<T> {
    /// The envelope.
    pub envelope: Envelope,
    /// The datum.
    pub body: T,
}

/// All of a piece of work but the datum.
pub struct Envelope {
    /// The job.
    pub job: JobId,
    /// When the input last changed, for the turnaround.
    pub since: Instant,
    /// Host memory; none before the dispatcher has claimed the job. Given back when the envelope is dropped.
    pub permit: Option<Permit>,
    /// How long each stage took so far.
    pub times: Times,
}

/// Time spent in each stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    stages: [Duration; Stage::ALL.len()],
    /// What the engine says of its own steps: seconds and counts by name.
    pub engine: Vec<(&'static str, f64)>,
}

impl Times {
    /// Adds to a stage.
    pub fn add(&mut self, stage: Stage, time: Duration) {
        self.stages[stage as usize] += time;
    }

    /// By stage, in the order of the street.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> {
        Stage::ALL.into_iter().map(|stage| (stage, self.stages[stage as usize]))
    }
}
