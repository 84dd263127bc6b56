//! The sliding window against the reference's goldens and against a plain twin that keeps the whole volume.

use crate::need;
use crate::support::made::{noise, weights};
use crate::support::{Tensors, golden};
use std::collections::HashMap;
use stunetd::models::{Aggregation, Region};
use stunetd::segment::aggregate::{Blending, SlabSink, aggregate};
use stunetd::segment::export::{Exporter, labels_plain};
use stunetd::segment::gaussian::gaussian;
use stunetd::segment::label_sinks::{DeviceLabels, HostLabels};
use stunetd::segment::tiles::Tiling;
use stunetd::segment::{Accumulation, Decision, Progress, SegmentError, Timings};
use stunetd::stunet::checkpoint::Checkpoint;
use stunetd::stunet::{Architecture, Network, Precision};
use stunetd::volume::Labels;
use tch::{Device, Kind, Tensor};

/// Keeps every slab: `[z, y, x, output]`.
#[derive(Default)]
struct Keep(Vec<f32>);

impl SlabSink for Keep {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        let mut slab = vec![0.0; values.numel()];
        let count = slab.len();
        values.copy_data(&mut slab, count);
        self.0.extend(slab);
        Ok(())
    }
}

/// An image `[channel, z, y, x]` and how it is to be segmented.
struct Study<'a> {
    network: &'a Network,
    image: &'a [f32],
    shape: [usize; 3],
    patch: [usize; 3],
    step: f64,
    mirror_axes: &'a [usize],
    aggregation: Aggregation,
    regions: bool,
    batch: usize,
}

impl Study<'_> {
    fn tiling(&self) -> Tiling {
        Tiling::new(self.shape, self.patch, self.step).expect("tiling")
    }

    /// The padded image.
    fn input(&self, tiling: &Tiling) -> Tensor {
        let [z, y, x] = self.shape.map(|n| n as i64);
        let (below, above) = (tiling.pad_below, tiling.pad_above());
        let pad: Vec<i64> = (0..3).rev().flat_map(|a| [below[a] as i64, above[a] as i64]).collect();
        Tensor::from_slice(self.image).view([-1, z, y, x]).constant_pad_nd(pad)
    }

    fn run(&self, sink: &mut dyn SlabSink) -> Timings {
        let tiling = self.tiling();
        let blending = Blending {
            aggregation: self.aggregation,
            regions: self.regions,
            mirror_axes: self.mirror_axes.to_vec(),
            batch: self.batch,
            accumulation: Accumulation::Device,
        };
        let (mut timings, mut seen) = (Timings::default(), Vec::new());
        let mut progress = |p: Progress| {
            seen.push(p);
            true
        };
        aggregate(self.network, self.input(&tiling), &tiling, &blending, sink, &mut timings, &mut progress).expect("aggregation");
        let of = tiling.windows() << self.mirror_axes.len();
        assert_eq!(seen, (1..=of).map(|done| Progress { done, of }).collect::<Vec<_>>());
        assert_eq!(timings.windows, of);
        timings
    }

    /// Averaged outputs `[z, y, x, output]`.
    fn outputs(&self) -> Vec<f32> {
        let mut keep = Keep::default();
        self.run(&mut keep);
        keep.0
    }

    /// The same from sums over the whole volume in f64, window by window, copy by copy.
    fn outputs_plain(&self) -> Vec<f32> {
        let tiling = self.tiling();
        let input = self.input(&tiling);
        let classes = self.network.architecture().num_classes;
        let [pz, py, px] = self.patch;
        let [nz, ny, nx] = tiling.padded;
        let table = match self.aggregation {
            Aggregation::Softmax if tiling.windows() == 1 => vec![1.0; pz * py * px],
            aggregation => gaussian(self.patch, aggregation),
        };
        let mut sums = vec![0f64; nz * ny * nx * classes];
        let mut weights = vec![0f64; nz * ny * nx];
        for &z in &tiling.starts[0] {
            for [y, x] in tiling.row() {
                let window = input.narrow(1, z as i64, pz as i64).narrow(2, y as i64, py as i64).narrow(3, x as i64, px as i64);
                for subset in 0..8usize {
                    if (0..3).any(|a| subset >> a & 1 == 1 && !self.mirror_axes.contains(&a)) {
                        continue;
                    }
                    let axes: Vec<i64> = (0..3).filter(|a| subset >> a & 1 == 1).map(|a| a as i64 + 2).collect();
                    let logits = self.network.forward(&window.unsqueeze(0).flip(&axes)).expect("forward").flip(&axes);
                    let values = match self.aggregation {
                        Aggregation::Logits => logits,
                        Aggregation::Softmax if self.regions => logits.sigmoid(),
                        Aggregation::Softmax => logits.softmax(1, Kind::Float),
                    };
                    let values: Vec<f32> = Vec::try_from(values.permute([0, 2, 3, 4, 1]).contiguous().reshape([-1])).expect("numbers");
                    for (i, &g) in table.iter().enumerate() {
                        let at = ((z + i / px / py) * ny + y + i / px % py) * nx + x + i % px;
                        weights[at] += f64::from(g);
                        for c in 0..classes {
                            sums[at * classes + c] += f64::from(g) * f64::from(values[i * classes + c]);
                        }
                    }
                }
            }
        }
        let mut outputs = Vec::new();
        for z in 0..self.shape[0] {
            for y in 0..self.shape[1] {
                for x in 0..self.shape[2] {
                    let [bz, by, bx] = tiling.pad_below;
                    let at = ((z + bz) * ny + y + by) * nx + x + bx;
                    outputs.extend((0..classes).map(|c| (sums[at * classes + c] / weights[at]) as f32));
                }
            }
        }
        outputs
    }
}

/// A small network with weights made from a seed.
fn small_network(channels: usize, classes: usize, width: usize) -> Network {
    let architecture = small_architecture(channels, classes, width);
    Network::from_tensors(weights(&architecture, classes as u64), &architecture, Device::Cpu, Precision::F32).expect("network")
}

fn small_architecture(channels: usize, classes: usize, width: usize) -> Architecture {
    Architecture {
        in_channels: channels,
        num_classes: classes,
        dims: [width, 6, 8, 8, 8, 8],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    }
}

fn labels_of(outputs: &[f32], classes: usize) -> Vec<f64> {
    let decision = Decision::new(&[], classes, Aggregation::Logits).expect("decision");
    outputs.chunks_exact(classes).map(|v| f64::from(decision.winner(v))).collect()
}

/// Share of equal values.
fn agreement(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

#[test]
fn streamed_sums_are_the_whole_volumes() {
    // These networks are too small for threads to pay.
    tch::set_num_threads(1);
    let patch = [8, 16, 16];
    // More classes than features, and fewer: what is summed differs.
    let networks = [small_network(2, 7, 4), small_network(2, 5, 6)];
    let shapes = [[21, 26, 16], [11, 16, 17], [5, 9, 11]];
    let mirrors: [(&[usize], bool, usize); 3] = [(&[], false, 1), (&[0, 2], false, 3), (&[0, 1, 2], true, 8)];
    for (i, shape) in shapes.into_iter().enumerate() {
        let mut noise = noise(7);
        let voxels: usize = shape.iter().product();
        let image: Vec<f32> = (0..2 * voxels).map(|i| noise() + ((i / 97) as f32 * 0.3).sin()).collect();
        for (network, aggregation) in networks.iter().flat_map(|n| [(n, Aggregation::Logits), (n, Aggregation::Softmax)]) {
            let classes = network.architecture().num_classes;
            for (mirror_axes, regions, batch) in mirrors[..if i == 0 { 2 } else { 3 }].iter().copied() {
                let study = Study { network, image: &image, shape, patch, step: 0.5, mirror_axes, aggregation, regions, batch };
                let plain = study.outputs_plain();
                let table: Vec<Region> = (0..classes).map(|r| Region { output: r, value: r as u16 + 1 }).collect();
                let decision = Decision::new(if regions { &table } else { &[] }, classes, aggregation).expect("decision");
                // A finer and a coarser grid of labels.
                let (fine, coarse) = (shape.map(|n| n * 2 - 1), shape.map(|n| n * 2 / 3 + 1));
                let mut sinks = All {
                    keep: Keep::default(),
                    host: HostLabels::new(Exporter::new(shape, fine, None, classes, decision.clone(), false)),
                    device: DeviceLabels::new(shape, coarse, None, classes, decision.clone(), true, Device::Cpu).expect("labels"),
                };
                study.run(&mut sinks);
                assert_eq!(plain.len(), voxels * classes);
                let worst = plain.iter().zip(&sinks.keep.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-4, "{shape:?} {aggregation:?} {mirror_axes:?}: {worst}");
                for (labels, high) in [(sinks.host.finish(), fine), (sinks.device.finish(), coarse)] {
                    let plain = labels_plain(&plain, shape, high, None, classes, &decision);
                    let labels = labels.expect("labels");
                    let off = plain.iter().enumerate().filter(|(i, l)| labels.get(*i) != **l).count();
                    // Sums in another order may decide a near tie otherwise.
                    assert!(off <= 1 + plain.len() / 50_000, "{shape:?} {aggregation:?} {mirror_axes:?}: {off} labels differ");
                }
            }
        }
    }
}

/// Every sink at once.
struct All {
    keep: Keep,
    host: HostLabels,
    device: DeviceLabels,
}

impl SlabSink for All {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        self.keep.slab(values)?;
        self.host.slab(values)?;
        self.device.slab(values)
    }
}

#[test]
fn device_labels_are_the_exporters() {
    let mut noise = noise(3);
    for (low, high, separate) in [([7, 9, 8], [13, 5, 21], None), ([5, 6, 7], [12, 9, 7], Some(0)), ([4, 4, 4], [4, 4, 4], Some(2))] {
        let outputs = 6;
        let values: Vec<f32> = (0..low.iter().product::<usize>() * outputs).map(|_| (noise() * 4.0).round() / 2.0).collect();
        let regions: Vec<Region> = [(3, 2), (1, 4), (5, 300)].map(|(output, value)| Region { output, value }).into();
        for regions in [vec![], regions] {
            let decision = Decision::new(&regions, outputs, Aggregation::Logits).expect("decision");
            let tensor = Tensor::from_slice(&values).view([low[0] as i64, low[1] as i64, low[2] as i64, outputs as i64]);
            let mut device = DeviceLabels::new(low, high, separate, outputs, decision.clone(), true, Device::Cpu).expect("labels");
            for z in (0..low[0]).step_by(3) {
                device.slab(&tensor.narrow(0, z as i64, 3.min(low[0] - z) as i64)).expect("slab");
            }
            let plain = labels_plain(&values, low, high, separate, outputs, &decision);
            assert_eq!(device.finish().ok(), Some(Labels::U16(plain)));
        }
    }
    let decision = Decision::new(&[], 2, Aggregation::Logits).expect("decision");
    let mut device = DeviceLabels::new([1, 1, 1], [2, 2, 2], None, 2, decision, false, Device::Cpu).expect("labels");
    let slab = Tensor::from_slice(&[0.0f32, f32::NAN]).view([1, 1, 1, 2]);
    // Told at the end: until then nothing waits for the device.
    assert!(device.slab(&slab).is_ok());
    assert!(matches!(device.finish(), Err(SegmentError::NotFinite(0))));
    let decision = Decision::new(&[], 2, Aggregation::Logits).expect("decision");
    let empty = DeviceLabels::new([1, 1, 1], [2, 2, 2], None, 2, decision, false, Device::Cpu).expect("labels");
    assert!(empty.finish().is_err(), "no slice was taken");
}

#[test]
fn progress_can_stop_a_study() {
    let network = small_network(1, 3, 4);
    let image = vec![0.5f32; 8 * 40 * 16];
    let tiling = Tiling::new([8, 40, 16], [8, 16, 16], 0.5).expect("tiling");
    let blending =
        Blending { aggregation: Aggregation::Logits, regions: false, mirror_axes: vec![1], batch: 4, accumulation: Accumulation::Device };
    let input = Tensor::from_slice(&image).view([1, 8, 40, 16]);
    let mut keep = Keep::default();
    let mut timings = Timings::default();
    let stopped = aggregate(&network, input.shallow_clone(), &tiling, &blending, &mut keep, &mut timings, &mut |p| p.done < 3);
    assert!(matches!(stopped, Err(SegmentError::Stopped { done: 3, of: 8 })), "{stopped:?}");
    assert!(keep.0.is_empty());
    let blending = Blending { mirror_axes: vec![3], ..blending };
    assert!(aggregate(&network, input.shallow_clone(), &tiling, &blending, &mut keep, &mut timings, &mut |_| true).is_err());
}

/// The network of the predictor goldens.
fn predictor_network(parameters: &serde_json::Value) -> Option<Network> {
    let file = Tensors::open(&golden("nnunet/predictor_weights.safetensors")?);
    let strides: Vec<[usize; 3]> = serde_json::from_value(parameters["arch"]["pool_op_kernel_sizes"].clone()).expect("pools");
    let tensors: HashMap<String, Tensor> = file
        .names()
        .into_iter()
        .map(|name| {
            let (shape, values) = file.f32(&name);
            let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
            (name, Tensor::from_slice(&values).view(shape.as_slice()))
        })
        .collect();
    let shapes: Vec<_> = tensors.iter().map(|(n, t)| (n.clone(), t.size())).collect();
    let architecture = Architecture::infer(&shapes, strides.try_into().expect("five")).expect("a STU-Net");
    Some(Network::from_tensors(tensors, &architecture, Device::Cpu, Precision::F32).expect("network"))
}

#[test]
fn predictor_goldens() {
    let path = need!(golden("nnunet/predictor.json"), "goldens are not here");
    let parameters: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("file")).expect("JSON");
    let file = Tensors::open(&need!(golden("nnunet/predictor.safetensors"), "goldens are not here"));
    let network = need!(predictor_network(&parameters), "goldens are not here");
    let patch: [usize; 3] = serde_json::from_value(parameters["patch"].clone()).expect("patch");
    let classes = network.architecture().num_classes;
    let mut compared = 0;
    for run in parameters["runs"].as_array().expect("runs") {
        let text = |key: &str| run[key].as_str().unwrap_or_else(|| panic!("{key}")).to_string();
        let (key, input) = (text("key"), text("input"));
        let (shape, image) = file.f32(&input);
        let shape = [shape[1], shape[2], shape[3]];
        let mirror_axes: Vec<usize> = serde_json::from_value(run["mirror_axes"].clone()).expect("axes");
        let step = run["step"].as_f64().expect("step");
        let study = |aggregation| Study {
            network: &network,
            image: &image,
            shape,
            patch,
            step,
            mirror_axes: &mirror_axes,
            aggregation,
            regions: false,
            batch: 1,
        };
        let voxels: usize = shape.iter().product();
        let channel_first =
            |outputs: &[f32]| -> Vec<f64> { (0..outputs.len()).map(|i| f64::from(outputs[i % voxels * classes + i / voxels])).collect() };

        let v2 = study(Aggregation::Logits).outputs();
        let labels = labels_of(&v2, classes);
        let values = channel_first(&v2);
        let share = agreement(&labels, &file.get(&format!("{key}.spec_label")).values);
        assert!(share >= 0.9995, "{key}: spec_label {share}");
        if file.has(&format!("{key}.spec_logits_f32")) {
            let golden = file.get(&format!("{key}.spec_logits_f32")).values;
            let worst = values.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= 2e-3, "{key}: spec_logits {worst}");
            compared += 1;
        }
        // The reference's f16 sums are only good where weights are not tiny.
        let weights = weights_of(&study(Aggregation::Logits));
        let inner: Vec<usize> = (0..voxels).filter(|&i| weights[i] > 1e-2).collect();
        if file.has(&format!("{key}.v2_logits_f16")) {
            let golden = file.get(&format!("{key}.v2_logits_f16")).values;
            // The file holds a view into the padded array as that array lies in memory, from the view's first voxel on.
            let tiling = study(Aggregation::Logits).tiling();
            let ([bz, by, bx], [nz, ny, nx]) = (tiling.pad_below, tiling.padded);
            let mut worst = 0f64;
            let mut seen = 0;
            for (i, golden) in golden.iter().enumerate() {
                let at = i + (bz * ny + by) * nx + bx;
                let (c, z, y, x) = (at / nx / ny / nz, at / nx / ny % nz, at / nx % ny, at % nx);
                let inside = |v: usize, below: usize, n: usize| (below..below + n).contains(&v);
                if inside(z, bz, shape[0]) && inside(y, by, shape[1]) && inside(x, bx, shape[2]) {
                    let voxel = ((z - bz) * shape[1] + y - by) * shape[2] + x - bx;
                    if weights[voxel] > 1e-2 {
                        worst = worst.max((values[c * voxels + voxel] - golden).abs());
                        seen += 1;
                    }
                }
            }
            assert!(worst <= 0.05, "{key}: v2_logits {worst}");
            assert!(seen > voxels / 10, "{key}: {seen} values compared");
            compared += 1;
        }
        let golden = file.get(&format!("{key}.v2_label")).values;
        let pick = |values: &[f64]| inner.iter().map(|&i| values[i]).collect::<Vec<_>>();
        let (share, share_inner) = (agreement(&labels, &golden), agreement(&pick(&labels), &pick(&golden)));
        assert!(share >= 0.994 && share_inner >= 0.999, "{key}: v2_label {share} {share_inner}");

        let v1 = study(Aggregation::Softmax).outputs();
        let share = agreement(&labels_of(&v1, classes), &file.get(&format!("{key}.v1_label")).values);
        assert!(share >= 0.9995, "{key}: v1_label {share}");
        if file.has(&format!("{key}.v1_prob_f16")) {
            let golden = file.get(&format!("{key}.v1_prob_f16")).values;
            let worst = channel_first(&v1).iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= 2e-3, "{key}: v1_prob {worst}");
            compared += 1;
        }
    }
    assert!(compared >= 14, "{compared} arrays compared");
}

/// Summed window weights of the grid.
fn weights_of(study: &Study) -> Vec<f64> {
    let tiling = study.tiling();
    let table = gaussian(study.patch, study.aggregation);
    let [_, py, px] = study.patch;
    let [nz, ny, nx] = tiling.padded;
    let mut weights = vec![0f64; nz * ny * nx];
    for &z in &tiling.starts[0] {
        for [y, x] in tiling.row() {
            for (i, &g) in table.iter().enumerate() {
                weights[((z + i / px / py) * ny + y + i / px % py) * nx + x + i % px] += f64::from(g);
            }
        }
    }
    let [bz, by, bx] = tiling.pad_below;
    let [sz, sy, sx] = study.shape;
    (0..sz * sy * sx).map(|i| weights[((bz + i / sx / sy) * ny + by + i / sx % sy) * nx + bx + i % sx]).collect()
}

#[test]
fn official_sliding_window() {
    let file = Tensors::open(&need!(golden("stunet/tiny_sliding_window.safetensors"), "goldens are not here"));
    let checkpoint = Checkpoint::open(&need!(golden("stunet/tiny.model"), "goldens are not here")).expect("checkpoint");
    let tensors: HashMap<String, Tensor> = checkpoint
        .weights()
        .expect("weights")
        .into_iter()
        .map(|(name, tensor)| {
            let shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
            (name, Tensor::from_slice(&checkpoint.read(tensor).expect("numbers")).view(shape.as_slice()))
        })
        .collect();
    let shapes: Vec<_> = tensors.iter().map(|(n, t)| (n.clone(), t.size())).collect();
    let architecture = Architecture::infer(&shapes, Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let network = Network::from_tensors(tensors, &architecture, Device::Cpu, Precision::F32).expect("network");
    let classes = architecture.num_classes;
    let cases = [
        ("volume", "softmax.nomirror", Some("seg.nomirror"), false),
        ("volume", "softmax.mirror", Some("seg.mirror"), true),
        ("small.volume", "small.softmax", Some("small.seg"), false),
        ("tta.input", "tta.softmax", None, true),
    ];
    for (input, softmax, seg, mirror) in cases {
        let (shape, image) = file.f32(input);
        let shape: [usize; 3] = shape[shape.len() - 3..].try_into().expect("three axes");
        let study = Study {
            network: &network,
            image: &image,
            shape,
            patch: [32, 32, 64],
            step: 0.5,
            mirror_axes: if mirror { &[0, 1, 2] } else { &[] },
            aggregation: Aggregation::Softmax,
            regions: false,
            batch: 1,
        };
        let outputs = study.outputs();
        let golden = file.get(softmax);
        let [z, y, x] = golden.shape[golden.shape.len() - 3..].try_into().expect("three axes");
        assert_eq!([z, y, x], shape.map(|n| n.div_ceil(2)), "every second voxel");
        let worst = (0..golden.values.len())
            .map(|i| {
                let (c, v) = (i / (z * y * x), i % (z * y * x));
                let at = (v / x / y * 2 * shape[1] + v / x % y * 2) * shape[2] + v % x * 2;
                (f64::from(outputs[at * classes + c]) - golden.values[i]).abs()
            })
            .fold(0.0, f64::max);
        println!("{softmax}: {worst:.1e}");
        assert!(worst <= 2e-5, "{softmax}: {worst}");
        if let Some(seg) = seg {
            let share = agreement(&labels_of(&outputs, classes), &file.get(seg).values);
            assert!(share >= 0.9999, "{seg}: {share}");
        }
        if input == "volume" {
            let starts: Vec<Vec<usize>> =
                (0..3).map(|a| file.get(&format!("steps.{a}")).values.iter().map(|&s| s as usize).collect()).collect();
            assert_eq!(study.tiling().starts.to_vec(), starts);
        }
    }
}
