//! The resize of a three-dimensional array: axis by axis, in tiles that stay in the cache.

use super::Interpolation;
use super::kernel::{AxisKernel, LANES, Lanes};
use super::operator::AxisOperator;
use super::rows::{Grid, Range, Rows};
use rayon::prelude::*;

/// What to make of an array of shape `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// Shape of the result; axis order as the input's.
    pub to: [usize; 3],
    /// Along all axes, or all but the separate one.
    pub interpolation: Interpolation,
    /// An axis that is resized by nearest neighbour, after every slice across it has been resized on its own.
    pub separate_axis: Option<usize>,
}

impl Resize {
    /// The resized array, contiguous, last axis fastest. Linear and cubic results are clipped to the range of the input: of all of it, or
    /// slice by slice where an axis is separate. Equal shapes give the values as they are.
    ///
    /// Work space: one array that is resized along some axes only, the smaller of the two possible ones; none if the first axis keeps its size.
    pub fn apply(&self, input: &impl Rows) -> Vec<f32> {
        let from = input.shape();
        if from.contains(&0) || self.to.contains(&0) {
            return vec![0.0; self.to.iter().product()];
        }
        match self.separate_axis {
            Some(0) if from != self.to => self.apart(input),
            Some(axis) if from != self.to => {
                let order = if axis == 1 { [1, 0, 2] } else { [2, 0, 1] };
                let to = order.map(|a| self.to[a]);
                let front = Resize { to, interpolation: self.interpolation, separate_axis: Some(0) }.apart(&input.reordered(order));
                in_natural_order(&front, to, order)
            }
            _ => self.together(input),
        }
    }

    /// All axes with the same order.
    fn together(&self, input: &impl Rows) -> Vec<f32> {
        let (from, to) = (input.shape(), self.to);
        let plane = PlaneResize::new([from[1], from[2]], [to[1], to[2]], self.interpolation);
        let along = AxisKernel::new(from[0], to[0], self.interpolation);
        if let AxisKernel::Identity = along {
            let (mut out, range) = resize_planes(input, &plane, to[0]);
            self.clip(&mut out, range);
            return out;
        }
        let planes_first = from[0] * to[1] * to[2];
        let depth_first = to[0] * from[1] * from[2];
        if planes_first <= depth_first {
            let (between, range) = resize_planes(input, &plane, from[0]);
            let (mut out, _) = resize_depth(&Grid::new(&between, [from[0], to[1], to[2]]), &along, to[0]);
            drop(between);
            self.clip(&mut out, range);
            out
        } else {
            let (between, range) = resize_depth(input, &along, to[0]);
            let (mut out, _) = resize_planes(&Grid::new(&between, [to[0], from[1], from[2]]), &plane, to[0]);
            drop(between);
            self.clip(&mut out, range);
            out
        }
    }

    /// Slices across axis 0 on their own, then nearest along it.
    fn apart(&self, input: &impl Rows) -> Vec<f32> {
        let (from, to) = (input.shape(), self.to);
        let plane = PlaneResize::new([from[1], from[2]], [to[1], to[2]], self.interpolation);
        let nearest = AxisOperator::nearest(from[0], to[0]);
        let mut out = vec![0.0; to.iter().product()];
        let mut slabs: Vec<(usize, Vec<&mut [f32]>)> = Vec::new();
        for (o, slab) in out.chunks_mut((to[1] * to[2]).max(1)).enumerate() {
            let source = nearest.taps(o).0;
            match slabs.last_mut() {
                Some((same, copies)) if *same == source => copies.push(slab),
                _ => slabs.push((source, vec![slab])),
            }
        }
        slabs.par_iter_mut().for_each_init(PlaneScratch::default, |scratch, (source, slabs)| {
            let Some((first, copies)) = slabs.split_first_mut() else { return };
            let range = plane.apply(input, *source, first, scratch);
            if self.interpolation != Interpolation::Nearest {
                range.clip(first);
            }
            copies.iter_mut().for_each(|copy| copy.copy_from_slice(first));
        });
        out
    }

    fn clip(&self, out: &mut [f32], range: Range) {
        if self.interpolation != Interpolation::Nearest {
            out.par_chunks_mut(1 << 16).for_each(|chunk| range.clip(chunk));
        }
    }
}

/// Undoes [`Rows::reordered`].
fn in_natural_order(data: &[f32], shape: [usize; 3], order: [usize; 3]) -> Vec<f32> {
    let mut natural = [0; 3];
    let mut strides = [0; 3];
    for (position, stride) in [shape[1] * shape[2], shape[2], 1].into_iter().enumerate() {
        natural[order[position]] = shape[position];
        strides[order[position]] = stride;
    }
    let mut out = vec![0.0; data.len()];
    out.par_chunks_mut((natural[1] * natural[2]).max(1)).enumerate().for_each(|(z, slab)| {
        for (y, row) in slab.chunks_mut(natural[2].max(1)).enumerate() {
            for (x, v) in row.iter_mut().enumerate() {
                *v = data[z * strides[0] + y * strides[1] + x * strides[2]];
            }
        }
    });
    out
}

/// The resize of one slice.
struct PlaneResize {
    from: [usize; 2],
    to: [usize; 2],
    rows: AxisKernel,
    columns: AxisKernel,
    columns_first: bool,
}

/// What a thread keeps between slices.
#[derive(Default)]
struct PlaneScratch {
    plane: Vec<f32>,
    between: Vec<f32>,
    strip: Vec<f32>,
    lines: Vec<Lanes>,
}

impl PlaneResize {
    fn new(from: [usize; 2], to: [usize; 2], interpolation: Interpolation) -> PlaneResize {
        PlaneResize {
            from,
            to,
            rows: AxisKernel::new(from[0], to[0], interpolation),
            columns: AxisKernel::new(from[1], to[1], interpolation),
            columns_first: from[0] * to[1] <= to[0] * from[1],
        }
    }

    /// Resizes slice `a` of `input` into `out`; returns the range of the slice.
    fn apply(&self, input: &impl Rows, a: usize, out: &mut [f32], scratch: &mut PlaneScratch) -> Range {
        let PlaneScratch { plane, between, strip, lines } = scratch;
        let ([ny, nx], [my, mx]) = (self.from, self.to);
        let mut range = Range::EMPTY;
        let mut load = |y: usize, row: &mut [f32]| {
            input.read(a, y, row);
            range.extend(row);
        };
        match (&self.columns, &self.rows) {
            (AxisKernel::Identity, AxisKernel::Identity) => out.chunks_mut(nx).enumerate().for_each(|(y, row)| load(y, row)),
            (columns, AxisKernel::Identity) => along_rows(columns, load, [ny, nx], out, mx, strip, lines),
            (AxisKernel::Identity, rows) => {
                plane.resize(ny * nx, 0.0);
                plane.chunks_mut(nx).enumerate().for_each(|(y, row)| load(y, row));
                down_columns(rows, plane, ny, out, my, nx, lines);
            }
            (columns, rows) if self.columns_first => {
                between.resize(ny * mx, 0.0);
                along_rows(columns, load, [ny, nx], between, mx, strip, lines);
                down_columns(rows, between, ny, out, my, mx, lines);
            }
            (columns, rows) => {
                plane.resize(ny * nx, 0.0);
                plane.chunks_mut(nx).enumerate().for_each(|(y, row)| load(y, row));
                between.resize(my * nx, 0.0);
                down_columns(rows, plane, ny, between, my, nx, lines);
                along_rows(columns, |y, row| row.copy_from_slice(&between[y * nx..][..nx]), [my, nx], out, mx, strip, lines);
            }
        }
        range
    }
}

/// The kernel along each row: sixteen rows are turned into a tile, and the tile back into rows.
fn along_rows(
    kernel: &AxisKernel,
    mut load: impl FnMut(usize, &mut [f32]),
    [rows, n_in]: [usize; 2],
    out: &mut [f32],
    n_out: usize,
    strip: &mut Vec<f32>,
    lines: &mut Vec<Lanes>,
) {
    strip.resize(LANES * n_in, 0.0);
    lines.resize(AxisKernel::room(n_in), [0.0; LANES]);
    for first in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - first);
        for (l, row) in strip.chunks_mut(n_in).take(count).enumerate() {
            load(first + l, row);
        }
        for (i, lanes) in lines[AxisKernel::FIRST..].iter_mut().take(n_in).enumerate() {
            for (l, lane) in lanes.iter_mut().enumerate().take(count) {
                *lane = strip[l * n_in + i];
            }
        }
        let rows_out = &mut out[first * n_out..][..count * n_out];
        kernel.run(lines, |o, lanes| {
            for (l, lane) in lanes.iter().enumerate().take(count) {
                rows_out[l * n_out + o] = *lane;
            }
        });
    }
}

/// The kernel down the columns of a contiguous slice of `width` columns.
fn down_columns(kernel: &AxisKernel, plane: &[f32], n_in: usize, out: &mut [f32], n_out: usize, width: usize, lines: &mut Vec<Lanes>) {
    debug_assert!(plane.len() >= n_in * width && out.len() >= n_out * width);
    lines.resize(AxisKernel::room(n_in), [0.0; LANES]);
    for first in (0..width).step_by(LANES) {
        let count = LANES.min(width - first);
        for (lanes, row) in lines[AxisKernel::FIRST..].iter_mut().zip(plane.chunks_exact(width)).take(n_in) {
            copy_lanes(&mut lanes[..count], &row[first..first + count]);
        }
        kernel.run(lines, |o, lanes| copy_lanes(&mut out[o * width + first..][..count], &lanes[..count]));
    }
}

/// A copy that is one vector move for a full tile.
fn copy_lanes(to: &mut [f32], from: &[f32]) {
    match (<&mut Lanes>::try_from(&mut *to), <&Lanes>::try_from(from)) {
        (Ok(to), Ok(from)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// Every slice resized; returns the range of the input too.
fn resize_planes(input: &impl Rows, plane: &PlaneResize, slices: usize) -> (Vec<f32>, Range) {
    let mut out = vec![0.0; slices * plane.to[0] * plane.to[1]];
    let range = out
        .par_chunks_mut((plane.to[0] * plane.to[1]).max(1))
        .enumerate()
        .map_init(PlaneScratch::default, |scratch, (a, slab)| plane.apply(input, a, slab, scratch))
        .reduce(|| Range::EMPTY, Range::union);
    (out, range)
}

/// The first axis resized, row by row of the second; returns the range of the input too.
fn resize_depth(input: &impl Rows, kernel: &AxisKernel, n_out: usize) -> (Vec<f32>, Range) {
    let [n_in, rows, width] = input.shape();
    let mut out = vec![0.0; n_out * rows * width];
    let mut columns: Vec<Vec<&mut [f32]>> = (0..rows).map(|_| Vec::with_capacity(n_out)).collect();
    for (i, row) in out.chunks_mut(width).enumerate() {
        columns[i % rows].push(row);
    }
    let range = columns
        .par_iter_mut()
        .enumerate()
        .map_init(
            || (Vec::new(), Vec::new()),
            |(block, lines), (y, rows_out)| {
                let mut range = Range::EMPTY;
                block.resize(n_in * width, 0.0);
                lines.resize(AxisKernel::room(n_in), [0.0; LANES]);
                for (z, row) in block.chunks_mut(width).enumerate() {
                    input.read(z, y, row);
                    range.extend(row);
                }
                for first in (0..width).step_by(LANES) {
                    let count = LANES.min(width - first);
                    for (lanes, row) in lines[AxisKernel::FIRST..].iter_mut().zip(block.chunks_exact(width)) {
                        copy_lanes(&mut lanes[..count], &row[first..first + count]);
                    }
                    kernel.run(lines, |o, lanes| copy_lanes(&mut rows_out[o][first..first + count], &lanes[..count]));
                }
                range
            },
        )
        .reduce(|| Range::EMPTY, Range::union);
    (out, range)
}
