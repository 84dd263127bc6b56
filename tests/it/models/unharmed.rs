//! An import that fails leaves nothing: no model folder, no half of one, no temporary file, whatever failed and when.

use super::{imported, names, out};
use crate::checkpoint::forge::{self, Pickle};
use crate::support::golden;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use stunetd::fault::Code;
use stunetd::models::import::{ImportOptions, import};
use stunetd::stunet::Architecture;

/// A folder with a copy of the tiny checkpoint and its plans, and the checkpoint's path.
fn tiny() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    for file in ["tiny.model", "tiny.model.pkl"] {
        std::fs::copy(golden(&format!("stunet/{file}")).expect("in tests/goldens"), folder.path().join(file)).expect("copy");
    }
    let path = folder.path().join("tiny.model");
    (folder, path)
}

/// The code of a failed import; asserts that nothing is left.
fn refused(source: &Path) -> Code {
    let (parent, out) = out();
    let fault = imported(source, &out, &ImportOptions::default()).expect_err("refused");
    assert_eq!(names(parent.path()), [""; 0], "{fault}");
    fault.code
}

#[test]
fn a_checkpoint_cut_off_anywhere() {
    let (_folder, path) = tiny();
    let whole = std::fs::read(&path).expect("file");
    let ends = (0..64).map(|i| i * whole.len() / 64).chain([1, 2, 3, 4, 30, 1000, whole.len() - 1, whole.len() - 22, whole.len() - 30]);
    for end in ends {
        std::fs::write(&path, &whole[..end]).expect("write");
        let code = refused(&path);
        assert!([Code::CheckpointTruncated, Code::CheckpointMalformed].contains(&code), "cut at {end}: {code}");
    }
}

#[test]
fn plans_cut_off_anywhere() {
    let (_folder, path) = tiny();
    let plans = path.with_file_name("tiny.model.pkl");
    let whole = std::fs::read(&plans).expect("file");
    for end in 0..whole.len() {
        std::fs::write(&plans, &whole[..end]).expect("write");
        let code = refused(&path);
        assert!([Code::CheckpointTruncated, Code::CheckpointMalformed, Code::CheckpointPlans].contains(&code), "cut at {end}: {code}");
    }
    std::fs::remove_file(&plans).expect("remove");
    assert_eq!(refused(&path), Code::CheckpointPlans, "no plans");
}

#[test]
fn stopped_at_every_tensor() {
    let (_folder, path) = tiny();
    for stop in 0..130 {
        let (parent, out) = out();
        let mut calls = 0;
        let fault = import(&path, &out, &ImportOptions::default(), &mut |done, total| {
            assert!(done < total && names(parent.path()).len() == 1, "the folder is made aside");
            calls += 1;
            calls <= stop
        });
        assert_eq!(fault.expect_err("stopped").code, Code::InternalShutdown);
        assert_eq!(names(parent.path()), [""; 0], "stopped at tensor {stop}");
    }
}

#[test]
fn a_weight_that_can_not_be_used_is_found_before_anything_is_published() {
    let (_folder, path) = tiny();
    let whole = std::fs::read(&path).expect("file");
    // The last tensor of the state dict is read last: its bytes changed, all others written.
    let name = b"tiny/data/129";
    let at = whole.windows(name.len()).position(|w| w == name).expect("the last storage");
    let padding = u16::from_le_bytes([whole[at - 2], whole[at - 1]]) as usize;
    let mut changed = whole.clone();
    changed[at + name.len() + padding] ^= 1;
    std::fs::write(&path, changed).expect("write");
    assert_eq!(refused(&path), Code::CheckpointCorrupt);

    // A NaN, properly saved.
    let architecture = Architecture {
        in_channels: 1,
        num_classes: 5,
        dims: [1; 6],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: Architecture::OFFICIAL_STRIDES,
    };
    let last = architecture.parameters() - 1;
    let bytes = forge::network_of(&architecture, "state_dict", &json!({}), |i| if i == last { f32::NAN } else { 1.0 });
    std::fs::write(&path, bytes).expect("write");
    assert_eq!(refused(&path), Code::CheckpointNotFinite);
}

#[test]
fn weights_of_something_else() {
    let (_folder, path) = tiny();
    let refused_with = |key: &str, change: &dyn Fn(&mut Architecture)| {
        let mut architecture = Architecture {
            in_channels: 1,
            num_classes: 5,
            dims: [1; 6],
            depth: [1; 6],
            kernels: [[3; 3]; 6],
            strides: Architecture::OFFICIAL_STRIDES,
        };
        change(&mut architecture);
        std::fs::write(&path, forge::network(&architecture, key, &json!({}))).expect("write");
        refused(&path)
    };
    assert_eq!(refused_with("weights", &|_| ()), Code::CheckpointNoWeights);
    assert_eq!(refused_with("state_dict", &|a| a.num_classes = 6), Code::CheckpointPlans);
    assert_eq!(refused_with("state_dict", &|a| a.in_channels = 2), Code::CheckpointPlans);
    assert_eq!(refused_with("state_dict", &|a| a.kernels[2] = [2, 3, 3]), Code::CheckpointNotStunet);
    // Another network's names.
    let weight = forge::Weight {
        name: "encoder.stages.0.weight",
        storage: "FloatStorage",
        key: "0",
        numel: 4,
        offset: 0,
        shape: &[4],
        strides: &[1],
    };
    std::fs::write(&path, forge::archive(&[("r/data.pkl", &forge::state_dict(&[weight])), ("r/data/0", &[0; 16])])).expect("write");
    assert_eq!(refused(&path), Code::CheckpointNotStunet);
    // A pickle that would run something, as weights and as plans.
    let mut pickle = Pickle::new(2);
    pickle.global("posix", "system").str("touch owned").op(b"\x85R.");
    std::fs::write(&path, forge::archive(&[("r/data.pkl", &pickle.bytes)])).expect("write");
    assert_eq!(refused(&path), Code::CheckpointForbidden);
    let (_folder, path) = tiny();
    std::fs::write(path.with_file_name("tiny.model.pkl"), &pickle.bytes).expect("write");
    assert_eq!(refused(&path), Code::CheckpointForbidden);
    std::fs::write(&path, "<html>Access denied</html>").expect("write");
    assert_eq!(refused(&path), Code::CheckpointHtml);
    assert_eq!(refused(&path.with_file_name("nothing.model")), Code::ConfigInputMissing);
    let empty = tempfile::tempdir().expect("folder");
    assert_eq!(refused(empty.path()), Code::CheckpointPlans);
    let alone = empty.path().join("checkpoint_final.pth");
    std::fs::copy(golden("stunet/tiny.model").expect("in tests/goldens"), &alone).expect("copy");
    assert_eq!(refused(&alone), Code::CheckpointPlans, "a v2 checkpoint without its folder");
}

#[test]
fn an_output_folder_that_is_there_or_can_not_be_made() {
    let (folder, path) = tiny();
    let code =
        |out: &Path| imported(&path, out, &ImportOptions { name: Some("x".into()), ..Default::default() }).expect_err("refused").code;
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).expect("folder");
    assert_eq!(code(&taken), Code::ModelExists);
    assert_eq!(code(&path), Code::ModelExists);
    // Below a file.
    assert_eq!(code(&path.join("x")), Code::DiskUnwritable);
    assert_eq!(names(folder.path()), ["taken", "tiny.model", "tiny.model.pkl"]);
    // Somebody else takes the name while the weights are being written: theirs stays, ours goes.
    let (parent, out) = out();
    let fault = import(&path, &out, &ImportOptions::default(), &mut |_, _| {
        std::fs::create_dir_all(&out).is_ok() && std::fs::write(out.join("theirs"), "x").is_ok()
    });
    assert_eq!(fault.expect_err("refused").code, Code::DiskUnwritable);
    assert_eq!((names(parent.path()), names(&out)), (vec!["made".to_string()], vec!["theirs".to_string()]));
    // A name that no model can have.
    let named = |name: &str| imported(&path, &parent.path().join("y"), &ImportOptions { name: Some(name.into()), ..Default::default() });
    for name in ["", ".hidden", "Über", "a/b", &"x".repeat(41)] {
        assert_eq!(named(name).expect_err(name).code, Code::ConfigUsage);
    }
    assert_eq!(names(parent.path()), ["made"]);
}

#[test]
fn a_disk_that_takes_no_more() {
    // A file size limit of 100 KB stands for a full disk: the write of the weights fails in the middle.
    let (_folder, path) = tiny();
    let (parent, out) = out();
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" model import \"$1\" --out \"$2\" --json";
    let answer = Command::new("bash").args(["-c", script, env!("CARGO_BIN_EXE_stunetd")]).arg(&path).arg(&out).output().expect("bash");
    assert_eq!(answer.status.code(), Some(74), "{}", String::from_utf8_lossy(&answer.stderr));
    let told: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!(told["error"]["code"], "disk.unwritable");
    assert_eq!(names(parent.path()), [""; 0]);
}
