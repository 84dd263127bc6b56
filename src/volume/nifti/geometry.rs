//! How a NIfTI header says where voxels lie.

use crate::volume::Affine;

/// The geometry fields of a NIfTI-1 header, as they stand in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NiftiGeometry {
    /// `pixdim[0..4]`: qfac, then the spacing along x, y, z in mm.
    pub pixdim: [f32; 4],
    /// `xyzt_units`.
    pub units: u8,
    /// `qform_code`; 0: the quaternion says nothing.
    pub qform_code: i16,
    /// `sform_code`; 0: the rows say nothing.
    pub sform_code: i16,
    /// `quatern_b`, `quatern_c`, `quatern_d`.
    pub quaternion: [f32; 3],
    /// `qoffset_x`, `qoffset_y`, `qoffset_z`.
    pub offset: [f32; 3],
    /// `srow_x`, `srow_y`, `srow_z`: index to RAS+ mm.
    pub rows: [[f32; 4]; 3],
}

/// `NIFTI_XFORM_SCANNER_ANAT`.
const SCANNER: i16 = 1;

/// `NIFTI_UNITS_MM`.
const MILLIMETRES: u8 = 2;

impl NiftiGeometry {
    /// The fields that describe `affine` (LPS): the sform always, the qform where the axes are orthogonal.
    pub fn from_affine(affine: &Affine) -> NiftiGeometry {
        let ras = |column: usize| {
            let [x, y, z] = affine.column(column);
            [-x, -y, z]
        };
        let columns: [[f64; 3]; 4] = std::array::from_fn(ras);
        let spacing = affine.spacing();
        let unit: [[f64; 3]; 3] = std::array::from_fn(|c| columns[c].map(|v| v / spacing[c]));
        let dot = |a: usize, b: usize| (0..3).map(|r| unit[a][r] * unit[b][r]).sum::<f64>();
        let orthogonal = [dot(0, 1), dot(0, 2), dot(1, 2)].iter().all(|d| d.abs() < 1e-4);
        // the determinant keeps its sign from LPS to RAS: two axes are turned
        let qfac = if affine.determinant() < 0.0 { -1.0 } else { 1.0 };
        let third = unit[2].map(|v| v * qfac);
        NiftiGeometry {
            pixdim: [qfac as f32, spacing[0] as f32, spacing[1] as f32, spacing[2] as f32],
            units: MILLIMETRES,
            qform_code: if orthogonal { SCANNER } else { 0 },
            sform_code: SCANNER,
            quaternion: quaternion_of([unit[0], unit[1], third]).map(|v| v as f32),
            offset: columns[3].map(|v| v as f32),
            rows: std::array::from_fn(|r| std::array::from_fn(|c| columns[c][r] as f32)),
        }
    }

    /// Index to patient LPS mm: the sform if there is one, else the qform. `None` if neither is given, or if it can not be inverted.
    pub fn affine(&self) -> Option<Affine> {
        let columns: [[f64; 3]; 4] = if self.sform_code > 0 {
            std::array::from_fn(|c| std::array::from_fn(|r| self.rows[r][c].into()))
        } else if self.qform_code > 0 {
            let [x, y, z] = rotation_of(self.quaternion.map(f64::from));
            let qfac = if self.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
            let [dx, dy, dz] = [1, 2, 3].map(|a| f64::from(self.pixdim[a]));
            [x.map(|v| v * dx), y.map(|v| v * dy), z.map(|v| v * dz * qfac), self.offset.map(f64::from)]
        } else {
            return None;
        };
        let [i, j, k, origin] = columns.map(|[x, y, z]| [-x, -y, z]);
        Affine::new(i, j, k, origin)
    }

    /// The spacing along (x, y, z) as the header states it, if that is what the affine says too.
    pub fn spacing(&self, affine: &Affine) -> Option<[f64; 3]> {
        let stated = [1, 2, 3].map(|a| f64::from(self.pixdim[a]));
        let agree = stated.iter().zip(affine.spacing()).all(|(s, a)| (s - a).abs() <= 1e-4 * a);
        agree.then_some(stated)
    }
}

/// The columns of the rotation that a NIfTI quaternion `(b, c, d)` stands for.
fn rotation_of([b, c, d]: [f64; 3]) -> [[f64; 3]; 3] {
    let rest = 1.0 - (b * b + c * c + d * d);
    let (a, b, c, d) = if rest < 1e-7 {
        let length = (b * b + c * c + d * d).sqrt();
        (0.0, b / length, c / length, d / length)
    } else {
        (rest.sqrt(), b, c, d)
    };
    [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c + a * d), 2.0 * (b * d - a * c)],
        [2.0 * (b * c - a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d + a * b)],
        [2.0 * (b * d + a * c), 2.0 * (c * d - a * b), a * a + d * d - b * b - c * c],
    ]
}

/// `(b, c, d)` of the unit quaternion with `a >= 0` for a rotation given by its columns.
fn quaternion_of([x, y, z]: [[f64; 3]; 3]) -> [f64; 3] {
    // each component squared, times four; the largest is divided by
    let squares = [1.0 + x[0] + y[1] + z[2], 1.0 + x[0] - y[1] - z[2], 1.0 - x[0] + y[1] - z[2], 1.0 - x[0] - y[1] + z[2]];
    let largest = (0..4).fold(0, |best, i| if squares[i] > squares[best] { i } else { best });
    let root = 2.0 * squares[largest].max(0.0).sqrt();
    let [bc, bd, cd] = [x[1] + y[0], x[2] + z[0], y[2] + z[1]];
    let [ab, ac, ad] = [y[2] - z[1], z[0] - x[2], x[1] - y[0]];
    let [a, b, c, d] = match largest {
        0 => [root / 4.0, ab / root, ac / root, ad / root],
        1 => [ab / root, root / 4.0, bc / root, bd / root],
        2 => [ac / root, bc / root, root / 4.0, cd / root],
        _ => [ad / root, bd / root, cd / root, root / 4.0],
    };
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    [b * sign, c * sign, d * sign]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sform_and_qform_describe_the_same_grid(
            q in proptest::array::uniform4(-1.0f64..1.0), spacing in proptest::array::uniform3(0.3f64..6.0),
            origin in proptest::array::uniform3(-900.0f64..900.0), mirrored: bool,
        ) {
            let length = q.iter().map(|v| v * v).sum::<f64>().sqrt();
            prop_assume!(length > 0.1);
            let sign = if q[0] < 0.0 { -1.0 } else { 1.0 };
            let [x, y, z] = rotation_of([1, 2, 3].map(|i| q[i] / length * sign));
            let flip = if mirrored { -1.0 } else { 1.0 };
            let affine = Affine::new(x.map(|v| v * spacing[0]), y.map(|v| v * spacing[1]), z.map(|v| v * spacing[2] * flip), origin).unwrap();
            let geometry = NiftiGeometry::from_affine(&affine);
            prop_assert_eq!(geometry.qform_code, 1);
            // near half a turn the header's three f32 leave the fourth component little precision
            prop_assume!(geometry.quaternion.iter().map(|v| v * v).sum::<f32>() < 0.99);
            for geometry in [geometry, NiftiGeometry { sform_code: 0, ..geometry }] {
                let read = geometry.affine().unwrap();
                for corner in [[0.0; 3], [511.0, 0.0, 0.0], [0.0, 511.0, 0.0], [0.0, 0.0, 299.0]] {
                    let error: f64 = read.apply(corner).iter().zip(affine.apply(corner)).map(|(a, b)| (a - b).abs()).sum();
                    prop_assert!(error < 5e-3, "{error}");
                }
            }
        }
    }
}
