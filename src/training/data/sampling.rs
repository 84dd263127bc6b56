//! Where patches are cut: nnU-Net's data loader.

use super::{CaseFile, Random, Region};
use crate::training::Error;

/// Share of the samples of a batch that are forced onto foreground.
const FORCED: f64 = 0.33;
/// A patch is anisotropic, and turned in its plane only, where its longest edge is more than this many times axis 0.
const ANISOTROPIC: f64 = 3.0;
/// Smallest scale that the margin allows for.
const MARGIN: f64 = 0.85;

/// Whether the sample at this place of a batch is forced onto foreground: the last third, rounded as nnU-Net does; of two
/// always the second.
pub fn is_forced(place: usize, batch: usize) -> bool {
    place as f64 >= (batch as f64 * (1.0 - FORCED)).round_ties_even()
}

/// The patch that is trained on, and the larger one that is loaded so that it can be turned and scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Trained on.
    pub patch: [usize; 3],
    /// Loaded.
    pub loaded: [usize; 3],
    /// Turned and scaled in the plane of axes 1 and 2 only.
    pub in_plane: bool,
}

impl Geometry {
    /// nnU-Net's margin around a patch: the extent of the patch turned by the largest angle about each axis in turn, over the
    /// smallest scale.
    pub fn new(patch: [usize; 3]) -> Geometry {
        let longest = patch.iter().copied().max().unwrap_or(1) as f64;
        let in_plane = longest / patch[0].max(1) as f64 > ANISOTROPIC;
        let angle = if in_plane { std::f64::consts::FRAC_PI_2 } else { 30f64.to_radians() };
        let (sin, cos) = angle.sin_cos();
        let p = patch.map(|edge| edge as f64);
        let mut extent = p;
        let mut widen = |i: usize, j: usize| {
            extent[i] = extent[i].max((p[i] * cos + p[j] * sin).abs());
            extent[j] = extent[j].max((p[j] * cos - p[i] * sin).abs());
        };
        if !in_plane {
            widen(0, 1);
            widen(2, 0);
        }
        widen(1, 2);
        let mut loaded = extent.map(|edge| (edge / MARGIN) as usize);
        if in_plane {
            loaded[0] = patch[0];
        }
        Geometry { patch, loaded, in_plane }
    }

    /// The region to load for one sample.
    pub fn place(&self, case: &CaseFile, forced: bool, random: &mut Random) -> Result<Region, Error> {
        let shape = case.shape();
        let voxel = if forced { case.foreground(random)? } else { None };
        let start = std::array::from_fn(|axis| {
            let (shape, loaded) = (shape[axis] as i64, self.loaded[axis] as i64);
            let need = (loaded - self.patch[axis] as i64).max(loaded - shape);
            let (low, high) = ((-need).div_euclid(2), shape + need / 2 + need % 2 - loaded);
            match voxel {
                Some(voxel) => low.max(voxel[axis] as i64 - loaded / 2),
                None => low + random.below((high - low + 1).max(1) as u64) as i64,
            }
        });
        Ok(Region { start, size: self.loaded })
    }

    /// The part of a loaded region that is trained on when nothing is turned or scaled.
    pub fn middle(&self, region: &Region) -> Region {
        let start = std::array::from_fn(|axis| region.start[axis] + (self.loaded[axis] / 2) as i64 - (self.patch[axis] / 2) as i64);
        Region { start, size: self.patch }
    }
}
