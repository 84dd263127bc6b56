//! Metrics of a device's memory. On the CPU there is none but the host's.

use super::register::{gauges, zeroed};
use crate::telemetry::names;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

/// A device's memory.
pub struct DeviceMetrics {
    used: IntGaugeVec,
    reserved: IntGaugeVec,
    limit: IntGaugeVec,
    out_of_memory: IntCounterVec,
}

impl DeviceMetrics {
    pub(super) fn new(r: &Registry) -> Result<DeviceMetrics, prometheus::Error> {
        Ok(DeviceMetrics {
            used: gauges(r, &names::GPU_MEMORY_USED_BYTES)?,
            reserved: gauges(r, &names::GPU_MEMORY_RESERVED_BYTES)?,
            limit: gauges(r, &names::GPU_MEMORY_LIMIT_BYTES)?,
            out_of_memory: zeroed(r, &names::GPU_OOM_TOTAL, ["stepdown", "failed"].into_iter())?,
        })
    }

    /// Bytes of a device after a study.
    pub fn memory(&self, device: &str, used: u64, reserved: u64, limit: u64) {
        for (gauge, bytes) in [(&self.used, used), (&self.reserved, reserved), (&self.limit, limit)] {
            gauge.with_label_values(&[device]).set(bytes.try_into().unwrap_or(i64::MAX));
        }
    }

    /// How often a study was begun anew with less, and whether it failed in the end.
    pub fn out_of_memory(&self, steps: usize, failed: bool) {
        self.out_of_memory.with_label_values(&["stepdown"]).inc_by(steps as u64);
        self.out_of_memory.with_label_values(&["failed"]).inc_by(u64::from(failed));
    }
}
