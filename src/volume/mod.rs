//! From decoded pixels to the network's grid and back.
//!
//! Arrays are `[c, z, y, x]` (x fastest) on the source grid: z = slice index k, y = row j, x = column i.
//! World coordinates are DICOM patient LPS millimetres.

mod affine;
mod labelmap;
mod prepared;
pub mod resample;

pub use affine::Affine;
pub use labelmap::{LabelMap, LabelMapError, Labels};
pub use prepared::{Prepared, Rectified, WayBack};

use crate::series::Case;
use std::path::PathBuf;

/// What the voxel values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Quantity {
    /// Hounsfield units (CT).
    #[serde(rename = "HU")]
    Hu,
    /// Standardised uptake value by body weight, g/ml (PET).
    #[serde(rename = "SUVbw")]
    SuvBw,
    /// A PET series whose SUV can not be computed: Bq/ml, counts or another unit. Shown by `inspect`, never segmented.
    #[serde(rename = "PET")]
    PetUnits,
    /// A NIfTI file does not say; the model decides.
    #[serde(rename = "unknown")]
    Unknown,
}

/// Where a volume's voxels came from; what the results refer to.
#[derive(Clone, Debug)]
pub enum Source {
    /// One DICOM series per channel.
    Case(Box<Case>),
    /// A NIfTI file: results can be NIfTI and preview only.
    Nifti {
        /// The file read.
        path: PathBuf,
        /// SHA-256 of the file.
        digest: [u8; 32],
    },
}

/// Voxels with their place in the patient: `[c, z, y, x]` in HU or SUV, an invertible affine, finite values.
#[derive(Clone, Debug)]
pub struct Volume {
    /// `data[((c * nz + z) * ny + y) * nx + x]`.
    pub data: Vec<f32>,
    /// Number of channels.
    pub channels: usize,
    /// `[nz, ny, nx]`.
    pub shape: [usize; 3],
    /// Index (i = x, j = y, k = z) to patient LPS mm. The third column is the true slice step: for a tilted gantry it is not
    /// parallel to the normal.
    pub affine: Affine,
    /// One per channel.
    pub quantity: Vec<Quantity>,
    /// Where it came from.
    pub source: Source,
}

impl Volume {
    /// Voxel spacing `(sz, sy, sx)` in mm: the lengths of the affine's columns, slices first.
    pub fn spacing_zyx(&self) -> [f64; 3] {
        let [x, y, z] = self.affine.spacing();
        [z, y, x]
    }
}
