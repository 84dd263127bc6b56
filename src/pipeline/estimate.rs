//! How much host memory a case will hold, told from its headers before anything is read.

use super::stages::Input;
use super::street::EngineFacts;
use crate::fault::Fault;
use crate::models::Manifest;
use crate::segment::{Accumulation, Grids, Placement, bytes_needed};
use crate::series::Series;
use crate::stunet::Precision;
use crate::volume::nifti;

/// Bytes of an f32.
const F32: u64 = 4;

/// The most bytes that a case holds at once on its way down the street, its share of the engine's included.
pub fn host_bytes(input: &Input, model: &Manifest, facts: &EngineFacts) -> Result<u64, Fault> {
    let (channels, source, spacing) = match input {
        Input::Series(series) => {
            let grid = series.get(model.preprocessing.grid_channel);
            (series.len(), grid.map_or([0; 3], shape), grid.map_or([1.0; 3], spacing))
        }
        Input::Nifti(path) => nifti::peek(path)?,
    };
    // Of several channels the one that is being read is there beside the common grid.
    let beside = match input {
        Input::Series(series) if series.len() > 1 => series.iter().map(|s| voxels(shape(s))).max().unwrap_or(0).saturating_mul(F32),
        _ => 0,
    };
    Ok(bytes(channels, source, spacing, model, facts).saturating_add(beside))
}

/// The same from numbers: `shape` and `spacing` (mm) of the source grid in `[z, y, x]`.
fn bytes(channels: usize, shape: [usize; 3], spacing: [f64; 3], model: &Manifest, facts: &EngineFacts) -> u64 {
    let network = grid(shape, spacing, model);
    let precision = facts.precision.parse().unwrap_or(Precision::F64);
    let number = precision.activation_bytes(model.architecture.dims[0]);
    let cuda = facts.device != "cpu";
    let grids = Grids { network, cropped: shape, source: shape };
    let engine = bytes_needed(model, &grids, &Placement { cuda, number, batch: 1, accumulation: Accumulation::Device }).host;
    // The volume stays for the picture. Beside it lies either an array that is resampled along some axes only, or the engine's part,
    // which counts the prepared grid.
    let channels = channels as u64 * F32;
    let volume = voxels(shape).saturating_mul(channels);
    let prepared = voxels(network).saturating_mul(channels);
    let halfway = volume.max(prepared);
    volume.saturating_add(engine.max(prepared.saturating_add(halfway)))
}

fn voxels(shape: [usize; 3]) -> u64 {
    shape.iter().fold(1, |n, &s| n.saturating_mul(s as u64))
}

/// The network's grid, network axes.
fn grid(shape: [usize; 3], spacing: [f64; 3], model: &Manifest) -> [usize; 3] {
    let preprocessing = &model.preprocessing;
    std::array::from_fn(|a| {
        // An orientation may swap axes; the rows and columns of a slice are alike enough for an estimate.
        let axis = preprocessing.transpose[a].min(2);
        let resampled = (shape[axis] as f64 * spacing[axis] / preprocessing.spacing[a]).ceil();
        resampled.clamp(1.0, 1e9) as usize
    })
}

fn shape(series: &Series) -> [usize; 3] {
    [series.planes.len(), series.geometry.rows, series.geometry.columns]
}

fn spacing(series: &Series) -> [f64; 3] {
    let geometry = &series.geometry;
    let step = geometry.slice_step.iter().map(|v| v * v).sum::<f64>().sqrt();
    [step, geometry.pixel_spacing.dy, geometry.pixel_spacing.dx]
}
