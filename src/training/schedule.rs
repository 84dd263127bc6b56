//! How the learning rate falls.

/// nnU-Net's polynomial rate: `first * (1 - epoch / epochs)^0.9`, set once at the start of each epoch, epochs from 0.
pub fn poly_learning_rate(first: f64, epoch: u64, epochs: u64) -> f64 {
    first * (1.0 - epoch.min(epochs) as f64 / epochs.max(1) as f64).powf(0.9)
}
