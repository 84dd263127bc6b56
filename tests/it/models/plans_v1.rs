//! Plans of nnU-Net v1, one field changed at a time, and lists of labels: read rightly, or refused by name.

use super::{imported, out, small};
use crate::checkpoint::forge::{self, Pickle};
use serde_json::{Value as Json, json};
use stunetd::fault::Code;
use stunetd::models::import::ImportOptions;
use stunetd::models::{Aggregation, Manifest, Normalization, Orientation, Postprocessing};
use stunetd::stunet::Architecture;

/// A v1 pair of files, imported.
fn v1(
    architecture: &Architecture,
    change: impl FnOnce(&mut Json),
    options: &ImportOptions,
) -> Result<(Manifest, Vec<String>), (Code, String)> {
    let folder = tempfile::tempdir().expect("folder");
    let inside = folder.path().join("fold_0");
    std::fs::create_dir(&inside).expect("folder");
    let mut saved = json!({
        "init": ["", 0, "", "", false, 0, true, false, true], "name": "STUNetTrainer_small_ep4k",
        "plans": {
            "num_modalities": architecture.in_channels, "modalities": ["nonCT", "PT"], "normalization_schemes": ["nonCT", "CT2"],
            "use_mask_for_norm": [false, true], "num_classes": architecture.num_classes - 1, "preprocessor_name": "GenericPreprocessor",
            "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
            "dataset_properties": { "intensityproperties": { "1": { "mean": 1.0, "sd": 2.0, "percentile_00_5": 0.0, "percentile_99_5": 9.5 } } },
            "plans_per_stage": { "0": {
                "patch_size": [32, 32, 64], "current_spacing": [1.5, 1.5, 1.5],
                "pool_op_kernel_sizes": [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
            } },
        },
    });
    change(&mut saved);
    let post = saved["postprocessing"].take();
    if !post.is_null() {
        std::fs::write(folder.path().join("postprocessing.json"), post.to_string()).expect("write");
    }
    let mut pickle = Pickle::new(2);
    pickle.json(&saved).op(b".");
    let model = forge::network(architecture, "state_dict", &json!({ "epoch": 4000 }));
    std::fs::write(inside.join("model_final_checkpoint.model"), model).expect("write");
    std::fs::write(inside.join("model_final_checkpoint.model.pkl"), &pickle.bytes).expect("write");
    let (parent, out) = out();
    match imported(folder.path(), &out, options) {
        Ok(done) => Ok((done.generation.manifest, done.warnings)),
        Err(fault) => {
            assert_eq!(super::names(parent.path()), [""; 0], "nothing stays behind");
            Err((fault.code, fault.detail))
        }
    }
}

#[test]
fn v1_fields() {
    let (m, _) = v1(&small(2, 3), |_| (), &ImportOptions::default()).expect("imports");
    assert_eq!((m.inference.aggregation, m.provenance.epoch), (Aggregation::Softmax, Some(4000)));
    let channels: Vec<_> = m.preprocessing.channels.iter().map(|c| (c.normalization, c.use_mask)).collect();
    assert_eq!(channels, [(Normalization::ZScore, false), (Normalization::Ct2 { lower: 0.0, upper: 9.5 }, true)]);
    let with = |change: fn(&mut Json)| v1(&small(1, 3), change, &ImportOptions::default()).expect("imports").0;
    assert_eq!(
        with(|s| s["plans"]["normalization_schemes"] = json!(["noNorm"])).preprocessing.channels[0].normalization,
        Normalization::None
    );
    assert_eq!(with(|s| s["name"] = json!("nnUNetTrainerV2_noMirroring")).inference.mirror_axes, [0; 0]);
    // The stage that `init` names; three poolings, padded to five.
    let m = with(|s| {
        s["init"][5] = json!(1);
        let mut second = s["plans"]["plans_per_stage"]["0"].clone();
        second["patch_size"] = json!([48, 48, 48]);
        second["pool_op_kernel_sizes"] = json!([[2, 2, 2], [2, 2, 2], [1, 1, 2]]);
        s["plans"]["plans_per_stage"]["1"] = second;
    });
    assert_eq!(m.inference.patch, [48, 48, 48]);
    assert_eq!(m.architecture.strides, [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1; 3], [1; 3]]);
    let m = with(|s| s["postprocessing"] = json!({ "for_which_classes": [[1, 2], 1], "min_valid_object_sizes": null }));
    assert_eq!(m.postprocessing, Postprocessing { keep_largest: vec![vec![1, 2], vec![1]], connectivity: Some(6) });
}

#[test]
fn v1_refusals() {
    type Change = fn(&mut Json);
    let cases: &[(&str, Change, Code, &str)] = &[
        ("a cascade", |s| s["name"] = json!("nnUNetTrainerV2CascadeFullRes"), Code::CheckpointUnsupported, "cascade"),
        ("regions", |s| s["name"] = json!("nnUNetTrainerV2BraTSRegions"), Code::CheckpointUnsupported, "region"),
        ("no plans", |s| s["plans"] = json!(null), Code::CheckpointPlans, "plans_per_stage"),
        ("no such stage", |s| s["init"][5] = json!(3), Code::CheckpointPlans, "no stage 3"),
        ("2-D", |s| s["plans"]["plans_per_stage"]["0"]["patch_size"] = json!([64, 64]), Code::CheckpointUnsupported, "2-D"),
        (
            "another preprocessor",
            |s| s["plans"]["preprocessor_name"] = json!("PreprocessorFor2D"),
            Code::CheckpointUnsupported,
            "PreprocessorFor2D",
        ),
        (
            "cubic probabilities",
            |s| s["plans"]["segmentation_export_params"] = json!({ "interpolation_order": 3 }),
            Code::CheckpointUnsupported,
            "interpolation_order",
        ),
        ("CT without statistics", |s| s["plans"]["normalization_schemes"] = json!(["CT"]), Code::CheckpointPlans, "channel 0"),
        ("another class count", |s| s["plans"]["num_classes"] = json!(7), Code::CheckpointPlans, "8 outputs, the weights have 3"),
        ("another channel count", |s| s["plans"]["num_modalities"] = json!(2), Code::CheckpointPlans, "2 input channels"),
        ("no channel at all", |s| s["plans"]["num_modalities"] = json!(0), Code::CheckpointPlans, "num_modalities"),
        (
            "object sizes",
            |s| s["postprocessing"] = json!({ "for_which_classes": [1], "min_valid_object_sizes": { "1": 5.0 } }),
            Code::CheckpointUnsupported,
            "min_valid_object_sizes",
        ),
        ("a label to keep that is none", |s| s["postprocessing"] = json!({ "for_which_classes": [9] }), Code::CheckpointPlans, "label 9"),
    ];
    for (what, change, code, needle) in cases {
        let (found, detail) = v1(&small(1, 3), change, &ImportOptions::default()).expect_err(what);
        assert_eq!(found, *code, "{what}: {detail}");
        assert!(detail.contains(needle), "{what}: {detail}");
    }
}

#[test]
fn official_weights_are_known_by_their_class_count() {
    let (m, warnings) = v1(&small(1, 105), |_| (), &ImportOptions::default()).expect("imports");
    assert_eq!((m.labels.len(), m.preprocessing.orientation), (104, Orientation::Ras));
    assert_eq!((m.preprocessing.channels[0].name.as_str(), &m.scope.modality[..]), ("CT", &["CT".to_string()][..]));
    let name = |v| m.labels.get(v).map(|l| l.name.as_str());
    assert_eq!(
        (name(1), name(49), name(50), name(104)),
        (Some("adrenal_gland_left"), Some("rib_left_1"), Some("rib_left_10"), Some("vertebrae_T9"))
    );
    assert_eq!(m.labels.get(1).and_then(|l| l.modifier.as_ref()).map(|c| c.meaning.as_str()), Some("Left"));
    // The labels were chosen by their number, and these small weights are not what the trainer's name promises.
    assert!(
        warnings.iter().any(|w| w.contains("stunet-totalsegmentator")) && warnings.iter().any(|w| w.contains("size S")),
        "{warnings:?}"
    );
    // Told outright, and with an orientation of one's own.
    let options =
        ImportOptions { labels: Some("totalsegmentator-v1".into()), orientation: Some(Orientation::AsStored), ..Default::default() };
    let (m, _) = v1(&small(1, 105), |_| (), &options).expect("imports");
    assert_eq!((m.labels.get(1).map(|l| l.name.as_str()), m.preprocessing.orientation), (Some("spleen"), Orientation::AsStored));
}

#[test]
fn labels_from_lists() {
    let folder = tempfile::tempdir().expect("folder");
    let with = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        let options = ImportOptions { labels: Some(path.display().to_string()), modality: vec!["CT".into()], ..Default::default() };
        v1(&small(1, 3), |_| (), &options).map(|(m, w)| (m.labels, w))
    };
    let names = |file: &str, text: &str| -> Vec<String> {
        with(file, text).expect(file).0.iter().map(|l| format!("{} {}", l.value, l.name)).collect()
    };
    for (file, text) in [
        ("a.json", r#"["liver", "spleen"]"#),
        ("b.json", r#"["background", "liver", "spleen"]"#),
        ("c.json", r#"{"labels": {"background": 0, "spleen": 2, "liver": 1}}"#),
        ("d.json", r#"{"labels": {"0": "background", "1": "liver", "2": "spleen"}, "name": "v1"}"#),
        ("e.toml", "labels = [\"liver\", \"spleen\"]"),
        ("f.toml", "[labels]\nliver = 1\nspleen = 2\n"),
        ("g.toml", "[[labels]]\nname = \"spleen\"\nvalue = 2\n[[labels]]\nname = \"liver\"\nvalue = 1\n"),
    ] {
        assert_eq!(names(file, text), ["1 liver", "2 spleen"], "{file}");
    }
    let own = r#"[{"name": "node", "type": {"value": "59441001", "scheme": "SCT", "meaning": "Lymph node"}, "rgb": [1, 2, 3]}, {"name": "liver"}]"#;
    let (labels, warnings) = with("h.json", own).expect("codes of their own");
    let node = labels.get(1).expect("node");
    assert_eq!((node.property_type.meaning.as_str(), node.rgb), ("Lymph node", [1, 2, 3]));
    assert!(!warnings.iter().any(|w| w.contains("Tissue")), "{warnings:?}");

    for (file, text, needle) in [
        ("bad1.json", r#"["liver"]"#, "1 labels for a model with 2 classes"),
        ("bad2.json", r#"["liver", "liver"]"#, "twice"),
        ("bad3.json", r#"{"liver": 1, "spleen": 1}"#, "used twice"),
        ("bad4.json", r#"{"liver": 1, "spleen": 3}"#, "1 to 2"),
        ("bad5.json", r#"{"liver": 1, "spleen": 99999}"#, "neither a list of names"),
        ("bad6.json", "7", "neither a list of names"),
        ("bad7.json", "[", "bad7.json"),
        ("bad8.toml", "labels = ", "bad8.toml"),
        ("bad9.json", r#"[{"name": "liver", "colour": 1}, {"name": "x"}]"#, "colour"),
    ] {
        let (code, detail) = with(file, text).expect_err(file);
        assert_eq!(code, Code::ModelLabels, "{file}: {detail}");
        assert!(detail.contains(needle), "{file}: {detail}");
    }
    let options = ImportOptions { labels: Some("totalsegmentator-v9".into()), ..Default::default() };
    let (code, detail) = v1(&small(1, 3), |_| (), &options).expect_err("no such order");
    assert!(code == Code::ModelLabels && detail.contains("totalsegmentator-v2"), "{detail}");
}
