//! One axis of a resize with two taps an output: linear and nearest.

/// The resize of one axis from `n_in` to `n_out` samples with half-pixel centres, as scikit-image and PyTorch (`align_corners=False`,
/// `nearest-exact`) do it: output `o` lies at input coordinate `(o + 0.5) * n_in / n_out - 0.5`, clamped to the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisOperator {
    n_in: usize,
    taps: Vec<Tap>,
}

/// `(1 - t) * v[first] + t * v[second]`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tap {
    first: usize,
    second: usize,
    t: f64,
}

/// Input coordinate of output `o` (half-pixel centres).
pub(super) fn coordinate(o: usize, n_in: usize, n_out: usize) -> f64 {
    (o as f64 + 0.5) * (n_in as f64 / n_out as f64) - 0.5
}

impl AxisOperator {
    /// Linear interpolation (order 1). An axis without samples gives an operator without outputs.
    pub fn linear(n_in: usize, n_out: usize) -> AxisOperator {
        AxisOperator::build(n_in, n_out, |x, last| {
            let floor = x.floor();
            let t = x - floor;
            if floor < 0.0 {
                return Tap { first: 0, second: 0, t: 0.0 };
            }
            let first = (floor as usize).min(last);
            let second = (first + 1).min(last);
            Tap { first, second, t: if second > first { t } else { 0.0 } }
        })
    }

    /// Nearest neighbour (order 0): the sample at `floor(x + 0.5)`; both taps are that sample.
    pub fn nearest(n_in: usize, n_out: usize) -> AxisOperator {
        AxisOperator::build(n_in, n_out, |x, last| {
            let first = ((x + 0.5).floor().max(0.0) as usize).min(last);
            Tap { first, second: first, t: 0.0 }
        })
    }

    fn build(n_in: usize, n_out: usize, tap: impl Fn(f64, usize) -> Tap) -> AxisOperator {
        let outputs = if n_in == 0 { 0 } else { n_out };
        AxisOperator { n_in, taps: (0..outputs).map(|o| tap(coordinate(o, n_in, n_out), n_in - 1)).collect() }
    }

    /// Samples of the input axis.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Samples of the output axis.
    pub fn n_out(&self) -> usize {
        self.taps.len()
    }

    /// Output `o` is `(1 - t) * v[i0] + t * v[i1]` for the `(i0, i1, t)` returned; `i0 <= i1 < n_in`, `0 <= t <= 1`, and `t = 0` where `i0 = i1`.
    pub fn taps(&self, o: usize) -> (usize, usize, f32) {
        let Tap { first, second, t } = self.taps[o];
        (first, second, t as f32)
    }

    /// As [`taps`](Self::taps), with the weight in full precision.
    pub fn taps_f64(&self, o: usize) -> (usize, usize, f64) {
        let Tap { first, second, t } = self.taps[o];
        (first, second, t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_weights() {
        let half = AxisOperator::linear(4, 2);
        assert_eq!((half.taps(0), half.taps(1)), ((0, 1, 0.5), (2, 3, 0.5)));
        let double = AxisOperator::linear(2, 4);
        assert_eq!((0..4).map(|o| double.taps(o)).collect::<Vec<_>>(), [(0, 0, 0.0), (0, 1, 0.25), (0, 1, 0.75), (1, 1, 0.0)]);
        let nearest = AxisOperator::nearest(5, 3);
        assert_eq!((0..3).map(|o| nearest.taps(o).0).collect::<Vec<_>>(), [0, 2, 4]);
        assert_eq!(AxisOperator::linear(1, 3).taps(2), (0, 0, 0.0));
        assert_eq!(AxisOperator::linear(0, 3).n_out(), 0);
    }

    #[test]
    fn equal_sizes_are_the_identity() {
        for n in 1..40 {
            for operator in [AxisOperator::linear(n, n), AxisOperator::nearest(n, n)] {
                assert!((0..n).all(|o| operator.taps_f64(o).0 == o && operator.taps_f64(o).2 == 0.0));
            }
        }
    }
}
