//! `stunetd inspect` on generated cases, on real series, on what is no DICOM.

use super::maker::{Encoding, ct_slice, file, text, with};
use crate::need;
use crate::support::{data, python_with, schema, shared};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn inspect(arguments: &[&str], input: &Path) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_stunetd")).arg("inspect").arg(input).args(arguments).output().expect("stunetd");
    let json = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output, json)
}

/// Holds an answer against its schema.
fn conforms(json: &Value) {
    schema::conforms("inspect", json);
}

#[test]
fn generated_cases_score_without_a_failure() {
    let shared = need!(shared(), "the case generator is not there");
    let python = need!(python_with("pydicom, numpy"), "no python with pydicom ($STUNETD_PYTHON) to generate cases with");
    let folder = tempfile::tempdir().expect("folder");
    let tools = shared.join("tools");
    // A seed of its own: the rules have to hold, not the cases that they were written beside.
    let made = Command::new(&python).arg(tools.join("make_cases.py")).arg(folder.path()).args(["--seed", "23"]).output().expect("python");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let score = Command::new(&python)
        .arg(tools.join("score_inspect.py"))
        .arg(folder.path())
        .args(["--stunetd", env!("CARGO_BIN_EXE_stunetd")])
        .output()
        .expect("python");
    let told = String::from_utf8_lossy(&score.stdout);
    assert!(score.status.success(), "{told}");
    assert!(told.lines().last().is_some_and(|summary| summary.contains(" 0 fail")), "{told}");
}

/// Slices of a CT in a folder, with a change to each.
fn study(folder: &Path, slices: u16, change: impl Fn(u16) -> Vec<((u16, u16), Option<super::maker::Element>)>) {
    for k in 0..slices {
        std::fs::write(folder.join(format!("{k}.dcm")), file(&with(ct_slice(k), change(k)), Encoding::Explicit)).expect("write");
    }
}

#[test]
fn a_study_is_shown_for_people_and_for_scripts() {
    let folder = tempfile::tempdir().expect("folder");
    study(folder.path(), 4, |_| Vec::new());
    std::fs::write(folder.path().join("notes.txt"), b"hello").expect("write");
    let (output, json) = inspect(&["--json"], folder.path());
    assert_eq!(output.status.code(), Some(0), "a text file beside the images is nothing to refuse: {json}");
    conforms(&json);
    let volume = &json["volumes"][0];
    assert_eq!(volume["shape_ijk"], serde_json::json!([6, 4, 4]));
    assert_eq!(volume["spacing_ijk"], serde_json::json!([0.7, 0.8, 5.0]));
    assert_eq!(volume["affine_lps"][2], serde_json::json!([0.0, 0.0, 5.0, 0.0]));
    assert_eq!((volume["min"].as_f64(), volume["max"].as_f64()), (Some(-1024.0), Some(-1024.0 + 323.0)));
    assert_eq!(json["ignored_files"][0]["reason"], "not_dicom");
    let (output, _) = inspect(&[], folder.path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("6 x 4 x 4 voxels of 0.700 x 0.800 x 5.000 mm"), "{text}");
    assert!(!text.contains("PHANTOM"), "no patient data");
    let (one, json) = inspect(&["--json", "--min-slices", "1"], &folder.path().join("2.dcm"));
    assert_eq!((one.status.code(), json["volumes"][0]["shape_ijk"][2].as_u64()), (Some(0), Some(1)), "a single file");
}

#[test]
fn refusals_say_what_to_do_and_control_characters_do_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let gap = |k: u16| text(0x20, 0x32, "DS", &format!("-10\\-20\\{}", 5 * (k + u16::from(k > 2))));
    let red = text(0x08, 0x103E, "LO", "\x1b[31mred");
    study(folder.path(), 6, |k| vec![((0x20, 0x32), Some(gap(k))), ((0x08, 0x103E), Some(red.clone()))]);
    let (output, json) = inspect(&["--json"], folder.path());
    assert_eq!((output.status.code(), &json["rejected"][0]["code"]), (Some(1), &Value::from("series.missing_slice")));
    assert_eq!(json["rejected"][0]["files"], 6);
    conforms(&json);
    let (output, _) = inspect(&[], folder.path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("next: Send the missing slice") && !text.contains('\x1b'), "{text}");
    let (output, json) = inspect(&["--json", "--irregular", "resample"], folder.path());
    assert_eq!((output.status.code(), &json["volumes"][0]["uniform_spacing"]), (Some(0), &Value::from(false)));
    assert_eq!(json["volumes"][0]["slice_positions_along_normal"], serde_json::json!([0.0, 5.0, 10.0, 20.0, 25.0, 30.0]));
    assert_eq!(json["volumes"][0]["warnings"], serde_json::json!(["missing_slice"]));
    conforms(&json);
}

#[test]
fn nothing_to_inspect_has_a_code() {
    let folder = tempfile::tempdir().expect("folder");
    let code = |path: &Path| {
        let (output, json) = inspect(&["--json"], path);
        (output.status.code(), json["error"]["code"].as_str().map(String::from))
    };
    assert_eq!(code(folder.path()), (Some(1), Some("input.empty_folder".into())));
    assert_eq!(code(&folder.path().join("absent")).1.as_deref(), Some("config.input_missing"));
    let bad = folder.path().join("x.nii.gz");
    std::fs::write(&bad, b"not NIfTI").expect("write");
    assert_eq!(code(&bad), (Some(1), Some("input.bad_nifti".into())));
}

#[test]
fn volumes_go_to_nifti_and_come_back() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    let input = folder.path().join("in");
    std::fs::create_dir(&input).expect("folder");
    study(&input, 5, |_| Vec::new());
    let (_, dicom) = inspect(&["--json", "--nifti", out.to_str().expect("path")], &input);
    let (_, again) = inspect(&["--json"], Path::new(dicom["volumes"][0]["nifti"].as_str().expect("a file")));
    for key in ["shape_ijk", "sha256_f32le", "min", "max"] {
        assert_eq!(dicom["volumes"][0][key], again["volumes"][0][key], "{key}");
    }
    for (a, b) in ["affine_lps"].iter().flat_map(|k| [0, 1, 2].map(|r| (&dicom["volumes"][0][k][r], &again["volumes"][0][k][r]))) {
        for c in 0..4 {
            assert!((a[c].as_f64().expect("number") - b[c].as_f64().expect("number")).abs() < 1e-4);
        }
    }
    assert_eq!(again["volumes"][0]["quantity"], "unknown");
    conforms(&dicom);
    conforms(&again);
}

#[test]
fn real_voxels_are_those_of_the_references() {
    let root = need!(data(""), "shared data is not there");
    for (input, reference) in [
        ("ct_real/dicom", "ct_real/reference.json"),
        ("ct_ge_tilt_varspacing", "ct_ge_tilt_varspacing/reference.json"),
        ("ct_philips_mixed_study", "ct_philips_mixed_study/reference.json"),
        ("ct_siemens_tilt_4slices", "ct_siemens_tilt_4slices/reference.json"),
        ("petct_sts001/CT", "petct_sts001/CT_reference.json"),
        ("petct_sts001/PT", "petct_sts001/PT_reference.json"),
    ] {
        let reference: Value = serde_json::from_str(&std::fs::read_to_string(root.join(reference)).expect("reference")).expect("json");
        let (_, json) = inspect(&["--json", "--irregular", "resample"], &root.join(input));
        let volumes = json["volumes"].as_array().expect("volumes");
        assert!(!volumes.is_empty(), "{input}: {json}");
        for volume in volumes {
            let entries = reference["series"].as_array().expect("series");
            let entry = entries.iter().find(|e| e["series_instance_uid"] == volume["series_instance_uid"]).expect("reference");
            assert_eq!(volume["shape_ijk"], entry["shape_ijk"], "{input}");
            if input == "ct_ge_tilt_varspacing" {
                // Its padding of -1500 is air here; the reference shows it as stored.
                assert_eq!((volume["min"].as_f64(), volume["max"].as_f64()), (Some(-1024.0), entry["max"].as_f64()));
                continue;
            }
            for key in ["min", "max", "mean"] {
                let (have, want) = (volume[key].as_f64().expect("number"), entry[key].as_f64().expect("number"));
                assert!((have - want).abs() <= 1e-4 * want.abs().max(1.0), "{input}: {key} {have} instead of {want}");
            }
            assert_eq!(volume["sha256_f32le"], entry["sha256_f32le_kji"], "{input}");
        }
    }
}
