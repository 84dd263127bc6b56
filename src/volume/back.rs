//! Labels on their way back to the source grid.

use super::{LabelMap, Labels, Rectified, WayBack};
use crate::fault::{Code, Fault};
use rayon::prelude::*;

/// Why labels can not go back.
#[derive(Debug, thiserror::Error)]
pub enum BackError {
    /// Not as many labels as the cropped grid has voxels.
    #[error("{got} labels for a grid of {expected} voxels")]
    Length {
        /// Voxels of the cropped grid.
        expected: usize,
        /// Labels given.
        got: usize,
    },
    /// They are not a label map.
    #[error(transparent)]
    Map(#[from] super::LabelMapError),
}

impl From<BackError> for Fault {
    fn from(error: BackError) -> Fault {
        let code = match &error {
            BackError::Length { .. } | BackError::Map(_) => Code::InternalBug,
        };
        Fault::new(code, format!("labels: {error}.")).caused_by(error)
    }
}

impl WayBack {
    /// The label map on the source grid, from labels on the cropped grid (`self.cropped`, network axis order): pasted into the uncropped
    /// array, turned back, and, where slices were rectified, taken from the voxel nearest to each source voxel. What lies outside is 0.
    ///
    /// # Errors
    /// `internal.bug` when the number of labels is wrong or a value is not in the model's table.
    pub fn label_map(&self, cropped: Labels) -> Result<LabelMap, Fault> {
        let expected = self.cropped.iter().product();
        if cropped.len() != expected {
            return Err(BackError::Length { expected, got: cropped.len() }.into());
        }
        let labels = match cropped {
            Labels::U8(v) => Labels::U8(self.labels_to_source(&v)),
            Labels::U16(v) => Labels::U16(self.labels_to_source(&v)),
        };
        let map = LabelMap::new(labels, self.source_shape, self.affine, self.table.clone(), self.source.clone());
        Ok(map.map_err(BackError::from)?)
    }

    /// Values on the cropped grid (`[a0, a1, a2]`, network axis order) brought to the source grid `[z, y, x]`; 0 outside the crop.
    ///
    /// Panics if `cropped` does not fill `self.cropped`.
    pub fn labels_to_source<T: Copy + Default + Send + Sync>(&self, cropped: &[T]) -> Vec<T> {
        assert_eq!(cropped.len(), self.cropped.iter().product::<usize>(), "labels and shape");
        match &self.rectified {
            None => self.paste(cropped, self.source_shape),
            Some(rectified) => rectified.labels_to_slices(&self.paste(cropped, rectified.shape), self.source_shape),
        }
    }

    /// Paste and turn back, onto a grid in source axis order.
    fn paste<T: Copy + Default + Send + Sync>(&self, cropped: &[T], shape: [usize; 3]) -> Vec<T> {
        let [_, ny, nx] = shape;
        let strides = [self.cropped[1] * self.cropped[2], self.cropped[2], 1];
        // per source axis: the network axis that runs along it, and the source indices that the crop covers
        let along: [usize; 3] = std::array::from_fn(|s| (0..3).find(|&a| self.source_axis[a] == s).unwrap_or(s));
        let place = |s: usize, index: usize| -> Option<usize> {
            let a = along[s];
            let network = if self.flipped[a] { self.uncropped[a] - 1 - index } else { index };
            network.checked_sub(self.crop_start[a]).filter(|&n| n < self.cropped[a]).map(|n| n * strides[a])
        };
        let columns: Vec<(usize, usize)> = (0..nx).filter_map(|x| place(2, x).map(|offset| (x, offset))).collect();
        let mut out = vec![T::default(); shape.iter().product()];
        out.par_chunks_mut((ny * nx).max(1)).enumerate().for_each(|(z, slab)| {
            let Some(plane) = place(0, z) else { return };
            for (y, row) in slab.chunks_mut(nx).enumerate() {
                let (Some(line), Some(&(x0, first))) = (place(1, y), columns.first()) else { continue };
                let start = plane + line;
                let target = &mut row[x0..x0 + columns.len()];
                if strides[along[2]] == 1 && !self.flipped[along[2]] {
                    target.copy_from_slice(&cropped[start + first..][..target.len()]);
                } else {
                    target.iter_mut().zip(&columns).for_each(|(to, (_, offset))| *to = cropped[start + offset]);
                }
            }
        });
        out
    }
}

impl Rectified {
    /// Labels on the rectified grid taken at the voxel nearest to each voxel of the source's slices.
    fn labels_to_slices<T: Copy + Default + Send + Sync>(&self, labels: &[T], shape: [usize; 3]) -> Vec<T> {
        let [_, ny, nx] = shape;
        let [mz, my, mx] = self.shape;
        let nearest = |v: f64, n: usize| (v.round().max(0.0) as usize).min(n.saturating_sub(1));
        let mut out = vec![T::default(); shape.iter().product()];
        out.par_chunks_mut((ny * nx).max(1)).zip(&self.slices).for_each(|(slab, &(place, [down, right]))| {
            let plane = &labels[nearest(place, mz) * my * mx..][..my * mx];
            for (y, row) in slab.chunks_mut(nx).enumerate() {
                let line = &plane[nearest(y as f64 + down, my) * mx..][..mx];
                row.iter_mut().enumerate().for_each(|(x, label)| *label = line[nearest(x as f64 + right, mx)]);
            }
        });
        out
    }
}
