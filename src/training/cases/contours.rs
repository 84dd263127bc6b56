//! Contours of structure sets become voxels.

use super::{CaseError, ImageGrid, Structure};
use crate::dicom::rtstruct::StructureSet;
use std::collections::BTreeMap;

/// How far a point may lie from its slice, in slices.
const BESIDE: f64 = 0.25;

/// The regions of a structure set on the grid of the image that they were drawn on. A voxel belongs to a region when its centre
/// lies in an odd number of the region's contours of that slice, so that a contour within another is a hole, and keyholes
/// work.
///
/// # Errors
/// `cases.geometry` for a contour that does not lie in one slice of the image.
pub fn from_contours(set: &StructureSet, grid: &ImageGrid) -> Result<Vec<Structure>, CaseError> {
    set.regions
        .iter()
        .map(|region| {
            let mut slices: BTreeMap<usize, Vec<Vec<[f64; 2]>>> = BTreeMap::new();
            for contour in &region.contours {
                let points: Vec<[f64; 3]> = contour.iter().map(|&point| grid.affine.invert(point)).collect();
                let slice = (points.iter().map(|p| p[2]).sum::<f64>() / points.len() as f64).round();
                if !(0.0..grid.shape[0] as f64).contains(&slice) || points.iter().any(|p| (p[2] - slice).abs() > BESIDE) {
                    return Err(CaseError::Geometry(format!("a contour of region {} does not lie in a slice of the image", region.number)));
                }
                slices.entry(slice as usize).or_default().push(points.iter().map(|p| [p[0], p[1]]).collect());
            }
            let mut voxels = Vec::new();
            for (slice, contours) in slices {
                fill(&contours, grid, slice, &mut voxels);
            }
            Ok(Structure { number: region.number.into(), name: region.name.clone(), concept: None, voxels }.sorted())
        })
        .collect()
}

/// Adds the voxels of a slice whose centres lie inside: between the first and second crossing of their row, the third and fourth, …
fn fill(contours: &[Vec<[f64; 2]>], grid: &ImageGrid, slice: usize, voxels: &mut Vec<u32>) {
    let [_, rows, columns] = grid.shape;
    let mut crossings: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for contour in contours {
        for (i, &[x0, y0]) in contour.iter().enumerate() {
            let [x1, y1] = contour[(i + 1) % contour.len()];
            // Rows from the lower end on, without the upper end: a corner on a row counts once.
            let (low, high) = (y0.min(y1), y0.max(y1));
            let (first, end) = (low.ceil().max(0.0), high.ceil().min(rows as f64));
            for row in first as usize..end.max(first) as usize {
                crossings.entry(row).or_default().push(x0 + (row as f64 - y0) * (x1 - x0) / (y1 - y0));
            }
        }
    }
    for (row, mut places) in crossings {
        places.sort_unstable_by(f64::total_cmp);
        for pair in places.as_chunks::<2>().0 {
            let (first, end) = (pair[0].ceil().max(0.0), pair[1].ceil().min(columns as f64));
            let start = (slice * rows + row) * columns;
            voxels.extend((first as usize..end.max(first) as usize).map(|column| (start + column) as u32));
        }
    }
}
