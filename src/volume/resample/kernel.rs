//! One axis of a resize, applied to sixteen lines side by side.

use super::Interpolation;
use super::operator::{AxisOperator, coordinate};

/// Lines that run through a kernel together.
pub(super) const LANES: usize = 16;

/// One sample of each of the lines.
pub(super) type Lanes = [f32; LANES];

/// Pole of the cubic B-spline prefilter, `sqrt(3) - 2`.
const POLE: f32 = -0.267_949_2;

/// Coefficients kept beyond each end of a line; four taps around a half-pixel coordinate reach that far.
const MARGIN: usize = 2;

/// A one-dimensional resize of lines.
pub(super) enum AxisKernel {
    /// As many samples out as in: every order interpolates the samples themselves.
    Identity,
    /// Nearest or linear.
    TwoTap(AxisOperator),
    /// Cubic B-spline.
    Cubic(CubicAxis),
}

/// A cubic B-spline resize. The reference extends a line by twelve copies of its end samples and then by reflection; from the samples' side that is
/// a constant without end, up to `POLE^24 = 2e-14` of the range.
pub(super) struct CubicAxis {
    n_in: usize,
    /// First of four coefficients (an index into the line with its margins) and their weights, for each output.
    taps: Vec<(usize, [f32; 4])>,
}

impl AxisKernel {
    pub(super) fn new(n_in: usize, n_out: usize, interpolation: Interpolation) -> AxisKernel {
        if n_in == n_out {
            return AxisKernel::Identity;
        }
        match interpolation {
            Interpolation::Nearest => AxisKernel::TwoTap(AxisOperator::nearest(n_in, n_out)),
            Interpolation::Linear => AxisKernel::TwoTap(AxisOperator::linear(n_in, n_out)),
            Interpolation::Cubic => AxisKernel::Cubic(CubicAxis::new(n_in, n_out)),
        }
    }

    /// Samples of room that `run` wants for lines of `n_in`.
    pub(super) fn room(n_in: usize) -> usize {
        n_in + 2 * MARGIN
    }

    /// Where the first sample goes in that room.
    pub(super) const FIRST: usize = MARGIN;

    /// Calls `emit(o, sample)` for each output in ascending order. `lines` holds the samples from [`FIRST`](Self::FIRST) on and is used as scratch.
    pub(super) fn run(&self, lines: &mut [Lanes], mut emit: impl FnMut(usize, &Lanes)) {
        match self {
            AxisKernel::Identity => lines[MARGIN..lines.len() - MARGIN].iter().enumerate().for_each(|(o, lanes)| emit(o, lanes)),
            AxisKernel::TwoTap(operator) => {
                for o in 0..operator.n_out() {
                    let (first, second, t) = operator.taps(o);
                    let (a, b) = (&lines[MARGIN + first], &lines[MARGIN + second]);
                    let mut out = [0.0; LANES];
                    for l in 0..LANES {
                        out[l] = (1.0 - t) * a[l] + t * b[l];
                    }
                    emit(o, &out);
                }
            }
            AxisKernel::Cubic(cubic) => {
                cubic.prefilter(lines);
                for (o, &(first, w)) in cubic.taps.iter().enumerate() {
                    let [a, b, c, d] = [&lines[first], &lines[first + 1], &lines[first + 2], &lines[first + 3]];
                    let mut out = [0.0; LANES];
                    for l in 0..LANES {
                        out[l] = (w[0] * a[l] + w[1] * b[l]) + (w[2] * c[l] + w[3] * d[l]);
                    }
                    emit(o, &out);
                }
            }
        }
    }
}

impl CubicAxis {
    fn new(n_in: usize, n_out: usize) -> CubicAxis {
        let taps = (0..n_out).map(|o| {
            let x = coordinate(o, n_in, n_out);
            let floor = x.floor();
            let t = x - floor;
            // six times the B-spline; the prefilter leaves out its gain of six
            let weights =
                [(1.0 - t).powi(3), 4.0 - 6.0 * t * t + 3.0 * t.powi(3), 1.0 + 3.0 * t + 3.0 * t * t - 3.0 * t.powi(3), t.powi(3)];
            // -1 <= floor <= n_in - 1, so that first and the three after it lie inside the margins
            ((floor + (MARGIN as f64 - 1.0)) as usize, weights.map(|w| w as f32))
        });
        CubicAxis { n_in, taps: taps.collect() }
    }

    /// Samples to B-spline coefficients over six, margins included.
    fn prefilter(&self, lines: &mut [Lanes]) {
        let n = self.n_in;
        let settled = 1.0 / (1.0 - POLE);
        let left = lines[MARGIN].map(|v| v * settled);
        let right = lines[MARGIN + n - 1].map(|v| v * settled);

        let mut state = left;
        for sample in &mut lines[MARGIN..MARGIN + n] {
            for l in 0..LANES {
                state[l] = sample[l] + POLE * state[l];
            }
            *sample = state;
        }
        // beyond the end the causal filter settles to `right`; the anticausal one summed over that tail
        let tail = POLE * POLE / (1.0 - POLE * POLE);
        for l in 0..LANES {
            let swing = (state[l] - right[l]) * tail;
            let rest = -POLE * settled * right[l];
            state[l] = rest - swing;
            lines[MARGIN + n][l] = state[l];
            lines[MARGIN + n + 1][l] = rest - POLE * swing;
        }
        for coefficient in lines[MARGIN..MARGIN + n].iter_mut().rev() {
            for l in 0..LANES {
                state[l] = POLE * (state[l] - coefficient[l]);
            }
            *coefficient = state;
        }
        for margin in lines[..MARGIN].iter_mut().rev() {
            for l in 0..LANES {
                state[l] = POLE * (state[l] - left[l]);
            }
            *margin = state;
        }
    }
}
