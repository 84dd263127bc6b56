//! The parts as slices of a CT: what is where, blurred and noisy as a scanner's image is.

use super::anatomy::{Part, Point};

/// Rows of a slice.
pub const ROWS: usize = 384;
/// Columns of a slice.
pub const COLUMNS: usize = 464;
/// Millimetres between pixels.
pub const PIXEL: f64 = 0.78125;
/// Slices.
pub const SLICES: usize = 64;
/// Millimetres between slices.
pub const STEP: f64 = 3.0;
/// Height of the lowest slice.
pub const LOWEST: f64 = -102.0;
/// Half the width over which one tissue goes over into the next, mm.
const BLUR: f32 = 0.8;
/// Standard deviation of the noise, HU.
const NOISE: f32 = 11.0;

/// Patient position of the first pixel of a slice, LPS mm.
pub fn origin(slice: usize) -> [f64; 3] {
    let half = |pixels: usize| (pixels as f64 - 1.0) / 2.0 * PIXEL;
    [-half(COLUMNS), -half(ROWS), LOWEST + slice as f64 * STEP]
}

/// One slice in HU, `[row, column]`: rows to the back, columns to the left.
pub fn slice(parts: &[Part], index: usize) -> Vec<i16> {
    let [x0, y0, z] = origin(index).map(|v| v as f32);
    let pixel = PIXEL as f32;
    let near: Vec<&Part> = parts.iter().filter(|p| holds(p, 2, z)).collect();
    let mut row_parts: Vec<&Part> = Vec::with_capacity(near.len());
    let mut out = Vec::with_capacity(ROWS * COLUMNS);
    for row in 0..ROWS {
        let y = y0 + row as f32 * pixel;
        row_parts.clear();
        row_parts.extend(near.iter().copied().filter(|p| holds(p, 1, y)));
        for column in 0..COLUMNS {
            let x = x0 + column as f32 * pixel;
            let seed = ((index * ROWS + row) * COLUMNS + column) as u64;
            let hu = tissue(&row_parts, [x, y, z]) + NOISE * gaussian(seed);
            out.push(hu.round().clamp(-1024.0, 3071.0) as i16);
        }
    }
    out
}

/// Which organ each pixel of a slice belongs to; empty for none.
pub fn organs(parts: &[Part], index: usize) -> Vec<&'static str> {
    let [x0, y0, z] = origin(index).map(|v| v as f32);
    let near: Vec<&Part> = parts.iter().filter(|p| holds(p, 2, z)).collect();
    let at = |i: usize| [x0 + (i % COLUMNS) as f32 * PIXEL as f32, y0 + (i / COLUMNS) as f32 * PIXEL as f32, z];
    let inside = |part: &Part, p: Point| holds(part, 0, p[0]) && holds(part, 1, p[1]) && (part.distance)(p) < 0.0;
    (0..ROWS * COLUMNS).map(|i| near.iter().rev().find(|part| inside(part, at(i))).map_or("", |part| part.organ)).collect()
}

fn holds(part: &Part, axis: usize, at: f32) -> bool {
    part.bounds[0][axis] <= at && at <= part.bounds[1][axis]
}

/// The parts painted over each other, the edges soft.
fn tissue(parts: &[&Part], p: Point) -> f32 {
    let mut hu = -1000.0;
    for part in parts.iter().filter(|part| holds(part, 0, p[0])) {
        let distance = (part.distance)(p);
        if distance < BLUR {
            let share = ((BLUR - distance) / (2.0 * BLUR)).min(1.0);
            hu += (part.hu - hu) * share;
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
