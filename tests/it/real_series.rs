//! Every real series through the program with the demo model, and an independent judge over what comes out: tilted gantries, uneven and
//! missing slices, frames of an enhanced object.

use crate::need;
use crate::support::{data, python_with, shared};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The judge asks for the source's Frame of Reference UID, and for a valid one: nothing fits where the source has none.
const NO_FRAME_OF_REFERENCE: [&str; 3] =
    ["ct_siemens_tilt_4slices/dicom", "ct_ge_missing_slice_4slices/dicom", "ct_siemens_tilt_missing_4slices/dicom"];

/// The folder, how many results it gives, and the series that are refused with their reason.
const SERIES: [(&str, usize, &[&str]); 8] = [
    ("ct_real/dicom", 1, &[]),
    ("ct_ge_tilt_varspacing/dicom", 1, &[]),
    ("ct_philips_mixed_study/dicom", 2, &["localizer"]),
    ("ct_siemens_tilt_4slices/dicom", 1, &[]),
    ("ct_ge_missing_slice_4slices/dicom", 1, &[]),
    ("ct_siemens_tilt_missing_4slices/dicom", 1, &[]),
    ("enhanced_ct", 0, &["not_hu"]),
    ("petct_sts001/CT", 1, &[]),
];

fn segment(input: &Path, out: &Path) -> Value {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let run = Command::new(env!("CARGO_BIN_EXE_stunetd"))
        .arg("segment")
        .arg(input)
        .args([Path::new("--model"), &model, Path::new("--out"), out])
        .args(["--device", "cpu", "--irregular", "resample", "--min-slices", "2", "--format", "seg,labelmap", "--json"])
        .output()
        .expect("stunetd");
    serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&run.stderr)))
}

#[test]
fn every_real_series_gives_a_segmentation_that_the_judge_accepts() {
    let root = need!(data(""), "shared data is not there");
    let python = need!(python_with("pydicom, highdicom, nibabel, SimpleITK"), "no python that can judge ($STUNETD_PYTHON)");
    let judge = shared().expect("shared").join("tools/check_seg.py");
    for (folder, results, refused) in SERIES {
        let out = tempfile::tempdir().expect("folder");
        let json = segment(&root.join(folder), out.path());
        let reasons: Vec<&str> = json["refused"]
            .as_array()
            .map(|r| r.iter().filter_map(|r| r["code"].as_str()).map(|c| c.rsplit('.').next().unwrap_or(c)).collect())
            .unwrap_or_default();
        assert_eq!(reasons, refused, "{folder}: {json}");
        let folders: Vec<_> = std::fs::read_dir(out.path()).expect("folder").map(|e| e.expect("entry").path()).collect();
        assert_eq!(folders.len(), results, "{folder}: {json}");
        for result in folders {
            let objects = ["seg.dcm", "labelmap.dcm"].map(|name| result.join(name));
            let judged = Command::new(&python).arg(&judge).args(objects).arg("--source").arg(root.join(folder)).output().expect("python");
            let said = String::from_utf8_lossy(&judged.stdout);
            if NO_FRAME_OF_REFERENCE.contains(&folder) {
                let failures: Vec<&str> = said.lines().filter_map(|l| l.strip_prefix("  FAIL ")?.split_whitespace().next()).collect();
                assert_eq!(failures, ["frame_of_reference"; 2], "{folder}: {said}");
            } else {
                assert!(judged.status.success(), "{folder}: {said}");
            }
        }
    }
}
