//! The parts as slices of a CT: what is where, blurred and noisy as a scanner's image is.

use super::anatomy::{Part, Point};
use super::variant::Variant;

/// An image's grid.
#[derive(Debug)]
pub struct Frame {
    /// Rows of a slice.
    pub rows: usize,
    /// Columns of a slice.
    pub columns: usize,
    /// Millimetres between pixels.
    pub pixel: f64,
    /// Slices.
    pub slices: usize,
    /// Millimetres between slices.
    pub step: f64,
    /// Height of the lowest slice.
    pub lowest: f64,
    /// Standard deviation of the noise, HU.
    noise: f32,
}

/// As a scanner makes it.
pub const FULL: Frame = Frame { rows: 384, columns: 464, pixel: 0.78125, slices: 64, step: 3.0, lowest: -102.0, noise: 11.0 };
/// The height of the kidneys, at the distance of voxels that the demo model works with; less noise, as larger pixels have.
pub const SMALL: Frame = Frame { rows: 96, columns: 116, pixel: 3.0, slices: 40, step: 3.0, lowest: -48.0, noise: 4.0 };

/// Half the width over which one tissue goes over into the next, mm.
const BLUR: f32 = 0.8;

impl Frame {
    /// Patient position of the first pixel of a slice, LPS mm.
    pub fn origin(&self, slice: usize) -> [f64; 3] {
        let half = |pixels: usize| (pixels as f64 - 1.0) / 2.0 * self.pixel;
        [-half(self.columns), -half(self.rows), self.lowest + slice as f64 * self.step]
    }
}

/// Where the usual anatomy has the columns, rows and height of a slice.
fn usual(variant: &Variant, index: usize) -> (Vec<f32>, Vec<f32>, f32) {
    let frame = variant.frame();
    let [x0, y0, z] = frame.origin(index).map(|v| v as f32);
    let along = |axis: usize, first: f32, count: usize| {
        (0..count).map(|i| variant.usual(axis, first + i as f32 * frame.pixel as f32)).collect::<Vec<f32>>()
    };
    (along(0, x0, frame.columns), along(1, y0, frame.rows), variant.usual(2, z))
}

/// One slice in HU, `[row, column]`: rows to the back, columns to the left.
pub fn slice(parts: &[Part], variant: &Variant, index: usize) -> Vec<i16> {
    let frame = variant.frame();
    let (columns, rows, z) = usual(variant, index);
    let near: Vec<(&Part, f32)> = parts.iter().filter(|p| holds(p, 2, z)).map(|p| (p, p.hu + variant.tissue(p.organ))).collect();
    let mut row_parts: Vec<(&Part, f32)> = Vec::with_capacity(near.len());
    let mut out = Vec::with_capacity(frame.rows * frame.columns);
    for (row, &y) in rows.iter().enumerate() {
        row_parts.clear();
        row_parts.extend(near.iter().copied().filter(|(p, _)| holds(p, 1, y)));
        for (column, &x) in columns.iter().enumerate() {
            let seed = variant.noise().wrapping_add(((index * frame.rows + row) * frame.columns + column) as u64);
            let hu = tissue(&row_parts, [x, y, z]) + frame.noise * gaussian(seed);
            out.push(hu.round().clamp(-1024.0, 3071.0) as i16);
        }
    }
    out
}

/// Which organ each pixel of a slice belongs to; empty for none.
pub fn organs(parts: &[Part], variant: &Variant, index: usize) -> Vec<&'static str> {
    let (columns, rows, z) = usual(variant, index);
    let near: Vec<&Part> = parts.iter().filter(|p| holds(p, 2, z)).collect();
    let inside = |part: &Part, p: Point| holds(part, 0, p[0]) && holds(part, 1, p[1]) && (part.distance)(p) < 0.0;
    let at = |y: f32| {
        let near = &near;
        columns.iter().map(move |&x| near.iter().rev().find(|part| inside(part, [x, y, z])).map_or("", |part| part.organ))
    };
    rows.iter().flat_map(|&y| at(y)).collect()
}

fn holds(part: &Part, axis: usize, at: f32) -> bool {
    part.bounds[0][axis] <= at && at <= part.bounds[1][axis]
}

/// The parts painted over each other, the edges soft.
fn tissue(parts: &[(&Part, f32)], p: Point) -> f32 {
    let mut hu = -1000.0;
    for &(part, own) in parts.iter().filter(|(part, _)| holds(part, 0, p[0])) {
        let distance = (part.distance)(p);
        if distance < BLUR {
            let share = ((BLUR - distance) / (2.0 * BLUR)).min(1.0);
            hu += (own - hu) * share;
        }
    }
    hu
}

/// A number from the normal distribution (twelve uniform ones added up), the same for the same seed on every machine.
fn gaussian(seed: u64) -> f32 {
    let mut sum = 0.0;
    let mut state = seed;
    for _ in 0..3 {
        // SplitMix64: four 16-bit uniforms from each step.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut v = state;
        v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        v ^= v >> 31;
        for shift in [0, 16, 32, 48] {
            sum += ((v >> shift) & 0xffff) as f32 / 65535.0;
        }
    }
    sum - 6.0
}
