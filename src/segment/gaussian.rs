//! How much a voxel of a window counts: nnU-Net's Gaussian importance map.

use crate::models::Aggregation;
use half::f16;

/// Standard deviation as a share of the patch edge.
const SIGMA: f64 = 1.0 / 8.0;
/// The kernel is cut off at this many standard deviations (SciPy's `truncate`).
const TRUNCATE: f64 = 4.0;

/// The importance of each voxel of a window, `[z, y, x]`; every value is above 0.
///
/// * `Softmax` (nnU-Net v1): largest value 1, in f32.
/// * `Logits` (nnU-Net v2): largest value 10, **rounded to f16** as the reference's table is, and held as f32; what
///   underflows to 0 counts as the smallest f16, 2⁻²⁴.
pub fn gaussian(patch: [usize; 3], aggregation: Aggregation) -> Vec<f32> {
    let lines = patch.map(line);
    // The largest value of a product is the product of the largest values.
    let max: f64 = lines.iter().map(|l| l.iter().copied().fold(0.0, f64::max)).product();
    let mut table = Vec::with_capacity(patch.iter().product());
    for &z in &lines[0] {
        for &y in &lines[1] {
            let zy = z * y;
            table.extend(lines[2].iter().map(|&x| match aggregation {
                Aggregation::Softmax => (zy * x / max) as f32,
                Aggregation::Logits => f16::from_f32((zy * x / (max / 10.0)) as f32).to_f32(),
            }));
        }
    }
    let smallest = table.iter().copied().filter(|&v| v > 0.0).fold(f32::INFINITY, f32::min);
    table.iter_mut().filter(|v| **v == 0.0).for_each(|v| *v = smallest);
    table
}

/// SciPy's `gaussian_filter1d` of a unit impulse at `edge / 2`: the sampled Gaussian, cut off and normalised to sum 1.
fn line(edge: usize) -> Vec<f64> {
    let sigma = edge as f64 * SIGMA;
    let radius = (TRUNCATE * sigma + 0.5) as usize;
    let value = |distance: usize| (-0.5 / (sigma * sigma) * (distance * distance) as f64).exp();
    let sum = value(0) + 2.0 * (1..=radius).map(value).sum::<f64>();
    (0..edge).map(|i| i.abs_diff(edge / 2)).map(|distance| if distance <= radius { value(distance) / sum } else { 0.0 }).collect()
}
