//! What travels down the street.

use super::budget::Permit;
use super::clinic::Visit;
use super::stages::Order;
pub use crate::ledger::{JobId, Token};
use crate::results::Replaced;
use crate::telemetry::{Stage, Urgency};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What a job is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its number.
    pub job: JobId,
    /// When its input last changed, for the turnaround.
    pub since: Instant,
    /// The date that its objects carry.
    pub dated: SystemTime,
    /// How soon it is to be done.
    pub urgency: Urgency,
    /// The claim that is asked for once more before anything is published; none without a ledger.
    pub token: Option<Token>,
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
    pub ticket: Ticket,
    /// How it is treated, and by which model.
    pub order: Arc<Order>,
    /// Host memory; none before the dispatcher has claimed the job. Given back when the envelope is dropped.
    pub permit: Option<Permit>,
    /// The earlier result of the same series, if its files have changed since.
    pub replaces: Option<Replaced>,
    /// How long each stage took so far.
    pub times: Times,
    /// Clinical work, as long as it is in the street.
    pub visit: Visit,
}

/// Time spent in each stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    stages: [Duration; Stage::ALL.len()],
    /// The stage that the job came to last.
    pub reached: Option<Stage>,
    /// What the engine says of its own steps: seconds and counts by name.
    pub engine: Vec<(&'static str, f64)>,
}

impl Times {
    /// Adds to a stage.
    pub fn add(&mut self, stage: Stage, time: Duration) {
        self.stages[stage as usize] += time;
        self.reached = Some(stage);
    }

    /// By stage, in the order of the street.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> {
        Stage::ALL.into_iter().map(|stage| (stage, self.stages[stage as usize]))
    }
}
