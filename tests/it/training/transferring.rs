//! From one task's weights to another's start.

use super::{params, shapes, values};
use crate::need;
use crate::support::{Tensors, golden};
use std::collections::HashMap;
use stunetd::stunet::Architecture;
use stunetd::training::{initial_weights, transfer};
use tch::Tensor;

fn copy(tensors: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
}

#[test]
fn heads_are_dropped_and_the_first_layer_is_repeated() {
    let file = Tensors::open(&need!(golden("stunet/transfer_1to2.safetensors"), "golden not here"));
    let (pretrained, expected) = (params(&file, "pretrained/"), params(&file, "result/"));
    let target = Architecture::infer(&shapes(&expected), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let result = transfer(&pretrained, params(&file, "fresh/"), &target, false).expect("transfer");
    assert_eq!(result.len(), expected.len());
    for (name, tensor) in &expected {
        assert_eq!((result[name].size(), values(&result[name])), (tensor.size(), values(tensor)), "{name}");
    }
    // Other classes: the heads can not be kept, and without fresh ones there is no start.
    assert!(transfer(&pretrained, HashMap::new(), &target, true).is_err());
    assert!(transfer(&pretrained, HashMap::new(), &target, false).is_err());
}

#[test]
fn heads_are_kept_for_the_same_labels() {
    let file = Tensors::open(&need!(golden("stunet/transfer_1to2.safetensors"), "golden not here"));
    let pretrained = params(&file, "result/");
    let same = Architecture::infer(&shapes(&pretrained), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let result = transfer(&pretrained, HashMap::new(), &same, true).expect("transfer");
    for (name, tensor) in copy(&pretrained) {
        assert_eq!(values(&result[&name]), values(&tensor), "{name}");
    }
    // Two channels are not repeated into three.
    let more = Architecture { in_channels: 3, ..same };
    assert!(transfer(&pretrained, HashMap::new(), &more, true).is_err());
}

#[test]
fn fresh_weights_are_he_normal_and_repeatable() {
    let architecture = Architecture::named(stunetd::stunet::Size::S, 2, 5, Architecture::OFFICIAL_STRIDES);
    let (first, again, other) = (initial_weights(&architecture, 1), initial_weights(&architecture, 1), initial_weights(&architecture, 2));
    let (first, again, other) = (first.expect("weights"), again.expect("weights"), other.expect("weights"));
    let name = "conv_blocks_context.5.0.conv2.weight";
    assert_eq!(values(&first[name]), values(&again[name]));
    assert_ne!(values(&first[name]), values(&other[name]));
    let numbers = values(&first[name]);
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let deviation = (numbers.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / numbers.len() as f64).sqrt();
    let expected = (2.0 / (1.0001 * 256.0 * 27.0f64)).sqrt();
    assert!((deviation / expected - 1.0).abs() < 0.01 && mean.abs() < 0.01 * expected, "{deviation} {expected}");
    assert!(values(&first["conv_blocks_context.0.0.norm1.weight"]).iter().all(|&v| v == 1.0));
    assert!(values(&first["conv_blocks_context.0.0.conv3.bias"]).iter().all(|&v| v == 0.0));
    architecture.check_tensors(&shapes(&first)).expect("complete");
}
