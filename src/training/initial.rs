//! Weights to start from when there are none.

use super::Error;
use super::data::Random;
use crate::stunet::Architecture;
use std::collections::HashMap;
use tch::Tensor;

/// Slope of the activation that the weights are scaled for.
const SLOPE: f64 = 0.01;

/// nnU-Net's start: convolution weights He-normal over the fan-in with the activation's slope, biases 0, norms 1 and 0.
/// The same seed gives the same weights.
pub fn initial_weights(architecture: &Architecture, seed: u64) -> Result<HashMap<String, Tensor>, Error> {
    architecture.validate().map_err(crate::stunet::Error::from)?;
    let tensors = architecture.state_dict().into_iter().enumerate().map(|(i, (name, shape))| {
        let count = shape.iter().product::<i64>().max(0) as usize;
        let values: Vec<f32> = if shape.len() == 5 {
            let fan_in = shape[1..].iter().product::<i64>() as f64;
            let deviation = (2.0 / ((1.0 + SLOPE * SLOPE) * fan_in)).sqrt();
            let mut random = Random::new(seed, i as u64);
            (0..count).map(|_| (random.normal() * deviation) as f32).collect()
        } else {
            let norm = name.ends_with("norm1.weight") || name.ends_with("norm2.weight");
            vec![if norm { 1.0 } else { 0.0 }; count]
        };
        Ok((name, Tensor::f_from_slice(&values)?.f_reshape(shape)?))
    });
    tensors.collect()
}
