//! The network's grid, and the way back from it.

use super::{Affine, Source};
use crate::models::LabelTable;

/// The normalised image on the network's grid, with everything needed to bring labels back to the source grid.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `[c, a0, a1, a2]` in network axis order, normalised; finite.
    pub data: Vec<f32>,
    /// Input channels.
    pub channels: usize,
    /// `[a0, a1, a2]`.
    pub shape: [usize; 3],
    /// How labels return.
    pub back: WayBack,
}

/// The way from the network's grid back to the source grid: linear interpolation of the outputs to `cropped` (network
/// axis order), paste into `uncropped`, undo transpose and orientation.
#[derive(Clone, Debug)]
pub struct WayBack {
    /// Shape after cropping and before resampling, network axis order: the outputs are interpolated to it.
    pub cropped: [usize; 3],
    /// The axis (network order) that is interpolated by nearest neighbour instead of linearly, for strongly anisotropic grids.
    pub separate_axis: Option<usize>,
    /// Lower corner of the crop in the uncropped array, network axis order.
    pub crop_start: [usize; 3],
    /// Shape before cropping, network axis order.
    pub uncropped: [usize; 3],
    /// Source axis (0 = z, 1 = y, 2 = x) that network axis `a` runs along.
    pub source_axis: [usize; 3],
    /// Whether network axis `a` runs against that source axis.
    pub flipped: [bool; 3],
    /// The source grid: `[nz, ny, nx]` of the volume the labels are for.
    pub source_shape: [usize; 3],
    /// Set when the volume was rectified (tilted gantry) or re-spaced (irregular slices) for inference: how source slices lie in it.
    pub rectified: Option<Rectified>,
    /// Affine of the source grid.
    pub affine: Affine,
    /// The model's labels.
    pub table: LabelTable,
    /// What the volume was made from.
    pub source: Source,
}

/// How the slices of the source lie in a volume that was rectified for inference.
#[derive(Clone, Debug, PartialEq)]
pub struct Rectified {
    /// `[nz, ny, nx]` of the rectified volume.
    pub shape: [usize; 3],
    /// For each source slice: its place along the rectified z axis (fractions), and the in-plane shift `(rows, columns)` in voxels to add to a
    /// source index to get the rectified one.
    pub slices: Vec<(f64, [f64; 2])>,
}
