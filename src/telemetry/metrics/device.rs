//! Metrics of a device's memory. On the CPU there is none but the host's.

use super::{register, zeroed};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// A device's memory.
pub struct DeviceMetrics {
    used: IntGaugeVec,
    reserved: IntGaugeVec,
    limit: IntGaugeVec,
    out_of_memory: IntCounterVec,
}

impl DeviceMetrics {
    pub(super) fn new(r: &Registry) -> Result<DeviceMetrics, prometheus::Error> {
        let gauge = |name, help| register(r, IntGaugeVec::new(Opts::new(name, help), &["device"]));
        Ok(DeviceMetrics {
            used: gauge("gpu_memory_used_bytes", "Bytes in tensors on the device after the last study.")?,
            reserved: gauge("gpu_memory_reserved_bytes", "Bytes that the process holds for tensors on the device.")?,
            limit: gauge("gpu_memory_limit_bytes", "Bytes that the device has.")?,
            out_of_memory: zeroed(
                r,
                "gpu_oom_total",
                "Times that the device ran out of memory: the study was begun anew in a way that needs less, or failed.",
                "outcome",
                ["stepdown", "failed"].into_iter(),
            )?,
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
