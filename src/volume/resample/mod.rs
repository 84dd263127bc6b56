//! Resizing of grids, axis by axis, numerically as nnU-Net does it (scikit-image `resize`, SciPy `zoom` with `grid_mode`).

mod operator;

pub use operator::AxisOperator;
