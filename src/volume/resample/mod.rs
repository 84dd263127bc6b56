//! Resizing of grids, axis by axis, numerically as nnU-Net does it (scikit-image `resize`, SciPy `zoom` with `grid_mode`).
//!
//! Every axis is a linear operator of its own with half-pixel centres: nearest, linear, or cubic B-spline on a line whose end samples
//! go on for ever. Linear and cubic results are clipped to the range of their input.

mod kernel;
mod labels;
mod operator;
#[cfg(test)]
mod plain;
mod resize;
mod rows;
mod shape;
#[cfg(test)]
mod tests;

pub use labels::{LabelRule, resize_labels};
pub use operator::AxisOperator;
pub use resize::Resize;
pub use rows::{Grid, Range, Rows};
pub use shape::{resampled_shape, separate_axis};

/// How values between samples are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Order 0: the nearest sample.
    Nearest,
    /// Order 1.
    Linear,
    /// Order 3: cubic B-spline through the samples.
    Cubic,
}
