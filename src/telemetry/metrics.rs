//! Every metric of the daemon with its values; their names stand in the table `telemetry/names.rs`.
//!
//! Every counter and histogram is there at zero from the start, so that rates and alerts work before the first event.

mod audit;
mod delivery;
mod device;
mod flow;
mod models;
mod outputs;
mod register;
mod training;

pub use audit::AuditMetrics;
pub use delivery::{Attempt, DeliveryMetrics};
pub use device::DeviceMetrics;
pub use flow::FlowMetrics;
pub use models::{ModelMetrics, ModelRole};
pub use outputs::OutputMetrics;
pub use training::TrainingMetrics;

use super::labels::{Association, Ended, Evidence, JobState, Place, Post, Received, Stage, Transport, Urgency, Watermark};
use super::names;
use super::reading::Reading;
use crate::fault::Code;
use crate::sys::clock::Accuracy;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};
use register::{counter, counters, gauge, gauges, histogram, histograms, number, numbers, seconds, zeroed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Facts about the running program that become `_info` metrics.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of stunetd.
    pub version: &'static str,
    /// Which state of the source it was built from; `unknown` unless the build said so.
    pub revision: &'static str,
    /// Version of libtorch.
    pub libtorch: String,
    /// Version of CUDA that libtorch was built for; `none` without.
    pub cuda: String,
    /// Where the network runs: `cpu` or `cuda:N`.
    pub device: String,
    /// Number format of its tensors.
    pub precision: String,
}

/// All metrics, registered once.
pub struct Metrics {
    registry: Registry,
    build_info: IntGaugeVec,
    /// The models that serve.
    pub models: ModelMetrics,
    /// 1 when the model is loaded and the folders are watched.
    pub ready: IntGauge,
    /// 1 while the daemon finishes its work to end.
    pub draining: IntGauge,
    associations: IntCounterVec,
    received: IntCounterVec,
    arrived: IntCounterVec,
    arrived_bytes: IntCounterVec,
    files_read: IntCounter,
    read_bytes: IntCounter,
    instances_rejected: IntCounterVec,
    scan_seconds: Histogram,
    /// Series that files still come for.
    pub series_open: IntGauge,
    series_closed: IntCounterVec,
    series_reopened: IntCounter,
    series_discarded: IntCounter,
    series_refused: IntCounterVec,
    series_selected: IntCounterVec,
    jobs: IntGaugeVec,
    jobs_ended: IntCounterVec,
    jobs_parked: IntCounterVec,
    oldest_job_age: GaugeVec,
    stage_seconds: HistogramVec,
    turnaround_seconds: HistogramVec,
    queue_bytes: IntGaugeVec,
    queue_limit_bytes: IntGaugeVec,
    backpressure_seconds: CounterVec,
    delivery_turnaround: HistogramVec,
    pace: Mutex<[Option<f64>; Stage::ALL.len()]>,
    clock_synchronized: IntGauge,
    clock_offset: Gauge,
    certificate_expiry: IntGaugeVec,
    /// Jobs on their way.
    pub flow: FlowMetrics,
    /// What is in results.
    pub outputs: OutputMetrics,
    /// What goes to destinations.
    pub delivery: DeliveryMetrics,
    /// Audit messages.
    pub audit: AuditMetrics,
    /// Device memory.
    pub device: DeviceMetrics,
    /// Training.
    pub training: TrainingMetrics,
    faults: IntCounterVec,
    panics: IntCounterVec,
    stalls: IntCounterVec,
    associations_active: IntGauge,
    store_seconds: HistogramVec,
    ledger_seconds: Histogram,
    disk_free_bytes: IntGaugeVec,
    disk_used_bytes: IntGaugeVec,
    disk_watermark_bytes: IntGaugeVec,
    disk_low_seconds: CounterVec,
    optional_skipped: IntCounterVec,
    reload_successful: IntGauge,
    reload_success_time: Gauge,
}

/// How far the latest time moves the usual one.
const LATEST: f64 = 0.25;
/// Callers whose title is not in the configuration.
pub const OTHER: &str = "other";
/// Files of a result that may be left out.
const OPTIONAL: [&str; 2] = ["nifti", "preview"];

impl Metrics {
    /// All metrics at zero. Fails only if two had the same name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let r = Registry::new();
        let codes = || Code::ALL.iter().map(|c| c.name());
        let stages = || Stage::ALL.iter().map(|s| s.name());
        let metrics = Metrics {
            build_info: gauges(&r, &names::BUILD_INFO)?,
            models: ModelMetrics::new(&r)?,
            ready: gauge(&r, &names::READY)?,
            draining: gauge(&r, &names::DRAINING)?,
            associations: counters(&r, &names::ASSOCIATIONS_TOTAL)?,
            received: counters(&r, &names::NETWORK_INSTANCES_TOTAL)?,
            arrived: zeroed(&r, &names::INSTANCES_RECEIVED_TOTAL, Transport::ALL.iter().map(|t| t.name()))?,
            arrived_bytes: zeroed(&r, &names::RECEIVED_BYTES_TOTAL, Transport::ALL.iter().map(|t| t.name()))?,
            files_read: counter(&r, &names::FILES_READ_TOTAL)?,
            read_bytes: counter(&r, &names::FILES_READ_BYTES_TOTAL)?,
            instances_rejected: zeroed(&r, &names::INSTANCES_REJECTED_TOTAL, codes())?,
            scan_seconds: histogram(&r, &names::SCAN_DURATION_SECONDS)?,
            series_open: gauge(&r, &names::SERIES_OPEN)?,
            series_closed: zeroed(&r, &names::SERIES_CLOSED_TOTAL, Evidence::ALL.iter().map(|e| e.name()))?,
            series_reopened: counter(&r, &names::SERIES_REOPENED_TOTAL)?,
            series_discarded: counter(&r, &names::SERIES_DISCARDED_TOTAL)?,
            series_refused: zeroed(&r, &names::SERIES_REFUSED_TOTAL, codes())?,
            series_selected: counters(&r, &names::SERIES_SELECTED_TOTAL)?,
            jobs: gauges(&r, &names::JOBS)?,
            jobs_ended: zeroed(&r, &names::JOBS_ENDED_TOTAL, Ended::ALL.iter().map(|(_, name)| *name))?,
            jobs_parked: zeroed(&r, &names::JOBS_PARKED_TOTAL, codes())?,
            oldest_job_age: numbers(&r, &names::OLDEST_JOB_AGE_SECONDS)?,
            stage_seconds: histograms(&r, &names::STAGE_DURATION_SECONDS)?,
            turnaround_seconds: histograms(&r, &names::TURNAROUND_SECONDS)?,
            queue_bytes: gauges(&r, &names::QUEUE_BYTES)?,
            queue_limit_bytes: gauges(&r, &names::QUEUE_LIMIT_BYTES)?,
            backpressure_seconds: seconds(&r, &names::BACKPRESSURE_SECONDS_TOTAL)?,
            delivery_turnaround: histograms(&r, &names::DELIVERY_TURNAROUND_SECONDS)?,
            pace: Mutex::default(),
            clock_synchronized: gauge(&r, &names::CLOCK_SYNCHRONIZED)?,
            clock_offset: number(&r, &names::CLOCK_OFFSET_SECONDS)?,
            certificate_expiry: gauges(&r, &names::CERTIFICATE_EXPIRY)?,
            flow: FlowMetrics::new(&r)?,
            outputs: OutputMetrics::new(&r)?,
            delivery: DeliveryMetrics::new(&r)?,
            audit: AuditMetrics::new(&r)?,
            device: DeviceMetrics::new(&r)?,
            training: TrainingMetrics::new(&r)?,
            faults: zeroed(&r, &names::FAULTS_TOTAL, codes())?,
            stalls: zeroed(&r, &names::WATCHDOG_STAGE_STALLS_TOTAL, Post::all().map(Post::name))?,
            associations_active: gauge(&r, &names::ASSOCIATIONS_ACTIVE)?,
            store_seconds: histograms(&r, &names::INSTANCE_STORE_DURATION_SECONDS)?,
            ledger_seconds: histogram(&r, &names::LEDGER_COMMIT_DURATION_SECONDS)?,
            disk_free_bytes: gauges(&r, &names::SPOOL_FREE_BYTES)?,
            disk_used_bytes: gauges(&r, &names::SPOOL_USED_BYTES)?,
            disk_watermark_bytes: gauges(&r, &names::SPOOL_WATERMARK_BYTES)?,
            disk_low_seconds: seconds(&r, &names::SPOOL_LOW_SECONDS_TOTAL)?,
            optional_skipped: zeroed(&r, &names::OPTIONAL_FILES_SKIPPED_TOTAL, OPTIONAL.into_iter())?,
            reload_successful: gauge(&r, &names::CONFIG_LAST_RELOAD_SUCCESSFUL)?,
            reload_success_time: number(&r, &names::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS)?,
            panics: zeroed(&r, &names::PANICS_TOTAL, stages())?,
            registry: r,
        };
        for stage in stages() {
            metrics.stage_seconds.with_label_values(&[stage]);
            metrics.backpressure_seconds.with_label_values(&[stage]);
        }
        metrics.source(OTHER);
        for transport in Transport::NETWORK {
            for result in [Received::Stored, Received::Duplicate, Received::Refused] {
                metrics.received.with_label_values(&[transport.name(), result.name()]);
            }
            metrics.store_seconds.with_label_values(&[transport.name()]);
        }
        for urgency in Urgency::ALL {
            metrics.turnaround_seconds.with_label_values(&[urgency.name()]);
            metrics.delivery_turnaround.with_label_values(&[urgency.name()]);
        }
        for level in Watermark::ALL {
            metrics.disk_watermark_bytes.with_label_values(&[level.name()]);
            metrics.disk_low_seconds.with_label_values(&[level.name()]);
        }
        for place in Place::ALL {
            metrics.disk_free_bytes.with_label_values(&[place.name()]);
            metrics.disk_used_bytes.with_label_values(&[place.name()]);
        }
        for state in JobState::ALL {
            metrics.jobs.with_label_values(&[state.name()]);
            metrics.oldest_job_age.with_label_values(&[state.name()]);
        }
        metrics.queue_bytes.with_label_values(&["host"]);
        metrics.queue_limit_bytes.with_label_values(&["host"]);
        Ok(metrics)
    }

    /// All of them at this moment, the process's own numbers included.
    pub fn read(&self) -> Reading {
        Reading::new(self.families())
    }

    fn families(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        families.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
        families
    }

    /// The text that `/metrics` answers with.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.families(), &mut out)?;
        String::from_utf8(out).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }

    /// States what runs.
    pub fn facts(&self, facts: &Facts) {
        self.build_info.with_label_values(&[facts.version, facts.revision, &facts.libtorch, &facts.cuda, &facts.device]).set(1);
        self.device.is(&facts.device, &facts.precision);
    }

    /// There may be callers of this configured title: counted from zero.
    pub fn source(&self, title: &str) {
        Association::ALL.iter().for_each(|what| drop(self.associations.with_label_values(&[title, what.name()])));
    }

    /// An association was accepted or rejected, or ended. `source`: the caller's title if it is a configured one, else [`OTHER`].
    pub fn association(&self, source: &str, what: Association) {
        self.associations.with_label_values(&[source, what.name()]).inc();
    }

    /// Instances came in.
    pub fn arrived(&self, transport: Transport, count: u64, bytes: u64) {
        self.arrived.with_label_values(&[transport.name()]).inc_by(count);
        self.arrived_bytes.with_label_values(&[transport.name()]).inc_by(bytes);
    }

    /// How right the machine's clock is; none when it does not say.
    pub fn clock(&self, accuracy: Option<Accuracy>) {
        self.clock_synchronized.set(i64::from(accuracy.is_some_and(|clock| clock.synchronized)));
        self.clock_offset.set(accuracy.map_or(0.0, |clock| clock.off));
    }

    /// When a certificate of the configuration ends, in seconds since 1970; `key` names it.
    pub fn certificate(&self, key: &str, ends: i64) {
        self.certificate_expiry.with_label_values(&[key]).set(ends);
    }

    /// An object came over the network.
    pub fn received(&self, transport: Transport, result: Received) {
        self.received.with_label_values(&[transport.name(), result.name()]).inc();
    }

    /// One look through the changed folders: how long, how many headers were read, how many bytes those files have.
    pub fn scanned(&self, took: Duration, files: u64, bytes: u64) {
        self.scan_seconds.observe(took.as_secs_f64());
        self.files_read.inc_by(files);
        self.read_bytes.inc_by(bytes);
    }

    /// Files that can not be used.
    pub fn instances_rejected(&self, code: Code, count: u64) {
        self.instances_rejected.with_label_values(&[code.name()]).inc_by(count);
    }

    /// A series was taken as complete.
    pub fn series_closed(&self, evidence: Evidence) {
        self.series_closed.with_label_values(&[evidence.name()]).inc();
    }

    /// A series changed after it was taken.
    pub fn series_reopened(&self) {
        self.series_reopened.inc();
    }

    /// What was received of a series was removed.
    pub fn series_discarded(&self) {
        self.series_discarded.inc();
    }

    /// A series is not processed.
    pub fn series_refused(&self, code: Code) {
        self.series_refused.with_label_values(&[code.name()]).inc();
        self.flow.refused(code);
    }

    /// The rules on which series are segmented: counted from zero.
    pub fn rules<'a>(&self, names: impl Iterator<Item = &'a str>) {
        names.for_each(|name| {
            self.series_selected.with_label_values(&[name]);
            self.flow.rule(name);
        });
    }

    /// A rule chose a volume to be segmented.
    pub fn series_selected(&self, rule: &str) {
        self.series_selected.with_label_values(&[rule]).inc();
    }

    /// A job came into a state from another one, `None` standing for outside.
    pub fn jobs_are(&self, state: JobState, count: u64) {
        self.jobs.with_label_values(&[state.name()]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A job came to an end.
    pub fn job_ended(&self, how: Ended) {
        self.jobs_ended.with_label_values(&[how.name()]).inc();
    }

    /// A job can not be done.
    pub fn job_parked(&self, code: Code) {
        self.jobs_parked.with_label_values(&[code.name()]).inc();
        self.flow.refused(code);
    }

    /// The age of the oldest job in a state; zero when there is none.
    pub fn oldest_job(&self, state: JobState, age: Duration) {
        self.oldest_job_age.with_label_values(&[state.name()]).set(age.as_secs_f64());
    }

    /// A stage is through with a job.
    pub fn stage_done(&self, stage: Stage, took: Duration) {
        self.stage_seconds.with_label_values(&[stage.name()]).observe(took.as_secs_f64());
        if stage == Stage::Segment {
            self.device.worked(took);
        }
        let mut pace = self.pace();
        if let Some(usual) = Stage::ALL.iter().position(|s| *s == stage).and_then(|at| pace.get_mut(at)) {
            let took = took.as_secs_f64();
            *usual = Some(usual.map_or(took, |usual| usual + (took - usual) * LATEST));
        }
    }

    /// How long each stage took lately, s, in the order of [`Stage::ALL`]: the latest job counts for a quarter. None before the first.
    pub fn usual_times(&self) -> [Option<f64>; Stage::ALL.len()] {
        *self.pace()
    }

    fn pace(&self) -> MutexGuard<'_, [Option<f64>; Stage::ALL.len()]> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stage waited for the next one.
    pub fn backpressure(&self, stage: Stage, waited: Duration) {
        self.backpressure_seconds.with_label_values(&[stage.name()]).inc_by(waited.as_secs_f64());
    }

    /// A result was published this long after the last change of its series.
    pub fn turnaround(&self, urgency: Urgency, took: Duration) {
        self.turnaround_seconds.with_label_values(&[urgency.name()]).observe(took.as_secs_f64());
    }

    /// A destination has a result this long after its series was taken as complete.
    pub fn delivered_after(&self, urgency: Urgency, took: Duration) {
        self.delivery_turnaround.with_label_values(&[urgency.name()]).observe(took.as_secs_f64());
    }

    /// Host bytes reserved by jobs in work, and the most that may be.
    pub fn host_bytes(&self, used: u64, limit: u64) {
        self.queue_bytes.with_label_values(&["host"]).set(used.try_into().unwrap_or(i64::MAX));
        self.queue_limit_bytes.with_label_values(&["host"]).set(limit.try_into().unwrap_or(i64::MAX));
    }

    /// Windows that went through the network.
    pub fn windows(&self, count: u64) {
        self.device.windows(count);
    }

    /// Voxels that were labelled.
    pub fn voxels(&self, count: u64) {
        self.device.voxels(count);
    }

    /// A failure, counted where it is handled.
    pub fn fault(&self, code: Code) {
        self.faults.with_label_values(&[code.name()]).inc();
    }

    /// A DICOM association was opened (`true`) or is over.
    pub fn association_open(&self, open: bool) {
        self.associations_active.add(if open { 1 } else { -1 });
    }

    /// An object of the network was acknowledged this long after its first byte.
    pub fn stored(&self, transport: Transport, took: Duration) {
        self.store_seconds.with_label_values(&[transport.name()]).observe(took.as_secs_f64());
    }

    /// A transaction of the ledger is on disk, or has failed.
    pub fn ledger_commit(&self, took: Duration) {
        self.ledger_seconds.observe(took.as_secs_f64());
    }

    /// What a file system has.
    pub fn disk(&self, place: Place, free: u64, used: u64) {
        self.disk_free_bytes.with_label_values(&[place.name()]).set(free.try_into().unwrap_or(i64::MAX));
        self.disk_used_bytes.with_label_values(&[place.name()]).set(used.try_into().unwrap_or(i64::MAX));
    }

    /// Where a watermark is.
    pub fn watermark(&self, level: Watermark, bytes: u64) {
        self.disk_watermark_bytes.with_label_values(&[level.name()]).set(bytes.try_into().unwrap_or(i64::MAX));
    }

    /// A disk was below a watermark for this long.
    pub fn disk_low(&self, level: Watermark, time: Duration) {
        self.disk_low_seconds.with_label_values(&[level.name()]).inc_by(time.as_secs_f64());
    }

    /// A file of a result was left out; nothing is counted for one that may not be.
    pub fn optional_skipped(&self, format: &str) {
        if let Some(format) = OPTIONAL.iter().find(|optional| **optional == format) {
            self.optional_skipped.with_label_values(&[*format]).inc();
        }
    }

    /// Somebody got no further within their deadline.
    pub fn stalled(&self, post: Post) {
        self.stalls.with_label_values(&[post.name()]).inc();
    }

    /// The configuration was read; `taken`: when, if it could be used.
    pub fn config_read(&self, taken: Option<SystemTime>) {
        self.reload_successful.set(i64::from(taken.is_some()));
        if let Some(time) = taken {
            self.reload_success_time.set(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
    }

    /// Jobs in a state, as last counted.
    pub fn jobs(&self, state: JobState) -> i64 {
        self.jobs.with_label_values(&[state.name()]).get()
    }

    /// A stage panicked.
    pub fn panicked(&self, stage: Stage) {
        self.panics.with_label_values(&[stage.name()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names::Kind;

    /// Labels whose values come from the configuration: nothing is counted before it was read.
    const CONFIGURED: [&str; 3] = ["destination", "rule", "device"];

    #[test]
    fn every_counter_is_there_at_zero() {
        let metrics = Metrics::new().expect("metrics");
        let text = metrics.text().expect("text");
        for name in names::ALL.iter().filter(|name| !name.labels.iter().any(|label| CONFIGURED.contains(label))) {
            let sample = match name.kind {
                Kind::Counter => name.name.to_owned(),
                Kind::Histogram(_) => format!("{}_count", name.name),
                Kind::Gauge => continue,
            };
            let mut samples = text.lines().filter_map(|l| l.strip_prefix(&sample)).filter(|rest| rest.starts_with([' ', '{']));
            assert!(samples.clone().count() > 0, "{sample} is missing in\n{text}");
            assert!(samples.all(|rest| rest.ends_with(" 0")), "{sample} is not 0 in\n{text}");
        }
        assert!(text.contains(names::RESIDENT_MEMORY.name));
        let series = text.lines().filter(|l| !l.starts_with('#')).count();
        assert!(series < 2000, "{series} series");
    }

    #[test]
    fn names_say_what_they_are() {
        for name in names::ALL {
            assert_eq!(name.name.ends_with("_total"), name.kind == Kind::Counter, "{}", name.name);
            assert!(name.name.starts_with("stunetd_") && name.help.ends_with('.'), "{}", name.name);
        }
    }
}
