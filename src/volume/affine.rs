//! The map from voxel index to patient millimetres.

/// Maps a voxel index `(i, j, k)` (column, row, slice) to patient LPS millimetres: `rows · (i, j, k, 1)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Three rows (L, P, S) of four columns (i, j, k, origin).
    pub rows: [[f64; 4]; 3],
}

impl Affine {
    /// From the images of the unit steps along i, j, k and of index (0, 0, 0). `None` unless finite and invertible.
    pub fn new(step_i: [f64; 3], step_j: [f64; 3], step_k: [f64; 3], origin: [f64; 3]) -> Option<Affine> {
        let mut rows = [[0.0; 4]; 3];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = [step_i[r], step_j[r], step_k[r], origin[r]];
        }
        let affine = Affine { rows };
        let scale: f64 = affine.spacing().iter().product();
        let det = affine.determinant();
        (rows.iter().flatten().all(|v| v.is_finite()) && scale > 0.0 && det.abs() > 1e-6 * scale).then_some(affine)
    }

    /// Column `c`: 0, 1, 2 the steps along i, j, k in mm, 3 the origin.
    pub fn column(&self, c: usize) -> [f64; 3] {
        [self.rows[0][c], self.rows[1][c], self.rows[2][c]]
    }

    /// Lengths of the steps along `(i, j, k)` in mm.
    pub fn spacing(&self) -> [f64; 3] {
        std::array::from_fn(|c| self.column(c).iter().map(|v| v * v).sum::<f64>().sqrt())
    }

    /// Determinant of the 3 × 3 part in mm³; negative for a left-handed index order.
    pub fn determinant(&self) -> f64 {
        let m = &self.rows;
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    }

    /// The patient position of an index (fractions allowed).
    pub fn apply(&self, [i, j, k]: [f64; 3]) -> [f64; 3] {
        std::array::from_fn(|r| {
            let m = &self.rows[r];
            m[0] * i + m[1] * j + m[2] * k + m[3]
        })
    }

    /// The index (with fractions) of a patient position.
    pub fn invert(&self, p: [f64; 3]) -> [f64; 3] {
        let m = &self.rows;
        let d: [f64; 3] = std::array::from_fn(|r| p[r] - m[r][3]);
        let det = self.determinant();
        let minor = |a: usize, b: usize| -> [f64; 3] {
            // cofactors of column c, built from rows; see `new` for the guarantee that det is not 0
            [m[1][a] * m[2][b] - m[1][b] * m[2][a], m[2][a] * m[0][b] - m[2][b] * m[0][a], m[0][a] * m[1][b] - m[0][b] * m[1][a]]
        };
        let dot = |v: [f64; 3]| (v[0] * d[0] + v[1] * d[1] + v[2] * d[2]) / det;
        [dot(minor(1, 2)), dot(minor(2, 0)), dot(minor(0, 1))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn invert_undoes_apply(v in proptest::array::uniform12(-50.0f64..50.0), p in proptest::array::uniform3(-100.0f64..100.0)) {
            let a = Affine::new([v[0], v[1], v[2]], [v[3], v[4], v[5]], [v[6], v[7], v[8]], [v[9], v[10], v[11]]);
            prop_assume!(a.is_some_and(|a| a.determinant().abs() > 1.0));
            let a = a.unwrap();
            for (x, y) in a.invert(a.apply(p)).iter().zip(p) {
                prop_assert!((x - y).abs() < 1e-5);
            }
        }
    }
}
