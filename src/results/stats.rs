//! What the labels amount to: voxels, volumes, whether a structure is cut by the edge of the image, where they lie.

use crate::series::Series;
use crate::volume::{LabelMap, Labels, Overlap, Source};
use rayon::prelude::*;
use std::ops::Range;

/// One label's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LabelFigures {
    /// Voxels.
    pub voxels: u64,
    /// Volume in ml.
    pub volume_ml: f64,
    /// Whether it touches a face of the volume, or of another channel that ends within it: part of it may lie outside, so the volume is no
    /// volume of the structure.
    pub touches_edge: bool,
}

/// Figures of all labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// By label value; entry 0 is the background, with voxels only.
    pub labels: Vec<LabelFigures>,
    /// Centre of mass of all foreground as an index `[z, y, x]`; the middle of the volume when there is none.
    pub centre: [f64; 3],
}

/// One slice's share.
struct Slice {
    counts: Vec<u64>,
    edge: Vec<bool>,
    foreground: u64,
    y: u64,
    x: u64,
}

impl Stats {
    /// Counts in one pass.
    pub fn of(map: &LabelMap) -> Stats {
        let [nz, ny, nx] = map.shape();
        let values = usize::from(map.table().max_value()) + 1;
        let partial = match map.source() {
            Source::Case(case) => Overlap::partial(case),
            Source::Nifti { .. } => Vec::new(),
        };
        let faces = |z: usize| Faces { outermost: z == 0 || z + 1 == nz, partial: &partial, z };
        let slices: Vec<Slice> = match map.labels() {
            Labels::U8(v) => v.par_chunks(ny * nx).enumerate().map(|(z, s)| slice(s, nx, values, &faces(z))).collect(),
            Labels::U16(v) => v.par_chunks(ny * nx).enumerate().map(|(z, s)| slice(s, nx, values, &faces(z))).collect(),
        };
        let millilitres = voxel_volumes(map);
        let mut labels = vec![LabelFigures::default(); values];
        let (mut total, mut sums) = (0u64, [0f64; 3]);
        for (z, slice) in slices.iter().enumerate() {
            for (label, (count, edge)) in labels.iter_mut().zip(slice.counts.iter().zip(&slice.edge)) {
                label.voxels += count;
                label.volume_ml += *count as f64 * millilitres[z];
                label.touches_edge |= edge;
            }
            total += slice.foreground;
            sums[0] += (z as u64 * slice.foreground) as f64;
            sums[1] += slice.y as f64;
            sums[2] += slice.x as f64;
        }
        labels[0] = LabelFigures { voxels: labels[0].voxels, ..LabelFigures::default() };
        let centre = if total == 0 { [nz, ny, nx].map(|n| (n - 1) as f64 / 2.0) } else { sums.map(|s| s / total as f64) };
        Stats { labels, centre }
    }
}

/// Where a slice ends.
struct Faces<'a> {
    /// Whether it is the first or the last one.
    outermost: bool,
    /// Other channels that cover a part of the grid only.
    partial: &'a [Overlap],
    z: usize,
}

impl Faces<'_> {
    /// The columns of a row within which nothing is cut.
    fn inner(&self, y: usize, rows: usize, nx: usize) -> Range<usize> {
        if self.outermost || y == 0 || y + 1 == rows {
            return 0..0;
        }
        self.partial.iter().map(|overlap| overlap.inner_row(self.z, y)).fold(1..nx - 1, |a, b| a.start.max(b.start)..a.end.min(b.end))
    }
}

fn slice<T: Copy + Into<u64> + PartialEq>(pixels: &[T], nx: usize, values: usize, faces: &Faces) -> Slice {
    let mut s = Slice { counts: vec![0; values], edge: vec![false; values], foreground: 0, y: 0, x: 0 };
    let rows = pixels.len() / nx;
    for (y, row) in pixels.chunks_exact(nx).enumerate() {
        let before = s.foreground;
        let inner = faces.inner(y, rows, nx);
        // Neighbours mostly share their label: count runs.
        let mut start = 0;
        while start < nx {
            let value = row[start];
            let end = start + run_length(&row[start..], value);
            let (length, label) = ((end - start) as u64, value.into() as usize);
            s.counts[label] += length;
            if label != 0 {
                s.foreground += length;
                s.x += (start + end - 1) as u64 * length / 2;
            }
            s.edge[label] |= start < inner.start || end > inner.end;
            start = end;
        }
        s.y += y as u64 * (s.foreground - before);
    }
    s
}

/// How many values at the start of a row are `value`; whole blocks are compared at once.
fn run_length<T: Copy + PartialEq>(row: &[T], value: T) -> usize {
    let (blocks, _) = row.as_chunks::<16>();
    let whole = blocks.iter().take_while(|b| **b == [value; 16]).count() * 16;
    whole + row[whole..].iter().take_while(|v| **v == value).count()
}

/// The volume of a voxel of each slice in ml. With uneven slice distances a slice reaches half-way to its neighbours.
fn voxel_volumes(map: &LabelMap) -> Vec<f64> {
    let nz = map.shape()[0];
    if let Source::Case(case) = map.source()
        && let Some(series) = case.grid_series()
        && !series.geometry.uniform_spacing
        && series.planes.len() == nz
        && nz > 1
    {
        let spacing = &series.geometry.pixel_spacing;
        return slice_extents(series).into_iter().map(|extent| extent * spacing.dx * spacing.dy / 1000.0).collect();
    }
    vec![map.affine().determinant().abs() / 1000.0; nz]
}

fn slice_extents(series: &Series) -> Vec<f64> {
    let (r, c) = (series.geometry.row_direction, series.geometry.column_direction);
    let normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
    let along: Vec<f64> = series.planes.iter().map(|p| p.position.iter().zip(normal).map(|(a, b)| a * b).sum()).collect();
    let gaps: Vec<f64> = along.windows(2).map(|w| (w[1] - w[0]).abs()).collect();
    let last = gaps.len() - 1;
    (0..along.len()).map(|z| (gaps[z.saturating_sub(1)] + gaps[z.min(last)]) / 2.0).collect()
}
