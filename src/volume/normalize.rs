//! Intensity normalisation, nnU-Net's schemes in both versions.
//!
//! Statistics are taken in f64, in an order that does not depend on threads; voxels are changed in f32 as the reference changes them.

use super::resample::{Grid, Range};
use crate::models::{Channel, Normalization, NormalizationOrder};
use rayon::prelude::*;

/// What happens to the voxels outside the non-zero mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outside {
    /// The same as to those inside.
    Same,
    /// Nothing.
    Kept,
    /// They become 0.
    Zero,
}

/// What a normalisation does to each voxel: clip, subtract, divide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoxelMap {
    clip: Option<(f32, f32)>,
    shift: f32,
    divisor: f32,
    outside: Outside,
}

impl VoxelMap {
    const IDENTITY: VoxelMap = VoxelMap { clip: None, shift: 0.0, divisor: 1.0, outside: Outside::Same };

    /// The map for one channel of an image on the grid on which `order` normalises: cropped and not resampled (v2), or resampled (v1).
    /// `mask` is the non-zero mask on that grid, for channels that use it: 1 inside.
    pub fn of(channel: &Channel, order: NormalizationOrder, image: &Grid<f32>, mask: Option<&Grid<u8>>) -> VoxelMap {
        let v1 = order == NormalizationOrder::ResampleFirst;
        let mask = mask.filter(|_| channel.use_mask);
        // v1 blanks what lies outside the mask; v2 knows the mask for the z-score only, and leaves the outside alone
        let outside = if mask.is_none() { Outside::Same } else { Outside::Zero };
        match channel.normalization {
            Normalization::Ct { lower, upper, mean, sd } => VoxelMap {
                clip: Some((lower as f32, upper as f32)),
                shift: mean as f32,
                divisor: if v1 { sd } else { sd.max(1e-8) } as f32,
                outside: if v1 { outside } else { Outside::Same },
            },
            Normalization::Ct2 { lower, upper } => {
                let (lo, hi) = (lower as f32, upper as f32);
                let moments = Moments::of(image, None, |v| lo < v && v < hi);
                VoxelMap { clip: Some((lo, hi)), shift: moments.mean as f32, divisor: moments.sd as f32, outside }
            }
            Normalization::ZScore => {
                let moments = Moments::of(image, mask, |_| true);
                let divisor = if v1 { moments.sd + 1e-8 } else { moments.sd.max(1e-8) };
                let outside = if v1 || mask.is_none() { outside } else { Outside::Kept };
                VoxelMap { clip: None, shift: moments.mean as f32, divisor: divisor as f32, outside }
            }
            Normalization::Rescale01 => {
                let Range { lo, hi } = range(image);
                VoxelMap { clip: None, shift: lo, divisor: (hi - lo).max(1e-8), outside: Outside::Same }
            }
            Normalization::None => VoxelMap::IDENTITY,
        }
    }

    /// Whether every voxel stays as it is.
    pub fn is_identity(&self) -> bool {
        *self == VoxelMap::IDENTITY
    }

    /// Changes a row of voxels; `mask` is that row's part of the non-zero mask.
    pub fn apply(&self, row: &mut [f32], mask: impl Iterator<Item = u8>) {
        match self.outside {
            Outside::Same => self.change(row),
            Outside::Zero => {
                self.change(row);
                row.iter_mut().zip(mask).filter(|(_, m)| *m == 0).for_each(|(v, _)| *v = 0.0);
            }
            Outside::Kept => row.iter_mut().zip(mask).filter(|(_, m)| *m != 0).for_each(|(v, _)| self.change(std::slice::from_mut(v))),
        }
    }

    fn change(&self, row: &mut [f32]) {
        let (lo, hi) = self.clip.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        for v in row {
            // comparisons that leave NaN alone
            let clipped = if *v < lo { lo } else { *v };
            let clipped = if clipped > hi { hi } else { clipped };
            *v = (clipped - self.shift) / self.divisor;
        }
    }
}

/// Smallest and largest value.
fn range(image: &Grid<f32>) -> Range {
    let [planes, rows, width] = image.shape();
    let plane = |a: usize| {
        let mut row = vec![0.0; width];
        (0..rows).fold(Range::EMPTY, |mut range, b| {
            image.read(a, b, &mut row);
            range.extend(&row);
            range
        })
    };
    (0..planes).into_par_iter().map(plane).reduce(|| Range::EMPTY, Range::union)
}

/// Mean and population standard deviation.
struct Moments {
    mean: f64,
    sd: f64,
}

/// Count, sum and sum of squares of what lies above a common pivot.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: u64,
    sum: f64,
    squares: f64,
}

impl Moments {
    /// Of the voxels inside the mask that are chosen. Without any the mean is 0 and the deviation NaN.
    fn of(image: &Grid<f32>, mask: Option<&Grid<u8>>, chosen: impl Fn(f32) -> bool + Sync) -> Moments {
        let [planes, rows, width] = image.shape();
        let pivot = if planes * rows * width == 0 { 0.0 } else { image.row(0, 0).next().filter(|v| v.is_finite()).unwrap_or(0.0).into() };
        let parts: Vec<Sums> = (0..planes)
            .into_par_iter()
            .map(|a| {
                let (mut row, mut inside) = (vec![0.0; width], vec![1u8; width]);
                let mut total = Sums::default();
                for b in 0..rows {
                    image.read(a, b, &mut row);
                    if let Some(mask) = mask {
                        mask.read(a, b, &mut inside);
                    }
                    total.add(&row, &inside, pivot, &chosen);
                }
                total
            })
            .collect();
        // plane after plane, so that the result is the same for any number of threads
        let all = parts.iter().fold(Sums::default(), |a, b| Sums { n: a.n + b.n, sum: a.sum + b.sum, squares: a.squares + b.squares });
        let n = all.n as f64;
        if all.n == 0 {
            return Moments { mean: 0.0, sd: f64::NAN };
        }
        let shift = all.sum / n;
        Moments { mean: pivot + shift, sd: (all.squares / n - shift * shift).max(0.0).sqrt() }
    }
}

impl Sums {
    fn add(&mut self, row: &[f32], inside: &[u8], pivot: f64, chosen: impl Fn(f32) -> bool) {
        let (mut n, mut sum, mut squares) = ([0u32; 8], [0f64; 8], [0f64; 8]);
        for (values, mask) in row.chunks(8).zip(inside.chunks(8)) {
            for (l, (&v, &m)) in values.iter().zip(mask).enumerate() {
                let counts = m != 0 && chosen(v);
                let d = if counts { f64::from(v) - pivot } else { 0.0 };
                n[l] += u32::from(counts);
                sum[l] += d;
                squares[l] += d * d;
            }
        }
        self.n += n.iter().map(|&n| u64::from(n)).sum::<u64>();
        self.sum += sum.iter().sum::<f64>();
        self.squares += squares.iter().sum::<f64>();
    }
}
