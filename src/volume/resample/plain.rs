//! The resize stated plainly, in f64: what the fast one is held against.

use super::Interpolation;
use super::operator::coordinate;

/// Copies of the end samples that the reference puts around a line before the cubic prefilter.
const EDGE: usize = 12;

/// One line, `n_out` samples out.
pub(super) fn resize_line(line: &[f64], n_out: usize, interpolation: Interpolation) -> Vec<f64> {
    let n_in = line.len();
    let clamped = |i: f64| line[i.clamp(0.0, (n_in - 1) as f64) as usize];
    let padded: Vec<f64> = (0..n_in + 2 * EDGE).map(|i| line[i.saturating_sub(EDGE).min(n_in - 1)]).collect();
    let coefficients = if interpolation == Interpolation::Cubic { prefilter(padded) } else { Vec::new() };
    (0..n_out)
        .map(|o| {
            let x = coordinate(o, n_in, n_out);
            match interpolation {
                Interpolation::Nearest => clamped((x + 0.5).floor()),
                Interpolation::Linear => {
                    let t = x - x.floor();
                    (1.0 - t) * clamped(x.floor()) + t * clamped(x.floor() + 1.0)
                }
                Interpolation::Cubic => {
                    let x = x + EDGE as f64;
                    let (i, t) = (x.floor() as usize, x - x.floor());
                    let w = [(1.0 - t).powi(3), 4.0 - 6.0 * t * t + 3.0 * t.powi(3), 1.0 + 3.0 * (t + t * t - t.powi(3)), t.powi(3)];
                    (0..4).map(|k| w[k] / 6.0 * coefficients[i - 1 + k]).sum()
                }
            }
        })
        .collect()
}

/// Cubic B-spline coefficients, half-sample symmetric boundary (d c b a | a b c d | d c b a).
fn prefilter(mut c: Vec<f64>) -> Vec<f64> {
    let z = 3f64.sqrt() - 2.0;
    let n = c.len();
    c.iter_mut().for_each(|v| *v *= 6.0);
    let zn = z.powi(n as i32);
    let sum: f64 = (0..n).map(|i| z.powi(i as i32) * (c[i] + zn * c[n - 1 - i])).sum();
    c[0] += sum * z / (1.0 - zn * zn);
    for i in 1..n {
        c[i] += z * c[i - 1];
    }
    c[n - 1] *= z / (z - 1.0);
    for i in (0..n - 1).rev() {
        c[i] = z * (c[i + 1] - c[i]);
    }
    c
}

/// The whole array, axis after axis, clipped to its own range.
pub(super) fn resize(data: &[f64], from: [usize; 3], to: [usize; 3], interpolation: Interpolation) -> Vec<f64> {
    let mut data = data.to_vec();
    let lo = data.iter().copied().fold(f64::INFINITY, f64::min);
    let hi = data.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut shape = from;
    for axis in 0..3 {
        let mut next = shape;
        next[axis] = to[axis];
        let mut out = vec![0.0; next.iter().product()];
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        for (a, b) in (0..outer).flat_map(|a| (0..inner).map(move |b| (a, b))) {
            let line: Vec<f64> = (0..shape[axis]).map(|i| data[(a * shape[axis] + i) * inner + b]).collect();
            for (o, v) in resize_line(&line, to[axis], interpolation).into_iter().enumerate() {
                out[(a * to[axis] + o) * inner + b] = v;
            }
        }
        (data, shape) = (out, next);
    }
    data.iter().map(|v| v.clamp(lo, hi)).collect()
}

/// As [`resize`], slice by slice across `axis`, which is then resized by nearest neighbour.
pub(super) fn resize_apart(data: &[f64], from: [usize; 3], to: [usize; 3], interpolation: Interpolation, axis: usize) -> Vec<f64> {
    let flat = |shape: [usize; 3], p: [usize; 3]| (p[0] * shape[1] + p[1]) * shape[2] + p[2];
    let points =
        |shape: [usize; 3]| (0..shape[0]).flat_map(move |z| (0..shape[1]).flat_map(move |y| (0..shape[2]).map(move |x| [z, y, x])));
    let with = |shape: [usize; 3], n: usize| {
        let mut shape = shape;
        shape[axis] = n;
        shape
    };
    let mut stacked = vec![0.0; with(to, from[axis]).iter().product()];
    for i in 0..from[axis] {
        let slice: Vec<f64> = points(from).filter(|p| p[axis] == i).map(|p| data[flat(from, p)]).collect();
        let resized = resize(&slice, with(from, 1), with(to, 1), interpolation);
        for (p, v) in points(with(to, 1)).zip(resized) {
            stacked[flat(with(to, from[axis]), with(p, i))] = v;
        }
    }
    let nearest = resize_line(&(0..from[axis]).map(|i| i as f64).collect::<Vec<_>>(), to[axis], Interpolation::Nearest);
    points(to).map(|p| stacked[flat(with(to, from[axis]), with(p, nearest[p[axis]] as usize))]).collect()
}
