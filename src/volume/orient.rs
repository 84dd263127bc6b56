//! Which way the axes of an array run, and how a model wants them.

use super::Affine;

/// For each axis of an array made from the source `[z, y, x]`: the source axis it runs along, and whether against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    /// Source axis (0 = z, 1 = y, 2 = x).
    pub source_axis: [usize; 3],
    /// Against the source axis.
    pub flipped: [bool; 3],
}

impl Axes {
    /// The source's own order.
    pub const AS_STORED: Axes = Axes { source_axis: [0, 1, 2], flipped: [false; 3] };

    /// The order in which axes 0, 1, 2 grow towards Superior, Anterior, Right, as nearly as permutation and flips allow: the array (z, y, x) of
    /// nibabel's closest canonical image, by the same rule (the nearest rotation of the affine; strongest axis first).
    pub fn ras(affine: &Affine) -> Axes {
        let spacing = affine.spacing();
        // columns i, j, k as unit vectors in RAS
        let unit: [[f64; 3]; 3] = std::array::from_fn(|c| {
            let [l, p, s] = affine.column(c);
            [-l, -p, s].map(|v| v / spacing[c])
        });
        let mut rotation = nearest_orthogonal(unit);
        let strength = rotation.map(|column| column.iter().fold(0.0f64, |m, v| m.max(v * v)));
        let mut inputs = [0, 1, 2];
        inputs.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]));
        let mut axes = Axes::AS_STORED;
        for input in inputs {
            let column = rotation[input];
            let world = (1..3).fold(0, |best, r| if column[r].abs() > column[best].abs() { r } else { best });
            // arrays count axes from the slowest: world x is array axis 2, index i is source axis 2
            axes.source_axis[2 - world] = 2 - input;
            axes.flipped[2 - world] = column[world] < 0.0;
            rotation.iter_mut().for_each(|c| c[world] = 0.0);
        }
        axes
    }

    /// The same axes in another order: axis `a` of the result is axis `order[a]` of these (nnU-Net's `transpose_forward`).
    pub fn transposed(&self, order: [usize; 3]) -> Axes {
        Axes { source_axis: order.map(|a| self.source_axis[a]), flipped: order.map(|a| self.flipped[a]) }
    }

    /// A source-ordered triple in the order of these axes.
    pub fn pick<T: Copy>(&self, source: [T; 3]) -> [T; 3] {
        self.source_axis.map(|a| source[a])
    }
}

/// The orthogonal factor of the polar decomposition of a matrix given by its columns, by Newton's iteration `(X + X⁻ᵀ) / 2`. The matrix must not be
/// singular.
fn nearest_orthogonal(mut x: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let cross = |a: [f64; 3], b: [f64; 3]| [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    // converges quadratically; the worst matrix that `Affine` accepts needs about 25 steps
    for _ in 0..60 {
        // the columns of the inverse transposed are the cross products over the determinant
        let cofactors = [cross(x[1], x[2]), cross(x[2], x[0]), cross(x[0], x[1])];
        let det: f64 = (0..3).map(|r| x[0][r] * cofactors[0][r]).sum();
        let mut change = 0.0f64;
        for (column, cofactor) in x.iter_mut().zip(cofactors) {
            for (v, c) in column.iter_mut().zip(cofactor) {
                let next = 0.5 * (*v + c / det);
                change = change.max((next - *v).abs());
                *v = next;
            }
        }
        if change < 1e-15 {
            break;
        }
    }
    x
}
