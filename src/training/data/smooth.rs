//! Changes of resolution: Gaussian blur, and sampling coarsely and back.

/// Standard deviations that a blur's kernel spans.
const SPAN: f64 = 6.0;

/// Applies `line(input, output)` along one axis of `[a0, a1, a2]`; the output's edge there is `edge`. Lines are bundled, so
/// that numbers side by side in memory stay so.
fn along(data: &[f32], size: [usize; 3], axis: usize, edge: usize, taps: &[Vec<(usize, f32)>]) -> Vec<f32> {
    let inner: usize = size[axis + 1..].iter().product();
    let outer: usize = size[..axis].iter().product();
    let mut out = vec![0f32; outer * edge * inner];
    for (block, from) in out.chunks_exact_mut(edge * inner).zip(data.chunks_exact(size[axis] * inner)) {
        for (row, taps) in block.chunks_exact_mut(inner).zip(taps) {
            for &(source, weight) in taps {
                row.iter_mut().zip(&from[source * inner..][..inner]).for_each(|(sum, value)| *sum += value * weight);
            }
        }
    }
    out
}

/// Blurs by a Gaussian of these standard deviations, mirrored about the border voxels. Kernels are as wide as the odd
/// number nearest to `6 deviation + 1/2`, as batchgeneratorsv2 cuts them.
pub(super) fn blur(data: &mut [f32], size: [usize; 3], deviations: [f64; 3]) {
    for axis in 0..3 {
        let n = size[axis] as i64;
        let width = SPAN * deviations[axis] + 0.5;
        let mut odd = width.round_ties_even() as i64;
        if odd % 2 == 0 {
            odd += if width >= odd as f64 { 1 } else { -1 };
        }
        let half = odd / 2;
        if n <= half {
            continue;
        }
        let kernel: Vec<f64> = (-half..=half).map(|x| (-0.5 * (x as f64 / deviations[axis]).powi(2)).exp()).collect();
        let sum: f64 = kernel.iter().sum();
        let reflect = |i: i64| {
            if i < 0 {
                -i
            } else if i >= n {
                2 * (n - 1) - i
            } else {
                i
            }
        };
        let taps: Vec<Vec<(usize, f32)>> = (0..n)
            .map(|i| kernel.iter().zip(-half..).map(|(weight, step)| (reflect(i + step) as usize, (weight / sum) as f32)).collect())
            .collect();
        data.copy_from_slice(&along(data, size, axis, size[axis], &taps));
    }
}

/// Samples by nearest neighbour at `factor` of the resolution and interpolates linearly back; in plane, axis 0 keeps its own.
pub(super) fn low_resolution(data: &mut [f32], size: [usize; 3], factor: f64, in_plane: bool) {
    let (mut current, mut shape) = (data.to_vec(), size);
    let coarse: [usize; 3] = std::array::from_fn(|axis| match (axis, in_plane) {
        (0, true) => size[0],
        _ => ((size[axis] as f64 * factor).round_ties_even() as usize).max(1),
    });
    for axis in 0..3 {
        let nearest = |i: usize| ((2 * i + 1) * size[axis] / (2 * coarse[axis])).min(size[axis] - 1);
        let taps: Vec<_> = (0..coarse[axis]).map(|i| vec![(nearest(i), 1.0)]).collect();
        current = along(&current, shape, axis, coarse[axis], &taps);
        shape[axis] = coarse[axis];
    }
    for axis in 0..3 {
        let (n, last) = (size[axis], coarse[axis] - 1);
        let taps: Vec<_> = (0..n)
            .map(|i| {
                let at = ((i as f64 + 0.5) * coarse[axis] as f64 / n as f64 - 0.5).max(0.0);
                let low = (at as usize).min(last);
                let part = (at - low as f64).min(1.0) as f32;
                vec![(low, 1.0 - part), ((low + 1).min(last), part)]
            })
            .collect();
        current = along(&current, shape, axis, n, &taps);
        shape[axis] = n;
    }
    data.copy_from_slice(&current);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blur_keeps_constants_and_spreads_a_point_by_its_deviation() {
        let size = [21, 19, 23];
        let mut flat = vec![3.0f32; 21 * 19 * 23];
        blur(&mut flat, size, [0.5, 0.8, 1.0]);
        assert!(flat.iter().all(|v| (v - 3.0).abs() < 1e-5));
        let mut point = vec![0f32; 21 * 19 * 23];
        point[(10 * 19 + 9) * 23 + 11] = 1.0;
        blur(&mut point, size, [0.5, 0.8, 1.0]);
        for (axis, deviation, width) in [(0, 0.5f64, 3), (1, 0.8, 5), (2, 1.0, 7)] {
            let centre = [10usize, 9, 11];
            let value = |step: i64| {
                let mut at = centre;
                at[axis] = (at[axis] as i64 + step) as usize;
                f64::from(point[(at[0] * 19 + at[1]) * 23 + at[2]])
            };
            assert!((value(1) / value(0) - (-0.5 / (deviation * deviation)).exp()).abs() < 1e-5);
            assert!(value(width / 2) > 0.0 && value(width / 2 + 1) == 0.0, "axis {axis}");
        }
    }

    #[test]
    fn low_resolution_is_nearest_and_then_linear() {
        // Eight values at half the resolution: every second one from 1 on, interpolated between their centres.
        let mut line: Vec<f32> = (0..8).map(|i| i as f32).collect();
        low_resolution(&mut line, [1, 1, 8], 0.5, true);
        assert_eq!(line, [1.0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.0]);
        let mut same: Vec<f32> = (0..60).map(|i| (i * i % 17) as f32).collect();
        let before = same.clone();
        low_resolution(&mut same, [3, 4, 5], 1.0, false);
        assert_eq!(same, before);
    }
}
