//! From a row of the table of names to a registered metric.

use crate::telemetry::names::{Kind, Name};
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

fn put<C: Collector + Clone + 'static>(registry: &Registry, metric: Result<C, Error>) -> Result<C, Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// The name and meaning of a metric, which has to be of this kind.
fn opts(name: &Name, kind: Kind) -> Result<Opts, Error> {
    if name.kind == kind { Ok(Opts::new(name.name, name.help)) } else { Err(other_kind(name)) }
}

fn other_kind(name: &Name) -> Error {
    Error::Msg(format!("{} is of another kind", name.name))
}

fn buckets(name: &Name) -> Result<HistogramOpts, Error> {
    match name.kind {
        Kind::Histogram(buckets) => Ok(HistogramOpts::new(name.name, name.help).buckets(buckets.to_vec())),
        _ => Err(other_kind(name)),
    }
}

/// A counter without labels.
pub fn counter(r: &Registry, name: &Name) -> Result<IntCounter, Error> {
    put(r, IntCounter::with_opts(opts(name, Kind::Counter)?))
}

/// A counter with labels.
pub fn counters(r: &Registry, name: &Name) -> Result<IntCounterVec, Error> {
    put(r, IntCounterVec::new(opts(name, Kind::Counter)?, name.labels))
}

/// A counter with one label from a closed set, at zero for each value.
pub fn zeroed<'a>(r: &Registry, name: &Name, values: impl Iterator<Item = &'a str>) -> Result<IntCounterVec, Error> {
    let counter = counters(r, name)?;
    values.for_each(|value| drop(counter.with_label_values(&[value])));
    Ok(counter)
}

/// A counter of seconds with labels.
pub fn seconds(r: &Registry, name: &Name) -> Result<CounterVec, Error> {
    put(r, CounterVec::new(opts(name, Kind::Counter)?, name.labels))
}

/// A gauge of whole numbers without labels.
pub fn gauge(r: &Registry, name: &Name) -> Result<IntGauge, Error> {
    put(r, IntGauge::with_opts(opts(name, Kind::Gauge)?))
}

/// A gauge of whole numbers with labels.
pub fn gauges(r: &Registry, name: &Name) -> Result<IntGaugeVec, Error> {
    put(r, IntGaugeVec::new(opts(name, Kind::Gauge)?, name.labels))
}

/// A gauge without labels.
pub fn number(r: &Registry, name: &Name) -> Result<Gauge, Error> {
    put(r, Gauge::with_opts(opts(name, Kind::Gauge)?))
}

/// A gauge with labels.
pub fn numbers(r: &Registry, name: &Name) -> Result<GaugeVec, Error> {
    put(r, GaugeVec::new(opts(name, Kind::Gauge)?, name.labels))
}

/// A histogram without labels.
pub fn histogram(r: &Registry, name: &Name) -> Result<Histogram, Error> {
    put(r, Histogram::with_opts(buckets(name)?))
}

/// A histogram with labels.
pub fn histograms(r: &Registry, name: &Name) -> Result<HistogramVec, Error> {
    put(r, HistogramVec::new(buckets(name)?, name.labels))
}
