//! What a mean difference of paired scores may be, from the scores at hand.

use crate::training::data::Random;

/// The mean of paired differences and one-sided bounds on it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Bounds {
    /// Of the differences.
    pub mean: f64,
    /// The true mean is above, with the confidence asked for.
    pub lower: f64,
    /// The true mean is below, with the confidence asked for.
    pub upper: f64,
    /// Pairs.
    pub pairs: usize,
}

/// Percentile bootstrap (Efron 1979) over the pairs: `resamples` means of as many differences drawn with replacement, of
/// which `error` lie below the lower bound and `error` above the upper one. The same numbers give the same bounds. None
/// without differences.
pub fn mean_difference(differences: &[f64], resamples: usize, error: f64, seed: u64) -> Option<Bounds> {
    let n = differences.len();
    let mean = differences.iter().sum::<f64>() / n as f64;
    if n == 0 || resamples == 0 || !mean.is_finite() {
        return None;
    }
    let mut random = Random::new(seed, n as u64);
    let mut means: Vec<f64> =
        (0..resamples).map(|_| (0..n).map(|_| differences[random.below(n as u64) as usize]).sum::<f64>() / n as f64).collect();
    means.sort_unstable_by(f64::total_cmp);
    // Rounded outwards: a bound is never tighter than asked for.
    let outside = ((error.clamp(0.0, 0.5) * resamples as f64).floor() as usize).min(resamples - 1);
    Some(Bounds { mean, lower: means[outside], upper: means[resamples - 1 - outside], pairs: n })
}
