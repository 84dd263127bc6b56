//! Every metric of the daemon: name, type, labels, meaning.
//!
//! Prometheus conventions: prefix `stunetd_`, base units, `_total` for counters, `_info` for facts. Labels come from closed
//! sets only, and every counter and histogram is there at zero from the start, so that rates and alerts work before the
//! first event.

mod delivery;
mod device;

pub use delivery::{Attempt, DeliveryMetrics};
pub use device::DeviceMetrics;

use super::names::{Association, Ended, Evidence, JobState, Place, Post, Received, Stage, Transport, Urgency, Watermark};
use super::reading::Reading;
use crate::fault::Code;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::time::{Duration, SystemTime};

/// Facts about the running program that become `_info` metrics.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of stunetd.
    pub version: &'static str,
    /// Version of libtorch.
    pub libtorch: String,
    /// Where the network runs: `cpu` or `cuda:N`.
    pub device: String,
}

/// All metrics, registered once.
pub struct Metrics {
    registry: Registry,
    build_info: IntGaugeVec,
    model_info: IntGaugeVec,
    /// 1 when the model is loaded and the folders are watched.
    pub ready: IntGauge,
    /// 1 while the daemon finishes its work to end.
    pub draining: IntGauge,
    associations: IntCounterVec,
    received: IntCounterVec,
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
    device_busy_seconds: CounterVec,
    windows: IntCounter,
    voxels: IntCounter,
    /// What goes to destinations.
    pub delivery: DeliveryMetrics,
    /// Device memory.
    pub device: DeviceMetrics,
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

/// Seconds from a hundredth to an hour.
const STAGE_BUCKETS: &[f64] = &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0];
/// Seconds from last slice to published result.
const TURNAROUND_BUCKETS: &[f64] = &[5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0];
/// Seconds of a transaction or of one object on its way to the disk.
const COMMIT_BUCKETS: &[f64] = &[0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// Files of a result that may be left out.
const OPTIONAL: [&str; 2] = ["nifti", "preview"];
/// Seconds of one look through the folders.
const SCAN_BUCKETS: &[f64] = &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0];

impl Metrics {
    /// All metrics at zero. Fails only if two had the same name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let r = Registry::new_custom(Some("stunetd".into()), None)?;
        let codes = || Code::ALL.iter().map(|c| c.name());
        let stages = || Stage::ALL.iter().map(|s| s.name());
        let metrics = Metrics {
            build_info: register(
                &r,
                IntGaugeVec::new(Opts::new("build_info", "Facts about the program."), &["version", "libtorch", "device"]),
            )?,
            model_info: register(
                &r,
                IntGaugeVec::new(Opts::new("model_info", "The model that serves."), &["role", "model", "version", "digest12"]),
            )?,
            ready: register(&r, IntGauge::new("ready", "1 when the model is loaded and the folders are watched."))?,
            draining: register(&r, IntGauge::new("draining", "1 while the daemon finishes its work to end."))?,
            associations: zeroed(
                &r,
                "associations_total",
                "DICOM associations, by what became of them.",
                "result",
                [Association::Accepted, Association::Rejected, Association::Released, Association::Aborted]
                    .map(Association::name)
                    .into_iter(),
            )?,
            received: register(
                &r,
                IntCounterVec::new(
                    Opts::new("network_instances_total", "Objects that came over the network, by how and what became of them."),
                    &["transport", "result"],
                ),
            )?,
            files_read: register(
                &r,
                IntCounter::new("instances_received_total", "Files that arrived or changed and whose header was read."),
            )?,
            read_bytes: register(&r, IntCounter::new("received_bytes_total", "Bytes of the files that arrived or changed."))?,
            instances_rejected: zeroed(&r, "instances_rejected_total", "Files that can not be used, by code.", "reason", codes())?,
            scan_seconds: register(
                &r,
                Histogram::with_opts(buckets("scan_duration_seconds", "Time to look through the changed folders.", SCAN_BUCKETS)),
            )?,
            series_open: register(&r, IntGauge::new("series_open", "Series that are not complete yet."))?,
            series_closed: zeroed(
                &r,
                "series_closed_total",
                "Series taken as complete, by the evidence.",
                "evidence",
                Evidence::ALL.iter().map(|e| e.name()),
            )?,
            series_reopened: register(&r, IntCounter::new("series_reopened_total", "Series that changed after they were taken."))?,
            series_discarded: register(
                &r,
                IntCounter::new("series_discarded_total", "Series whose received instances were removed: their time was over."),
            )?,
            series_refused: zeroed(&r, "series_refused_total", "Series that are not processed, by code.", "code", codes())?,
            series_selected: register(
                &r,
                IntCounterVec::new(Opts::new("series_selected_total", "Volumes that a rule chose to be segmented, by rule."), &["rule"]),
            )?,
            jobs: register(&r, IntGaugeVec::new(Opts::new("jobs", "Jobs by state."), &["state"]))?,
            jobs_ended: zeroed(
                &r,
                "jobs_ended_total",
                "Jobs that came to an end, by how.",
                "result",
                Ended::ALL.iter().map(|(_, name)| *name),
            )?,
            jobs_parked: zeroed(&r, "jobs_parked_total", "Jobs that can not be done, by code.", "code", codes())?,
            oldest_job_age: register(
                &r,
                GaugeVec::new(Opts::new("oldest_job_age_seconds", "Age of the oldest job in a state; 0 when there is none."), &["state"]),
            )?,
            stage_seconds: register(
                &r,
                HistogramVec::new(buckets("stage_duration_seconds", "Time of one job in a stage.", STAGE_BUCKETS), &["stage"]),
            )?,
            turnaround_seconds: register(
                &r,
                HistogramVec::new(
                    buckets("turnaround_seconds", "Time from the last change of a series to its published result.", TURNAROUND_BUCKETS),
                    &["priority"],
                ),
            )?,
            queue_bytes: register(&r, IntGaugeVec::new(Opts::new("queue_bytes", "Bytes that jobs in work have reserved."), &["queue"]))?,
            queue_limit_bytes: register(&r, IntGaugeVec::new(Opts::new("queue_limit_bytes", "Bytes that may be reserved."), &["queue"]))?,
            backpressure_seconds: register(
                &r,
                CounterVec::new(
                    Opts::new("backpressure_seconds_total", "Time a stage waited for the next one to take its work."),
                    &["stage"],
                ),
            )?,
            device_busy_seconds: register(
                &r,
                CounterVec::new(Opts::new("device_busy_seconds_total", "Time the device worked."), &["work"]),
            )?,
            windows: register(&r, IntCounter::new("infer_patches_total", "Windows that went through the network."))?,
            voxels: register(&r, IntCounter::new("infer_voxels_total", "Voxels that were labelled."))?,
            delivery: DeliveryMetrics::new(&r)?,
            device: DeviceMetrics::new(&r)?,
            faults: zeroed(&r, "faults_total", "Failures, by code.", "code", codes())?,
            stalls: zeroed(
                &r,
                "watchdog_stage_stalls_total",
                "Times that a stage got no further within its deadline.",
                "stage",
                Post::all().map(Post::name),
            )?,
            associations_active: register(&r, IntGauge::new("associations_active", "DICOM associations that are open."))?,
            store_seconds: register(
                &r,
                HistogramVec::new(
                    buckets(
                        "instance_store_duration_seconds",
                        "Time from the first byte of an object of the network to its acknowledgement.",
                        COMMIT_BUCKETS,
                    ),
                    &["transport"],
                ),
            )?,
            ledger_seconds: register(
                &r,
                Histogram::with_opts(buckets("ledger_commit_duration_seconds", "Time of one transaction of the ledger.", COMMIT_BUCKETS)),
            )?,
            disk_free_bytes: register(
                &r,
                IntGaugeVec::new(Opts::new("spool_free_bytes", "Bytes free for the daemon on the file system of a folder."), &["place"]),
            )?,
            disk_used_bytes: register(
                &r,
                IntGaugeVec::new(Opts::new("spool_used_bytes", "Bytes in use on the file system of a folder."), &["place"]),
            )?,
            disk_watermark_bytes: register(
                &r,
                IntGaugeVec::new(
                    Opts::new(
                        "spool_watermark_bytes",
                        "With fewer bytes free than this, what is optional is not written, or nothing is taken.",
                    ),
                    &["level"],
                ),
            )?,
            disk_low_seconds: register(
                &r,
                CounterVec::new(Opts::new("spool_low_seconds_total", "Time that a disk was below a watermark."), &["level"]),
            )?,
            optional_skipped: zeroed(
                &r,
                "optional_files_skipped_total",
                "Files of results that were left out because a disk was below its first watermark.",
                "format",
                OPTIONAL.into_iter(),
            )?,
            reload_successful: register(
                &r,
                IntGauge::new("config_last_reload_successful", "1 when the configuration could be used when it was last read."),
            )?,
            reload_success_time: register(
                &r,
                Gauge::new("config_last_reload_success_timestamp_seconds", "When the configuration was last read and taken."),
            )?,
            panics: zeroed(&r, "panics_total", "Stages that panicked; the job is parked and the daemon goes on.", "stage", stages())?,
            registry: r,
        };
        for stage in stages() {
            metrics.stage_seconds.with_label_values(&[stage]);
            metrics.backpressure_seconds.with_label_values(&[stage]);
        }
        for transport in [Transport::Dimse, Transport::Stow] {
            for result in [Received::Stored, Received::Duplicate, Received::Refused] {
                metrics.received.with_label_values(&[transport.name(), result.name()]);
            }
            metrics.store_seconds.with_label_values(&[transport.name()]);
        }
        for urgency in Urgency::ALL {
            metrics.turnaround_seconds.with_label_values(&[urgency.name()]);
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
        metrics.device_busy_seconds.with_label_values(&["infer"]);
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
        self.build_info.with_label_values(&[facts.version, &facts.libtorch, &facts.device]).set(1);
    }

    /// The models that serve: name, version, hexadecimal digest of each.
    pub fn models<'a>(&self, models: impl Iterator<Item = (&'a str, &'a str, &'a str)>) {
        self.model_info.reset();
        for (name, version, digest) in models {
            self.model_info.with_label_values(&["production", name, version, digest.get(..12).unwrap_or(digest)]).set(1);
        }
    }

    /// An association was accepted or rejected, or ended.
    pub fn association(&self, what: Association) {
        self.associations.with_label_values(&[what.name()]).inc();
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
    }

    /// The rules on which series are segmented: counted from zero.
    pub fn rules<'a>(&self, names: impl Iterator<Item = &'a str>) {
        names.for_each(|name| drop(self.series_selected.with_label_values(&[name])));
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
    }

    /// The age of the oldest job in a state; zero when there is none.
    pub fn oldest_job(&self, state: JobState, age: Duration) {
        self.oldest_job_age.with_label_values(&[state.name()]).set(age.as_secs_f64());
    }

    /// A stage is through with a job.
    pub fn stage_done(&self, stage: Stage, took: Duration) {
        self.stage_seconds.with_label_values(&[stage.name()]).observe(took.as_secs_f64());
        if stage == Stage::Segment {
            self.device_busy_seconds.with_label_values(&["infer"]).inc_by(took.as_secs_f64());
        }
    }

    /// A stage waited for the next one.
    pub fn backpressure(&self, stage: Stage, waited: Duration) {
        self.backpressure_seconds.with_label_values(&[stage.name()]).inc_by(waited.as_secs_f64());
    }

    /// A result was published this long after the last change of its series.
    pub fn turnaround(&self, urgency: Urgency, took: Duration) {
        self.turnaround_seconds.with_label_values(&[urgency.name()]).observe(took.as_secs_f64());
    }

    /// Host bytes reserved by jobs in work, and the most that may be.
    pub fn host_bytes(&self, used: u64, limit: u64) {
        self.queue_bytes.with_label_values(&["host"]).set(used.try_into().unwrap_or(i64::MAX));
        self.queue_limit_bytes.with_label_values(&["host"]).set(limit.try_into().unwrap_or(i64::MAX));
    }

    /// Windows that went through the network.
    pub fn windows(&self, count: u64) {
        self.windows.inc_by(count);
    }

    /// Voxels that were labelled.
    pub fn voxels(&self, count: u64) {
        self.voxels.inc_by(count);
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

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: Result<C, prometheus::Error>) -> Result<C, prometheus::Error> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// A counter with one label from a closed set, at zero for each value.
fn zeroed<'a>(
    r: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = &'a str>,
) -> Result<IntCounterVec, prometheus::Error> {
    let counter = register(r, IntCounterVec::new(Opts::new(name, help), &[label]))?;
    values.for_each(|value| drop(counter.with_label_values(&[value])));
    Ok(counter)
}

fn buckets(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_there_at_zero() {
        let metrics = Metrics::new().expect("metrics");
        let text = metrics.text().expect("text");
        for line in [
            "stunetd_ready 0",
            "stunetd_instances_received_total 0",
            "stunetd_series_closed_total{evidence=\"timer\"} 0",
            "stunetd_jobs_ended_total{result=\"published\"} 0",
            "stunetd_jobs_parked_total{code=\"memory.volume_too_large\"} 0",
            "stunetd_stage_duration_seconds_count{stage=\"segment\"} 0",
            "stunetd_panics_total{stage=\"deliver\"} 0",
            "stunetd_backpressure_seconds_total{stage=\"prepare\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"));
        let series = text.lines().filter(|l| !l.starts_with('#')).count();
        assert!(series < 2000, "{series} series");
    }
}
