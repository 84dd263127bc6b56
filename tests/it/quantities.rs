//! CT images that are no Hounsfield units, and one kind that is, as files through the program; derived ones where a rule asks for them.

use crate::support::{schema, stunetd};
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use stunetd::dicom::Uid;
use stunetd::dicom::ct_image::CtSeries;

fn uid(text: &str) -> Uid {
    Uid::from_digest(&Sha256::digest(text).into())
}

/// An attribute that a test changes, or takes out.
type Change = (Tag, VR, Option<&'static str>);

/// Six slices of air and soft tissue, with these attributes changed, or taken out.
fn write(folder: &Path, changes: &[Change]) {
    let series = CtSeries {
        patient_name: "QUANTITY",
        patient_id: "QUANTITY",
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
    std::fs::create_dir_all(folder).expect("folder");
    let hu: Vec<i16> = (0..24 * 32).map(|i| if i % 32 > 9 { 40 + (i % 11) as i16 } else { -1000 }).collect();
    for k in 0..6u32 {
        let path = folder.join(format!("{k}.dcm"));
        let file = series.image(&uid(&format!("instance {k}")), k + 1, [0.0, 0.0, 3.0 * f64::from(k)], &hu);
        std::fs::write(&path, file).expect("written");
        let mut object = dicom_object::open_file(&path).expect("DICOM");
        for (tag, vr, value) in changes {
            object.remove_element(*tag);
            if let Some(value) = value {
                object.put(DataElement::new(*tag, *vr, PrimitiveValue::from(*value)));
            }
        }
        object.write_to_file(&path).expect("written");
    }
}

fn ask(verb: &str, input: &Path, more: &[&str]) -> Value {
    let output = Command::new(stunetd()).arg(verb).arg(input).args(more).arg("--json").output().expect("runs");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    schema::conforms(verb, &json);
    json
}

#[test]
fn maps_that_are_stored_as_ct_are_never_segmented() {
    let dir = tempfile::tempdir().expect("folder");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    let (unit, types, energies) = (tags::RESCALE_TYPE, tags::IMAGE_TYPE, tags::MULTIENERGY_CT_ACQUISITION);
    let lo = |value| (unit, VR::LO, value);
    let image_type = |value| (types, VR::CS, Some(value));
    let cases: Vec<(&str, Vec<Change>, bool)> = vec![
        ("plain", vec![], true),
        ("plain, no type", vec![lo(None)], true),
        ("iodine in mg/ml", vec![lo(Some("MGML")), image_type("DERIVED\\PRIMARY\\AXIAL\\IODINE")], false),
        ("iodine, no type", vec![lo(None), image_type("DERIVED\\PRIMARY\\AXIAL\\IODINE")], false),
        ("two energies, no type", vec![lo(None), (energies, VR::CS, Some("YES"))], false),
        ("blood flow", vec![lo(None), image_type("DERIVED\\PRIMARY\\AXIAL\\CBF")], false),
        ("blood flow in its unit", vec![lo(Some("ML100GM")), image_type("DERIVED\\PRIMARY\\AXIAL\\CBF")], false),
        ("unspecified", vec![lo(Some("US"))], false),
        ("70 keV", vec![(energies, VR::CS, Some("YES")), image_type("DERIVED\\PRIMARY\\AXIAL\\MONO_70KEV")], true),
        ("70 keV, modified", vec![lo(Some("HU_MOD")), (energies, VR::CS, Some("YES"))], true),
    ];
    for (n, (name, changes, taken)) in cases.into_iter().enumerate() {
        let (input, out) = (dir.path().join(format!("{n}")), dir.path().join(format!("out{n}")));
        write(&input, &changes);
        let shown = ask("inspect", &input, &[]);
        let accepted = shown["volumes"][0]["segmentable"].as_bool().unwrap_or(false);
        let out = out.to_str().expect("a path");
        let told = ask("segment", &input, &["--model", demo, "--out", out, "--device", "cpu", "--precision", "f32", "--format", "seg"]);
        let results = told["results"].as_array().map_or(0, Vec::len);
        assert_eq!((accepted, results), (taken, usize::from(taken)), "{name}: {shown:#} {told:#}");
        if !taken {
            let codes = [&shown["rejected"][0]["code"], &told["refused"][0]["code"]];
            assert_eq!(codes, ["quantity.not_hu"; 2], "{name}");
        } else {
            assert_eq!(shown["volumes"][0]["quantity"], "HU", "{name}");
        }
    }
}

#[test]
fn derived_series_are_taken_where_a_rule_asks_for_them() {
    let dir = tempfile::tempdir().expect("folder");
    let input = dir.path().join("ct");
    write(&input, &[(tags::IMAGE_TYPE, VR::CS, Some("DERIVED\\SECONDARY\\MPR"))]);
    assert_eq!(ask("inspect", &input, &[])["rejected"][0]["code"], "series.derived_series");
    let config = dir.path().join("stunetd.toml");
    let told = |accept: &str| {
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
        let rules = format!("[[select]]\nname = \"plain\"\n[[select]]\nname = \"mpr\"\n{accept}\n[model]\npath = {demo:?}\n");
        std::fs::write(&config, rules).expect("written");
        ask("inspect", &input, &["--config", config.to_str().expect("a path")])
    };
    assert_eq!(told("")["rejected"][0]["code"], "series.derived_series");
    let taken = told("accept = [\"derived\"]");
    let volume = &taken["volumes"][0];
    assert_eq!((&volume["selection"]["verdict"], &volume["selection"]["rule"]), (&"selected".into(), &"mpr".into()), "{taken:#}");
    assert!(volume["warnings"].as_array().expect("list").contains(&"derived_source".into()));
    // A projection is none of those.
    write(&input, &[(tags::IMAGE_TYPE, VR::CS, Some("DERIVED\\SECONDARY\\AXIAL\\MIP"))]);
    assert_eq!(told("accept = [\"derived\"]")["rejected"][0]["code"], "series.derived_series");
}
