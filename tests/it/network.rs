//! The network against the goldens of the official classes.

use crate::need;
use crate::support::{Tensors, golden, relative_error};
use std::collections::HashMap;
use stunetd::stunet::checkpoint::Checkpoint;
use stunetd::stunet::{Architecture, Network, Precision, Size, forward_file};
use tch::{Device, Kind, Tensor};

/// The array of a golden file as an f64 tensor.
pub fn tensor(file: &Tensors, name: &str) -> Tensor {
    let array = file.get(name);
    let shape: Vec<i64> = array.shape.iter().map(|&n| n as i64).collect();
    Tensor::from_slice(&array.values).reshape(shape)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().reshape([-1])).expect("numbers")
}

/// All tensors below a prefix, by the rest of their names.
pub fn params(file: &Tensors, prefix: &str) -> HashMap<String, Tensor> {
    file.names().iter().filter_map(|name| Some((name.strip_prefix(prefix)?.to_string(), tensor(file, name)))).collect()
}

/// All weights of a PyTorch checkpoint.
fn weights(path: &std::path::Path) -> HashMap<String, Tensor> {
    let checkpoint = Checkpoint::open(path).expect("a checkpoint");
    let weights = checkpoint.weights().expect("weights");
    let tensor = |tensor: &stunetd::stunet::checkpoint::Tensor| {
        let shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
        Tensor::from_slice(&checkpoint.read(tensor).expect("numbers")).reshape(shape)
    };
    weights.iter().map(|(name, t)| (name.clone(), tensor(t))).collect()
}

pub fn copy(params: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    params.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
}

pub fn shapes(params: &HashMap<String, Tensor>) -> Vec<(String, Vec<i64>)> {
    params.iter().map(|(name, t)| (name.clone(), t.size())).collect()
}

/// Compares all outputs that the golden file stores in a precision: `f32/output.0`, `f64/output.0.stride2`, …
pub fn compare(file: &Tensors, network: &Network, precision: &str, tolerance: f64) {
    let outputs = network.forward_all(&tensor(file, "input")).expect("forward");
    let full = network.forward(&tensor(file, "input")).expect("forward");
    assert_eq!(values(&full), values(&outputs[0]), "forward is the first of forward_all");
    for (i, output) in outputs.iter().enumerate() {
        let (name, output) = match format!("{precision}/output.{i}.stride2") {
            thinned if file.has(&thinned) => {
                let mut output = output.shallow_clone();
                for axis in 2..5 {
                    output = output.slice(axis, None, None, 2);
                }
                (thinned, output)
            }
            _ => (format!("{precision}/output.{i}"), output.shallow_clone()),
        };
        let expected = file.get(&name);
        assert_eq!(output.size(), expected.shape.iter().map(|&n| n as i64).collect::<Vec<_>>(), "{name}");
        let error = relative_error(values(&output), &expected.values);
        println!("{name}: {error:.2e}");
        assert!(error <= tolerance, "{name}: {error:.2e} of the largest value, {tolerance:.0e} allowed");
    }
}

fn compare_both(file: &Tensors, params: &HashMap<String, Tensor>, strides: [[usize; 3]; 5]) {
    let architecture = Architecture::infer(&shapes(params), strides).expect("a STU-Net");
    for (precision, name, tolerance) in [(Precision::F32, "f32", 1e-5), (Precision::F64, "f64", 1e-11)] {
        let network = Network::from_tensors(copy(params), &architecture, Device::Cpu, precision).expect("network");
        assert_eq!(network.precision(), precision);
        compare(file, &network, name, tolerance);
    }
}

#[test]
fn padded_poolings_and_a_batch_of_two() {
    let file = Tensors::open(&need!(golden("stunet/case_pool_padded.safetensors"), "golden not here"));
    compare_both(&file, &params(&file, "param/"), [[2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 1], [1, 1, 1]]);
}

#[test]
fn mixed_depths_and_kernels() {
    let file = Tensors::open(&need!(golden("stunet/case_mixed_depth_kernel.safetensors"), "golden not here"));
    let params = params(&file, "param/");
    let strides = [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]];
    let architecture = Architecture::infer(&shapes(&params), strides).expect("a STU-Net");
    assert_eq!((architecture.in_channels, architecture.num_classes), (2, 3));
    assert_eq!((architecture.dims, architecture.depth), ([3, 4, 5, 6, 7, 8], [2, 1, 3, 1, 2, 1]));
    assert_eq!(architecture.kernels, [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [1, 5, 5]]);
    compare_both(&file, &params, strides);
}

#[test]
fn tiny_network() {
    let file = Tensors::open(&need!(golden("stunet/tiny_forward.safetensors"), "golden not here"));
    let weights = weights(&need!(golden("stunet/tiny.model"), "golden not here"));
    compare_both(&file, &weights, Architecture::OFFICIAL_STRIDES);
}

#[test]
fn deep_network_with_two_channels() {
    let file = Tensors::open(&need!(golden("stunet/deep_forward.safetensors"), "golden not here"));
    let weights = weights(&need!(golden("stunet/deep.model"), "golden not here"));
    compare_both(&file, &weights, [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]);
}

#[test]
fn transferred_network() {
    let file = Tensors::open(&need!(golden("stunet/transfer_1to2.safetensors"), "golden not here"));
    compare_both(&file, &params(&file, "result/"), Architecture::OFFICIAL_STRIDES);
}

#[test]
fn intermediates_of_the_tiny_network() {
    let file = Tensors::open(&need!(golden("stunet/tiny_intermediates.safetensors"), "golden not here"));
    let weights = weights(&need!(golden("stunet/tiny.model"), "golden not here"));
    let architecture = Architecture::infer(&shapes(&weights), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let network = Network::from_tensors(weights, &architecture, Device::Cpu, Precision::F32).expect("network");
    let mut left: std::collections::BTreeSet<String> = file.names().into_iter().filter(|name| name != "input").collect();
    let outputs = network
        .forward_observed(&tensor(&file, "input"), &mut |name, seen| {
            if left.remove(name) {
                let expected = file.get(name);
                assert_eq!(seen.size(), expected.shape.iter().map(|&n| n as i64).collect::<Vec<_>>(), "{name}");
                let error = relative_error(values(seen), &expected.values);
                assert!(error <= 1e-5, "{name}: {error:.2e}");
            }
        })
        .expect("forward");
    assert!(left.is_empty(), "not seen: {left:?}");
    // Observed, the network runs libtorch's own norms; unobserved, the fused ones.
    for (observed, fused) in outputs.iter().zip(network.forward_all(&tensor(&file, "input")).expect("forward")) {
        let error = relative_error(values(&fused), &values(observed));
        assert!(error <= 1e-5, "{error:.2e}");
    }
}

#[test]
fn features_and_head_make_the_logits() {
    let file = Tensors::open(&need!(golden("stunet/case_pool_padded.safetensors"), "golden not here"));
    let params = params(&file, "param/");
    let architecture = Architecture::infer(&shapes(&params), [[2; 3], [2; 3], [2; 3], [1; 3], [1; 3]]).expect("a STU-Net");
    for precision in [Precision::F32, Precision::F64, Precision::Auto] {
        let network = Network::from_tensors(copy(&params), &architecture, Device::Cpu, precision).expect("network");
        let input = tensor(&file, "input");
        let (features, logits) = (network.features(&input).expect("features"), network.forward(&input).expect("forward"));
        assert_eq!(features.size(), [2, 3, 16, 16, 24]);
        assert_eq!(logits.kind(), if precision == Precision::F64 { Kind::Double } else { Kind::Float });
        assert_eq!(values(&network.head(&features).expect("head")), values(&logits));
        // The head takes any part of the volume.
        let slab = network.head(&features.narrow(2, 4, 3)).expect("head");
        assert!(relative_error(values(&slab), &values(&logits.narrow(2, 4, 3))) <= 1e-6);
    }
}

#[test]
fn weights_are_read_from_safetensors() {
    let path = need!(golden("nnunet/predictor_weights.safetensors"), "golden not here");
    let file = Tensors::open(&path);
    let architecture = Architecture::infer(&shapes(&params(&file, "")), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let input = Tensor::randn([1, 1, 32, 48, 32], (Kind::Float, Device::Cpu));
    let opened = Network::open(&path, &architecture, Device::Cpu, Precision::F32).expect("network");
    let built = Network::from_tensors(params(&file, ""), &architecture, Device::Cpu, Precision::F32).expect("network");
    assert_eq!(values(&opened.forward(&input).expect("forward")), values(&built.forward(&input).expect("forward")));

    let code = |path: &std::path::Path, architecture: &Architecture| {
        let error = Network::open(path, architecture, Device::Cpu, Precision::F32).err().expect("refused");
        stunetd::fault::Fault::from(error).code.name()
    };
    let wider = Architecture { num_classes: architecture.num_classes + 1, ..architecture.clone() };
    assert_eq!(code(&path, &wider), "model.shape_mismatch");
    let absurd = Architecture { in_channels: 1 << 40, ..architecture.clone() };
    assert_eq!(code(&path, &absurd), "model.bad_manifest");
    let dir = tempfile::tempdir().expect("folder");
    assert_eq!(code(&dir.path().join("absent"), &architecture), "model.missing");
    let bytes = std::fs::read(&path).expect("file");
    let other = dir.path().join("weights.safetensors");
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..1000], b"", &[0xff; 64]] {
        std::fs::write(&other, damaged).expect("file");
        assert!(["model.shape_mismatch", "disk.unreadable"].contains(&code(&other, &architecture)), "{} bytes", damaged.len());
    }
}

#[test]
fn sums_over_windows_agree_with_logits() {
    // Odd numbers of classes and features, rows that do not fill the kernels' groups, sums inside a larger tensor.
    for (classes, base) in [(2, 1), (5, 4), (16, 16), (105, 16), (33, 7), (9, 35)] {
        let architecture = Architecture { dims: [base; 6], ..Architecture::named(Size::S, 1, classes, Architecture::OFFICIAL_STRIDES) };
        let weights = |shape: Vec<i64>| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        // Scaled, so that logits are small enough for f32 to hold probabilities to 1e-6.
        let scaled = |shape: Vec<i64>| weights(shape.clone()) / (shape[1..].iter().product::<i64>() as f64).sqrt();
        let params: HashMap<_, _> = architecture.state_dict().into_iter().map(|(name, shape)| (name, scaled(shape))).collect();
        for precision in [Precision::F32, Precision::F64, Precision::Auto] {
            let network = Network::from_tensors(copy(&params), &architecture, Device::Cpu, precision).expect("network");
            let features = network.features(&weights(vec![1, 1, 16, 16, 64])).expect("features").narrow(2, 3, 5);
            let scale = Tensor::rand([5, 16, 64], (Kind::Float, Device::Cpu));
            let check = |name: &str, values: &Tensor, add: &dyn Fn(&mut Tensor)| {
                let values = values.to_kind(Kind::Double).squeeze_dim(0).permute([1, 2, 3, 0]);
                let before = Tensor::randn([6, 20, 70, values.size()[3]], (Kind::Float, Device::Cpu));
                let sums = before.copy();
                add(&mut sums.narrow(0, 1, 5).narrow(1, 3, 16).narrow(2, 2, 64));
                let expected = before.to_kind(Kind::Double);
                let mut block = expected.narrow(0, 1, 5).narrow(1, 3, 16).narrow(2, 2, 64);
                let _ = block.g_add_(&(values * scale.unsqueeze(-1)));
                let worst = (sums.to_kind(Kind::Double) - &expected).abs().max().double_value(&[]);
                let allowed = 1e-6 * expected.abs().max().double_value(&[]);
                assert!(worst <= allowed, "{name}, {classes} classes, {base} features, {precision}: {worst:e} > {allowed:e}");
            };
            let probabilities = network.head(&features).expect("head").softmax(1, Kind::Double);
            check("probabilities", &probabilities, &|sums| network.add_probabilities(&features, &scale, sums).expect("fits"));
            check("features", &features, &|sums| network.add_features(&features, &scale, sums).expect("fits"));
        }
    }
}

#[test]
fn logits_of_a_tensor_in_a_file() {
    let path = need!(golden("nnunet/predictor_weights.safetensors"), "golden not here");
    let architecture = Architecture::infer(&shapes(&params(&Tensors::open(&path), "")), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    let network = Network::open(&path, &architecture, Device::Cpu, Precision::F64).expect("network");
    let dir = tempfile::tempdir().expect("folder");
    let (input, output) = (dir.path().join("x.safetensors"), dir.path().join("y.safetensors"));
    let image = Tensor::randn([2, 1, 16, 16, 64], (Kind::Float, Device::Cpu));
    Tensor::write_safetensors(&[("input", &image)], &input).expect("file");
    for all in [false, true] {
        forward_file(&network, &input, &output, all).expect("forward");
        let written = Tensors::open(&output);
        let expected = network.forward_all(&image).expect("forward");
        let names: Vec<_> = (0..if all { 5 } else { 1 }).map(|i| format!("output.{i}")).collect();
        assert_eq!(written.names(), names);
        for (name, expected) in names.iter().zip(&expected) {
            assert_eq!(tensor(&written, name).size(), expected.size());
            assert_eq!(written.get(name).values, values(expected));
        }
    }
    let refused = |tensor: &Tensor, name: &str, reason: &str| {
        Tensor::write_safetensors(&[(name, tensor.contiguous())], &input).expect("file");
        std::fs::remove_file(&output).ok();
        let fault = stunetd::fault::Fault::from(forward_file(&network, &input, &output, false).expect_err("refused"));
        assert!(fault.code.name() == "model.bad_input" && fault.detail.contains(reason), "{fault}");
        assert!(!output.exists());
    };
    refused(&image, "image", "`input`");
    refused(&image.squeeze_dim(1), "input", "five axes");
    refused(&image.narrow(2, 0, 8), "input", "axis 0");
    refused(&image.to_kind(Kind::Int), "input", "I32");
}

/// Share of voxels with the same class, and the worst Dice of any class that covers at least 50 voxels.
fn agreement(a: &Tensor, b: &Tensor) -> (f64, f64) {
    let equal = a.eq_tensor(b).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    let count = |t: &Tensor| t.to_kind(Kind::Double).sum(Kind::Double).double_value(&[]);
    let worst = (0..a.max().int64_value(&[]) + 1).fold(1f64, |worst, class| {
        let (a, b) = (a.eq(class), b.eq(class));
        let (size, both) = (count(&a) + count(&b), count(&a.logical_and(&b)));
        if size < 100.0 { worst } else { worst.min(2.0 * both / size) }
    });
    (equal, worst)
}

#[test]
fn bf16_keeps_the_labels_of_a_trained_network() {
    // The demo model on a real CT at the network's spacing, in four windows, padded below.
    let volume = Tensors::open(&need!(golden("nnunet/e2e/dicom_lowres.safetensors"), "golden not here"));
    let folder = "nnunet/demo_model/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth";
    let weights = weights(&need!(golden(folder), "golden not here"));
    let architecture = Architecture::infer(&shapes(&weights), [[2; 3]; 5]).expect("a STU-Net");
    let open = |precision| Network::from_tensors(copy(&weights), &architecture, Device::Cpu, precision);
    let reference = open(Precision::F32).expect("network");
    let Ok(reduced) = open(Precision::Bf16) else {
        crate::support::note_skipped("bf16", "this CPU has no AVX-512");
        return;
    };
    let volume = tensor(&volume, "preprocessed_f32").unsqueeze(0).to_kind(Kind::Float).constant_pad_nd([0, 0, 0, 0, 9, 10]);
    let labels = |network: &Network| {
        let windows: Vec<_> = [(0, 0), (0, 71), (71, 0), (71, 71)]
            .map(|(y, x)| network.forward(&volume.narrow(3, y, 96).narrow(4, x, 96)).expect("forward").narrow(2, 9, 13).argmax(1, false))
            .into();
        Tensor::cat(&windows, 0)
    };
    let (equal, dice) = agreement(&labels(&reduced), &labels(&reference));
    println!("bf16: {:.4} % of voxels, worst Dice {dice:.5}", equal * 100.0);
    assert!(equal >= 0.999 && dice >= 0.995, "{:.4} % of voxels, worst Dice {dice:.5}", equal * 100.0);
}

#[test]
fn narrow_stages_compute_in_f32() {
    if !stunetd::stunet::cpu_has_bf16() {
        crate::support::note_skipped("narrow stages", "this CPU does not compute in bf16");
        return;
    }
    let image = Tensor::randn([1, 1, 32, 32, 64], (Kind::Float, Device::Cpu));
    for (dims, first, all_f32) in
        [([4; 6], Kind::Float, true), ([8, 16, 32, 40, 40, 40], Kind::Float, false), ([32; 6], Kind::BFloat16, false)]
    {
        let architecture = Architecture { dims, ..Architecture::named(Size::S, 1, 3, Architecture::OFFICIAL_STRIDES) };
        let weights = crate::support::made::weights(&architecture, 5);
        let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| {
            let network = Network::from_tensors(copy(&weights), &architecture, Device::Cpu, precision).expect("network");
            assert_eq!(network.precision(), precision);
            let features = network.features(&image).expect("features");
            assert_eq!(features.kind(), if precision == Precision::F32 { Kind::Float } else { first });
            let observed = network.forward_observed(&image, &mut |_, _| ()).expect("observed");
            let logits = network.forward(&image).expect("forward");
            assert!(relative_error(values(&observed[0]), &values(&logits)) <= 0.05, "the plain twin");
            values(&logits)
        });
        let error = relative_error(rounded, &exact);
        assert!((error == 0.0) == all_f32 && error < 0.1, "{dims:?}: {error:.1e}");
    }
}

#[test]
fn state_dicts_of_the_published_sizes() {
    let counted = [14_596_941, 58_262_669, 440_302_605, 1_457_326_221];
    for (size, parameters) in Size::ALL.into_iter().zip(counted) {
        let architecture = Architecture::named(size, 1, 105, Architecture::OFFICIAL_STRIDES);
        architecture.validate().expect("published");
        assert_eq!(architecture.parameters(), parameters, "{size}");
        assert_eq!(architecture.size(), Some(size));
        let path = need!(golden(&format!("stunet/state_dict_{size}.json")), "state dicts not here");
        let golden: Vec<(String, Vec<i64>)> = serde_json::from_slice(&std::fs::read(path).expect("file")).expect("json");
        assert_eq!(architecture.state_dict(), golden, "{size}");
        assert_eq!(Architecture::infer(&golden, Architecture::OFFICIAL_STRIDES).expect("published"), architecture);
    }
}

#[test]
fn published_costs() {
    // MACs of one 128³ patch with all heads, in units of 1e11, for the official and for isotropic poolings.
    let published = [(Size::S, 1.301, 1.294), (Size::B, 5.090, 5.062), (Size::L, 38.255, 38.035), (Size::H, 126.672, 125.934)];
    for (size, official, isotropic) in published {
        for (strides, expected) in [(Architecture::OFFICIAL_STRIDES, official), ([[2; 3]; 5], isotropic)] {
            let macs = Architecture::named(size, 1, 105, strides).macs([128; 3], true) as f64 / 1e11;
            assert!((macs - expected).abs() < 6e-4, "{size}: {macs:.4} instead of {expected}");
        }
    }
}

#[test]
fn absurd_architectures_and_patches_are_refused() {
    let fine = Architecture::named(Size::S, 1, 105, Architecture::OFFICIAL_STRIDES);
    fine.check_patch([128, 128, 128]).expect("published");
    fine.check_patch([16, 16, 64]).expect("two voxels at the bottleneck");
    for patch in [[128, 128, 120], [16, 16, 32], [0, 16, 32], [8192, 16, 32], [4096, 4096, 4096]] {
        fine.check_patch(patch).expect_err("patch");
    }
    let absurd: [fn(&mut Architecture); 9] = [
        |a| a.in_channels = 0,
        |a| a.in_channels = usize::MAX,
        |a| a.num_classes = 1 << 40,
        |a| a.dims[3] = 0,
        |a| a.dims = [8192; 6],
        |a| a.depth[0] = usize::MAX,
        |a| a.kernels[2] = [3, 4, 3],
        |a| a.kernels[5] = [1001; 3],
        |a| a.strides[4][1] = 0,
    ];
    for change in absurd {
        let mut architecture = fine.clone();
        change(&mut architecture);
        architecture.validate().expect_err("absurd");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let fine = Architecture::named(Size::S, 1, 4, Architecture::OFFICIAL_STRIDES);
    type Change = fn(&mut Vec<(String, Vec<i64>)>);
    let changes: [(&str, Change); 4] = [
        ("conv_blocks_context.3.0.norm2.bias is missing", |t| t.retain(|(n, _)| n != "conv_blocks_context.3.0.norm2.bias")),
        ("\"extra\" does not belong", |t| t.push(("extra".into(), vec![1]))),
        ("upsample_layers.2.conv.weight has shape [64, 1, 1, 1, 1]", |t| {
            t.iter_mut().find(|(n, _)| n == "upsample_layers.2.conv.weight").expect("there").1[1] = 1;
        }),
        ("occurs twice", |t| t.push(t[0].clone())),
    ];
    for (expected, change) in changes {
        let mut tensors = fine.state_dict();
        change(&mut tensors);
        let message = Architecture::infer(&tensors, fine.strides).expect_err("wrong").to_string();
        assert!(message.contains(expected), "{message}");
        fine.check_tensors(&tensors).expect_err("wrong");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let architecture = Architecture { dims: [2; 6], ..Architecture::named(Size::S, 2, 3, [[2; 3]; 5]) };
    let zeros = architecture.state_dict().into_iter().map(|(n, s)| (n, Tensor::zeros(s, (Kind::Float, Device::Cpu)))).collect();
    let network = Network::from_tensors(zeros, &architecture, Device::Cpu, Precision::Auto).expect("network");
    assert_ne!(network.precision(), Precision::Auto);
    for shape in [vec![1, 1, 64, 64, 64], vec![1, 2, 64, 64, 48], vec![1, 2, 32, 32, 32], vec![2, 64, 64, 64], vec![0, 2, 64, 64, 64]] {
        network.forward(&Tensor::zeros(&shape, (Kind::Float, Device::Cpu))).expect_err("does not fit");
    }
    let error = Network::from_tensors(HashMap::new(), &architecture, Device::Cpu, Precision::F16).err().expect("nothing to build from");
    assert!(error.to_string().contains("missing"), "{error}");
}
