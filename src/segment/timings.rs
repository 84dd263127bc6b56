//! Where a study's time goes.

use super::SegmentError;
use crate::sys::clock::Stopwatch;
use tch::{Device, Kind, Tensor};

/// Seconds by stage of one study. On a CUDA device, which works on after a call has returned, `network` stands for gather,
/// network and accumulate, and `export` for head and export, unless [`exact`](Self::exact).
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
    /// Whether a CUDA device is waited for after every stage of every window. That tells where time goes, and costs some.
    pub exact: bool,
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
    exact: bool,
}

impl Timer {
    /// For a device; `exact` as in [`Timings::exact`].
    pub fn new(device: Device, exact: bool) -> Result<Timer, SegmentError> {
        let probe = match device {
            Device::Cuda(_) => Some(Tensor::f_zeros([1], (Kind::Float, device))?),
            _ => None,
        };
        Ok(Timer { exact: exact || probe.is_none(), probe })
    }

    /// Runs a stage of a window; adds its seconds to `total` where stages are measured one by one.
    pub fn run<T>(&self, total: &mut f64, work: impl FnOnce() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
        let watch = self.exact.then(Stopwatch::start);
        let result = work()?;
        self.stop(watch, total)?;
        Ok(result)
    }

    /// Starts measuring many stages together, where they are not measured one by one.
    pub fn start_many(&self) -> Option<Stopwatch> {
        (!self.exact).then(Stopwatch::start)
    }

    /// Adds the seconds since the watch was started, until the device has done its work, to `total`.
    pub fn stop(&self, watch: Option<Stopwatch>, total: &mut f64) -> Result<(), SegmentError> {
        if let Some(watch) = watch {
            if let Some(probe) = &self.probe {
                let _ = probe.f_to_device(Device::Cpu)?;
            }
            *total += watch.seconds();
        }
        Ok(())
    }
}
