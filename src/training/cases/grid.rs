//! Whether voxels of another array are voxels of the image.

use super::CaseError;
use crate::volume::{Affine, Volume};

/// How far a voxel centre may lie from the image's, in voxels.
const TOLERANCE: f64 = 0.1;

/// The grid that labels have to lie on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageGrid {
    /// `[nz, ny, nx]`.
    pub shape: [usize; 3],
    /// Index (i = x, j = y, k = z) to patient LPS mm.
    pub affine: Affine,
}

impl From<&Volume> for ImageGrid {
    fn from(volume: &Volume) -> ImageGrid {
        ImageGrid { shape: volume.shape, affine: volume.affine }
    }
}

/// Where the voxels of an array of `N` axes are in the image: the index (i, j, k) of its first voxel, and the step along each
/// of its axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement<const N: usize> {
    origin: [i64; 3],
    steps: [[i64; 3]; N],
}

impl ImageGrid {
    /// Voxels.
    pub fn voxels(&self) -> usize {
        self.shape.iter().product()
    }

    /// Cubic millimetres of a voxel.
    pub fn voxel_volume(&self) -> f64 {
        self.affine.determinant().abs()
    }

    /// Places an array by the patient position of its first voxel, and step and count along each axis. Each axis has to run along
    /// one of the image's, voxel by voxel, and all of it has to lie in the image.
    pub(super) fn place<const N: usize>(&self, first: [f64; 3], axes: [([f64; 3], usize); N]) -> Result<Placement<N>, CaseError> {
        let beside = |what: &str, off: f64| CaseError::Geometry(format!("the labels lie {off:.2} voxels beside the image's {what}"));
        let whole = |at: [f64; 3]| {
            let nearest = at.map(f64::round);
            let off = (0..3).map(|a| (at[a] - nearest[a]).abs()).fold(0.0, f64::max);
            if off <= TOLERANCE { Ok(nearest.map(|v| v as i64)) } else { Err(off) }
        };
        let origin = whole(self.affine.invert(first)).map_err(|off| beside("voxels", off))?;
        let mut steps = [[0; 3]; N];
        let (mut low, mut high) = (origin, origin);
        for ((step, count), found) in axes.into_iter().zip(&mut steps) {
            if count <= 1 {
                continue;
            }
            let last = (count - 1) as f64;
            let end =
                whole(self.affine.invert(std::array::from_fn(|a| first[a] + step[a] * last))).map_err(|off| beside("last voxels", off))?;
            let along: [i64; 3] = std::array::from_fn(|a| end[a] - origin[a]);
            let steps_of_one = along.iter().filter(|n| n.unsigned_abs() as usize == count - 1).count();
            if steps_of_one != 1 || along.iter().filter(|n| **n != 0).count() != 1 {
                return Err(CaseError::Geometry("an axis of the labels does not run along one of the image's, voxel by voxel".into()));
            }
            *found = along.map(i64::signum);
            for a in 0..3 {
                low[a] += along[a].min(0);
                high[a] += along[a].max(0);
            }
        }
        let [nz, ny, nx] = self.shape.map(|n| n as i64);
        if low.iter().any(|&v| v < 0) || high[0] >= nx || high[1] >= ny || high[2] >= nz {
            return Err(CaseError::Geometry("the labels reach beyond the image".into()));
        }
        Ok(Placement { origin, steps })
    }

    /// The flat index of a voxel of a placed array.
    pub(super) fn index<const N: usize>(&self, placement: &Placement<N>, at: [usize; N]) -> usize {
        let mut voxel = placement.origin;
        for (step, at) in placement.steps.iter().zip(at) {
            (0..3).for_each(|a| voxel[a] += step[a] * at as i64);
        }
        // `place` has checked that all voxels lie in the image.
        let [i, j, k] = voxel.map(|v| v as usize);
        (k * self.shape[1] + j) * self.shape[2] + i
    }
}
