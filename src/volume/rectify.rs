//! Tilted and unevenly spaced slices brought onto an upright, even grid for the network.
//!
//! A gantry tilt moves each slice along its own plane; the network has only seen upright patients. Here the slices are moved back in plane, by
//! linear interpolation, and, where their distances differ, interpolated linearly onto even ones. The labels return to the source's own slices.

use super::prepare::PrepareError;
use super::{Affine, Limits, Quantity, Rectified, Source, Volume};
use rayon::prelude::*;

/// Steps that lean more than this from the normal of the slices make a tilted volume, where no series says so itself.
const LEANING_DEGREES: f64 = 1.0;

/// In-plane movements below this share of a voxel over the whole volume are rounding.
const NEGLIGIBLE_SHIFT: f64 = 0.05;

/// Air, for the corners that no slice covers.
const AIR_HU: f32 = -1024.0;

/// An upright, evenly spaced copy of a volume.
pub(super) struct Upright {
    /// `[c, z, y, x]`.
    pub data: Vec<f32>,
    /// Index to patient LPS mm.
    pub affine: Affine,
    /// `(sz, sy, sx)` in mm.
    pub spacing: [f64; 3],
    /// Its shape and where the source's slices lie in it.
    pub slices: Rectified,
}

/// The upright copy, or `None` where the volume is upright and even already. Uneven slices are interpolated to `finest` mm, but neither finer
/// nor coarser than any distance that they have.
pub(super) fn rectify(volume: &Volume, finest: f64, limits: &Limits) -> Result<Option<Upright>, PrepareError> {
    let Some(places) = Places::of(volume) else { return Ok(None) };
    let layout = places.layout(volume, finest).ok_or(PrepareError::Slices)?;
    let voxels = limits.voxels(volume.channels, layout.slices.shape).ok_or(PrepareError::TooLarge {
        shape: layout.slices.shape,
        channels: volume.channels,
        limit: limits.max_voxels,
    })?;
    let mut data = vec![0.0f32; voxels];
    let [mz, my, mx] = layout.slices.shape;
    for (c, channel) in data.chunks_mut((mz * my * mx).max(1)).enumerate() {
        let source = Slices { volume, channel: c, padding: padding(volume, c) };
        channel.par_chunks_mut((my * mx).max(1)).enumerate().for_each(|(z, slab)| source.interpolate(&layout.slices, z as f64, slab));
    }
    Ok(Some(Upright { data, ..layout }))
}

/// Where slices lie: along the normal in mm, and moved in plane in voxels `(rows, columns)`, both from the first one.
struct Places {
    even: bool,
    heights: Vec<f64>,
    shifts: Vec<[f64; 2]>,
    /// Unit normal, towards the last slice.
    normal: [f64; 3],
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Places {
    /// `None` where nothing has to be done.
    fn of(volume: &Volume) -> Option<Places> {
        let [nz, ..] = volume.shape;
        let [_, dy, dx] = volume.spacing_zyx();
        let affine = &volume.affine;
        let (row, column) = (affine.column(0).map(|v| v / dx), affine.column(1).map(|v| v / dy));
        let up =
            [row[1] * column[2] - row[2] * column[1], row[2] * column[0] - row[0] * column[2], row[0] * column[1] - row[1] * column[0]];
        let step = affine.column(2);
        let sign = dot(up, step).signum() / dot(up, up).sqrt();
        let normal = up.map(|v| v * sign);
        let series = match &volume.source {
            Source::Case(case) => case.grid_series(),
            Source::Nifti { .. } => None,
        };
        let (leaning, even) = match series {
            Some(series) => (series.geometry.sheared, series.geometry.uniform_spacing),
            None => (dot(normal, step) < LEANING_DEGREES.to_radians().cos() * dot(step, step).sqrt(), true),
        };
        if nz < 2 || (!leaning && even) {
            return None;
        }
        let stated = series.filter(|series| series.planes.len() == nz);
        let positions: Vec<[f64; 3]> = match stated {
            Some(series) => series.planes.iter().map(|plane| plane.position).collect(),
            None => (0..nz).map(|k| affine.apply([0.0, 0.0, k as f64])).collect(),
        };
        let from_first = |p: &[f64; 3]| -> [f64; 3] { std::array::from_fn(|r| p[r] - positions[0][r]) };
        let heights = positions.iter().map(|p| dot(from_first(p), normal)).collect();
        let mut shifts: Vec<[f64; 2]> = positions.iter().map(|p| [dot(from_first(p), column) / dy, dot(from_first(p), row) / dx]).collect();
        for axis in 0..2 {
            let (lo, hi) = extent(&shifts, axis);
            if hi - lo < NEGLIGIBLE_SHIFT {
                shifts.iter_mut().for_each(|s| s[axis] = 0.0);
            }
        }
        Some(Places { even, heights, shifts, normal })
    }

    /// The upright grid, still without voxels. `None` if slices do not rise, or the numbers make no sense.
    fn layout(&self, volume: &Volume, finest: f64) -> Option<Upright> {
        let [nz, ny, nx] = volume.shape;
        let [_, dy, dx] = volume.spacing_zyx();
        let gaps = || self.heights.windows(2).map(|pair| pair[1] - pair[0]);
        let (smallest, largest) = gaps().fold((f64::INFINITY, 0.0f64), |(s, l), g| (s.min(g), l.max(g)));
        let height = *self.heights.last()?;
        if !(smallest > 0.0 && height.is_finite()) {
            return None;
        }
        let step = if self.even { height / (nz - 1) as f64 } else { finest.clamp(smallest, largest) };
        let places: Vec<f64> =
            if self.even { (0..nz).map(|k| k as f64).collect() } else { self.heights.iter().map(|h| h / step).collect() };
        let mz = (*places.last()? - 1e-6).ceil() as usize + 1;
        // whole voxels before the first slice's own corner, so that every slice begins inside
        let before = [0, 1].map(|axis| extent(&self.shifts, axis).0.floor());
        let size = |axis: usize, n: usize| n.checked_add((extent(&self.shifts, axis).1 - before[axis]).ceil() as usize);
        let shape = [mz, size(0, ny)?, size(1, nx)?];
        let slices = places.iter().zip(&self.shifts).map(|(&place, s)| (place, [s[0] - before[0], s[1] - before[1]])).collect();
        let origin = volume.affine.apply([before[1], before[0], 0.0]);
        let affine = Affine::new(volume.affine.column(0), volume.affine.column(1), self.normal.map(|v| v * step), origin)?;
        Some(Upright { data: Vec::new(), affine, spacing: [step, dy, dx], slices: Rectified { shape, slices } })
    }
}

fn extent(shifts: &[[f64; 2]], axis: usize) -> (f64, f64) {
    shifts.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), s| (lo.min(s[axis]), hi.max(s[axis])))
}

/// What stands where no slice reaches: air, no uptake, or for an unknown quantity its smallest value.
fn padding(volume: &Volume, channel: usize) -> f32 {
    match volume.quantity.get(channel) {
        Some(Quantity::Hu) => AIR_HU,
        Some(Quantity::SuvBw | Quantity::PetUnits) => 0.0,
        Some(Quantity::NotHu | Quantity::Unknown) | None => {
            let n: usize = volume.shape.iter().product();
            let lowest = volume.data[channel * n..][..n].par_iter().copied().reduce(|| f32::INFINITY, f32::min);
            if lowest.is_finite() { lowest } else { 0.0 }
        }
    }
}

/// The slices of one channel.
struct Slices<'a> {
    volume: &'a Volume,
    channel: usize,
    padding: f32,
}

impl Slices<'_> {
    /// One slice of the upright grid, at `place` along it.
    fn interpolate(&self, layout: &Rectified, place: f64, slab: &mut [f32]) {
        let [_, _, mx] = layout.shape;
        let above = layout.slices.partition_point(|s| s.0 <= place).min(layout.slices.len() - 1);
        let below = above.saturating_sub(1);
        let (lower, upper) = (layout.slices[below].0, layout.slices[above].0);
        let t = if upper > lower { ((place - lower) / (upper - lower)).clamp(0.0, 1.0) } else { 0.0 };
        for (y, row) in slab.chunks_mut(mx).enumerate() {
            row.fill(0.0);
            for (slice, weight) in [(below, 1.0 - t), (above, t)] {
                let [down, right] = layout.slices[slice].1;
                let from = y as f64 - down;
                let part = from - from.floor();
                for (line, weight) in [(from.floor(), weight * (1.0 - part)), (from.floor() + 1.0, weight * part)] {
                    if weight > 0.0 {
                        self.add_row(slice, line, right, weight as f32, row);
                    }
                }
            }
        }
    }

    /// Adds `weight` times a row of a slice, moved `right` by some columns.
    fn add_row(&self, slice: usize, line: f64, right: f64, weight: f32, row: &mut [f32]) {
        let [nz, ny, nx] = self.volume.shape;
        if !(0.0..ny as f64).contains(&line) {
            row.iter_mut().for_each(|v| *v += weight * self.padding);
            return;
        }
        let start = ((self.channel * nz + slice) * ny + line as usize) * nx;
        let source = &self.volume.data[start..start + nx];
        if right == 0.0 && row.len() == nx {
            row.iter_mut().zip(source).for_each(|(v, s)| *v += weight * s);
            return;
        }
        let first = (-right).floor();
        let part = (-right - first) as f32;
        let at = |i: isize| usize::try_from(i).ok().and_then(|i| source.get(i)).copied().unwrap_or(self.padding);
        for (x, v) in row.iter_mut().enumerate() {
            let i = x as isize + first as isize;
            *v += weight * if part == 0.0 { at(i) } else { (1.0 - part) * at(i) + part * at(i + 1) };
        }
    }
}
