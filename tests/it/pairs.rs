//! PET and CT of one patient through the command line: two channels on one grid, and a result that says so.

use crate::need;
use crate::support::{data, made, schema};
use dicom_dictionary_std::tags;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// `stunetd segment` on these inputs: its exit code and its answer.
fn segment(inputs: &[&Path], model: &Path, out: &Path) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
    command.arg("segment").args(inputs).arg("--model").arg(model).arg("--out").arg(out);
    let output = command.args(["--device", "cpu", "--precision", "f32", "--format", "seg,labelmap", "--json"]).output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    schema::conforms("segment", &json);
    (output.status.code(), json)
}

fn files(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).filter(|p| p.is_file())
}

/// Series and SOP Instance UIDs of a folder.
fn uids(folder: &Path) -> (String, BTreeSet<String>) {
    let mut series = String::new();
    let mut instances = BTreeSet::new();
    for file in files(folder) {
        let Ok(object) = dicom_object::OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(&file) else { continue };
        let text = |tag| object.element(tag).expect("element").to_str().expect("text").trim_end_matches([' ', '\0']).to_owned();
        series = text(tags::SERIES_INSTANCE_UID);
        instances.insert(text(tags::SOP_INSTANCE_UID));
    }
    (series, instances)
}

/// The real pair: whichever grid the model names is the SEG's, its images are the frames' sources, and the other series is named too.
#[test]
fn a_real_pair_is_segmented_on_the_grid_that_the_model_names() {
    let pair = need!(data("petct_sts001"), "shared data is not there");
    let dir = tempfile::tempdir().expect("folder");
    let folders = [pair.join("CT"), pair.join("PT")];
    let (ct, pt) = (uids(&folders[0]), uids(&folders[1]));
    for grid in [0, 1] {
        let model = dir.path().join(format!("model{grid}"));
        made::pet_ct(&model, grid);
        let reference: Value =
            serde_json::from_slice(&std::fs::read(pair.join(["CT_reference.json", "PT_reference.json"][grid])).expect("reference"))
                .expect("JSON");
        let shape = reference["series"][0]["shape_ijk"].as_array().expect("shape").iter().rev().cloned().collect::<Vec<_>>();
        let mut answers = Vec::new();
        for (name, inputs) in [("ct first", [&*folders[0], &*folders[1]]), ("pet first", [&*folders[1], &*folders[0]])] {
            let (exit, answer) = segment(&inputs, &model, &dir.path().join(format!("{grid} {name}")));
            assert_eq!((exit, answer["results"].as_array().map(Vec::len)), (Some(0), Some(1)), "{answer:#}");
            answers.push(answer["results"][0].clone());
        }
        let manifest = |i: usize| &answers[i]["manifest"];
        assert_eq!(manifest(0)["shape"], Value::Array(shape));
        let series: Vec<_> = manifest(0)["source"]["series"].as_array().expect("series").iter().map(|s| s["uid"].clone()).collect();
        assert_eq!(series, [ct.0.as_str(), pt.0.as_str()]);
        for key in ["volume_key", "identity", "labels_sha256"] {
            assert_eq!(manifest(0)[key], manifest(1)[key], "{key}");
        }
        let found = manifest(0)["labels"].as_array().expect("labels").iter().filter(|l| l["voxels"] != 0).count();
        assert!(found > 1, "the network found nothing to tell apart");
        let folder = Path::new(answers[0]["folder"].as_str().expect("folder"));
        for file in ["seg.dcm", "labelmap.dcm"] {
            check_references(&folder.join(file), [&ct, &pt][grid], [&pt, &ct][grid]);
        }
    }
    let (exit, alone) = segment(&[&folders[0]], &dir.path().join("model0"), &dir.path().join("alone"));
    assert_eq!((exit, &alone["refused"][0]["code"]), (Some(1), &"select.no_partner".into()));
}

/// The upper half of the real PET beside the whole CT: the result says that the PET covers a part.
#[test]
fn a_partner_that_covers_a_part_is_warned_of() {
    let pair = need!(data("petct_sts001"), "shared data is not there");
    let dir = tempfile::tempdir().expect("folder");
    let (model, upper) = (dir.path().join("model"), dir.path().join("upper"));
    made::pet_ct(&model, 0);
    std::fs::create_dir(&upper).expect("folder");
    let mut slices: Vec<(f64, std::path::PathBuf)> = Vec::new();
    for file in files(&pair.join("PT")) {
        let Ok(object) = dicom_object::OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(&file) else { continue };
        let position = object.element(tags::IMAGE_POSITION_PATIENT).expect("position").to_multi_float64().expect("numbers");
        slices.push((position[2], file));
    }
    slices.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (n, (_, file)) in slices.iter().take(slices.len() / 2).enumerate() {
        std::fs::copy(file, upper.join(format!("{n}.dcm"))).expect("copied");
    }
    for (pet, warned) in [(&*pair.join("PT"), false), (&*upper, true)] {
        let (exit, answer) = segment(&[&pair.join("CT"), pet], &model, &dir.path().join(format!("out {warned}")));
        assert_eq!(exit, Some(0), "{answer:#}");
        let warnings = answer["results"][0]["manifest"]["warnings"].as_array().expect("list").clone();
        assert_eq!(warnings.contains(&"partner_covers_part".into()), warned, "{warnings:?}");
    }
}

/// Every frame's source is an image of the grid's series; the instances of both series are listed.
fn check_references(file: &Path, grid: &(String, BTreeSet<String>), other: &(String, BTreeSet<String>)) {
    let object = dicom_object::open_file(file).expect("SEG");
    let text = |item: &dicom_object::InMemDicomObject, tag| {
        item.element(tag).expect("element").to_str().expect("text").trim_end_matches([' ', '\0']).to_owned()
    };
    let frames = object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).expect("frames").items().expect("items");
    assert!(!frames.is_empty());
    for frame in frames {
        let sources = frame
            .element(tags::DERIVATION_IMAGE_SEQUENCE)
            .and_then(|e| e.items().expect("items")[0].element(tags::SOURCE_IMAGE_SEQUENCE).cloned())
            .expect("sources");
        for source in sources.items().expect("items") {
            assert!(grid.1.contains(&text(source, tags::REFERENCED_SOP_INSTANCE_UID)), "{}", file.display());
        }
    }
    let mut listed = std::collections::BTreeMap::new();
    for series in object.element(tags::REFERENCED_SERIES_SEQUENCE).expect("list").items().expect("items") {
        let instances = series.element(tags::REFERENCED_INSTANCE_SEQUENCE).expect("instances").items().expect("items");
        let uids: BTreeSet<String> = instances.iter().map(|i| text(i, tags::REFERENCED_SOP_INSTANCE_UID)).collect();
        listed.insert(text(series, tags::SERIES_INSTANCE_UID), uids);
    }
    assert!(listed[&grid.0].is_subset(&grid.1) && !listed[&grid.0].is_empty());
    assert_eq!(listed[&other.0], other.1);
}
