//! Which part of a grid another series covers: where a partner ends, what was found ends with it.

use super::read::{affine_of, shape_of};
use crate::series::{Case, Series};
use std::ops::Range;

/// Indices within this part of a voxel of a border lie on it.
const ROUNDING: f64 = 1e-6;

/// The part of a grid that lies within another one (half a voxel beyond the outermost centres included).
#[derive(Clone, Debug)]
pub struct Overlap {
    /// `[nz, ny, nx]` of the grid.
    shape: [usize; 3],
    /// The other one's index `(i, j, k)` at the grid's index 0, and its steps along the grid's i, j, k.
    start: [f64; 3],
    steps: [[f64; 3]; 3],
    /// The other one's columns, rows, slices.
    size: [usize; 3],
}

impl Overlap {
    /// The parts of a case's grid that its other channels cover; those that cover it whole are left out.
    pub fn partial(case: &Case) -> Vec<Overlap> {
        let others = case.channels.iter().enumerate().filter(|(channel, _)| *channel != case.grid);
        let overlaps = others.filter_map(|(_, other)| Overlap::of(case.grid_series()?, other));
        overlaps.filter(|overlap| overlap.voxels() < overlap.shape.iter().product::<usize>()).collect()
    }

    /// What `other` covers of the grid of `grid`; none when one of them has no grid.
    pub fn of(grid: &Series, other: &Series) -> Option<Overlap> {
        let (shape, affine) = (shape_of(grid).ok()?, affine_of(grid).ok()?);
        let ([planes, rows, columns], theirs) = (shape_of(other).ok()?, affine_of(other).ok()?);
        let index = |i: f64, j: f64, k: f64| theirs.invert(affine.apply([i, j, k]));
        let start = index(0.0, 0.0, 0.0);
        let step = |p: [f64; 3]| std::array::from_fn(|a| p[a] - start[a]);
        let steps = [step(index(1.0, 0.0, 0.0)), step(index(0.0, 1.0, 0.0)), step(index(0.0, 0.0, 1.0))];
        Some(Overlap { shape, start, steps, size: [columns, rows, planes] })
    }

    /// The columns of row `j` of slice `k` that are covered.
    pub fn row(&self, k: usize, j: usize) -> Range<usize> {
        let (mut first, mut last) = (0.0, self.shape[2] as f64 - 1.0);
        for a in 0..3 {
            let at = self.start[a] + j as f64 * self.steps[1][a] + k as f64 * self.steps[2][a];
            let (low, high) = (-0.5 - ROUNDING - at, self.size[a] as f64 - 0.5 + ROUNDING - at);
            let step = self.steps[0][a];
            if step.abs() * self.shape[2] as f64 > ROUNDING {
                let (from, to) = (low / step, high / step);
                first = f64::max(first, from.min(to));
                last = f64::min(last, from.max(to));
            } else if low > 0.0 || high < 0.0 {
                return 0..0;
            }
        }
        let (first, last) = (first.ceil(), last.floor());
        if first > last { 0..0 } else { first as usize..last as usize + 1 }
    }

    /// How many voxels of the grid are covered.
    fn voxels(&self) -> usize {
        let [nz, ny, _] = self.shape;
        (0..nz).flat_map(|k| (0..ny).map(move |j| (k, j))).map(|(k, j)| self.row(k, j).len()).sum()
    }

    /// The share of the grid that is covered, 0 to 1.
    pub fn share(&self) -> f64 {
        self.voxels() as f64 / self.shape.iter().product::<usize>() as f64
    }

    /// The columns of row `j` of slice `k` whose six neighbours within the grid are covered too: a structure that leaves them may go on
    /// where the other one does not reach.
    pub fn inner_row(&self, k: usize, j: usize) -> Range<usize> {
        let [nz, ny, nx] = self.shape;
        let own = self.row(k, j);
        let mut inner = own.start + usize::from(own.start > 0)..own.end.saturating_sub(usize::from(own.end < nx));
        let beside = [(k.wrapping_sub(1), j), (k + 1, j), (k, j.wrapping_sub(1)), (k, j + 1)];
        for (k, j) in beside.into_iter().filter(|&(k, j)| k < nz && j < ny) {
            let row = self.row(k, j);
            inner = inner.start.max(row.start)..inner.end.min(row.end);
        }
        inner
    }
}
