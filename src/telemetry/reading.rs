//! The metrics read back: what the status page and `stunetd top` are made from.

use super::names::Name;
use prometheus::proto::{Metric, MetricFamily, MetricType};

/// All metrics at one moment.
pub struct Reading {
    families: Vec<MetricFamily>,
}

/// A distribution of times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Their sum, s.
    pub sum: f64,
    /// Upper bounds of the buckets, s, and how many lie below each.
    buckets: Vec<(f64, u64)>,
}

impl Reading {
    pub(super) fn new(families: Vec<MetricFamily>) -> Reading {
        Reading { families }
    }

    fn metrics<'a>(&'a self, name: &Name, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (MetricType, &'a Metric)> {
        let family = self.families.iter().find(|family| family.name() == name.name);
        let has = move |metric: &&Metric| {
            labels.iter().all(|(key, value)| metric.get_label().iter().any(|l| l.name() == *key && l.value() == *value))
        };
        family.into_iter().flat_map(move |f| f.get_metric().iter().filter(has).map(|metric| (f.get_field_type(), metric)))
    }

    /// The sum of a counter or gauge over all that have these labels; 0 when there is none.
    pub fn value(&self, name: &Name, labels: &[(&str, &str)]) -> f64 {
        self.metrics(name, labels).map(|(kind, metric)| plain(kind, metric)).sum()
    }

    /// The values of a counter or gauge by a label, those that are not 0.
    pub fn by(&self, name: &Name, label: &str) -> Vec<(String, f64)> {
        let mut found: Vec<(String, f64)> = Vec::new();
        for (kind, metric) in self.metrics(name, &[]) {
            let value = plain(kind, metric);
            let Some(key) = metric.get_label().iter().find(|l| l.name() == label).filter(|_| value != 0.0) else { continue };
            match found.iter_mut().find(|(name, _)| name == key.value()) {
                Some((_, sum)) => *sum += value,
                None => found.push((key.value().to_owned(), value)),
            }
        }
        found
    }

    /// The values that a label of a metric has, in their order.
    pub fn all(&self, name: &Name, label: &str) -> Vec<String> {
        let values = self.metrics(name, &[]).filter_map(|(_, metric)| metric.get_label().iter().find(|l| l.name() == label));
        values.map(|l| l.value().to_owned()).collect()
    }

    /// The labels of every metric of a name that is not 0.
    pub fn labels(&self, name: &Name) -> Vec<Vec<(String, String)>> {
        let there = self.metrics(name, &[]).filter(|(kind, metric)| plain(*kind, metric) != 0.0);
        there.map(|(_, metric)| metric.get_label().iter().map(|l| (l.name().to_owned(), l.value().to_owned())).collect()).collect()
    }

    /// The sum of histograms over all that have these labels.
    pub fn spread(&self, name: &Name, labels: &[(&str, &str)]) -> Spread {
        let mut all = Spread::default();
        for (_, metric) in self.metrics(name, labels) {
            let histogram = metric.get_histogram();
            all.count += histogram.get_sample_count();
            all.sum += histogram.get_sample_sum();
            all.buckets.resize(histogram.get_bucket().len(), (0.0, 0));
            for (sum, bucket) in all.buckets.iter_mut().zip(histogram.get_bucket()) {
                *sum = (bucket.upper_bound(), sum.1 + bucket.cumulative_count());
            }
        }
        all
    }
}

impl Spread {
    /// Their mean, s; none of none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// A time, s, that this share of them does not exceed: the end of its bucket. None of none, or beyond the last bucket.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count as f64 * share).ceil() as u64;
        self.buckets.iter().find(|(_, below)| *below >= wanted).map(|(end, _)| *end).filter(|_| self.count > 0)
    }
}

fn plain(kind: MetricType, metric: &Metric) -> f64 {
    match kind {
        MetricType::COUNTER => metric.get_counter().get_value(),
        MetricType::GAUGE => metric.get_gauge().get_value(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::{Metrics, Stage, names};
    use std::time::Duration;

    #[test]
    fn what_was_counted_is_read_back() {
        let metrics = Metrics::new().expect("metrics");
        for seconds in [0.02, 0.2, 0.2, 20.0] {
            metrics.stage_done(Stage::Read, Duration::from_secs_f64(seconds));
        }
        metrics.panicked(Stage::Read);
        let reading = metrics.read();
        let spread = reading.spread(&names::STAGE_DURATION_SECONDS, &[("stage", "read")]);
        assert_eq!(
            (spread.count, spread.quantile(0.25), spread.quantile(0.5), spread.quantile(1.0)),
            (4, Some(0.03), Some(0.3), Some(30.0))
        );
        assert!(spread.mean().is_some_and(|mean| (mean - 5.105).abs() < 1e-9));
        let none = reading.spread(&names::STAGE_DURATION_SECONDS, &[("stage", "segment")]);
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        assert_eq!(reading.by(&names::PANICS_TOTAL, "stage"), [("read".to_owned(), 1.0)]);
        assert_eq!(reading.value(&names::PANICS_TOTAL, &[]), 1.0);
        assert!(reading.value(&names::RESIDENT_MEMORY, &[]) > 0.0);
    }
}
