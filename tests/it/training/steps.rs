//! Three optimisation steps against the official trainers, in f32 and f64.

use super::{labels, params, shapes, tensor, values};
use crate::need;
use crate::support::{Tensors, golden, relative_error};
use std::collections::HashMap;
use stunetd::stunet::learning::{IGNORED, Trainable, Truth};
use stunetd::stunet::{Architecture, Precision};
use stunetd::training::data::{Level, head_weights, lower_targets};
use stunetd::training::{Counting, Error, Flavour, Loss, LossValue, Outputs, Sgd, SgdSettings, loss};
use tch::{Device, Tensor};

/// The gradients of one batch and the parts of the loss of every head.
fn gradients(
    network: &Trainable,
    settings: &Loss,
    data: &Tensor,
    truths: &[Truth],
    weights: &[f64],
) -> (Vec<Option<Tensor>>, Vec<LossValue>) {
    let mut values = Vec::new();
    let gradients = network.gradients(data, |logits| {
        let mut heads = Vec::new();
        for ((logits, truth), &weight) in logits.iter().zip(truths).zip(weights) {
            let (value, gradient) = loss(settings, logits, truth, weight)?;
            values.push(value);
            heads.push((weight > 0.0).then_some(gradient));
        }
        Ok::<_, Error>(heads)
    });
    (gradients.expect("gradients"), values)
}

fn all_classes(labels: Vec<u16>, classes: usize, samples: usize) -> Truth {
    Truth { labels, allowed: vec![(0..classes as u16).collect(); samples] }
}

struct Tolerances {
    loss: f64,
    gradient: f64,
    /// Of gradients that are 0 in theory.
    noise: f64,
    first: f64,
    third: f64,
}

const SINGLE: Tolerances = Tolerances { loss: 1e-6, gradient: 1e-4, noise: 1e-6, first: 1e-6, third: 5e-6 };
const DOUBLE: Tolerances = Tolerances { loss: 1e-13, gradient: 1e-11, noise: 1e-14, first: 1e-11, third: 1e-11 };

fn parameters(network: &Trainable) -> HashMap<&str, &Tensor> {
    network.names().iter().map(String::as_str).zip(network.parameters()).collect()
}

fn largest_difference(ours: &[f64], golden: &[f64]) -> f64 {
    assert_eq!(ours.len(), golden.len());
    ours.iter().zip(golden).fold(0f64, |worst, (a, b)| if a.is_finite() { worst.max((a - b).abs()) } else { f64::INFINITY })
}

fn compare_parameters(file: &Tensors, prefix: &str, found: &HashMap<&str, &Tensor>, tolerance: f64) {
    let mut worst = 0f64;
    for name in file.names().iter().filter_map(|n| n.strip_prefix(prefix)) {
        let golden = file.get(&format!("{prefix}{name}"));
        let difference = largest_difference(&values(found[name]), &golden.values);
        assert!(difference <= tolerance, "{prefix}{name}: {difference:.1e}");
        worst = worst.max(difference);
    }
    println!("{prefix}: {worst:.1e}");
}

fn three_steps(name: &str, counting: Counting, flavour: Flavour, precision: Precision, tolerances: &Tolerances) {
    let base = Tensors::open(&need!(golden("stunet/training_sample_dice.safetensors"), "golden not here"));
    let file = Tensors::open(&need!(golden(&format!("stunet/{name}.safetensors")), "golden not here"));
    let init = params(if name.ends_with("clipped") { &file } else { &base }, "init/");
    let architecture = Architecture::infer(&shapes(&init), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let mut network = Trainable::new(init, &architecture, Device::Cpu, precision).expect("network");
    let settings = Loss { counting, flavour, outputs: Outputs::Classes };
    let mut sgd = Sgd::new(SgdSettings { decay_untrained: flavour == Flavour::V2, ..SgdSettings::default() }, network.names().len());
    let truths: Vec<Truth> = (0..5).map(|i| all_classes(labels(&base, &format!("target.{i}")), 3, 2)).collect();
    let (data, kind) = (tensor(&base, "data"), if precision == Precision::F64 { "f64" } else { "f32" });
    let golden = |name: String| file.has(&name).then(|| file.get(&name).values[0]);
    let near = |name: String, ours: f64, tolerance: f64| {
        if let Some(golden) = golden(name.clone()) {
            println!("{name}: {ours} {:.1e}", (ours - golden).abs() / golden.abs());
            assert!((ours - golden).abs() <= tolerance * golden.abs(), "{name}: {ours} {golden}");
        }
    };
    for step in 1..=3 {
        let (gradients, levels) = gradients(&network, &settings, &data, &truths, &head_weights(5));
        let total: f64 = levels.iter().zip(head_weights(5)).map(|(value, weight)| value.total() * weight).sum();
        near(format!("{kind}/step{step}/loss"), total, if step == 1 { tolerances.loss } else { tolerances.loss * 10.0 });
        if step == 1 {
            near(format!("{kind}/loss/total"), total, tolerances.loss);
            for (i, value) in levels.iter().enumerate() {
                near(format!("{kind}/loss/ce.{i}"), value.entropy, tolerances.loss);
                near(format!("{kind}/loss/dice.{i}"), value.dice, tolerances.loss);
                near(format!("{kind}/loss/level.{i}"), value.total(), tolerances.loss);
            }
            for (name, gradient) in network.names().iter().zip(&gradients) {
                let golden = format!("{kind}/grad/{name}");
                let (Some(gradient), true) = (gradient, file.has(&golden)) else {
                    let untrained = name.starts_with("seg_outputs.0.");
                    assert!(gradient.is_none() == untrained, "{name}");
                    continue;
                };
                let golden = file.get(&golden);
                if name.ends_with("conv1.bias") || name.ends_with("conv2.bias") {
                    // Rounding noise grows with what it is the noise of.
                    let noise = tolerances.noise * file.get(&format!("{kind}/step1/grad_norm")).values[0].max(1.0);
                    assert!(largest_difference(&values(gradient), &golden.values) <= noise, "{name}");
                } else {
                    let error = relative_error(values(gradient), &golden.values);
                    assert!(error <= tolerances.gradient, "{name}: {error:.1e}");
                }
            }
        }
        let norm = sgd.step(network.parameters_mut(), gradients, 0.01).expect("step");
        near(format!("{kind}/step{step}/grad_norm"), norm, tolerances.gradient);
        if step != 2 {
            let tolerance = if step == 1 { tolerances.first } else { tolerances.third };
            compare_parameters(&file, &format!("{kind}/step{step}/param/"), &parameters(&network), tolerance);
        }
    }
    if file.names().iter().any(|n| n.starts_with(&format!("{kind}/step3/momentum/"))) {
        let momentum: HashMap<&str, &Tensor> =
            network.names().iter().map(String::as_str).zip(sgd.momentum()).filter_map(|(n, m)| Some((n, m.as_ref()?))).collect();
        assert!(momentum.len() == 128, "the lowest head has no momentum");
        for (name, momentum) in momentum {
            let golden = file.get(&format!("{kind}/step3/momentum/{name}"));
            let noise = name.ends_with("conv1.bias") || name.ends_with("conv2.bias");
            let difference = largest_difference(&values(momentum), &golden.values);
            let scale = golden.values.iter().fold(0f64, |m, v| m.max(v.abs()));
            let tolerance = if noise { tolerances.noise * 3.0 } else { tolerances.gradient * 10.0 * scale };
            assert!(difference <= tolerance, "{name}: {difference:.1e} of {scale:.1e}");
        }
        let mut output = network.forward(&data).expect("forward").swap_remove(0);
        for axis in 2..5 {
            output = output.slice(axis, None, None, 2);
        }
        let golden = file.get(&format!("{kind}/step3/output.0.stride2"));
        assert!(relative_error(values(&output), &golden.values) <= tolerances.gradient);
    }
}

#[test]
fn dice_by_sample() {
    three_steps("training_sample_dice", Counting::Sample, Flavour::V1, Precision::F32, &SINGLE);
    three_steps("training_sample_dice", Counting::Sample, Flavour::V1, Precision::F64, &DOUBLE);
}

#[test]
fn dice_by_batch() {
    three_steps("training_batch_dice", Counting::Batch, Flavour::V1, Precision::F32, &SINGLE);
    three_steps("training_batch_dice", Counting::Batch, Flavour::V1, Precision::F64, &DOUBLE);
}

#[test]
fn clipped_gradients() {
    three_steps("training_clipped", Counting::Sample, Flavour::V1, Precision::F32, &Tolerances { third: 2e-5, ..SINGLE });
    three_steps("training_clipped", Counting::Sample, Flavour::V1, Precision::F64, &DOUBLE);
}

#[test]
fn second_nnunet() {
    three_steps("training_v2_sample_dice", Counting::Sample, Flavour::V2, Precision::F32, &SINGLE);
    three_steps("training_v2_sample_dice", Counting::Sample, Flavour::V2, Precision::F64, &DOUBLE);
}

#[test]
fn three_batches_of_the_second_nnunet_with_its_rates() {
    let file = Tensors::open(&need!(golden("nnunet/trainer.safetensors"), "golden not here"));
    let init = params(&Tensors::open(&need!(golden("nnunet/predictor_weights.safetensors"), "golden not here")), "");
    let json = std::fs::read(need!(golden("nnunet/trainer.json"), "golden not here")).expect("json");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("json");
    let architecture = Architecture::infer(&shapes(&init), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let mut network = Trainable::new(init, &architecture, Device::Cpu, Precision::F32).expect("network");
    let settings = Loss { counting: Counting::Sample, flavour: Flavour::V2, outputs: Outputs::Classes };
    let mut sgd = Sgd::new(SgdSettings::default(), network.names().len());
    for step in 0..3 {
        let data = tensor(&file, &format!("train.x{step}"));
        let full = Level { labels: labels(&file, &format!("train.y{step}")), shape: [32, 48, 32] };
        let levels = lower_targets(full, &[[2; 3]; 4]);
        let truths: Vec<Truth> = levels.into_iter().map(|level| all_classes(level.labels, 5, 2)).collect();
        let (gradients, values) = gradients(&network, &settings, &data, &truths, &head_weights(5));
        let total: f64 = values.iter().zip(head_weights(5)).map(|(value, weight)| value.total() * weight).sum();
        let golden = &json["train"][step];
        let rate = golden["lr"].as_f64().expect("lr");
        assert!((stunetd::training::poly_learning_rate(0.01, step as u64, 3) - rate).abs() < 1e-15);
        let norm = sgd.step(network.parameters_mut(), gradients, rate).expect("step");
        println!("step {step}: loss {total} of {}, norm {norm} of {}", golden["loss"], golden["grad_norm_before_clip"]);
        assert!((total - golden["loss"].as_f64().expect("loss")).abs() <= 2e-4);
        assert!((norm - golden["grad_norm_before_clip"].as_f64().expect("norm")).abs() <= 1e-3 * norm);
    }
    compare_parameters(&file, "train.final.", &parameters(&network), 1e-3);
}

#[test]
fn a_norm_that_is_not_finite_changes_nothing() {
    let mut parameters = vec![Tensor::from_slice(&[1.0f32, 2.0])];
    let mut sgd = Sgd::new(SgdSettings::default(), 1);
    let gradient = Tensor::from_slice(&[f32::NAN, 1.0]);
    assert!(matches!(sgd.step(&mut parameters, vec![Some(gradient)], 0.1), Err(Error::NotFinite(_))));
    assert_eq!((values(&parameters[0]), sgd.momentum()[0].is_none()), (vec![1.0, 2.0], true));
}

#[test]
fn logits_that_nobody_reviewed_are_not_touched() {
    let base = Tensors::open(&need!(golden("stunet/training_sample_dice.safetensors"), "golden not here"));
    let init = params(&base, "init/");
    let architecture = Architecture::infer(&shapes(&init), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let network = Trainable::new(init, &architecture, Device::Cpu, Precision::F32).expect("network");
    for counting in [Counting::Sample, Counting::Batch] {
        let settings = Loss { counting, flavour: Flavour::V2, outputs: Outputs::Classes };
        // Class 2 was reviewed in neither sample: where it is known to be it is ignored, in the second sample by not being allowed.
        let truths: Vec<Truth> = (0..5)
            .map(|i| {
                let mut labels = labels(&base, &format!("target.{i}"));
                let half = labels.len() / 2;
                labels[..half].iter_mut().filter(|l| **l == 2).for_each(|l| *l = IGNORED);
                Truth { labels, allowed: vec![vec![0, 1], vec![0, 1]] }
            })
            .collect();
        let (found, values) = gradients(&network, &settings, &tensor(&base, "data"), &truths, &head_weights(5));
        assert!(values.iter().all(|v| v.entropy > 0.0 && v.dice < 0.0));
        for (name, gradient) in
            network.names().iter().zip(found).filter(|(name, _)| name.starts_with("seg_outputs.") && !name.contains(".0."))
        {
            let gradient = gradient.expect("trained");
            let largest = |class: i64| gradient.get(class).abs().max().double_value(&[]);
            assert!(largest(2) == 0.0 && largest(0) > 0.0 && largest(1) > 0.0, "{name}");
        }
    }
}

/// bf16 rounds what goes through wide stages and nothing that is kept: gradients point where f32's do, parameters stay f32, and a few steps
/// bring the loss down as far.
#[test]
fn bf16_learns_as_f32_does() {
    let architecture = Architecture {
        in_channels: 1,
        num_classes: 3,
        dims: [16, 32, 32, 48, 48, 48],
        depth: [1; 6],
        strides: Architecture::OFFICIAL_STRIDES,
        kernels: [[3; 3]; 6],
    };
    let init = stunetd::training::initial_weights(&architecture, 3).expect("weights");
    let copy = || init.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect::<HashMap<_, _>>();
    let edge = 32i64;
    let mut random = stunetd::training::data::Random::new(5, 0);
    let truth: Vec<u16> = (0..edge.pow(3)).map(|i| u16::from(i / (edge * edge) > 10) + u16::from(i % edge > 20)).collect();
    let image: Vec<f32> = truth.iter().map(|&label| f32::from(label) + 0.5 * random.normal() as f32).collect();
    let data = Tensor::from_slice(&image).reshape([1, 1, edge, edge, edge]);
    let settings = Loss { counting: Counting::Sample, flavour: Flavour::V2, outputs: Outputs::Classes };
    let levels = lower_targets(Level { labels: truth, shape: [edge as usize; 3] }, &architecture.strides[..4]);
    let truths: Vec<Truth> = levels.into_iter().map(|level| all_classes(level.labels, 3, 1)).collect();
    let run = |precision: Precision| {
        let mut network = Trainable::new(copy(), &architecture, Device::Cpu, precision).expect("network");
        let mut sgd = Sgd::new(SgdSettings::default(), network.names().len());
        let (mut first, mut losses) = (Vec::new(), Vec::new());
        for step in 0..6 {
            let (found, parts) = gradients(&network, &settings, &data, &truths, &head_weights(5));
            assert!(found.iter().flatten().all(|g| g.kind() == tch::Kind::Float));
            if step == 0 {
                first = found.iter().flatten().flat_map(values).collect();
            }
            losses.push(parts[0].total());
            sgd.step(network.parameters_mut(), found, 1e-2).expect("step");
        }
        assert!(network.parameters().iter().all(|p| p.kind() == tch::Kind::Float));
        (first, losses)
    };
    let ((single, losses), (rounded, rounded_losses)) = (run(Precision::F32), run(Precision::Bf16));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosine = dot(&single, &rounded) / (dot(&single, &single) * dot(&rounded, &rounded)).sqrt();
    println!("cosine {cosine:.5}, losses {losses:.4?} and {rounded_losses:.4?}");
    assert!(cosine > 0.93 && rounded != single, "{cosine}");
    assert!(losses[5] < losses[0] - 0.1 && (rounded_losses[5] - losses[5]).abs() < 0.2, "{losses:?} {rounded_losses:?}");
}
