//! The resize of label maps: each label's indicator is interpolated linearly, and the strongest label wins.

use super::operator::AxisOperator;
use rayon::prelude::*;

/// Which label an output voxel gets from the interpolated indicators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelRule {
    /// batchgenerators since 0.25.1: the largest share; where shares are equal, the label of the nearest voxel if it is among them, else the lowest.
    Strongest,
    /// batchgenerators up to 0.25: the highest label with a share of at least one half, else 0.
    Majority,
}

/// Resizes labels from shape `from` to `to`. Along `separate_axis` the result is the nearest of the slices, each resized on its own.
///
/// Panics if `labels` does not fill `from`.
pub fn resize_labels<T>(labels: &[T], from: [usize; 3], to: [usize; 3], separate_axis: Option<usize>, rule: LabelRule) -> Vec<T>
where
    T: Copy + Ord + Default + Send + Sync,
{
    assert_eq!(labels.len(), from.iter().product::<usize>(), "labels and shape");
    if from == to {
        return labels.to_vec();
    }
    let mut out = vec![T::default(); to.iter().product()];
    if out.is_empty() || labels.is_empty() {
        return out;
    }
    let nearest: [AxisOperator; 3] = std::array::from_fn(|a| AxisOperator::nearest(from[a], to[a]));
    let linear: [AxisOperator; 3] = std::array::from_fn(|a| match separate_axis {
        Some(axis) if axis == a => nearest[a].clone(),
        _ => AxisOperator::linear(from[a], to[a]),
    });
    out.par_chunks_mut(to[1] * to[2]).enumerate().for_each(|(z, slab)| {
        let (z0, z1, tz) = linear[0].taps_f64(z);
        for (y, row) in slab.chunks_mut(to[2]).enumerate() {
            let (y0, y1, ty) = linear[1].taps_f64(y);
            let at = |z: usize, y: usize| &labels[(z * from[1] + y) * from[2]..][..from[2]];
            let corners = [at(z0, y0), at(z0, y1), at(z1, y0), at(z1, y1)];
            // products in SciPy's order, so that equal shares are equal here where they are there
            let weights = [(1.0 - tz) * (1.0 - ty), (1.0 - tz) * ty, tz * (1.0 - ty), tz * ty];
            let closest = at(nearest[0].taps(z).0, nearest[1].taps(y).0);
            for (x, label) in row.iter_mut().enumerate() {
                let (x0, x1, tx) = linear[2].taps_f64(x);
                let mut votes = Votes::default();
                for (corner, weight) in corners.iter().zip(weights) {
                    votes.add(corner[x0], weight * (1.0 - tx));
                    votes.add(corner[x1], weight * tx);
                }
                *label = match rule {
                    LabelRule::Strongest => votes.strongest(closest[nearest[2].taps(x).0]),
                    LabelRule::Majority => votes.majority(),
                };
            }
        }
    });
    out
}

/// The shares of the labels at the eight corners around a voxel.
struct Votes<T> {
    entries: [(T, f64); 8],
    len: usize,
}

impl<T: Default + Copy> Default for Votes<T> {
    fn default() -> Self {
        Votes { entries: [(T::default(), 0.0); 8], len: 0 }
    }
}

impl<T: Copy + Ord + Default> Votes<T> {
    fn add(&mut self, label: T, weight: f64) {
        match self.entries[..self.len].iter_mut().find(|(l, _)| *l == label) {
            Some((_, share)) => *share += weight,
            None => {
                self.entries[self.len] = (label, weight);
                self.len += 1;
            }
        }
    }

    fn strongest(&self, nearest: T) -> T {
        let entries = &self.entries[..self.len];
        let best = entries.iter().map(|e| e.1).fold(0.0, f64::max);
        let winners = || entries.iter().filter(|e| e.1 == best).map(|e| e.0);
        if winners().any(|l| l == nearest) { nearest } else { winners().min().unwrap_or_default() }
    }

    fn majority(&self) -> T {
        self.entries[..self.len].iter().filter(|e| e.1 >= 0.5).map(|e| e.0).max().unwrap_or_default()
    }
}
