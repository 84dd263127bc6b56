//! Networks and studies made from a seed, the same everywhere. Benches use this file and `manifest.rs` too.
#![allow(dead_code, reason = "each user takes a part of it")]

use super::manifest;
use std::collections::HashMap;
use stunetd::models::{Aggregation, Inference, Manifest, Normalization, NormalizationOrder, Weights};
use stunetd::stunet::Architecture;
use stunetd::volume::nifti::NiftiGeometry;
use stunetd::volume::{Affine, Prepared, Source, WayBack};
use tch::Tensor;

/// Numbers that look random: roughly normal with standard deviation 1.
pub fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        let mut uniform = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (uniform() + uniform() + uniform() + uniform()) * 1.7
    }
}

/// Parameters for a network, by checkpoint name: convolutions He-normal, norms around 1, heads wide enough to disagree.
pub fn weights(architecture: &Architecture, seed: u64) -> HashMap<String, Tensor> {
    let mut noise = noise(seed);
    let parameter = |(name, shape): (String, Vec<i64>)| {
        let fan_in = shape[1..].iter().product::<i64>().max(1) as f32;
        let (mean, scale) = match name.as_str() {
            name if name.contains("norm") && name.ends_with("weight") => (1.0, 0.2),
            name if name.ends_with("bias") => (0.0, 0.2),
            name if name.starts_with("seg_outputs") => (0.0, 1.5),
            _ => (0.0, (2.0 / fan_in).sqrt()),
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| mean + scale * noise()).collect();
        let tensor = Tensor::from_slice(&values).view(shape.as_slice());
        (name, tensor)
    };
    architecture.state_dict().into_iter().map(parameter).collect()
}

/// A manifest for a network with z-scored input of any number of channels and one label for every class.
pub fn manifest(architecture: &Architecture, patch: [usize; 3], aggregation: Aggregation) -> Manifest {
    let mut preprocessing = manifest::preprocessing(NormalizationOrder::NormalizeFirst, [1.5; 3]);
    preprocessing.channels = vec![manifest::channel(Normalization::ZScore, false); architecture.in_channels];
    let parameters = architecture.parameters();
    let made = manifest::manifest(preprocessing);
    Manifest {
        weights: Weights { parameters, ..made.weights },
        architecture: architecture.clone(),
        inference: Inference { patch, aggregation, mirror_axes: vec![0, 1, 2], regions: Vec::new() },
        labels: manifest::labels(architecture.num_classes.max(2) as u16 - 1),
        ..made
    }
}

/// A normalised image `[z, y, x]`: a body with organs, and noise.
pub fn phantom(shape: [usize; 3]) -> Vec<f32> {
    let mut noise = noise(11);
    let [nz, ny, nx] = shape;
    let mut data = Vec::with_capacity(nz * ny * nx);
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                let place = |i: usize, n: usize| (i as f32 + 0.5) / n as f32 - 0.5;
                let (z, y, x) = (place(z, nz), place(y, ny), place(x, nx));
                let inside = |cz: f32, cy: f32, cx: f32, rz: f32, ry: f32, rx: f32| {
                    ((z - cz) / rz).powi(2) + ((y - cy) / ry).powi(2) + ((x - cx) / rx).powi(2) < 1.0
                };
                let value = match () {
                    _ if inside(0.2, 0.0, -0.2, 0.25, 0.2, 0.15) || inside(0.2, 0.0, 0.2, 0.25, 0.2, 0.15) => -0.9,
                    _ if inside(-0.25, 0.0, -0.18, 0.15, 0.18, 0.18) => 0.9,
                    _ if inside(0.0, 0.22, 0.0, 9.0, 0.05, 0.05) => 1.6,
                    _ if inside(0.0, 0.0, 0.0, 9.0, 0.33, 0.43) => 0.7,
                    _ => -1.2,
                };
                data.push(value + 0.05 * noise());
            }
        }
    }
    data
}

/// A study whose network grid `shape` came from a source grid `source` with the same axes and no crop.
pub fn prepared(manifest: &Manifest, shape: [usize; 3], source: [usize; 3], data: Vec<f32>) -> Prepared {
    let step = |a: usize| 1.5 * shape[a] as f64 / source[a] as f64;
    let affine = Affine::new([step(2), 0.0, 0.0], [0.0, step(1), 0.0], [0.0, 0.0, step(0)], [0.0; 3]).expect("affine");
    Prepared {
        data,
        channels: manifest.architecture.in_channels,
        shape,
        back: WayBack {
            cropped: source,
            separate_axis: None,
            crop_start: [0; 3],
            uncropped: source,
            source_axis: [0, 1, 2],
            flipped: [false; 3],
            source_shape: source,
            rectified: None,
            affine,
            table: manifest.labels.clone(),
            source: Source::Nifti { path: "phantom.nii".into(), digest: [0; 32], geometry: Box::new(NiftiGeometry::from_affine(&affine)) },
        },
    }
}
