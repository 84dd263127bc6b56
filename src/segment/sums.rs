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

/// Sums under slices `from .. from + slices` of a window: views, to be added to.
pub(super) struct Block {
    pub from: i64,
    pub slices: i64,
    /// `[slices, y, x, channel]`.
    pub values: Tensor,
    /// `[slices, y, x]`.
    pub weights: Tensor,
}

impl Block {
    /// Adds `values` f32 `[z, y, x, channel]` times `weights` `[z, y, x]`, both of the block's size from its slice `first` on.
    pub fn add(&mut self, first: i64, values: &Tensor, weights: &Tensor) -> Result<(), SegmentError> {
        let slices = values.size()[0];
        let values = values.f_to_device(self.values.device())?;
        let _ = self.values.f_narrow(0, first, slices)?.f_addcmul_(&values, &weights.f_narrow(0, first, slices)?.f_unsqueeze(-1)?)?;
        Ok(())
    }
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

    /// The sums under a window of size `[z, y, x]` at voxel `start` of the grid, in up to two blocks.
    pub fn blocks(&self, start: [usize; 3], window: [usize; 3]) -> Result<Vec<Block>, SegmentError> {
        let block = |piece: Range<usize>| -> Result<Block, SegmentError> {
            let cut = |tensor: &Tensor| -> Result<Tensor, SegmentError> {
                let slices = tensor.f_narrow(0, (piece.start % self.depth) as i64, piece.len() as i64)?;
                Ok(slices.f_narrow(1, start[1] as i64, window[1] as i64)?.f_narrow(2, start[2] as i64, window[2] as i64)?)
            };
            let (from, slices) = ((piece.start - start[0]) as i64, piece.len() as i64);
            Ok(Block { from, slices, values: cut(&self.values)?, weights: cut(&self.weights)? })
        };
        self.pieces(start[0]..start[0] + window[0], self.depth).into_iter().map(block).collect()
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
