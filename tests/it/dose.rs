//! A PET whose injected dose is in MBq, where Bq belong: refused by name, and segmented where somebody allows the assumption.

use crate::need;
use crate::support::cases::reference_object;
use crate::support::{made, schema, stunetd};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The answer of a verb, and its exit code.
fn ask(verb: &str, arguments: &[&Path], flags: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(stunetd()).arg(verb).args(arguments).args(flags).arg("--json").output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    schema::conforms(verb, &json);
    (output.status.code(), json)
}

#[test]
fn a_dose_in_mbq_is_refused_and_taken_when_allowed() {
    let object = need!(reference_object("DRO_3_0"), "the reference objects are not there");
    let dir = tempfile::tempdir().expect("folder");
    let (model, out) = (dir.path().join("model"), dir.path().join("out"));
    made::pet(&model);
    let config = dir.path().join("stunetd.toml");
    std::fs::write(&config, format!("[model]\npath = {model:?}\n[intake]\nassume_mbq = true\n")).expect("written");

    let (exit, told) = ask("inspect", &[object.path()], &[]);
    let volume = &told["volumes"][0];
    assert_eq!((exit, &volume["segmentable"], &volume["hold"]["code"]), (Some(1), &false.into(), &"quantity.suv_dose_not_in_bq".into()));
    let factor = volume["suvbw_factor"].as_f64().expect("a factor");
    for allowed in [vec!["--assume-mbq"], vec!["--config", config.to_str().expect("a path")]] {
        let (exit, told) = ask("inspect", &[object.path()], &allowed);
        let volume = &told["volumes"][0];
        assert_eq!((exit, &volume["segmentable"], &volume["hold"]), (Some(0), &true.into(), &Value::Null), "{volume:#}");
        assert_eq!(volume["suvbw_factor"].as_f64(), Some(factor));
        assert!(volume["warnings"].as_array().expect("list").contains(&"dose_assumed_mbq".into()));
    }

    let arguments: [&Path; 5] = [object.path(), "--model".as_ref(), &model, "--out".as_ref(), &out];
    let flags = ["--device", "cpu", "--precision", "f32", "--format", "seg"];
    let (exit, told) = ask("segment", &arguments, &flags);
    assert_eq!((exit, &told["refused"][0]["code"]), (Some(1), &"quantity.suv_dose_not_in_bq".into()));
    let (exit, told) = ask("segment", &arguments, &[&flags[..], &["--assume-mbq"][..]].concat());
    let manifest = &told["results"][0]["manifest"];
    assert_eq!((exit, &manifest["settings"]["assume_mbq"]), (Some(0), &true.into()), "{told:#}");
    assert!(manifest["warnings"].as_array().expect("list").contains(&"dose_assumed_mbq".into()));

    // Allowing it changes nothing about a dose that is right.
    let right = reference_object("DRO_1_0").expect("it is there");
    let mut arguments = arguments;
    arguments[0] = right.path();
    let results = [vec![], vec!["--assume-mbq"]].map(|more| {
        let (exit, told) = ask("segment", &arguments, &[&flags[..], &more[..]].concat());
        assert_eq!(exit, Some(0), "{told:#}");
        told["results"][0].clone()
    });
    assert_eq!(results[0]["manifest"], results[1]["manifest"]);
    assert_eq!(results.map(|r| r["outcome"].clone()), ["published", "already_published"]);
}
