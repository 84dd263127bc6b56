//! The goldens' checkpoints, imported: weights bit for bit, and every field of the manifest.

use super::{imported, names, out};
use crate::need;
use crate::support::{Tensors, golden, shared};
use stunetd::models::codes;
use stunetd::models::import::ImportOptions;
use stunetd::models::{Aggregation, Generation, Normalization, NormalizationOrder, Orientation, Resampling, Status};
use stunetd::stunet::Architecture;
use stunetd::stunet::checkpoint::Checkpoint;

const P: [[usize; 3]; 5] = Architecture::OFFICIAL_STRIDES;

/// The written file holds exactly the checkpoint's numbers, in the order of the state dict.
fn weights_are_those_of(generation: &Generation, checkpoint: &std::path::Path) {
    let checkpoint = Checkpoint::open(checkpoint).expect("opens");
    let saved = checkpoint.weights().expect("weights");
    let written = Tensors::open(&generation.weights());
    assert_eq!(written.names().len(), saved.len());
    for (name, tensor) in &saved {
        let (shape, values) = written.f32(name);
        assert_eq!(shape, tensor.shape(), "{name}");
        let wanted = checkpoint.read(tensor).expect("reads");
        assert!(values.iter().zip(&wanted).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
    }
    let bytes = std::fs::read(generation.weights()).expect("file");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8")) as usize;
    let text = std::str::from_utf8(&bytes[8..8 + header]).expect("JSON");
    let order: Vec<usize> =
        generation.manifest.architecture.state_dict().iter().map(|(n, _)| text.find(&format!("\"{n}\"")).expect("named")).collect();
    assert!(order.is_sorted(), "the header is in the order of the state dict");
    assert_eq!((8 + header) % 8, 0);
}

#[test]
fn tiny_v1() {
    let source = golden("stunet/tiny.model").expect("in tests/goldens");
    let (folder, out) = out();
    let done = imported(&source, &out, &ImportOptions::default()).expect("imports");
    assert_eq!(names(folder.path()), ["made"]);
    assert_eq!(names(&out), ["manifest.toml", "weights.safetensors"]);
    weights_are_those_of(&done.generation, &source);
    done.generation.verify(&mut |_, _| ()).expect("verifies");

    let m = &done.generation.manifest;
    assert_eq!((m.name.as_str(), m.version.as_str(), m.status), ("made", "1", Status::Research));
    let wanted =
        Architecture { in_channels: 1, num_classes: 5, dims: [4, 8, 16, 24, 32, 32], depth: [1; 6], kernels: [[3; 3]; 6], strides: P };
    assert_eq!(m.architecture, wanted);
    let p = &m.preprocessing;
    assert_eq!((p.orientation, p.transpose, p.spacing), (Orientation::AsStored, [0, 1, 2], [1.5; 3]));
    assert_eq!((p.order, p.resampling), (NormalizationOrder::ResampleFirst, Resampling::Default));
    assert_eq!(p.channels.len(), 1);
    assert_eq!((p.channels[0].normalization, p.channels[0].use_mask), (Normalization::ZScore, false));
    assert_eq!((m.inference.patch, m.inference.aggregation), ([32, 32, 64], Aggregation::Softmax));
    assert_eq!(m.inference.mirror_axes, [0, 1, 2]);
    assert_eq!(m.labels.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["class_1", "class_2", "class_3", "class_4"]);
    assert_eq!(m.labels.get(1).map(|l| (l.property_type.value.as_str(), l.property_type.scheme.as_str())), Some(("85756007", "SCT")));
    assert_eq!((m.provenance.trainer.as_str(), m.provenance.epoch), ("STUNetTrainer_tiny", Some(2)));
    assert_eq!(m.provenance.files.keys().collect::<Vec<_>>(), ["tiny.model", "tiny.model.pkl"]);
    // Unnamed labels, an unknown kind of channel.
    assert_eq!(done.warnings.len(), 2, "{:?}", done.warnings);
}

#[test]
fn deep_v1_with_every_pickle_of_its_plans() {
    let mut digests = Vec::new();
    for pickle in ["deep.model.pkl", "deep_proto2.model.pkl", "deep_numpy2_proto5.model.pkl"] {
        let folder = tempfile::tempdir().expect("folder");
        let source = folder.path().join("deep.model");
        std::fs::copy(golden("stunet/deep.model").expect("in tests/goldens"), &source).expect("copy");
        std::fs::copy(golden(&format!("stunet/{pickle}")).expect("in tests/goldens"), folder.path().join("deep.model.pkl")).expect("copy");
        let out = folder.path().join("made");
        let done = imported(&source, &out, &ImportOptions::default()).expect(pickle);
        weights_are_those_of(&done.generation, &source);
        let m = &done.generation.manifest;
        assert_eq!((m.architecture.in_channels, m.architecture.num_classes), (2, 4));
        assert_eq!((m.architecture.dims, m.architecture.depth), ([4, 6, 8, 10, 12, 12], [2; 6]));
        assert_eq!(m.architecture.strides, [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]);
        // The plan says [1, 3, 3] for the first kernel; the weights say what was trained.
        assert_eq!(m.architecture.kernels, [[3; 3]; 6]);
        let p = &m.preprocessing;
        assert_eq!((p.transpose, p.spacing, m.inference.patch), ([1, 0, 2], [3.0, 2.03642, 2.03642], [16, 64, 64]));
        let [lower, upper, mean, sd] = [-579.486f32, 823.58, 109.23, 286.34].map(f64::from);
        assert_eq!(p.channels[0].normalization, Normalization::Ct { lower, upper, mean, sd });
        assert_eq!(p.channels[1].normalization, Normalization::ZScore);
        assert_eq!(p.channels.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["CT", "PT"]);
        assert_eq!(m.scope.modality, ["CT", "PT"]);
        digests.push(done.generation.digest);
    }
    // The model is the same, whoever pickled its plans.
    assert!(digests.windows(2).all(|d| d[0] == d[1]), "{digests:?}");
}

#[test]
fn tiny_v2_is_tiny_v1_with_v2_rules() {
    let source = need!(golden("stunet/tiny_v2"), "tiny_v2 is not in this clone");
    let (_folder, out) = out();
    let done = imported(&source, &out, &ImportOptions::default()).expect("imports");
    weights_are_those_of(&done.generation, &source.join("fold_0/checkpoint_final.pth"));
    let m = &done.generation.manifest;
    assert_eq!((m.architecture.strides, m.architecture.dims), (P, [4, 8, 16, 24, 32, 32]));
    assert_eq!(m.preprocessing.order, NormalizationOrder::NormalizeFirst);
    assert_eq!(m.preprocessing.channels[0].normalization, Normalization::ZScore);
    assert_eq!((m.inference.aggregation, m.inference.patch), (Aggregation::Logits, [32, 32, 64]));
    assert_eq!(m.inference.mirror_axes, [0, 1, 2]);
    assert_eq!(m.labels.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["organ_a", "organ_b", "organ_c", "organ_d"]);
    assert_eq!(m.scope.modality, ["MR"]);
    assert_eq!(m.provenance.files.keys().collect::<Vec<_>>(), ["checkpoint_final.pth", "dataset.json", "plans.json"]);

    let (_folder, v1) = super::out();
    let v1 = imported(&golden("stunet/tiny.model").expect("in tests/goldens"), &v1, &ImportOptions::default()).expect("imports");
    assert_eq!(v1.generation.manifest.weights, m.weights);
    assert_ne!(v1.generation.digest, done.generation.digest);
    // A fold's folder and the file itself name the same model.
    for inner in ["fold_0", "fold_0/checkpoint_final.pth"] {
        let (_folder, out) = super::out();
        let options = ImportOptions { name: Some("made".into()), ..Default::default() };
        let again = imported(&source.join(inner), &out, &options).expect(inner);
        assert_eq!(again.generation.digest, done.generation.digest, "{inner}");
    }
}

#[test]
fn demo_is_what_the_repository_ships() {
    let source = need!(golden("nnunet/demo_model/nnUNetTrainer__nnUNetPlans__3d_fullres"), "the demo checkpoint is not in this clone");
    let (_folder, out) = out();
    let options = ImportOptions { name: Some("demo".into()), ..Default::default() };
    let done = imported(&source, &out, &options).expect("imports");
    let m = &done.generation.manifest;
    assert_eq!((m.architecture.dims, m.architecture.strides), ([8, 16, 32, 48, 48, 48], [[2; 3]; 5]));
    let ct = Normalization::Ct { lower: -952.0, upper: 571.0, mean: 69.804_992_675_781_25, sd: 139.259_552_001_953_12 };
    assert_eq!(m.preprocessing.channels[0].normalization, ct);
    assert_eq!(m.preprocessing.orientation, Orientation::AsStored);
    let coded: Vec<_> = m.labels.iter().map(|l| (l.name.as_str(), l.property_type.meaning.as_str())).collect();
    let wanted = [
        ("spleen", "Spleen"),
        ("kidneys", "Kidney"),
        ("liver", "Liver"),
        ("stomach", "Stomach"),
        ("lungs", "Lung"),
        ("aorta", "Aorta"),
        ("vertebrae", "Vertebra"),
        ("autochthon", "Deep muscle of back"),
    ];
    assert_eq!(coded, wanted);
    assert!(done.warnings.is_empty(), "{:?}", done.warnings);
    let shipped = Generation::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("models/demo");
    assert_eq!(shipped.manifest, *m);
    assert_eq!(shipped.digest, done.generation.digest);
}

#[test]
fn the_shipped_demo_model_is_sound() {
    let shipped = Generation::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("models/demo");
    shipped.verify(&mut |_, _| ()).expect("verifies");
    assert_eq!((shipped.manifest.name.as_str(), shipped.manifest.labels.len()), ("demo", 8));
}

#[test]
fn the_official_label_orders_are_the_published_ones() {
    let shared = need!(shared(), "the published lists are not beside this clone");
    let text = std::fs::read_to_string(shared.join("spec/totalsegmentator_v1_classes.json")).expect("list");
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let (names, translation) =
        (list["labels"].as_array().expect("names"), list["totalsegmentator_package_v1_label"].as_array().expect("values"));
    let orders = codes::orders();
    let of = |name: &str| &orders.iter().find(|o| o.name == name).expect(name).names;
    assert_eq!(names.len(), 1 + of("stunet-totalsegmentator").len());
    for value in 1..names.len() {
        assert_eq!(names[value], of("stunet-totalsegmentator")[value - 1], "value {value}");
        let own = translation[value].as_u64().expect("a value") as usize;
        assert_eq!(names[value], of("totalsegmentator-v1")[own - 1], "value {value} is {own} there");
    }
}

#[test]
fn demo_v1_with_the_labels_of_its_v2_twin() {
    let source = need!(golden("nnunet/demo_model/v1/demo_ep1.model"), "the demo checkpoint is not in this clone");
    let labels = source.parent().and_then(|p| p.parent()).expect("above").join("nnUNetTrainer__nnUNetPlans__3d_fullres/dataset.json");
    let (_folder, out) = out();
    let options = ImportOptions { labels: Some(labels.display().to_string()), ..Default::default() };
    let done = imported(&source, &out, &options).expect("imports");
    let m = &done.generation.manifest;
    assert_eq!((m.inference.aggregation, m.preprocessing.order), (Aggregation::Softmax, NormalizationOrder::ResampleFirst));
    assert_eq!(m.labels.get(7).map(|l| l.name.as_str()), Some("vertebrae"));
    let shipped = Generation::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("models/demo");
    assert_eq!(m.weights.sha256, shipped.manifest.weights.sha256);
}
