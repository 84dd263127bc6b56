//! The goldens' containers: each gives the weights that were saved, bit for bit.

use super::forge::{self, Entry, Pickle};
use crate::need;
use crate::support::{Tensors, golden};
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use stunetd::fault::{Code, Fault};
use stunetd::stunet::checkpoint::{Checkpoint, CheckpointError, ElementType};

pub type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn weights(path: &Path) -> Result<Weights, CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    let weights = checkpoint.weights()?;
    weights.into_iter().map(|(name, t)| Ok((name, (t.shape().to_vec(), checkpoint.read(t)?)))).collect()
}

/// Bit patterns, so that -0 and 0 differ.
fn bits(weights: &Weights) -> BTreeMap<&str, (&[usize], Vec<u32>)> {
    weights.iter().map(|(n, (s, v))| (n.as_str(), (s.as_slice(), v.iter().map(|f| f.to_bits()).collect()))).collect()
}

#[test]
fn zip_with_and_without_prefix_old_zip_layout_and_stream_hold_the_same_weights() {
    let reference = need!(golden("stunet/training_sample_dice.safetensors"), "training goldens are not in this clone");
    let tensors = Tensors::open(&reference);
    let saved: Weights = tensors.names().iter().filter_map(|n| Some((n.strip_prefix("init/")?.to_string(), tensors.f32(n)))).collect();
    assert_eq!(saved.len(), 130);
    for file in ["micro_ddp_prefix.model", "micro_torch110_layout.model", "micro_legacy_pickle.model"] {
        let path = golden(&format!("stunet/{file}")).expect("beside the other goldens");
        let read = weights(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(bits(&read), bits(&saved), "{file}");
    }
}

#[test]
fn the_micro_containers_agree_with_each_other() {
    let of = |file: &str| weights(&golden(&format!("stunet/{file}")).expect("in tests/goldens")).expect(file);
    let zip = of("micro_ddp_prefix.model");
    assert_eq!(zip.len(), 130);
    assert_eq!(zip.values().map(|(_, v)| v.len()).sum::<usize>(), 25_415);
    assert_eq!(bits(&zip), bits(&of("micro_torch110_layout.model")));
    assert_eq!(bits(&zip), bits(&of("micro_legacy_pickle.model")));
}

#[test]
fn v1_and_v2_files_of_one_network_hold_the_same_weights() {
    for (v1, v2, count) in [
        ("stunet/tiny.model", "stunet/tiny_v2/fold_0/checkpoint_final.pth", 130),
        (
            "nnunet/demo_model/v1/demo_ep1.model",
            "nnunet/demo_model/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/checkpoint_final.pth",
            130,
        ),
    ] {
        let v1 = weights(&need!(golden(v1), "v1 golden is not in this clone")).expect("v1");
        let v2 = weights(&need!(golden(v2), "v2 golden is not in this clone")).expect("v2");
        assert_eq!(v1.len(), count);
        assert_eq!(bits(&v1), bits(&v2));
    }
}

#[test]
fn what_stands_beside_the_weights_is_read_too() {
    let tiny = Checkpoint::open(&need!(golden("stunet/tiny.model"), "tiny.model is not in this clone")).expect("tiny");
    let root = tiny.root();
    assert_eq!(root.get("epoch").and_then(|v| v.as_i64()), Some(2));
    let optimizer = root.get("optimizer_state_dict").and_then(|v| v.get("state")).and_then(|v| v.items()).expect("momentum");
    assert_eq!(optimizer.count(), 128);
    // numpy scalars in the training log
    let losses = root.get("plot_stuff").and_then(|v| v.elements()).and_then(|mut lists| lists.next()).expect("losses");
    let losses = losses.to_json(100).expect("a short list");
    assert!(losses.as_array().is_some_and(|l| !l.is_empty() && l.iter().all(|l| l.is_f64())), "{losses}");

    let path = need!(golden("stunet/tiny_v2/fold_0/checkpoint_final.pth"), "tiny_v2 is not in this clone");
    let v2 = Checkpoint::open(&path).expect("tiny_v2");
    let axes = v2.root().get("inference_allowed_mirroring_axes").expect("axes");
    assert_eq!(axes.to_json(10), Some(serde_json::json!([0, 1, 2])));
    assert!(v2.root().get("init_args").and_then(|v| v.get("plans")).is_some());
}

#[test]
fn every_float_type_byte_order_and_view_is_converted() {
    let values = [0.0, -1.5, 0.25, 3.0, -0.5, 2.0];
    type Encode = fn(f64) -> Vec<u8>;
    let types: [(&str, ElementType, Encode); 4] = [
        ("FloatStorage", ElementType::F32, |v| (v as f32).to_le_bytes().to_vec()),
        ("DoubleStorage", ElementType::F64, |v| v.to_le_bytes().to_vec()),
        ("HalfStorage", ElementType::F16, |v| half::f16::from_f64(v).to_le_bytes().to_vec()),
        ("BFloat16Storage", ElementType::BF16, |v| half::bf16::from_f64(v).to_le_bytes().to_vec()),
    ];
    // offset, shape, strides, and which elements they are
    type View = (usize, &'static [usize], &'static [usize], &'static [usize]);
    let views: [View; 7] = [
        (0, &[2, 3], &[3, 1], &[0, 1, 2, 3, 4, 5]),
        (0, &[3, 2], &[1, 3], &[0, 3, 1, 4, 2, 5]),
        (2, &[2, 2], &[2, 1], &[2, 3, 4, 5]),
        (1, &[3], &[2], &[1, 3, 5]),
        (4, &[1, 1], &[77, 99], &[4]),
        (5, &[], &[], &[5]),
        (99, &[3, 0], &[1, 1], &[]),
    ];
    for (storage, element, encode) in types {
        for big in [false, true] {
            for (offset, shape, strides, picked) in views {
                let data: Vec<u8> = values
                    .iter()
                    .flat_map(|&v| {
                        let mut bytes = encode(v);
                        if big {
                            bytes.reverse();
                        }
                        bytes
                    })
                    .collect();
                let pickle = forge::state_dict(&[forge::Weight { name: "w", storage, key: "0", numel: 6, offset, shape, strides }]);
                let order = if big { "big" } else { "little" };
                let file = forge::archive(&[("r/data.pkl", &pickle), ("r/byteorder", order.as_bytes()), ("r/data/0", &data)]);
                let path = forge::write(&file);
                let checkpoint = Checkpoint::open(path.path()).expect("opens");
                let weights = checkpoint.weights().expect("weights");
                let (_, tensor) = weights[0];
                assert_eq!((tensor.element_type(), tensor.shape()), (element, shape));
                let wanted: Vec<f32> = picked.iter().map(|&i| values[i] as f32).collect();
                assert_eq!(checkpoint.read(tensor).expect("reads"), wanted, "{storage} {order} {shape:?} {strides:?}");
            }
        }
    }
}

#[test]
fn wrappers_prefixes_are_taken_off_when_every_name_has_them() {
    let names = |given: [&'static str; 2]| -> Vec<String> {
        let weight = |name| forge::Weight { name, storage: "FloatStorage", key: "0", numel: 1, offset: 0, shape: &[1], strides: &[1] };
        let pickle = forge::state_dict(&given.map(weight));
        let path = forge::write(&forge::archive(&[("r/data.pkl", &pickle), ("r/data/0", &[0; 4])]));
        weights(path.path()).expect("weights").into_keys().collect()
    };
    assert_eq!(names(["module.a.w", "module.b.w"]), ["a.w", "b.w"]);
    assert_eq!(names(["_orig_mod.a", "_orig_mod.b"]), ["a", "b"]);
    assert_eq!(names(["module._orig_mod.a", "module._orig_mod.b"]), ["a", "b"]);
    assert_eq!(names(["_orig_mod.module.a", "_orig_mod.module.b"]), ["a", "b"]);
    assert_eq!(names(["module.a", "b"]), ["b", "module.a"]);
    assert_eq!(names(["amodule.a", "amodule.b"]), ["amodule.a", "amodule.b"]);
}

#[test]
fn the_optimizer_is_never_read() {
    // A weight of 4 numbers, and a momentum buffer of 8 GB that is a hole in the file: zip64 sizes and offsets, a
    // checksum that is wrong on purpose. Reading it would take seconds, fill memory and fail.
    const NUMEL: u64 = 2 << 30;
    let weight: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut pickle = Pickle::new(2);
    pickle.op(b"}(").str("state_dict").op(b"}(").str("w").tensor("FloatStorage", "1", 4, 0, &[4], &[1]).op(b"u");
    pickle.str("optimizer_state_dict").op(b"}(").str("momentum_buffer");
    pickle.tensor("FloatStorage", "0", NUMEL, 0, &[NUMEL as usize], &[1]).op(b"u").op(b"u.");
    let entries = [
        Entry::stored("big/data.pkl", &pickle.bytes),
        Entry::hole("big/data/0", NUMEL * 4, 0xdead_beef),
        Entry::stored("big/data/1", &weight),
    ];
    let mut file = tempfile::NamedTempFile::new().expect("file");
    for piece in forge::pieces(&entries) {
        match piece {
            forge::Piece::Bytes(bytes) => file.write_all(&bytes).expect("write"),
            forge::Piece::Hole(n) => drop(file.seek(SeekFrom::Current(n as i64)).expect("seek")),
        }
    }
    assert!(file.as_file().metadata().expect("size").len() > NUMEL * 4);
    let checkpoint = Checkpoint::open(file.path()).expect("opens");
    let read = checkpoint.weights().expect("weights");
    assert_eq!(read.len(), 1);
    assert_eq!(checkpoint.read(read[0].1).expect("reads"), [1.0, 2.0, 3.0, 4.0]);

    // And where the optimizer's storages are missing altogether, nobody misses them.
    let file = forge::archive(&[("big/data.pkl", &pickle.bytes), ("big/data/1", &weight)]);
    let path = forge::write(&file);
    assert_eq!(weights(path.path()).expect("weights")["w"].1, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_flipped_bit_in_a_weight_is_found() {
    let original = std::fs::read(golden("stunet/micro_torch110_layout.model").expect("in tests/goldens")).expect("file");
    let at = original.windows(14).position(|w| w == b"archive/data/4").expect("entry") + 200;
    let mut flipped = original.clone();
    flipped[at] ^= 0x10;
    let path = forge::write(&flipped);
    let error = weights(path.path()).expect_err("refused");
    assert_eq!(Fault::from(error).code, Code::CheckpointCorrupt);
}
