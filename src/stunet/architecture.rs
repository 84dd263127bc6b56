//! What a STU-Net looks like: everything but the numbers in it.

use serde::{Deserialize, Serialize};

/// The shape of a STU-Net. All but the strides follow from the names and shapes of a checkpoint's tensors; the strides
/// come from the plan (loading weights with wrong strides raises no error and gives wrong labels).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels: classes with the background, or regions.
    pub num_classes: usize,
    /// Feature channels of each stage, full resolution first.
    pub dims: [usize; 6],
    /// Residual blocks in each stage.
    pub depth: [usize; 6],
    /// Convolution kernel of each stage; padding is `kernel / 2`.
    pub kernels: [[usize; 3]; 6],
    /// `strides[d]` leads from stage `d` to stage `d + 1`; the decoder repeats by the same factors.
    pub strides: [[usize; 3]; 5],
}

/// Why an architecture can not be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ArchitectureError(pub String);

impl Architecture {
    /// The product of the strides per axis: every input axis must be divisible by it.
    pub fn divisor(&self) -> [usize; 3] {
        let mut d = [1; 3];
        for s in &self.strides {
            for (d, s) in d.iter_mut().zip(s) {
                *d *= s;
            }
        }
        d
    }
}
