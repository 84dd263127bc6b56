//! What libtorch finds on this machine.

use tch::Cuda;

/// Version of libtorch that this program is built against.
pub const LIBTORCH_VERSION: &str = "2.11.0";

/// What libtorch can use. Asking it fixes the answer for the life of the process, so `sys::libtorch::choose` goes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Runtime {
    /// CUDA devices.
    pub cuda_devices: u32,
    /// Threads of one operation.
    pub threads: u32,
    /// Whether oneDNN, which the CPU's convolutions go through, is there.
    pub mkldnn: bool,
}

/// Asks libtorch.
pub fn runtime() -> Runtime {
    Runtime {
        cuda_devices: Cuda::device_count().try_into().unwrap_or(0),
        threads: tch::get_num_threads().try_into().unwrap_or(0),
        mkldnn: tch::utils::has_mkldnn(),
    }
}
