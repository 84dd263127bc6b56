//! The seam between the pipeline and the network.

use crate::fault::Fault;
use crate::volume::{LabelMap, Prepared};

/// What a caller may choose for one study; everything else stands in the model's manifest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentOptions {
    /// Distance of neighbouring windows as a share of the patch, in (0, 1]; nnU-Net's default is 0.5.
    pub step: f64,
    /// Average over mirrored copies along the model's mirror axes.
    pub mirror: bool,
    /// Lay windows only over the part of a CT that holds more than air. Faster where there is much air, with other labels: off in
    /// the reference.
    pub skip_air: bool,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        SegmentOptions { step: 0.5, mirror: false, skip_air: false }
    }
}

/// How far a study is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Windows (times mirrored copies) done.
    pub done: usize,
    /// Of how many.
    pub of: usize,
}

/// Bytes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In tensors now.
    pub used: u64,
    /// Held for tensors, used or not.
    pub reserved: u64,
    /// That may be used: all there are, or `device_memory`.
    pub limit: u64,
}

/// Turns a prepared grid into labels on the source grid. Lives on one thread; tensors never leave it.
pub trait Engine {
    /// The labels of one study. `progress` is called after each window, and may return `false` to stop: the fault is
    /// then `internal.shutdown`.
    fn segment(
        &mut self,
        prepared: Prepared,
        options: SegmentOptions,
        progress: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<LabelMap, Fault>;

    /// Memory of the device; none where it is the host's.
    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// How often the last study was begun anew in a way that needs less device memory.
    fn steps_down(&self) -> usize {
        0
    }

    /// Seconds and counts of the last study, by stage name, for metrics and benches.
    fn timings(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
