//! Windows over the part of a CT that holds more than air. Optional: it changes labels, since windows lie elsewhere.

use super::aggregate::SlabSink;
use super::{Decision, SegmentError};
use crate::models::Manifest;
use rayon::prelude::*;
use std::ops::Range;
use tch::Tensor;

/// HU above which something is more than air. Lung is less, but lies inside of what is more.
const AIR_HU: f64 = -500.0;
/// Air that is kept around the rest, mm.
const MARGIN_MM: f64 = 20.0;

/// A part of a grid, for each axis.
pub(super) type Part = [Range<usize>; 3];

/// The smallest part of the prepared grid `[channel, z, y, x]` that holds all voxels of the first channel above air, with a margin; the
/// whole grid where there is none. The model's first channel must be normalised by HU alone.
pub(super) fn part_above_air(data: &[f32], shape: [usize; 3], manifest: &Manifest) -> Result<Part, SegmentError> {
    let Some(air) = manifest.preprocessing.normalised(AIR_HU) else { return Err(SegmentError::NotHu) };
    let [depth, height, width] = shape;
    let bounds = |mut found: Part, z: usize, y: usize, x: Range<usize>| {
        for (range, new) in found.iter_mut().zip([z..z + 1, y..y + 1, x]) {
            *range = range.start.min(new.start)..range.end.max(new.end);
        }
        found
    };
    let nothing = || shape.map(|edge| edge..0);
    let slice = |(z, slice): (usize, &[f32])| {
        slice.chunks_exact(width).enumerate().fold(nothing(), |found, (y, row)| {
            let above = |value: &f32| f64::from(*value) > air;
            let (first, last) = (row.iter().position(above), row.iter().rposition(above));
            first.zip(last).map_or(found.clone(), |(first, last)| bounds(found, z, y, first..last + 1))
        })
    };
    let both = |a: Part, b: Part| std::array::from_fn(|axis| a[axis].start.min(b[axis].start)..a[axis].end.max(b[axis].end));
    let first = data.get(..depth * height * width).unwrap_or_default();
    let found = first.par_chunks_exact(height * width).enumerate().map(slice).reduce(nothing, both);
    if found.iter().any(Range::is_empty) {
        return Ok(shape.map(|edge| 0..edge));
    }
    Ok(std::array::from_fn(|axis| {
        let margin = (MARGIN_MM / manifest.preprocessing.spacing[axis]).ceil() as usize;
        found[axis].start.saturating_sub(margin)..shape[axis].min(found[axis].end + margin)
    }))
}

/// Puts slabs of a part of the grid into slabs of the whole; around it lies background.
pub(super) struct Framed<'a> {
    sink: &'a mut dyn SlabSink,
    part: &'a Part,
    shape: [usize; 3],
    /// Outputs of a voxel of background.
    background: Vec<f32>,
    /// The next slice of the whole grid.
    next: usize,
}

impl<'a> Framed<'a> {
    pub fn new(sink: &'a mut dyn SlabSink, part: &'a Part, shape: [usize; 3], decision: &Decision, outputs: usize) -> Framed<'a> {
        Framed { sink, part, shape, background: decision.background(outputs), next: 0 }
    }

    /// Slices of background up to slice `end`.
    fn fill(&mut self, end: usize, like: &Tensor) -> Result<(), SegmentError> {
        while self.next < end {
            let slice = self.empty(1, like)?;
            self.sink.slab(&slice)?;
            self.next += 1;
        }
        Ok(())
    }

    fn empty(&self, slices: usize, like: &Tensor) -> Result<Tensor, SegmentError> {
        let [_, y, x] = self.shape.map(|edge| edge as i64);
        let background = Tensor::f_from_slice(&self.background)?.f_to_device(like.device())?;
        Ok(background.f_expand([slices as i64, y, x, self.background.len() as i64], false)?.f_contiguous()?)
    }
}

impl SlabSink for Framed<'_> {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        let slices = usize::try_from(values.size()[0]).unwrap_or(0);
        self.fill(self.part[0].start, values)?;
        let whole = self.empty(slices, values)?;
        let mut inside = whole.shallow_clone();
        for (axis, range) in (1..).zip(&self.part[1..]) {
            inside = inside.f_narrow(axis, range.start as i64, range.len() as i64)?;
        }
        inside.f_copy_(values)?;
        self.sink.slab(&whole)?;
        self.next += slices;
        if self.next == self.part[0].end {
            self.fill(self.shape[0], values)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_holds_all_that_is_more_than_air() {
        let model = crate::models::Generation::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"));
        let manifest = model.expect("models/demo").manifest;
        let value = |hu| manifest.preprocessing.normalised(hu).expect("a CT") as f32;
        let shape = [30, 40, 50];
        let mut data = vec![value(-1000.0); 30 * 40 * 50];
        assert_eq!(part_above_air(&data, shape, &manifest).expect("a CT"), [0..30, 0..40, 0..50]);
        for [z, y, x] in [[10, 20, 30], [12, 21, 20]] {
            data[(z * 40 + y) * 50 + x] = value(-400.0);
        }
        data[5] = value(-600.0);
        // 20 mm are seven voxels of 3 mm.
        assert_eq!(part_above_air(&data, shape, &manifest).expect("a CT"), [3..20, 13..29, 13..38]);
        let mut other = manifest.clone();
        other.preprocessing.channels[0].normalization = crate::models::Normalization::ZScore;
        assert!(matches!(part_above_air(&data, shape, &other), Err(SegmentError::NotHu)));
    }
}
