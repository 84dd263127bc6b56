//! Turning, scaling and mirroring.

use super::{OUTSIDE, Patch};

/// From the output's voxels about its centre to the input's about its own.
pub(super) type Matrix = [[f64; 3]; 3];

/// The sampling matrix: rotations about axes 0, 1 and 2, times the scale; in plane, axis 0 stays as it is.
pub(super) fn matrix(rotation: Option<[f64; 3]>, scale: Option<f64>, in_plane: bool) -> Matrix {
    let [a, b, c] = rotation.unwrap_or_default().map(f64::sin_cos);
    let about = [
        [[1.0, 0.0, 0.0], [0.0, a.1, -a.0], [0.0, a.0, a.1]],
        [[b.1, 0.0, b.0], [0.0, 1.0, 0.0], [-b.0, 0.0, b.1]],
        [[c.1, -c.0, 0.0], [c.0, c.1, 0.0], [0.0, 0.0, 1.0]],
    ];
    let product =
        |m: &Matrix, n: &Matrix| -> Matrix { std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| m[i][k] * n[k][j]).sum())) };
    let mut result = product(&product(&about[0], &about[1]), &about[2]);
    let scale = scale.unwrap_or(1.0);
    for (i, row) in result.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            if !(in_plane && (i == 0 || j == 0)) {
                *value *= scale;
            }
        }
    }
    result
}

/// Samples the middle of `input` on a turned and scaled grid of `size`. The image is interpolated linearly between voxel
/// centres, 0 outside. A label wins where its own linear interpolation is largest; of equals the lowest, and [`OUTSIDE`]
/// before all.
pub(super) fn sample(input: &Patch, size: [usize; 3], matrix: &Matrix) -> Patch {
    let volume: usize = input.size.iter().product();
    let channels = input.image.len() / volume.max(1);
    let voxels: usize = size.iter().product();
    let mut out = Patch { image: vec![0.0; channels * voxels], labels: vec![OUTSIDE; voxels], size };
    let [_, rows, columns] = input.size;
    let offsets: [usize; 8] = std::array::from_fn(|k| ((k >> 2) * rows + (k >> 1 & 1)) * columns + (k & 1));
    let middle = |n: usize| (n as f64 - 1.0) / 2.0;
    for i in 0..size[0] {
        for j in 0..size[1] {
            let at = [i as f64 - middle(size[0]), j as f64 - middle(size[1]), -middle(size[2])];
            let start: [f64; 3] =
                std::array::from_fn(|axis| middle(input.size[axis]) + (0..3).map(|k| matrix[axis][k] * at[k]).sum::<f64>());
            for k in 0..size[2] {
                let place: [f64; 3] = std::array::from_fn(|axis| start[axis] + matrix[axis][2] * k as f64);
                let low = place.map(f64::floor);
                let part: [f32; 3] = std::array::from_fn(|axis| (place[axis] - low[axis]) as f32);
                let low = low.map(|v| v as i64);
                let index = (i * size[1] + j) * size[2] + k;
                let inside = |axis: usize, step: i64| (0..input.size[axis] as i64).contains(&(low[axis] + step));
                let weight = |corner: usize| {
                    let along = |axis: usize, far: bool| if far { part[axis] } else { 1.0 - part[axis] };
                    along(0, corner & 4 != 0) * along(1, corner & 2 != 0) * along(2, corner & 1 != 0)
                };
                if (0..3).all(|axis| inside(axis, 0) && inside(axis, 1)) {
                    let base = (low[0] as usize * rows + low[1] as usize) * columns + low[2] as usize;
                    let weights: [f32; 8] = std::array::from_fn(weight);
                    for channel in 0..channels {
                        let image = &input.image[channel * volume + base..];
                        out.image[channel * voxels + index] = (0..8).map(|c| image[offsets[c]] * weights[c]).sum();
                    }
                    let labels = offsets.map(|offset| input.labels[base + offset]);
                    out.labels[index] =
                        if labels.iter().all(|label| *label == labels[0]) { labels[0] } else { heaviest(&labels, &weights) };
                    continue;
                }
                // At the rim: corners outside add nothing.
                let (mut labels, mut weights) = ([OUTSIDE; 8], [0.0; 8]);
                for corner in 0..8 {
                    let steps = [corner >> 2, corner >> 1 & 1, corner & 1].map(|step| step as i64);
                    if (0..3).all(|axis| inside(axis, steps[axis])) {
                        let at: [usize; 3] = std::array::from_fn(|axis| (low[axis] + steps[axis]) as usize);
                        let from = (at[0] * rows + at[1]) * columns + at[2];
                        (labels[corner], weights[corner]) = (input.labels[from], weight(corner));
                        for channel in 0..channels {
                            out.image[channel * voxels + index] += input.image[channel * volume + from] * weights[corner];
                        }
                    }
                }
                out.labels[index] = heaviest(&labels, &weights);
            }
        }
    }
    out
}

/// The label with the largest sum of weights.
fn heaviest(labels: &[u16; 8], weights: &[f32; 8]) -> u16 {
    // OUTSIDE stands for -1 and comes first.
    let rank = |label: u16| if label == OUTSIDE { 0 } else { u32::from(label) + 1 };
    let (mut best, mut most) = (OUTSIDE, 0f32);
    for (i, &label) in labels.iter().enumerate() {
        if labels[..i].contains(&label) {
            continue;
        }
        let sum: f32 = labels.iter().zip(weights).filter(|(other, _)| **other == label).map(|(_, weight)| weight).sum();
        if sum > most || (sum == most && rank(label) < rank(best)) {
            (best, most) = (label, sum);
        }
    }
    best
}

/// Mirrors an array `[a0, a1, a2]` along the marked axes, in place.
pub(super) fn mirror<T: Copy>(data: &mut [T], size: [usize; 3], axes: [bool; 3]) {
    let [a, b, c] = size;
    if axes[2] {
        data.chunks_exact_mut(c).for_each(<[T]>::reverse);
    }
    if axes[1] {
        for slice in data.chunks_exact_mut(b * c) {
            (0..b / 2).for_each(|row| (0..c).for_each(|i| slice.swap(row * c + i, (b - 1 - row) * c + i)));
        }
    }
    if axes[0] {
        let slice = b * c;
        (0..a / 2).for_each(|z| (0..slice).for_each(|i| data.swap(z * slice + i, (a - 1 - z) * slice + i)));
    }
}
