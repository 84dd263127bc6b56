//! From outputs on the network's grid to labels on the cropped source grid, slice by slice.
//!
//! A label is the decision over linearly interpolated outputs. The outputs never exist on the source grid: slices of
//! the network's grid are pushed in ascending order, and whatever label slices they determine are written at once.
//!
//! **Pruning.** Interpolation is a convex combination of eight neighbours. Where all eight have one winner, that winner
//! wins whatever the weights, so nothing is computed there. This is exact: f32 multiplication by a weight and addition
//! keep the order of two classes, and only a difference that rounding makes vanish (a few units in the last place at
//! all eight neighbours) could turn a win into a tie, where [`labels_plain`] would take the lower index.

use super::{Decision, SegmentError};
use crate::volume::Labels;
use crate::volume::resample::AxisOperator;
use rayon::prelude::*;
use std::collections::VecDeque;

/// No common winner.
const NONE: u16 = u16::MAX;

/// `(1 - t) * first + t * second`; `second` is `first` where `t` is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    pub first: usize,
    pub second: usize,
    pub t: f32,
}

/// The taps of each axis from the network's grid to the cropped grid: linear, or nearest along a separate axis.
pub(super) fn taps(low: [usize; 3], high: [usize; 3], separate_axis: Option<usize>) -> [Vec<Tap>; 3] {
    std::array::from_fn(|axis| {
        let operator = if separate_axis == Some(axis) {
            AxisOperator::nearest(low[axis], high[axis])
        } else {
            AxisOperator::linear(low[axis], high[axis])
        };
        (0..operator.n_out())
            .map(|o| operator.taps(o))
            .map(|(first, second, t)| Tap { first, second: if t == 0.0 { first } else { second }, t })
            .collect()
    })
}

/// One slice of the network's grid.
struct Slice {
    /// `[y, x, output]`.
    values: Vec<f32>,
    /// `[y, x]`.
    winners: Vec<u16>,
}

impl Slice {
    /// Winners of a row of `width` voxels.
    fn row(&self, y: usize, width: usize) -> &[u16] {
        &self.winners[y * width..(y + 1) * width]
    }

    /// Outputs of a voxel by its flat index.
    fn voxel(&self, pixel: usize, outputs: usize) -> &[f32] {
        &self.values[pixel * outputs..(pixel + 1) * outputs]
    }
}

/// Writes labels on the cropped grid as slices of outputs arrive.
pub struct Exporter {
    low: [usize; 3],
    high: [usize; 3],
    outputs: usize,
    decision: Decision,
    label_of: Vec<u16>,
    taps: [Vec<Tap>; 3],
    /// Slices that are still needed; the first is slice `held_from` of the network's grid.
    held: VecDeque<Slice>,
    held_from: usize,
    /// A slice's memory, to be used again.
    spare: Option<Slice>,
    /// Next label slice to write.
    next: usize,
    labels: Labels,
}

impl Exporter {
    /// For `outputs` values per voxel on a grid `low`, to labels on a grid `high` of the same axes (z, y, x). `wide`: labels
    /// above 255 occur.
    pub fn new(
        low: [usize; 3],
        high: [usize; 3],
        separate_axis: Option<usize>,
        outputs: usize,
        decision: Decision,
        wide: bool,
    ) -> Exporter {
        let voxels = high.iter().product();
        Exporter {
            low,
            high,
            outputs,
            label_of: decision.labels(outputs),
            decision,
            taps: taps(low, high, separate_axis),
            held: VecDeque::new(),
            held_from: 0,
            spare: None,
            next: 0,
            labels: if wide { Labels::U16(vec![0; voxels]) } else { Labels::U8(vec![0; voxels]) },
        }
    }

    /// Takes the next slice of the network's grid: `fill` writes its `[y, x, output]` values. Values must be finite.
    pub fn push(&mut self, fill: impl FnOnce(&mut [f32]) -> Result<(), SegmentError>) -> Result<(), SegmentError> {
        let z = self.held_from + self.held.len();
        if z >= self.low[0] {
            return Err(SegmentError::Inconsistent(format!("slice {z} of a grid of {} slices", self.low[0])));
        }
        let pixels = self.low[1] * self.low[2];
        let mut slice = self.spare.take().unwrap_or_else(|| Slice { values: vec![0.0; pixels * self.outputs], winners: vec![0; pixels] });
        fill(&mut slice.values)?;
        let (decision, outputs) = (&self.decision, self.outputs);
        let finite = slice
            .winners
            .par_chunks_mut(self.low[2])
            .zip(slice.values.par_chunks(self.low[2] * outputs))
            .map(|(winners, values)| {
                for (winner, values) in winners.iter_mut().zip(values.chunks_exact(outputs)) {
                    *winner = decision.winner(values);
                }
                all_finite(values)
            })
            .reduce(|| true, |a, b| a & b);
        if !finite {
            return Err(SegmentError::NotFinite(z));
        }
        self.held.push_back(slice);
        self.write(z);
        Ok(())
    }

    /// Writes every label slice that slices up to `z` determine, and frees what no later one needs.
    fn write(&mut self, z: usize) {
        while let Some(&tap) = self.taps[0].get(self.next)
            && tap.second <= z
        {
            self.let_go(tap.first);
            let (first, second) = (&self.held[tap.first - self.held_from], &self.held[tap.second - self.held_from]);
            let between = Between {
                first,
                second,
                t: tap.t,
                width: self.low[2],
                outputs: self.outputs,
                decision: &self.decision,
                label_of: &self.label_of,
                y: &self.taps[1],
                x: &self.taps[2],
            };
            let pixels = self.high[1] * self.high[2];
            let range = self.next * pixels..(self.next + 1) * pixels;
            match &mut self.labels {
                Labels::U8(labels) => between.write(&mut labels[range], |l| l as u8),
                Labels::U16(labels) => between.write(&mut labels[range], |l| l),
            }
            self.next += 1;
        }
        // What lies before the next label slice is not needed, and what is skipped need not be kept either.
        self.let_go(self.taps[0].get(self.next).map_or(self.low[0], |tap| tap.first));
    }

    /// Frees held slices before `first`.
    fn let_go(&mut self, first: usize) {
        while self.held_from < first
            && let Some(slice) = self.held.pop_front()
        {
            self.spare = Some(slice);
            self.held_from += 1;
        }
    }

    /// The labels `[z, y, x]` of the cropped grid, once all slices were pushed.
    pub fn finish(self) -> Result<Labels, SegmentError> {
        if self.next != self.high[0] {
            return Err(SegmentError::Inconsistent(format!("{} of {} label slices are written", self.next, self.high[0])));
        }
        Ok(self.labels)
    }
}

/// A plane between two slices, to be labelled.
struct Between<'a> {
    first: &'a Slice,
    second: &'a Slice,
    t: f32,
    /// Voxels of a row of the slices.
    width: usize,
    outputs: usize,
    decision: &'a Decision,
    label_of: &'a [u16],
    y: &'a [Tap],
    x: &'a [Tap],
}

/// What a thread needs to label rows.
struct Scratch {
    /// The common winner of the four neighbours in z and y, per column of the slices.
    agreed: Vec<u16>,
    /// Outputs interpolated in z and y, `[x, output]`, valid where `row_of` names the row.
    columns: Vec<f32>,
    row_of: Vec<usize>,
    /// Outputs of one voxel.
    voxel: Vec<f32>,
}

impl Between<'_> {
    /// Labels `[y, x]` of the plane.
    fn write<T: Copy + Send>(&self, labels: &mut [T], narrow: impl Fn(u16) -> T + Sync) {
        let scratch = || Scratch {
            agreed: vec![NONE; self.width],
            columns: vec![0.0; self.width * self.outputs],
            row_of: vec![usize::MAX; self.width],
            voxel: vec![0.0; self.outputs],
        };
        labels.par_chunks_mut(self.x.len()).enumerate().with_min_len(8).for_each_init(scratch, |scratch, (row, out)| {
            self.agree(self.y[row], &mut scratch.agreed);
            for (label, &tap) in out.iter_mut().zip(self.x) {
                let common = scratch.agreed[tap.first];
                let winner =
                    if common != NONE && common == scratch.agreed[tap.second] { common } else { self.interpolate(row, tap, scratch) };
                *label = narrow(self.label_of[usize::from(winner)]);
            }
        });
    }

    /// The common winner of the four neighbours at each column.
    fn agree(&self, y: Tap, agreed: &mut [u16]) {
        let [a, b] = [y.first, y.second].map(|y| self.first.row(y, self.width));
        let [c, d] = [y.first, y.second].map(|y| self.second.row(y, self.width));
        for ((((agreed, &a), &b), &c), &d) in agreed.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *agreed = if a == b && a == c && a == d { a } else { NONE };
        }
    }

    /// The winner of a voxel whose neighbours differ.
    fn interpolate(&self, row: usize, x: Tap, scratch: &mut Scratch) -> u16 {
        for column in [x.first, x.second] {
            if scratch.row_of[column] != row {
                scratch.row_of[column] = row;
                self.column(self.y[row], column, &mut scratch.columns[column * self.outputs..][..self.outputs]);
            }
        }
        let first = &scratch.columns[x.first * self.outputs..][..self.outputs];
        if x.t == 0.0 {
            return self.decision.winner(first);
        }
        let second = &scratch.columns[x.second * self.outputs..][..self.outputs];
        for ((v, &a), &b) in scratch.voxel.iter_mut().zip(first).zip(second) {
            *v = lerp(a, b, x.t);
        }
        self.decision.winner(&scratch.voxel)
    }

    /// The outputs at a column, interpolated in z, then y.
    fn column(&self, y: Tap, column: usize, out: &mut [f32]) {
        let [above, below] = [y.first, y.second].map(|y| y * self.width + column);
        let (a, c) = (self.first.voxel(above, self.outputs), self.first.voxel(below, self.outputs));
        if self.t == 0.0 {
            for ((v, &a), &c) in out.iter_mut().zip(a).zip(c) {
                *v = lerp(a, c, y.t);
            }
            return;
        }
        let (b, d) = (self.second.voxel(above, self.outputs), self.second.voxel(below, self.outputs));
        for ((((v, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *v = lerp(lerp(a, b, self.t), lerp(c, d, self.t), y.t);
        }
    }
}

/// A convex combination. Written so that it keeps the order of two pairs in f32, which `a + t * (b - a)` does not.
#[inline]
fn lerp(a: f32, b: f32, t: f32) -> f32 {
    (1.0 - t) * a + t * b
}

/// Whether no value is infinite or not a number.
fn all_finite(values: &[f32]) -> bool {
    // 0 times a finite number is 0, times anything else NaN: a sum that vectorises.
    const LANES: usize = 16;
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += v * 0.0;
        }
    }
    lanes.iter().all(|v| *v == 0.0) && rest.iter().all(|v| v.is_finite())
}

/// The plain statement of what [`Exporter`] does, for tests and as its specification: outputs `[z, y, x, output]` on the
/// grid `low` are interpolated at every voxel of the grid `high`, in z, then y, then x, and decided. Labels are `[z, y, x]`.
pub fn labels_plain(
    values: &[f32],
    low: [usize; 3],
    high: [usize; 3],
    separate_axis: Option<usize>,
    outputs: usize,
    decision: &Decision,
) -> Vec<u16> {
    let label_of = decision.labels(outputs);
    let at = |z: usize, y: usize, x: usize, c: usize| values[((z * low[1] + y) * low[2] + x) * outputs + c];
    let [taps_z, taps_y, taps_x] = taps(low, high, separate_axis);
    let mut labels = Vec::with_capacity(high.iter().product());
    for z in &taps_z {
        for y in &taps_y {
            for x in &taps_x {
                let in_z = |y: usize, x: usize, c: usize| lerp(at(z.first, y, x, c), at(z.second, y, x, c), z.t);
                let in_y = |x: usize, c: usize| lerp(in_z(y.first, x, c), in_z(y.second, x, c), y.t);
                let voxel: Vec<f32> = (0..outputs).map(|c| lerp(in_y(x.first, c), in_y(x.second, c), x.t)).collect();
                labels.push(label_of[usize::from(decision.winner(&voxel))]);
            }
        }
    }
    labels
}
