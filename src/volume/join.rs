//! Brings a channel onto another channel's grid.

use super::Affine;
use rayon::prelude::*;

/// Largest deviation, in voxels, of grids that are taken as equal.
const SAME: f64 = 1e-3;

/// Appends `data` of `[z, y, x]` shape `from` to `out`, interpolated linearly (trilinear over the eight neighbours) at the voxel centres
/// of the grid `to`. Beyond half a voxel outside the data the value is `outside`; within it, the nearest sample's.
pub(super) fn onto_grid(
    data: &[f32],
    from: [usize; 3],
    from_affine: &Affine,
    to: [usize; 3],
    to_affine: &Affine,
    outside: f32,
    out: &mut Vec<f32>,
) {
    if from == to && same(from, from_affine, to_affine) {
        out.extend_from_slice(data);
        return;
    }
    let [nz, ny, nx] = to;
    // The map from target index (i, j, k) to source index is affine: one start and three steps.
    let index = |i: f64, j: f64, k: f64| from_affine.invert(to_affine.apply([i, j, k]));
    let start = index(0.0, 0.0, 0.0);
    let step = |p: [f64; 3]| -> [f64; 3] { std::array::from_fn(|a| p[a] - start[a]) };
    let (di, dj, dk) = (step(index(1.0, 0.0, 0.0)), step(index(0.0, 1.0, 0.0)), step(index(0.0, 0.0, 1.0)));
    let held = out.len();
    out.resize(held + nz * ny * nx, outside);
    out[held..].par_chunks_exact_mut(ny * nx).enumerate().for_each(|(k, slice)| {
        for (j, row) in slice.chunks_exact_mut(nx).enumerate() {
            for (i, value) in row.iter_mut().enumerate() {
                let p: [f64; 3] = std::array::from_fn(|a| start[a] + i as f64 * di[a] + j as f64 * dj[a] + k as f64 * dk[a]);
                if let Some(v) = sample(data, from, p) {
                    *value = v;
                }
            }
        }
    });
}

/// The value at source index `(i, j, k)`, fractions allowed.
fn sample(data: &[f32], [nz, ny, nx]: [usize; 3], p: [f64; 3]) -> Option<f32> {
    let axis = |n: usize, at: f64| {
        let last = (n - 1) as f64;
        (-0.5..=last + 0.5).contains(&at).then(|| {
            let at = at.clamp(0.0, last);
            let low = (at as usize).min(n.saturating_sub(2));
            (low, (low + 1).min(n - 1), at - low as f64)
        })
    };
    let ((i0, i1, fi), (j0, j1, fj), (k0, k1, fk)) = (axis(nx, p[0])?, axis(ny, p[1])?, axis(nz, p[2])?);
    let at = |k: usize, j: usize, i: usize| f64::from(data[(k * ny + j) * nx + i]);
    let line = |k: usize, j: usize| at(k, j, i0) * (1.0 - fi) + at(k, j, i1) * fi;
    let plane = |k: usize| line(k, j0) * (1.0 - fj) + line(k, j1) * fj;
    Some((plane(k0) * (1.0 - fk) + plane(k1) * fk) as f32)
}

/// Whether the corners of the grid lie at the same places.
fn same([nz, ny, nx]: [usize; 3], a: &Affine, b: &Affine) -> bool {
    let size = [nx, ny, nz].map(|n| (n - 1) as f64);
    (0..8).all(|corner| {
        let index: [f64; 3] = std::array::from_fn(|axis| if corner >> axis & 1 == 1 { size[axis] } else { 0.0 });
        a.invert(b.apply(index)).iter().zip(index).all(|(x, y)| (x - y).abs() < SAME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn affine(spacing: [f64; 3], origin: [f64; 3]) -> Affine {
        let [x, y, z] = spacing;
        Affine::new([x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z], origin).unwrap()
    }

    proptest! {
        /// A function that is linear in space is met exactly, wherever the two grids lie.
        #[test]
        fn linear_functions_survive(spacing in proptest::array::uniform3(0.5f64..4.0), origin in proptest::array::uniform3(-3.0f64..3.0), tilt in -0.3f64..0.3) {
            let from = [9, 8, 7];
            let a = Affine::new([2.0, tilt, 0.0], [-tilt, 2.0, 0.0], [0.0, tilt, 3.0], [-6.0, -7.0, -12.0]).unwrap();
            let f = |p: [f64; 3]| p[0] - 2.0 * p[1] + 0.5 * p[2] + 3.0;
            let mut data = Vec::new();
            for k in 0..9 { for j in 0..8 { for i in 0..7 {
                data.push(f(a.apply([i as f64, j as f64, k as f64])) as f32);
            } } }
            let b = affine(spacing, origin);
            let mut out = vec![7.0];
            onto_grid(&data, from, &a, [3, 4, 5], &b, -99.0, &mut out);
            prop_assert_eq!((out.len(), out[0]), (61, 7.0));
            for k in 0..3 { for j in 0..4 { for i in 0..5 {
                let place = b.apply([i as f64, j as f64, k as f64]);
                let source = a.invert(place);
                let inside = source.iter().zip([6.0, 7.0, 8.0]).all(|(s, n)| (0.0..=n).contains(s));
                let beyond = source.iter().zip([6.5, 7.5, 8.5]).any(|(s, n)| !(-0.5..=n).contains(s));
                let got = f64::from(out[1 + (k * 4 + j) * 5 + i]);
                if inside { prop_assert!((got - f(place)).abs() < 1e-3, "{} {}", got, f(place)); }
                if beyond { prop_assert_eq!(got, -99.0); }
            } } }
        }
    }

    #[test]
    fn the_same_grid_is_copied_and_thin_ones_work() {
        let a = affine([1.0; 3], [0.0; 3]);
        let mut out = Vec::new();
        onto_grid(&[1.0, 2.0], [1, 1, 2], &a, [1, 1, 2], &affine([1.0; 3], [1e-6; 3]), 0.0, &mut out);
        onto_grid(&[1.0, 2.0], [1, 1, 2], &a, [1, 1, 3], &affine([0.5, 1.0, 1.0], [0.0; 3]), 0.0, &mut out);
        assert_eq!(out, [1.0, 2.0, 1.0, 1.5, 2.0]);
    }
}
