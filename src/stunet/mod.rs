//! STU-Net (arXiv 2304.06716) in libtorch, and the safe reading of PyTorch checkpoints.
//!
//! Tensors are `[N, C, X, Y, Z]` where X, Y, Z are the network's axes 0, 1, 2: array order `(z, y, x)` after the
//! model's `transpose_forward`. This room knows nothing of DICOM, models on disk or the ledger.

mod architecture;
pub mod checkpoint;
mod conv;
mod device;
mod error;
mod forward_file;
mod fused;
mod layers;
pub mod learning;
mod network;
mod precision;
pub mod runtime;
mod shim;
mod simd;
mod state_dict;
mod tensor_file;
mod transfer;

pub use architecture::{Architecture, ArchitectureError, Size};
pub use device::DeviceChoice;
pub use error::Error;
pub use forward_file::forward_file;
pub use layers::Observer;
pub use network::Network;
pub use precision::{Precision, cpu_has_bf16};
pub use shim::{CudaMemory, Shortage, allow_tf32, cuda_memory, empty_cuda_cache, reset_cuda_peak};
pub use transfer::{download, upload};

/// Where a network runs; other rooms name it without knowing tch.
pub use tch::Device;
