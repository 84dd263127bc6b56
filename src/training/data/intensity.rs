//! Changes of values: contrast and gamma.

/// Smallest range or deviation that is divided by.
const SMALL: f64 = 1e-7;

fn mean(data: &[f32]) -> f64 {
    data.iter().map(|&v| f64::from(v)).sum::<f64>() / data.len().max(1) as f64
}

/// Of a sample: over one less than the count.
fn deviation(data: &[f32], mean: f64) -> f64 {
    let squares: f64 = data.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum();
    (squares / data.len().saturating_sub(1).max(1) as f64).sqrt()
}

fn range(data: &[f32]) -> (f32, f32) {
    data.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

/// Stretches about the mean and clips to the range that was there.
pub(super) fn contrast(data: &mut [f32], factor: f64) {
    let (mean, factor) = (mean(data) as f32, factor as f32);
    let (low, high) = range(data);
    data.iter_mut().for_each(|v| *v = ((*v - mean) * factor + mean).max(low).min(high));
}

/// Raises to a power within the range, and restores mean and standard deviation.
pub(super) fn gamma(data: &mut [f32], exponent: f64) {
    let old = mean(data);
    let old_deviation = deviation(data, old);
    let (low, high) = range(data);
    let (range, exponent) = (high - low, exponent as f32);
    let share = 1.0 / range.max(SMALL as f32);
    data.iter_mut().for_each(|v| *v = ((*v - low) * share).powf(exponent) * range + low);
    let new = mean(data);
    let factor = old_deviation / deviation(data, new).max(SMALL);
    data.iter_mut().for_each(|v| *v = ((f64::from(*v) - new) * factor + old) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_stays_in_range_and_gamma_keeps_mean_and_deviation() {
        let original: Vec<f32> = (0..1000).map(|i| ((i * 37 % 101) as f32 / 20.0).powi(2) - 3.0).collect();
        let mut data = original.clone();
        contrast(&mut data, 1.25);
        let (low, high) = range(&original);
        assert!(data.iter().all(|&v| (low..=high).contains(&v)) && data != original);
        for exponent in [0.7, 1.5] {
            let mut data = original.clone();
            gamma(&mut data, exponent);
            assert!((mean(&data) - mean(&original)).abs() < 1e-5);
            assert!((deviation(&data, mean(&data)) / deviation(&original, mean(&original)) - 1.0).abs() < 1e-5);
            assert!(data.iter().zip(&original).any(|(a, b)| (a - b).abs() > 0.1));
        }
        let mut flat = vec![2.5f32; 10];
        gamma(&mut flat, 1.3);
        assert_eq!(flat, [2.5; 10]);
    }
}
