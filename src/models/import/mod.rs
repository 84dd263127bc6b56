//! `stunetd model import`: from what nnU-Net saved to a generation.
//!
//! A checkpoint gives names, shapes and numbers; the plans beside it give all that can not be seen in them: strides,
//! patch, spacing, normalisation, mirroring. Where the two describe the same thing they must agree.

mod dataset;
mod files;
mod labels;
mod plan;
mod steps;
mod v1;
mod v2;

pub use files::Which;
pub use steps::{ImportOptions, Imported, import};
