//! Where a study's time goes.

use super::SegmentError;
use crate::sys::clock::Stopwatch;
use tch::{Device, Kind, Tensor};

/// Seconds by stage of one study.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timings {
    /// Cutting windows out of the grid.
    pub gather: f64,
    /// The network without its head.
    pub network: f64,
    /// Adding weighted windows to the sums; for models that average probabilities with head and softmax.
    pub accumulate: f64,
    /// Dividing sums by weights, and the head of models that average logits.
    pub head: f64,
    /// Interpolation and decision.
    pub export: f64,
    /// Keep-largest steps and the way back to the source grid.
    pub finish: f64,
    /// Windows times mirrored copies.
    pub windows: usize,
}

impl Timings {
    /// By name, for metrics and benches.
    pub fn by_name(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("gather", self.gather),
            ("network", self.network),
            ("accumulate", self.accumulate),
            ("head", self.head),
            ("export", self.export),
            ("finish", self.finish),
            ("windows", self.windows as f64),
        ]
    }
}

/// Measures work on a device.
pub(super) struct Timer {
    /// Read back to wait for a CUDA device, whose work goes on after a call returns.
    probe: Option<Tensor>,
}

impl Timer {
    pub fn new(device: Device) -> Result<Timer, SegmentError> {
        let probe = match device {
            Device::Cuda(_) => Some(Tensor::f_zeros([1], (Kind::Float, device))?),
            _ => None,
        };
        Ok(Timer { probe })
    }

    pub fn start(&self) -> Stopwatch {
        Stopwatch::start()
    }

    /// Adds the seconds since `watch` was started, until the device has done its work, to `total`.
    pub fn stop(&self, watch: Stopwatch, total: &mut f64) -> Result<(), SegmentError> {
        if let Some(probe) = &self.probe {
            let _ = probe.f_to_device(Device::Cpu)?;
        }
        *total += watch.seconds();
        Ok(())
    }

    /// Runs `work` to its end and adds its seconds to `total`.
    pub fn run<T>(&self, total: &mut f64, work: impl FnOnce() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
        let watch = self.start();
        let result = work()?;
        self.stop(watch, total)?;
        Ok(result)
    }
}
