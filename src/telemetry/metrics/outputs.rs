//! Metrics of results: what is not found in them, and volumes that are not the usual ones.

use super::register::{histograms, zeroed};
use crate::telemetry::{ClassGroup, names};
use prometheus::{HistogramVec, IntCounterVec, Registry};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Volumes of a structure that its median is taken of: the latest ones of this process.
const RECENT: usize = 101;
/// With fewer there is no median yet.
const ENOUGH: usize = 20;
/// Structures that volumes are kept of; a model has at most some hundred.
const STRUCTURES: usize = 2048;

/// What is in results.
pub struct OutputMetrics {
    empty: IntCounterVec,
    ratio: HistogramVec,
    volumes: Mutex<BTreeMap<String, VecDeque<f64>>>,
}

impl OutputMetrics {
    pub(super) fn new(r: &Registry) -> Result<OutputMetrics, prometheus::Error> {
        let metrics = OutputMetrics {
            empty: zeroed(r, &names::OUTPUT_EMPTY_SEGMENT_TOTAL, ClassGroup::ALL.iter().map(|group| group.name()))?,
            ratio: histograms(r, &names::OUTPUT_SEGMENT_VOLUME_RATIO)?,
            volumes: Mutex::default(),
        };
        ClassGroup::ALL.iter().for_each(|group| drop(metrics.ratio.with_label_values(&[group.name()])));
        Ok(metrics)
    }

    /// A result has no voxel of this structure.
    pub fn empty(&self, structure: &str) {
        self.empty.with_label_values(&[ClassGroup::of(structure).name()]).inc();
    }

    /// A result has this structure whole, ml.
    pub fn volume(&self, structure: &str, millilitres: f64) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        if !volumes.contains_key(structure) && volumes.len() >= STRUCTURES {
            return;
        }
        let recent = volumes.entry(structure.to_owned()).or_default();
        if recent.len() >= ENOUGH {
            let mut sorted: Vec<f64> = recent.iter().copied().collect();
            sorted.sort_by(f64::total_cmp);
            let median = sorted[sorted.len() / 2];
            if median > 0.0 {
                self.ratio.with_label_values(&[ClassGroup::of(structure).name()]).observe(millilitres / median);
            }
        }
        recent.push_back(millilitres);
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_compared_with_the_usual_one() {
        let metrics = OutputMetrics::new(&Registry::new()).expect("metrics");
        (0..ENOUGH).for_each(|i| metrics.volume("spleen", 100.0 + i as f64));
        let seen = || metrics.ratio.with_label_values(&["upper_abdomen"]);
        assert_eq!(seen().get_sample_count(), 0);
        metrics.volume("spleen", 220.0);
        assert_eq!(seen().get_sample_count(), 1);
        assert!((seen().get_sample_sum() - 2.0).abs() < 1e-9);
        (0..1000).for_each(|_| metrics.volume("liver", 1500.0));
        assert_eq!(metrics.volumes.lock().expect("lock")["liver"].len(), RECENT);
        assert_eq!(seen().get_sample_count(), 1 + 1000 - ENOUGH as u64);
    }
}
