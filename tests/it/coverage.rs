//! Coverage as the image has it: a CT whose slices are mostly air covers no body.

use crate::support::{schema, stunetd};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use stunetd::dicom::Uid;
use stunetd::dicom::ct_image::CtSeries;

fn uid(text: &str) -> Uid {
    Uid::from_digest(&Sha256::digest(text).into())
}

/// Twelve slices, 3 mm apart; those from the fourth to the seventh show a body.
fn write(folder: &Path) {
    let series = CtSeries {
        patient_name: "COVERAGE",
        patient_id: "COVERAGE",
        patient_age: "042Y",
        study_uid: uid("study"),
        series_uid: uid("series"),
        frame_of_reference_uid: uid("frame of reference"),
        study_description: "",
        series_description: "",
        body_part: "ABDOMEN",
        date: "20260102",
        time: "030405",
        size: [24, 32],
        pixel_spacing: [3.0, 3.0],
        slice_thickness: 3.0,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    };
    for k in 0..12 {
        let body = (3..7).contains(&k);
        let hu: Vec<i16> = (0..24 * 32).map(|i| if body && i % 32 > 9 { 40 + (i % 11) as i16 } else { -1000 }).collect();
        let file = series.image(&uid(&format!("instance {k}")), k + 1, [0.0, 0.0, 3.0 * f64::from(k)], &hu);
        std::fs::write(folder.join(format!("{k}.dcm")), file).expect("written");
    }
}

#[test]
fn slices_of_air_cover_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let (input, demo) = (dir.path().join("ct"), Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"));
    std::fs::create_dir(&input).expect("folder");
    write(&input);
    let text = std::fs::read_to_string(demo.join("manifest.toml")).expect("manifest");
    // By their headers the slices cover 36 mm, the body 12.
    for (least, refused) in [(12, None), (30, Some("scope.coverage")), (40, Some("scope.coverage"))] {
        let model = dir.path().join(format!("model{least}"));
        std::fs::create_dir(&model).expect("folder");
        std::fs::copy(demo.join("weights.safetensors"), model.join("weights.safetensors")).expect("weights");
        let scoped = text.replacen("min_age = 18.0", &format!("min_age = 18.0\nmin_coverage = {least}.0"), 1);
        std::fs::write(model.join("manifest.toml"), scoped).expect("manifest");
        let mut command = Command::new(stunetd());
        command.arg("segment").arg(&input).arg("--model").arg(&model).arg("--out").arg(dir.path().join(format!("out{least}")));
        let output = command.args(["--device", "cpu", "--precision", "f32", "--format", "seg", "--json"]).output().expect("runs");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        schema::conforms("segment", &told);
        assert_eq!(told["refused"][0]["code"].as_str(), refused, "{told:#}");
        let by_image = told["refused"][0]["detail"].as_str().is_some_and(|detail| detail.contains("hold a body"));
        assert_eq!(by_image, least == 30, "{told:#}");
    }
}
