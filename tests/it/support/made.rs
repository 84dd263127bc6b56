//! Networks and studies made from a seed, the same everywhere. Benches use this file and `manifest.rs` too.
#![allow(dead_code, reason = "each user takes a part of it")]

use super::manifest;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use stunetd::models::{Aggregation, Generation, Inference, Manifest, Normalization, NormalizationOrder, Weights};
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
    let mut made = manifest::manifest(preprocessing);
    if architecture.in_channels > 1 {
        made.scope.modality = ["CT", "PT"].into_iter().cycle().take(architecture.in_channels).map(Into::into).collect();
    }
    Manifest {
        weights: Weights { parameters, ..made.weights },
        architecture: architecture.clone(),
        inference: Inference { patch, aggregation, mirror_axes: vec![0, 1, 2], regions: Vec::new() },
        labels: manifest::labels(architecture.num_classes.max(2) as u16 - 1),
        ..made
    }
}

/// A model folder: this manifest and weights from a seed.
pub fn generation(dir: &Path, manifest: Manifest, seed: u64) -> Generation {
    let tensors = weights(&manifest.architecture, seed);
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (name, shape) in manifest.architecture.state_dict() {
        let values = Vec::<f32>::try_from(tensors[&name].flatten(0, -1)).expect("values");
        let start = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        let shape = shape.iter().map(|&n| n as usize).collect();
        infos.push((name, TensorInfo { dtype: safetensors::Dtype::F32, shape, data_offsets: (start, data.len()) }));
    }
    let mut header = serde_json::to_vec(&Metadata::new(None, infos).expect("metadata")).expect("JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = [(header.len() as u64).to_le_bytes().to_vec(), header, data].concat();
    let sha256 = Sha256::digest(&file).iter().map(|b| format!("{b:02x}")).collect();
    let manifest = Manifest { weights: Weights { sha256, ..manifest.weights }, ..manifest };
    std::fs::create_dir_all(dir).expect("folder");
    std::fs::write(dir.join(&manifest.weights.file), file).expect("weights");
    std::fs::write(dir.join("manifest.toml"), toml::to_string(&manifest).expect("TOML")).expect("manifest");
    Generation::open(dir).expect("a model")
}

/// A small model of CT and PET whose result lies on the grid of one of them: 0 or 1.
pub fn pet_ct(dir: &Path, grid_channel: usize) -> Generation {
    let architecture = Architecture {
        in_channels: 2,
        num_classes: 4,
        dims: [4, 6, 8, 8, 8, 8],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    };
    let mut manifest = manifest(&architecture, [8, 16, 16], Aggregation::Logits);
    manifest.name = format!("petct{grid_channel}");
    manifest.preprocessing.spacing = [5.0; 3];
    manifest.preprocessing.grid_channel = grid_channel;
    manifest.preprocessing.channels[1].name = "PET".into();
    generation(dir, manifest, 6)
}

/// A small model of PET alone.
pub fn pet(dir: &Path) -> Generation {
    let architecture = Architecture {
        in_channels: 1,
        num_classes: 4,
        dims: [4, 6, 8, 8, 8, 8],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    };
    let mut manifest = manifest(&architecture, [8, 16, 16], Aggregation::Logits);
    manifest.name = "pet".into();
    manifest.scope.modality = vec!["PT".into()];
    manifest.preprocessing.spacing = [8.0; 3];
    manifest.preprocessing.channels[0].name = "PET".into();
    generation(dir, manifest, 7)
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
