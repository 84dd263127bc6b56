//! How much host memory a case will hold, told from its headers before anything is read.

use super::stages::Input;
use crate::fault::Fault;
use crate::models::{Aggregation, Manifest};
use crate::series::Series;
use crate::volume::nifti;

/// Bytes of an f32.
const F32: u64 = 4;

/// The most bytes that a case holds at once on its way down the street, its share of the engine's included.
pub fn host_bytes(input: &Input, model: &Manifest) -> Result<u64, Fault> {
    let (channels, shape, spacing) = match input {
        Input::Series(series) => (series.len(), series.first().map_or([0; 3], shape), series.first().map_or([1.0; 3], spacing)),
        Input::Nifti(path) => nifti::peek(path)?,
    };
    Ok(bytes(channels, shape, spacing, model))
}

/// The same from numbers: `shape` and `spacing` (mm) of the source grid in `[z, y, x]`.
fn bytes(channels: usize, shape: [usize; 3], spacing: [f64; 3], model: &Manifest) -> u64 {
    let voxels = |shape: [usize; 3]| shape.iter().fold(1u64, |n, &s| n.saturating_mul(s as u64));
    let source = voxels(shape);
    let grid = grid(shape, spacing, model);
    let channels = channels as u64;
    let label = if model.labels.max_value() > 255 { 2 } else { 1 };
    // The volume, and an array that is resampled along some axes only.
    let volume = source.saturating_mul(channels).saturating_mul(F32);
    let halfway = source.max(voxels(grid)).saturating_mul(F32);
    let prepared = voxels(grid).saturating_mul(channels).saturating_mul(F32);
    // Sums are held for as many slices as a window is deep, with room for a slab that is interpolated.
    let [_, rows, columns] = grid;
    let sums = voxels([model.inference.patch[0], rows, columns]).saturating_mul(width(model)).saturating_mul(F32);
    let slab = sums / 8;
    volume.saturating_add(prepared).saturating_add(halfway.max(sums.saturating_add(slab))).saturating_add(source.saturating_mul(label))
}

/// The network's grid, network axes; at least a window.
fn grid(shape: [usize; 3], spacing: [f64; 3], model: &Manifest) -> [usize; 3] {
    let Manifest { preprocessing, inference, .. } = model;
    std::array::from_fn(|a| {
        // An orientation may swap axes; the rows and columns of a slice are alike enough for an estimate.
        let axis = preprocessing.transpose[a].min(2);
        let resampled = (shape[axis] as f64 * spacing[axis] / preprocessing.spacing[a]).ceil();
        (resampled.clamp(0.0, 1e9) as usize).max(inference.patch[a])
    })
}

/// Numbers that are summed up for a voxel.
fn width(model: &Manifest) -> u64 {
    let outputs = model.architecture.num_classes as u64;
    match model.inference.aggregation {
        Aggregation::Softmax => outputs,
        Aggregation::Logits => outputs.min(model.architecture.dims[0] as u64),
    }
}

fn shape(series: &Series) -> [usize; 3] {
    [series.planes.len(), series.geometry.rows, series.geometry.columns]
}

fn spacing(series: &Series) -> [f64; 3] {
    let geometry = &series.geometry;
    let step = geometry.slice_step.iter().map(|v| v * v).sum::<f64>().sqrt();
    [step, geometry.pixel_spacing.dy, geometry.pixel_spacing.dx]
}
