//! From a prepared grid to labels: windows, Gaussian blending, mirroring, slab-wise argmax, post-processing.
//!
//! Everything here runs on the network's axes, in array order (z, y, x); values of a voxel's outputs lie side by side
//! (`[z, y, x, output]`), so that inner loops run over them.

pub mod aggregate;
mod air;
mod decision;
mod engine;
mod error;
pub mod export;
pub mod gaussian;
pub mod label_sinks;
mod memory;
pub mod postprocess;
mod sums;
pub mod tiles;
mod timings;
mod torch_engine;

pub use crate::stunet::DeviceChoice;
pub use decision::Decision;
pub use engine::{DeviceMemory, Engine, Progress, SegmentOptions};
pub use error::SegmentError;
pub use memory::{Accumulation, Grids, MemoryLimits, MemoryNeed, Placement, bytes_needed};
pub use timings::Timings;
pub use torch_engine::TorchEngine;
