//! From a prepared grid to labels: windows, Gaussian blending, mirroring, slab-wise argmax, post-processing.

mod engine;

pub use engine::{Engine, Progress, SegmentOptions};
