//! Weighted sums over a moving stretch of slices.

use super::SegmentError;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Weighted sums and their weights for as many slices as a window is deep. Slice `z` of the grid lives at place
/// `z % depth`, so nothing is moved as the stretch moves on.
///
/// Sums are f32: nnU-Net v2 sums in f16, which costs labels at the volume's corners.
pub(super) struct Sums {
    /// `[depth, y, x, channel]`.
    values: Tensor,
    /// `[depth, y, x]`.
    weights: Tensor,
    depth: usize,
}

impl Sums {
    /// Zeros for slices of `[y, x]` voxels with `channels` sums each.
    pub fn new([depth, y, x]: [usize; 3], channels: usize, device: Device) -> Result<Sums, SegmentError> {
        let size = |n: usize| i64::try_from(n).map_err(|_| SegmentError::Inconsistent(format!("a grid edge of {n} voxels")));
        let (d, y, x, c) = (size(depth)?, size(y)?, size(x)?, size(channels)?);
        Ok(Sums {
            values: Tensor::f_zeros([d, y, x, c], (Kind::Float, device))?,
            weights: Tensor::f_zeros([d, y, x], (Kind::Float, device))?,
            depth,
        })
    }

    /// Adds `values` f32 `[z, y, x, channel]` times `weights` `[z, y, x]` at voxel `start` of the grid.
    pub fn add(&mut self, start: [usize; 3], values: &Tensor, weights: &Tensor) -> Result<(), SegmentError> {
        let values = values.f_to_device(self.values.device())?;
        for piece in self.pieces(start[0]..start[0] + length(&values), self.depth) {
            let from = (piece.start - start[0]) as i64;
            let mut target = self.block(&self.values, &piece, start, weights)?;
            let values = values.f_narrow(0, from, piece.len() as i64)?;
            let _ = target.f_addcmul_(&values, &weights.f_narrow(0, from, piece.len() as i64)?.f_unsqueeze(-1)?)?;
        }
        Ok(())
    }

    /// Adds a window's weights `[z, y, x]` at voxel `start` of the grid.
    pub fn add_weights(&mut self, start: [usize; 3], weights: &Tensor) -> Result<(), SegmentError> {
        for piece in self.pieces(start[0]..start[0] + length(weights), self.depth) {
            let mut target = self.block(&self.weights, &piece, start, weights)?;
            let _ = target.f_add_(&weights.f_narrow(0, (piece.start - start[0]) as i64, piece.len() as i64)?)?;
        }
        Ok(())
    }

    /// A view of the slices `piece`, of the size of a window `[z, y, x]` in y and x.
    fn block(&self, of: &Tensor, piece: &Range<usize>, start: [usize; 3], window: &Tensor) -> Result<Tensor, SegmentError> {
        let size = window.size();
        let slices = of.f_narrow(0, (piece.start % self.depth) as i64, piece.len() as i64)?;
        Ok(slices.f_narrow(1, start[1] as i64, size[1])?.f_narrow(2, start[2] as i64, size[2])?)
    }

    /// Cuts slices of the grid into pieces of at most `most` that lie side by side.
    pub fn pieces(&self, slices: Range<usize>, most: usize) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut z = slices.start;
        while z < slices.end {
            let end = slices.end.min(z + most).min(z - z % self.depth + self.depth);
            pieces.push(z..end);
            z = end;
        }
        pieces
    }

    /// Sums divided by weights, `[n, y, x, channel]`, contiguous, of a piece and the part `[y, x]` of its slices.
    pub fn mean(&self, piece: Range<usize>, part: [Range<usize>; 2]) -> Result<Tensor, SegmentError> {
        let cut = |tensor: &Tensor| -> Result<Tensor, SegmentError> {
            let mut tensor = tensor.f_narrow(0, (piece.start % self.depth) as i64, piece.len() as i64)?;
            for (range, dimension) in part.iter().zip(1..) {
                tensor = tensor.f_narrow(dimension, range.start as i64, range.len() as i64)?;
            }
            Ok(tensor)
        };
        Ok(cut(&self.values)?.f_div(&cut(&self.weights)?.f_unsqueeze(-1)?)?.f_contiguous()?)
    }

    /// Zeros the sums of slices that are done with.
    pub fn clear(&mut self, slices: Range<usize>) -> Result<(), SegmentError> {
        for piece in self.pieces(slices, self.depth) {
            for tensor in [&self.values, &self.weights] {
                let _ = tensor.f_narrow(0, (piece.start % self.depth) as i64, piece.len() as i64)?.f_zero_()?;
            }
        }
        Ok(())
    }
}

/// Slices of a window.
fn length(window: &Tensor) -> usize {
    window.size().first().map_or(0, |&n| n.max(0) as usize)
}
