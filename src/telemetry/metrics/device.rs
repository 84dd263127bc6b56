//! Metrics of the device that computes: its work and its memory. On the CPU there is no memory but the host's.

use super::register::{counters, gauges, seconds};
use crate::telemetry::names;
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Registry};
use std::sync::OnceLock;
use std::time::Duration;

/// The device that computes.
pub struct DeviceMetrics {
    /// Its name and the number format it computes in; one for the life of the process.
    place: OnceLock<(String, String)>,
    busy: CounterVec,
    windows: IntCounterVec,
    voxels: IntCounterVec,
    used: IntGaugeVec,
    reserved: IntGaugeVec,
    limit: IntGaugeVec,
    out_of_memory: IntCounterVec,
}

/// Ways in which memory can run out: the study was begun anew with less, or it failed.
const OUTCOMES: [&str; 2] = ["stepdown", "failed"];

impl DeviceMetrics {
    pub(super) fn new(r: &Registry) -> Result<DeviceMetrics, prometheus::Error> {
        Ok(DeviceMetrics {
            place: OnceLock::new(),
            busy: seconds(r, &names::DEVICE_BUSY_SECONDS_TOTAL)?,
            windows: counters(r, &names::INFER_PATCHES_TOTAL)?,
            voxels: counters(r, &names::INFER_VOXELS_TOTAL)?,
            used: gauges(r, &names::GPU_MEMORY_USED_BYTES)?,
            reserved: gauges(r, &names::GPU_MEMORY_RESERVED_BYTES)?,
            limit: gauges(r, &names::GPU_MEMORY_LIMIT_BYTES)?,
            out_of_memory: counters(r, &names::GPU_OOM_TOTAL)?,
        })
    }

    /// It computes on this device in this number format: counted from zero.
    pub fn is(&self, device: &str, precision: &str) {
        // Said once; a second word would be the same.
        let _ = self.place.set((device.to_owned(), precision.to_owned()));
        self.worked(Duration::ZERO);
        self.windows(0);
        self.voxels(0);
        self.out_of_memory(0, false);
    }

    fn place(&self) -> (&str, &str) {
        self.place.get().map_or(("unknown", "unknown"), |(device, precision)| (device, precision))
    }

    /// It worked on a study for this long.
    pub fn worked(&self, took: Duration) {
        self.busy.with_label_values(&[self.place().0, "infer"]).inc_by(took.as_secs_f64());
    }

    /// Windows that went through the network.
    pub fn windows(&self, count: u64) {
        let (device, precision) = self.place();
        self.windows.with_label_values(&[device, precision]).inc_by(count);
    }

    /// Voxels that were labelled.
    pub fn voxels(&self, count: u64) {
        let (device, precision) = self.place();
        self.voxels.with_label_values(&[device, precision]).inc_by(count);
    }

    /// Bytes of a device after a study.
    pub fn memory(&self, device: &str, used: u64, reserved: u64, limit: u64) {
        for (gauge, bytes) in [(&self.used, used), (&self.reserved, reserved), (&self.limit, limit)] {
            gauge.with_label_values(&[device]).set(bytes.try_into().unwrap_or(i64::MAX));
        }
    }

    /// How often a study was begun anew with less, and whether it failed in the end.
    pub fn out_of_memory(&self, steps: usize, failed: bool) {
        for (outcome, count) in OUTCOMES.into_iter().zip([steps as u64, u64::from(failed)]) {
            self.out_of_memory.with_label_values(&[self.place().0, outcome]).inc_by(count);
        }
    }
}
