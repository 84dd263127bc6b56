//! Metrics of jobs on their way, and of why something is not processed.

use super::register::{counters, zeroed};
use crate::fault::{Class, Code, Kind};
use crate::telemetry::{Evaluation, Stage, names};
use prometheus::{IntCounterVec, Registry};

/// Jobs on their way.
pub struct FlowMetrics {
    transitions: IntCounterVec,
    retries: IntCounterVec,
    refusals: IntCounterVec,
    evaluations: IntCounterVec,
}

impl FlowMetrics {
    pub(super) fn new(r: &Registry) -> Result<FlowMetrics, prometheus::Error> {
        let metrics = FlowMetrics {
            transitions: counters(r, &names::JOB_TRANSITIONS_TOTAL)?,
            retries: counters(r, &names::JOB_RETRIES_TOTAL)?,
            refusals: zeroed(r, &names::REFUSALS_TOTAL, Kind::ALL.iter().map(|kind| kind.name()))?,
            evaluations: counters(r, &names::RULE_EVALUATIONS_TOTAL)?,
        };
        // Those that an ordinary day has; others come with their first event.
        for (from, to) in [
            ("none", "queued"),
            ("queued", "running"),
            ("running", "done"),
            ("running", "waiting"),
            ("waiting", "running"),
            ("running", "parked"),
        ] {
            metrics.transitions.with_label_values(&[from, to]);
        }
        for code in Code::ALL.iter().filter(|code| code.class() == Class::Retryable) {
            for stage in Stage::ALL {
                metrics.retries.with_label_values(&[stage.name(), code.name()]);
            }
        }
        Ok(metrics)
    }

    /// Jobs went from a state to another one; none stands for outside.
    pub fn transitions(&self, from: Option<&str>, to: Option<&str>, count: u64) {
        self.transitions.with_label_values(&[from.unwrap_or("none"), to.unwrap_or("none")]).inc_by(count);
    }

    /// A job failed for now, in this stage.
    pub fn retried(&self, stage: Stage, code: Code) {
        self.retries.with_label_values(&[stage.name(), code.name()]).inc();
    }

    /// Something is not processed.
    pub fn refused(&self, code: Code) {
        self.refusals.with_label_values(&[code.kind().name()]).inc();
    }

    /// There is a rule of this name.
    pub fn rule(&self, rule: &str) {
        Evaluation::ALL.iter().for_each(|said| drop(self.evaluations.with_label_values(&[rule, said.name()])));
    }

    /// What a rule said of a volume.
    pub fn evaluated(&self, rule: &str, said: Evaluation) {
        self.evaluations.with_label_values(&[rule, said.name()]).inc();
    }
}
