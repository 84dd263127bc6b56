//! Every metric of the daemon: name, kind, labels, meaning. Nothing outside of this file holds the name of a metric; what registers, reads or
//! shows one names it by its constant here.
//!
//! Prometheus conventions: prefix `stunetd_`, base units, `_total` for counters, `_info` for facts. Labels come from closed sets only.

/// Seconds from a hundredth to an hour.
const STAGE: &[f64] = &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0];
/// Seconds from last slice to result.
const TURNAROUND: &[f64] = &[5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0];
/// Seconds of a transaction or of one object on its way to the disk.
const COMMIT: &[f64] = &[0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// A volume over its usual one.
const RATIO: &[f64] = &[0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 2.0, 4.0];
/// Seconds of one look through the folders.
const SCAN: &[f64] = &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0];

/// Seconds until training has given way.
const PREEMPT: &[f64] = &[0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Values by size; upper bounds of the buckets.
    Histogram(&'static [f64]),
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Name {
    /// Its whole name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, for people.
    pub help: &'static str,
}

macro_rules! names {
    ($($id:ident: $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Name = Name { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*

        /// All of them.
        pub const ALL: &[Name] = &[$($id,)*];
    };
}

/// Bytes that the process holds: one of those that the library adds for every process.
pub const RESIDENT_MEMORY: Name = Name { name: "process_resident_memory_bytes", kind: Kind::Gauge, labels: &[], help: "Resident memory." };

// One line a metric.
#[rustfmt::skip]
names! {
    BUILD_INFO: Kind::Gauge, "stunetd_build_info", ["version", "revision", "libtorch", "cuda", "device"], "Facts about the program.";
    MODEL_INFO: Kind::Gauge, "stunetd_model_info", ["role", "model", "version", "digest12"], "The models that serve, and those that run beside them.";
    MODEL_PROMOTIONS_TOTAL: Kind::Counter, "stunetd_model_promotions_total", [], "Generations that began to serve while the daemon ran.";
    MODEL_ROLLBACKS_TOTAL: Kind::Counter, "stunetd_model_rollbacks_total", ["cause"], "Generations taken out of service while the daemon ran: by a person, or by the daemon because they could not be used.";
    READY: Kind::Gauge, "stunetd_ready", [], "1 when the model is loaded and the folders are watched.";
    DRAINING: Kind::Gauge, "stunetd_draining", [], "1 while the daemon finishes its work to end.";
    ASSOCIATIONS_TOTAL: Kind::Counter, "stunetd_associations_total", ["source", "result"], "DICOM associations, by the configured title that calls (else `other`) and what became of them.";
    NETWORK_INSTANCES_TOTAL: Kind::Counter, "stunetd_network_instances_total", ["transport", "result"], "Objects that came over the network, by how and what became of them.";
    INSTANCES_RECEIVED_TOTAL: Kind::Counter, "stunetd_instances_received_total", ["transport"], "Instances that came in, by how: objects of the network that are on disk, files of watched folders.";
    RECEIVED_BYTES_TOTAL: Kind::Counter, "stunetd_received_bytes_total", ["transport"], "Their bytes.";
    FILES_READ_TOTAL: Kind::Counter, "stunetd_files_read_total", [], "Files, watched and received, that arrived or changed and whose header was read.";
    FILES_READ_BYTES_TOTAL: Kind::Counter, "stunetd_files_read_bytes_total", [], "Bytes of the files that arrived or changed.";
    INSTANCES_REJECTED_TOTAL: Kind::Counter, "stunetd_instances_rejected_total", ["reason"], "Files that can not be used, by code.";
    SCAN_DURATION_SECONDS: Kind::Histogram(SCAN), "stunetd_scan_duration_seconds", [], "Time to look through the changed folders.";
    SERIES_OPEN: Kind::Gauge, "stunetd_series_open", [], "Series that are not complete yet.";
    SERIES_CLOSED_TOTAL: Kind::Counter, "stunetd_series_closed_total", ["evidence"], "Series taken as complete, by the evidence.";
    SERIES_REOPENED_TOTAL: Kind::Counter, "stunetd_series_reopened_total", [], "Series that changed after they were taken.";
    SERIES_DISCARDED_TOTAL: Kind::Counter, "stunetd_series_discarded_total", [], "Series whose received instances were removed: their time was over.";
    SERIES_REFUSED_TOTAL: Kind::Counter, "stunetd_series_refused_total", ["code"], "Series that are not processed, by code.";
    SERIES_SELECTED_TOTAL: Kind::Counter, "stunetd_series_selected_total", ["rule"], "Volumes that a rule chose to be segmented, by rule.";
    JOBS: Kind::Gauge, "stunetd_jobs", ["state"], "Jobs by state.";
    JOBS_ENDED_TOTAL: Kind::Counter, "stunetd_jobs_ended_total", ["result"], "Jobs that came to an end, by how.";
    JOBS_PARKED_TOTAL: Kind::Counter, "stunetd_jobs_parked_total", ["code"], "Jobs that can not be done, by code.";
    OLDEST_JOB_AGE_SECONDS: Kind::Gauge, "stunetd_oldest_job_age_seconds", ["state"], "Age of the oldest job in a state; 0 when there is none.";
    STAGE_DURATION_SECONDS: Kind::Histogram(STAGE), "stunetd_stage_duration_seconds", ["stage"], "Time of one job in a stage.";
    TURNAROUND_SECONDS: Kind::Histogram(TURNAROUND), "stunetd_turnaround_seconds", ["priority"], "Time from the last change of a series to its published result.";
    QUEUE_BYTES: Kind::Gauge, "stunetd_queue_bytes", ["queue"], "Bytes that jobs in work have reserved.";
    QUEUE_LIMIT_BYTES: Kind::Gauge, "stunetd_queue_limit_bytes", ["queue"], "Bytes that may be reserved.";
    BACKPRESSURE_SECONDS_TOTAL: Kind::Counter, "stunetd_backpressure_seconds_total", ["stage"], "Time a stage waited for the next one to take its work.";
    DEVICE_BUSY_SECONDS_TOTAL: Kind::Counter, "stunetd_device_busy_seconds_total", ["device", "work"], "Time the device worked.";
    INFER_PATCHES_TOTAL: Kind::Counter, "stunetd_infer_patches_total", ["device", "precision"], "Windows that went through the network.";
    INFER_VOXELS_TOTAL: Kind::Counter, "stunetd_infer_voxels_total", ["device", "precision"], "Voxels that were labelled.";
    FAULTS_TOTAL: Kind::Counter, "stunetd_faults_total", ["code"], "Failures, by code.";
    WATCHDOG_STAGE_STALLS_TOTAL: Kind::Counter, "stunetd_watchdog_stage_stalls_total", ["stage"], "Times that a stage got no further within its deadline.";
    ASSOCIATIONS_ACTIVE: Kind::Gauge, "stunetd_associations_active", [], "DICOM associations that are open.";
    INSTANCE_STORE_DURATION_SECONDS: Kind::Histogram(COMMIT), "stunetd_instance_store_duration_seconds", ["transport"], "Time from the first byte of an object of the network to its acknowledgement.";
    LEDGER_COMMIT_DURATION_SECONDS: Kind::Histogram(COMMIT), "stunetd_ledger_commit_duration_seconds", [], "Time of one transaction of the ledger.";
    SPOOL_FREE_BYTES: Kind::Gauge, "stunetd_spool_free_bytes", ["place"], "Bytes free for the daemon on the file system of a folder.";
    SPOOL_USED_BYTES: Kind::Gauge, "stunetd_spool_used_bytes", ["place"], "Bytes in use on the file system of a folder.";
    SPOOL_WATERMARK_BYTES: Kind::Gauge, "stunetd_spool_watermark_bytes", ["level"], "With fewer bytes free than this, what is optional is not written, or nothing is taken.";
    SPOOL_LOW_SECONDS_TOTAL: Kind::Counter, "stunetd_spool_low_seconds_total", ["level"], "Time that a disk was below a watermark.";
    OPTIONAL_FILES_SKIPPED_TOTAL: Kind::Counter, "stunetd_optional_files_skipped_total", ["format"], "Files of results that were left out because a disk was below its first watermark.";
    CONFIG_LAST_RELOAD_SUCCESSFUL: Kind::Gauge, "stunetd_config_last_reload_successful", [], "1 when the configuration could be used when it was last read.";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP_SECONDS: Kind::Gauge, "stunetd_config_last_reload_success_timestamp_seconds", [], "When the configuration was last read and taken.";
    PANICS_TOTAL: Kind::Counter, "stunetd_panics_total", ["stage"], "Stages that panicked; the job is parked and the daemon goes on.";
    DELIVERY_ATTEMPTS_TOTAL: Kind::Counter, "stunetd_delivery_attempts_total", ["destination", "result"], "Attempts to deliver a result, by how they ended.";
    DELIVERY_VERIFIED_TOTAL: Kind::Counter, "stunetd_delivery_verified_total", ["destination", "method"], "Results that a destination has, by how that is known.";
    OUTBOX_OBJECTS: Kind::Gauge, "stunetd_outbox_objects", ["destination", "state"], "Results that a destination is still to get, by state.";
    OUTBOX_OLDEST_AGE_SECONDS: Kind::Gauge, "stunetd_outbox_oldest_age_seconds", ["destination"], "Age of the oldest result that waits for a destination.";
    DESTINATION_UP: Kind::Gauge, "stunetd_destination_up", ["destination"], "0 while a destination fails again and again, else 1.";
    GPU_MEMORY_USED_BYTES: Kind::Gauge, "stunetd_gpu_memory_used_bytes", ["device"], "Bytes in tensors on the device after the last study.";
    GPU_MEMORY_RESERVED_BYTES: Kind::Gauge, "stunetd_gpu_memory_reserved_bytes", ["device"], "Bytes that the process holds for tensors on the device.";
    GPU_MEMORY_LIMIT_BYTES: Kind::Gauge, "stunetd_gpu_memory_limit_bytes", ["device"], "Bytes that the device has.";
    GPU_OOM_TOTAL: Kind::Counter, "stunetd_gpu_oom_total", ["device", "outcome"], "Times that the device ran out of memory: the study was begun anew in a way that needs less, or failed.";
    AUDIT_EVENTS_TOTAL: Kind::Counter, "stunetd_audit_events_total", ["kind", "result"], "Events that are to be audited, by what became of their message.";
    AUDIT_MESSAGES_SENT_TOTAL: Kind::Counter, "stunetd_audit_messages_sent_total", [], "Audit messages that the repository has read.";
    AUDIT_SPOOLED_MESSAGES: Kind::Gauge, "stunetd_audit_spooled_messages", [], "Audit messages that wait for the repository.";
    AUDIT_SPOOL_BYTES: Kind::Gauge, "stunetd_audit_spool_bytes", [], "Bytes on disk of audit messages that wait.";
    AUDIT_SPOOL_LIMIT_BYTES: Kind::Gauge, "stunetd_audit_spool_limit_bytes", [], "The most that audit messages may take on disk; 0 without a repository.";
    AUDIT_REPOSITORY_UP: Kind::Gauge, "stunetd_audit_repository_up", [], "0 when the audit repository was not reached at the last call, else 1.";
    CLOCK_SYNCHRONIZED: Kind::Gauge, "stunetd_clock_synchronized", [], "1 when somebody keeps the machine's clock right.";
    CLOCK_OFFSET_SECONDS: Kind::Gauge, "stunetd_clock_offset_seconds", [], "Seconds that the machine's clock may be off, as far as the kernel knows.";
    CERTIFICATE_EXPIRY: Kind::Gauge, "stunetd_certificate_expiry_timestamp_seconds", ["certificate"], "When the first certificate of a configured file ends.";
    JOB_TRANSITIONS_TOTAL: Kind::Counter, "stunetd_job_transitions_total", ["from", "to"], "Jobs that went from a state to another one; new ones come from `none`.";
    JOB_RETRIES_TOTAL: Kind::Counter, "stunetd_job_retries_total", ["stage", "code"], "Jobs that failed for now, by where and why.";
    REFUSALS_TOTAL: Kind::Counter, "stunetd_refusals_total", ["kind"], "Series that are not processed and jobs that were parked, by who can do something about it.";
    RULE_EVALUATIONS_TOTAL: Kind::Counter, "stunetd_rule_evaluations_total", ["rule", "verdict"], "What each rule said of volumes: it chose or left them alone (match), did not apply (skip), or its model is not for them (error).";
    OUTPUT_EMPTY_SEGMENT_TOTAL: Kind::Counter, "stunetd_output_empty_segment_total", ["class_group"], "Structures that a result has no voxel of.";
    OUTPUT_SEGMENT_VOLUME_RATIO: Kind::Histogram(RATIO), "stunetd_output_segment_volume_ratio", ["class_group"], "Volume of a whole structure over its median in recent results.";
    DELIVERY_TURNAROUND_SECONDS: Kind::Histogram(TURNAROUND), "stunetd_delivery_turnaround_seconds", ["priority"], "Time from a series being taken as complete to its result at a destination.";
    TRAIN_STATE: Kind::Gauge, "stunetd_train_state", ["state"], "1 for what training does now.";
    TRAIN_PREEMPT_SECONDS: Kind::Histogram(PREEMPT), "stunetd_train_preempt_seconds", ["depth"], "From the arrival of clinical work to the pause of training, and from the order to go to its end.";
    TRAIN_STEP: Kind::Gauge, "stunetd_train_step", [], "Steps of the present work of a training run that are done.";
    TRAIN_STEPS: Kind::Gauge, "stunetd_train_steps", [], "Steps of the present work of a training run.";
    TRAIN_RUNS_TOTAL: Kind::Counter, "stunetd_train_runs_total", ["result"], "Training runs, by how they ended.";
    TRAIN_GATE_RESULT: Kind::Gauge, "stunetd_train_gate_result", ["gate"], "1 where the last candidate passed a gate, 0 where it did not.";
}
