//! From decoded pixels to the network's grid and back.
//!
//! Arrays are `[c, z, y, x]` (x fastest) on the source grid: z = slice index k, y = row j, x = column i.
//! World coordinates are DICOM patient LPS millimetres.

mod affine;
mod back;
mod body;
mod crop;
pub mod decode;
mod join;
mod labelmap;
mod limits;
pub mod nifti;
mod normalize;
mod nuclide;
mod orient;
mod overlap;
mod plausible;
mod prepare;
mod prepared;
mod read;
mod rectify;
pub mod resample;
mod statistics;
pub mod suv;

pub use affine::Affine;
pub use back::BackError;
pub use labelmap::{LabelMap, LabelMapError, Labels};
pub use limits::Limits;
pub use orient::Axes;
pub use overlap::Overlap;
pub use prepare::{PrepareError, prepare};
pub use prepared::{Prepared, Rectified, WayBack};
pub use read::{PetValues, ReadLimits, read};
pub use statistics::Statistics;

use crate::series::Case;
use std::path::PathBuf;

/// What the voxel values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Quantity {
    /// Hounsfield units (CT).
    #[serde(rename = "HU")]
    Hu,
    /// A CT series whose values are not, or can not be, Hounsfield units. Shown by `inspect`, never segmented.
    #[serde(rename = "not_HU")]
    NotHu,
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
        /// Its header's geometry fields, which results repeat.
        geometry: Box<nifti::NiftiGeometry>,
    },
}

/// Voxels with their place in the patient: `[c, z, y, x]` in HU or SUV, an invertible affine, finite values (a float NIfTI file may
/// bring NaN or infinities of its own: `prepare` decides about them).
#[derive(Clone)]
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

/// Without the voxels: they are a patient's, and many.
impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Volume { data: _, channels, shape, affine, quantity, source: _ } = self;
        f.debug_struct("Volume")
            .field("channels", channels)
            .field("shape", shape)
            .field("affine", affine)
            .field("quantity", quantity)
            .finish_non_exhaustive()
    }
}

impl Volume {
    /// Voxel spacing `(sz, sy, sx)` in mm, slices first: what the source's header states where the affine agrees, so that no rounding
    /// of direction cosines reaches nnU-Net's shape rule; else the lengths of the affine's columns.
    pub fn spacing_zyx(&self) -> [f64; 3] {
        let [x, y, z] = self.affine.spacing();
        let near = |stated: f64, length: f64| if (stated - length).abs() <= 1e-4 * length { stated } else { length };
        match &self.source {
            Source::Case(case) => match case.grid_series() {
                Some(series) => [z, near(series.geometry.pixel_spacing.dy, y), near(series.geometry.pixel_spacing.dx, x)],
                None => [z, y, x],
            },
            Source::Nifti { geometry, .. } => {
                let [x, y, z] = geometry.spacing(&self.affine).unwrap_or([x, y, z]);
                [z, y, x]
            }
        }
    }
}
