//! How far the body reaches in a CT, seen from its voxels: slices of air beyond it cover nothing.

use super::{Quantity, Volume};
use rayon::prelude::*;

/// HU of soft tissue, blood and water; fat and lung lie below, bone above, and no slice through a body is without it.
const SOFT: std::ops::RangeInclusive<f32> = -30.0..=200.0;
/// Share of a slice's voxels that have to be soft tissue: 4 cm of a field of view of half a metre. A table has less of it.
const LEAST: f64 = 0.005;

impl Volume {
    /// Extent along the normal, in mm, from the first to the last slice that holds a body. `None` without a channel in Hounsfield units.
    pub fn body_extent(&self) -> Option<f64> {
        let channel = self.quantity.iter().position(|q| *q == Quantity::Hu)?;
        let [nz, ny, nx] = self.shape;
        let voxels = self.data.get(channel * nz * ny * nx..(channel + 1) * nz * ny * nx)?;
        let holds: Vec<bool> = voxels
            .par_chunks_exact(ny * nx)
            .map(|slice| slice.iter().filter(|v| SOFT.contains(*v)).count() as f64 >= LEAST * (ny * nx) as f64)
            .collect();
        let slices = match (holds.iter().position(|h| *h), holds.iter().rposition(|h| *h)) {
            (Some(first), Some(last)) => last - first + 1,
            _ => 0,
        };
        let ([x, y, z], affine) = (self.affine.spacing(), &self.affine);
        // The volume of a voxel over its area within the slice: the distance along the normal, tilted or not.
        let (i, j) = (affine.column(0), affine.column(1));
        let cosine = (i[0] * j[0] + i[1] * j[1] + i[2] * j[2]) / (x * y);
        let area = x * y * (1.0 - cosine * cosine).max(0.0).sqrt();
        let distance = if area > 0.0 { affine.determinant().abs() / area } else { z };
        Some(distance * slices as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::nifti::NiftiGeometry;
    use super::super::{Affine, Source};
    use super::*;

    #[test]
    fn air_at_the_ends_covers_nothing() {
        // Tilted: the step has a part within the slice.
        let affine = Affine::new([2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 3.0], [0.0; 3]).expect("affine");
        let extent = |soft: [usize; 6], quantity| {
            let data = soft.iter().flat_map(|&n| (0..400).map(move |i| if i < n { 40.0 } else { -1000.0 })).collect();
            let source = Source::Nifti { path: "x".into(), digest: [0; 32], geometry: Box::new(NiftiGeometry::from_affine(&affine)) };
            Volume { data, channels: 1, shape: [6, 20, 20], affine, quantity: vec![quantity], source }.body_extent()
        };
        assert_eq!(extent([1, 2, 400, 0, 3, 1], Quantity::Hu), Some(12.0));
        assert_eq!(extent([400; 6], Quantity::Hu), Some(18.0));
        assert_eq!(extent([1; 6], Quantity::Hu), Some(0.0));
        assert_eq!(extent([400; 6], Quantity::SuvBw), None);
    }
}
