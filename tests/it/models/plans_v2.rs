//! Plans of nnU-Net v2, one field changed at a time: read rightly, or refused by name.

use super::{imported, out, small};
use crate::checkpoint::forge;
use serde_json::{Value as Json, json};
use std::path::Path;
use stunetd::fault::Code;
use stunetd::models::import::{ImportOptions, Which};
use stunetd::models::{Manifest, Normalization, Orientation, Postprocessing, Resampling};
use stunetd::stunet::Architecture;

/// A v2 folder's three documents.
struct V2 {
    plans: Json,
    dataset: Json,
    saved: Json,
    architecture: Architecture,
}

impl V2 {
    fn new() -> V2 {
        let statistics = json!({ "mean": 50.0, "std": 100.5, "median": 40, "min": -1000, "max": 3000, "percentile_00_5": -900.25, "percentile_99_5": 900 });
        V2 {
            plans: json!({
                "dataset_name": "Dataset001_X", "image_reader_writer": "SimpleITKIO",
                "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
                "foreground_intensity_properties_per_channel": { "0": statistics, "1": statistics },
                "configurations": {
                    "2d": { "patch_size": [64, 64], "spacing": [1, 1] },
                    "3d_fullres": {
                        "preprocessor_name": "DefaultPreprocessor", "patch_size": [32, 32, 64], "spacing": [3.0, 1.5, 1.25],
                        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [false],
                        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
                        "resampling_fn_data": "resample_data_or_seg_to_shape",
                        "resampling_fn_data_kwargs": { "is_seg": false, "order": 3, "order_z": 0, "force_separate_z": null },
                        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                        "resampling_fn_probabilities_kwargs": { "is_seg": false, "order": 1, "order_z": 0, "force_separate_z": null },
                    },
                },
            }),
            dataset: json!({ "channel_names": { "0": "CT" }, "labels": { "background": 0, "liver": 1, "spleen": 2 }, "file_ending": ".nii.gz" }),
            saved: json!({ "trainer_name": "STUNetTrainer_base_ft", "current_epoch": 1000, "inference_allowed_mirroring_axes": [0, 1, 2] }),
            architecture: small(1, 3),
        }
    }

    fn configuration(&mut self) -> &mut Json {
        &mut self.plans["configurations"]["3d_fullres"]
    }

    fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder.join("fold_0")).expect("folder");
        std::fs::write(folder.join("plans.json"), self.plans.to_string()).expect("write");
        std::fs::write(folder.join("dataset.json"), self.dataset.to_string()).expect("write");
        let bytes = forge::network(&self.architecture, "network_weights", &self.saved);
        std::fs::write(folder.join("fold_0/checkpoint_final.pth"), bytes).expect("write");
    }

    fn import(&self, options: &ImportOptions) -> Result<(Manifest, Vec<String>), (Code, String)> {
        let folder = tempfile::tempdir().expect("folder");
        self.write(folder.path());
        let (parent, out) = out();
        match imported(folder.path(), &out, options) {
            Ok(done) => Ok((done.generation.manifest, done.warnings)),
            Err(fault) => {
                assert_eq!(super::names(parent.path()), [""; 0], "nothing stays behind");
                Err((fault.code, fault.detail))
            }
        }
    }
}

/// The manifest of a changed v2 folder.
fn v2(change: impl FnOnce(&mut V2)) -> Manifest {
    let mut folder = V2::new();
    change(&mut folder);
    folder.import(&ImportOptions::default()).expect("imports").0
}

#[test]
fn v2_fields() {
    let m = v2(|_| ());
    assert_eq!(m.architecture, small(1, 3));
    assert_eq!((m.inference.patch, m.preprocessing.spacing), ([32, 32, 64], [3.0, 1.5, 1.25]));
    assert_eq!(m.preprocessing.channels[0].normalization, Normalization::Ct { lower: -900.25, upper: 900.0, mean: 50.0, sd: 100.5 });
    assert_eq!((m.provenance.trainer.as_str(), m.provenance.epoch), ("STUNetTrainer_base_ft", Some(1000)));

    // Mirroring: as the checkpoint allows; nothing said, nothing mirrored.
    assert_eq!(v2(|f| f.saved["inference_allowed_mirroring_axes"] = json!([2, 0])).inference.mirror_axes, [0, 2]);
    assert_eq!(v2(|f| f.saved["inference_allowed_mirroring_axes"] = Json::Null).inference.mirror_axes, [0; 0]);
    // Strides: both layouts of newer plans; cut and padded to five.
    let mut official = small(1, 3).strides;
    let newer = json!([[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]]);
    let m = v2(|f| f.configuration()["architecture"] = json!({ "arch_kwargs": { "strides": newer } }));
    assert_eq!(m.architecture.strides, official);
    let m = v2(|f| f.configuration()["architecture"] = json!({ "arch_kwargs": { "pool_op_kernel_sizes": [[2, 2, 2], [1, 1, 2]] } }));
    assert_eq!(m.architecture.strides, [[2, 2, 2], [1, 1, 2], [1; 3], [1; 3], [1; 3]]);
    let long = json!([[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [2, 2, 2]]);
    official[4] = [1, 2, 2];
    assert_eq!(v2(|f| f.configuration()["pool_op_kernel_sizes"] = long).architecture.strides, official);
    // Normalisation by class name.
    for (name, wanted) in [
        ("ZScoreNormalization", Normalization::ZScore),
        ("NoNormalization", Normalization::None),
        ("RescaleTo01Normalization", Normalization::Rescale01),
    ] {
        assert_eq!(v2(|f| f.configuration()["normalization_schemes"] = json!([name])).preprocessing.channels[0].normalization, wanted);
    }
    assert!(v2(|f| f.configuration()["use_mask_for_norm"] = json!([true])).preprocessing.channels[0].use_mask);
    // Readers.
    assert_eq!(v2(|f| f.plans["image_reader_writer"] = json!("NibabelIOWithReorient")).preprocessing.orientation, Orientation::Ras);
    assert_eq!(
        v2(|f| f.dataset["overwrite_image_reader_writer"] = json!("SimpleITKIOWithReorient")).preprocessing.orientation,
        Orientation::Ras
    );
    assert_eq!(v2(|f| f.dataset["overwrite_image_reader_writer"] = json!("None")).preprocessing.orientation, Orientation::AsStored);
    // Resampling by function name, older plans without any.
    let torch = |f: &mut V2| {
        for key in ["resampling_fn_data", "resampling_fn_probabilities"] {
            f.configuration()[key] = json!("resample_torch_fornnunet");
            f.configuration()[format!("{key}_kwargs")] =
                json!({ "is_seg": false, "force_separate_z": null, "memefficient_seg_resampling": false });
        }
    };
    assert_eq!(v2(torch).preprocessing.resampling, Resampling::Torch);
    let silent = |f: &mut V2| f.configuration().as_object_mut().expect("table").retain(|k, _| !k.starts_with("resampling"));
    assert_eq!(v2(silent).preprocessing.resampling, Resampling::Default);
    // Two channels, the older key, transposed axes.
    let m = v2(|f| {
        f.architecture = small(2, 3);
        f.dataset = json!({ "modality": { "1": "PET", "0": "CT" }, "labels": { "background": 0, "liver": 1, "spleen": 2 } });
        f.configuration()["normalization_schemes"] = json!(["CTNormalization", "ZScoreNormalization"]);
        f.configuration()["use_mask_for_norm"] = json!([false, true]);
        (f.plans["transpose_forward"], f.plans["transpose_backward"]) = (json!([1, 2, 0]), json!([2, 0, 1]));
    });
    assert_eq!(m.preprocessing.transpose, [1, 2, 0]);
    assert_eq!(m.scope.modality, ["CT", "PT"]);
    // A configuration that inherits.
    let m = v2(|f| {
        f.plans["configurations"]["3d_mine"] = json!({ "inherits_from": "3d_fullres", "patch_size": [64, 64, 64] });
        f.saved["init_args"] = json!({ "configuration": "3d_mine" });
    });
    assert_eq!(m.inference.patch, [64, 64, 64]);
    // An ignored label has no output; a list of one value is that value.
    let m = v2(|f| f.dataset["labels"] = json!({ "background": 0, "liver": [1], "spleen": 2, "ignore": 3 }));
    assert_eq!((m.labels.len(), m.inference.regions.len()), (2, 0));
    // Postprocessing.
    let mut folder = V2::new();
    folder.saved = json!({});
    let place = tempfile::tempdir().expect("folder");
    folder.write(place.path());
    let steps = json!({
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation", "remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{ "labels_or_regions": [1, 2] }, { "labels_or_regions": 2, "background_label": 0 }],
    });
    std::fs::write(place.path().join("postprocessing.json"), steps.to_string()).expect("write");
    let (_parent, out) = out();
    let m = imported(place.path(), &out, &ImportOptions::default()).expect("imports").generation.manifest;
    assert_eq!(m.postprocessing, Postprocessing { keep_largest: vec![vec![1, 2], vec![2]], connectivity: Some(26) });
}

#[test]
fn v2_regions() {
    // The order is that of the file, not that of the alphabet: whole, core, enhancing.
    let dataset = r#"{"channel_names": {"0": "CT"}, "regions_class_order": [2, 1, 3],
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}}"#;
    let place = tempfile::tempdir().expect("folder");
    V2::new().write(place.path());
    std::fs::write(place.path().join("dataset.json"), dataset).expect("write");
    let (_parent, out) = out();
    let done = imported(place.path(), &out, &ImportOptions::default()).expect("imports");
    let m = done.generation.manifest;
    let regions: Vec<_> = m.inference.regions.iter().map(|r| (r.output, r.value)).collect();
    assert_eq!(regions, [(0, 2), (1, 1), (2, 3)]);
    let names: Vec<_> = m.labels.iter().map(|l| (l.value, l.name.as_str())).collect();
    assert_eq!(names, [(1, "core"), (2, "whole"), (3, "enhancing")]);
    assert!(done.warnings.iter().any(|w| w.contains("regions")), "{:?}", done.warnings);
    std::fs::write(place.path().join("dataset.json"), dataset.replace("\"core\"", "\"whole\"")).expect("write");
    let fault = imported(place.path(), &place.path().join("made"), &ImportOptions::default()).expect_err("a key twice");
    assert!(fault.code == Code::CheckpointPlans && fault.detail.contains("twice"), "{fault}");
}

#[test]
fn v2_refusals() {
    type Change = Box<dyn Fn(&mut V2)>;
    let cases: Vec<(&str, Change, Code, &str)> = vec![
        ("2-D", Box::new(|f| f.saved["init_args"] = json!({ "configuration": "2d" })), Code::CheckpointUnsupported, "2-D"),
        ("a cascade", Box::new(|f| f.configuration()["previous_stage"] = json!("3d_lowres")), Code::CheckpointUnsupported, "cascade"),
        (
            "no such configuration",
            Box::new(|f| f.saved["init_args"] = json!({ "configuration": "3d_x" })),
            Code::CheckpointPlans,
            "it has: 2d, 3d_fullres",
        ),
        (
            "inherits itself",
            Box::new(|f| f.configuration()["inherits_from"] = json!("3d_fullres")),
            Code::CheckpointPlans,
            "inherits from itself",
        ),
        (
            "no stem stride",
            Box::new(|f| f.configuration()["pool_op_kernel_sizes"] = json!([[2, 2, 2]])),
            Code::CheckpointPlans,
            "[1, 1, 1]",
        ),
        ("no strides", Box::new(|f| f.configuration()["pool_op_kernel_sizes"] = json!("x")), Code::CheckpointPlans, "pool_op_kernel_sizes"),
        ("another preprocessor", Box::new(|f| f.configuration()["preprocessor_name"] = json!("Mine")), Code::CheckpointUnsupported, "Mine"),
        ("another resampling", Box::new(|f| f.configuration()["resampling_fn_data"] = json!("mine")), Code::CheckpointUnsupported, "mine"),
        (
            "another order",
            Box::new(|f| f.configuration()["resampling_fn_data_kwargs"]["order"] = json!(1)),
            Code::CheckpointUnsupported,
            "`order` = 1",
        ),
        (
            "a forced axis",
            Box::new(|f| f.configuration()["resampling_fn_probabilities_kwargs"]["force_separate_z"] = json!(true)),
            Code::CheckpointUnsupported,
            "force_separate_z",
        ),
        (
            "two ways of resampling",
            Box::new(|f| {
                f.configuration()["resampling_fn_data"] = json!("resample_torch_fornnunet");
                f.configuration()["resampling_fn_data_kwargs"] = json!({});
            }),
            Code::CheckpointUnsupported,
            "different resampling",
        ),
        (
            "another reader",
            Box::new(|f| f.plans["image_reader_writer"] = json!("NaturalImage2DIO")),
            Code::CheckpointUnsupported,
            "NaturalImage2DIO",
        ),
        (
            "another normalisation",
            Box::new(|f| f.configuration()["normalization_schemes"] = json!(["RGBTo01Normalization"])),
            Code::CheckpointUnsupported,
            "RGBTo01",
        ),
        (
            "no statistics",
            Box::new(|f| f.plans["foreground_intensity_properties_per_channel"] = json!({})),
            Code::CheckpointPlans,
            "intensity statistics",
        ),
        ("no scheme", Box::new(|f| f.configuration()["normalization_schemes"] = json!([])), Code::CheckpointPlans, "channel 0"),
        ("a transpose that is none", Box::new(|f| f.plans["transpose_forward"] = json!([0, 1, 1])), Code::CheckpointPlans, "transpose"),
        (
            "transposes that do not fit",
            Box::new(|f| f.plans["transpose_forward"] = json!([1, 2, 0])),
            Code::CheckpointPlans,
            "does not undo",
        ),
        (
            "a patch that does not divide",
            Box::new(|f| f.configuration()["patch_size"] = json!([32, 32, 48])),
            Code::CheckpointPlans,
            "multiple of 32",
        ),
        ("a spacing of 0", Box::new(|f| f.configuration()["spacing"] = json!([0, 1, 1])), Code::CheckpointPlans, "spacing"),
        ("more channels than weights", Box::new(|f| f.dataset["channel_names"]["1"] = json!("PET")), Code::CheckpointPlans, "channel"),
        (
            "more labels than weights",
            Box::new(|f| f.dataset["labels"]["x"] = json!(3)),
            Code::CheckpointPlans,
            "4 outputs, the weights have 3",
        ),
        ("a gap in the labels", Box::new(|f| f.dataset["labels"]["spleen"] = json!(3)), Code::CheckpointPlans, "gap"),
        ("no background", Box::new(|f| f.dataset["labels"] = json!({ "liver": 1 })), Code::CheckpointPlans, "background"),
        ("a negative label", Box::new(|f| f.dataset["labels"]["spleen"] = json!(-1)), Code::CheckpointPlans, "dataset.json"),
        (
            "a control character",
            Box::new(|f| f.dataset["labels"] = json!({ "background": 0, "a": 1, "b\nc": 2 })),
            Code::ModelLabels,
            "label 2",
        ),
        (
            "regions without an order",
            Box::new(|f| f.dataset["labels"]["spleen"] = json!([1, 2])),
            Code::CheckpointPlans,
            "regions_class_order",
        ),
        ("no plans", Box::new(|f| f.plans = json!([])), Code::CheckpointPlans, "configurations"),
        (
            "plans of another model",
            Box::new(|f| {
                let mut inside = f.plans.clone();
                inside["configurations"]["3d_fullres"]["pool_op_kernel_sizes"][5] = json!([2, 2, 2]);
                f.saved["init_args"] = json!({ "plans": inside });
            }),
            Code::CheckpointPlans,
            "another model",
        ),
    ];
    for (what, change, code, needle) in cases {
        let mut folder = V2::new();
        change(&mut folder);
        let (found, detail) = folder.import(&ImportOptions::default()).expect_err(what);
        assert_eq!(found, code, "{what}: {detail}");
        assert!(detail.contains(needle), "{what}: {detail}");
    }
}

#[test]
fn folds_and_checkpoints_are_chosen_by_name() {
    let folder = tempfile::tempdir().expect("folder");
    V2::new().write(folder.path());
    let mut best = V2::new();
    best.saved["current_epoch"] = json!(7);
    let bytes = forge::network(&best.architecture, "network_weights", &best.saved);
    std::fs::create_dir(folder.path().join("fold_all")).expect("folder");
    std::fs::write(folder.path().join("fold_all/checkpoint_best.pth"), bytes).expect("write");
    let epoch = |fold: Option<&str>, checkpoint| {
        let (_parent, out) = out();
        let options = ImportOptions { fold: fold.map(str::to_string), checkpoint, ..Default::default() };
        imported(folder.path(), &out, &options).map(|d| d.generation.manifest.provenance.epoch).map_err(|f| f.code)
    };
    assert_eq!(epoch(Some("0"), Which::Final), Ok(Some(1000)));
    assert_eq!(epoch(Some("all"), Which::Best), Ok(Some(7)));
    assert_eq!(epoch(Some("all"), Which::Latest), Err(Code::ConfigInputMissing));
    assert_eq!(epoch(Some("3"), Which::Final), Err(Code::ConfigUsage));
    assert_eq!(epoch(None, Which::Final), Err(Code::ConfigUsage), "two folds, none named");
}
