//! Metrics of training.

use super::register::{gauge, gauges, histograms, zeroed};
use crate::telemetry::names;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use std::time::Duration;

/// What training does now.
const STATES: [&str; 5] = ["idle", "preparing", "training", "evaluating", "paused"];
/// How far clinical work pushes it aside.
const DEPTHS: [&str; 2] = ["pause", "evict"];
/// How runs end.
const ENDS: [&str; 4] = ["passed", "refused", "failed", "stopped"];

/// Training and its runs.
pub struct TrainingMetrics {
    state: IntGaugeVec,
    preempt: HistogramVec,
    step: IntGauge,
    steps: IntGauge,
    runs: IntCounterVec,
    gates: IntGaugeVec,
}

impl TrainingMetrics {
    pub(super) fn new(r: &Registry) -> Result<TrainingMetrics, prometheus::Error> {
        let metrics = TrainingMetrics {
            state: gauges(r, &names::TRAIN_STATE)?,
            preempt: histograms(r, &names::TRAIN_PREEMPT_SECONDS)?,
            step: gauge(r, &names::TRAIN_STEP)?,
            steps: gauge(r, &names::TRAIN_STEPS)?,
            runs: zeroed(r, &names::TRAIN_RUNS_TOTAL, ENDS.into_iter())?,
            gates: gauges(r, &names::TRAIN_GATE_RESULT)?,
        };
        DEPTHS.iter().for_each(|depth| drop(metrics.preempt.with_label_values(&[*depth])));
        metrics.is("idle");
        Ok(metrics)
    }

    /// What training does: `idle`, `preparing`, `training`, `evaluating` or `paused`.
    pub fn is(&self, state: &str) {
        for known in STATES {
            self.state.with_label_values(&[known]).set(i64::from(known == state));
        }
    }

    /// Clinical work pushed it aside; `depth` is `pause` or `evict`.
    pub fn preempted(&self, depth: &str, took: Duration) {
        self.preempt.with_label_values(&[depth]).observe(took.as_secs_f64());
    }

    /// How far the present work is.
    pub fn at(&self, step: u64, of: u64) {
        self.step.set(i64::try_from(step).unwrap_or(i64::MAX));
        self.steps.set(i64::try_from(of).unwrap_or(i64::MAX));
    }

    /// A run ended.
    pub fn run_ended(&self, how: &str) {
        if ENDS.contains(&how) {
            self.runs.with_label_values(&[how]).inc();
        }
    }

    /// A gate of the last candidate.
    pub fn gate(&self, name: &str, passed: bool) {
        self.gates.with_label_values(&[name]).set(i64::from(passed));
    }
}
