//! Model folders: opened, verified, listed, or refused with the right code; and the verbs that do it.

use super::{imported, out};
use crate::support::golden;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use stunetd::fault::Code;
use stunetd::models::import::ImportOptions;
use stunetd::models::{Generation, list};

/// The tiny model, imported, and its folder.
fn tiny() -> (tempfile::TempDir, PathBuf) {
    let (folder, out) = out();
    imported(&golden("stunet/tiny.model").expect("in tests/goldens"), &out, &ImportOptions::default()).expect("imports");
    (folder, out)
}

fn edit(dir: &Path, change: impl FnOnce(&str) -> String) {
    let path = dir.join("manifest.toml");
    let text = std::fs::read_to_string(&path).expect("manifest");
    let changed = change(&text);
    assert_ne!(text, changed, "the change changes something");
    std::fs::write(path, changed).expect("write");
}

#[test]
fn manifests_that_contradict_themselves() {
    let cases: &[(&str, &str, &str)] = &[
        ("schema = 1", "schema = 2", "schema 2"),
        ("schema = 1", "scheme = 1", "line 1: unknown key `scheme`; did you mean `schema`?"),
        ("[weights]", "[weihgts]", "line 6: unknown key `weihgts`; did you mean `weights`?"),
        ("sha256 = ", "sha265 = ", "line 8: unknown key `sha265`; did you mean `sha256`?"),
        ("patch = ", "frobnicate = ", "unknown key `frobnicate`; valid here: patch, aggregation"),
        ("name = \"made\"", "name = \"Made\"", "name"),
        ("status = \"research\"", "status = \"approved\"", "line 4"),
        ("file = \"weights.safetensors\"", "file = \"../weights.safetensors\"", "weights.file"),
        ("file = \"weights.safetensors\"", "file = \"/etc/x.safetensors\"", "weights.file"),
        ("sha256 = \"", "sha256 = \"0", "64 hexadecimal"),
        ("parameters = 310393", "parameters = 310394", "the architecture has 310393"),
        ("dims = [4,", "dims = [5,", "parameters"),
        ("in_channels = 1", "in_channels = 0", "in_channels"),
        ("dims = [4,", "dims = [99999999,", "dims[0]"),
        ("patch = [32,", "patch = [33,", "multiple of 16"),
        ("spacing = [1.5,", "spacing = [-1.5,", "spacing"),
        ("spacing = [1.5,", "spacing = [nan,", "spacing"),
        ("transpose = [0,", "transpose = [2,", "transpose"),
        ("mirror_axes = [0, 1, 2]", "mirror_axes = [0, 0, 2]", "mirror_axes"),
        ("mirror_axes = [0, 1, 2]", "mirror_axes = [0, 1, 3]", "mirror_axes"),
        ("value = 4\n", "value = 5\n", "1 to 4"),
        ("value = 4\n", "value = 3\n", "3 is used twice"),
        ("name = \"class_4\"", "name = \"class_3\"", "twice"),
        ("value = \"85756007\"", "value = \"857560070123456789\"", "DICOM"),
        ("keep_largest = []", "keep_largest = [[9]]", "label 9"),
        ("keep_largest = []", "keep_largest = []\nconnectivity = 18", "connectivity"),
        ("scheme = \"z_score\"", "scheme = \"ct\"\nlower = 0\nupper = 1\nmean = 0\nsd = 0", "statistics"),
        ("scheme = \"z_score\"", "scheme = \"zscore\"", "line"),
        (
            "[[preprocessing.channels]]",
            "[[preprocessing.channels]]\nname = \"CT\"\n[preprocessing.channels.normalization]\nscheme = \"none\"\n\n[[preprocessing.channels]]",
            "2 preprocessing.channels",
        ),
        ("schema = 1", "schema = ", "line 1"),
    ];
    for (from, to, needle) in cases {
        let (_folder, dir) = tiny();
        edit(&dir, |text| text.replacen(from, to, 1));
        let fault = Generation::open(&dir).expect_err(to);
        assert_eq!(fault.code, Code::ModelManifest, "{to}: {fault}");
        assert!(fault.detail.contains(needle) && fault.detail.contains("manifest.toml"), "{to}: {fault}");
    }
}

#[test]
fn folders_with_missing_or_other_files() {
    let (_folder, dir) = tiny();
    let weights = dir.join("weights.safetensors");
    let whole = std::fs::read(&weights).expect("file");
    let honest = std::fs::read_to_string(dir.join("manifest.toml")).expect("manifest");
    let old = Generation::open(&dir).expect("opens").manifest.weights.sha256;
    let code = |dir: &Path| Generation::open(dir).and_then(|g| g.verify(&mut |_, _| ())).map_err(|f| f.code);
    assert_eq!(code(&dir), Ok(()));

    // Any byte of the weights, header or numbers.
    for at in [0, 9, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&weights, &changed).expect("write");
        assert_eq!(code(&dir), Err(Code::ModelDigest), "byte {at}");
    }
    // Its size is looked at when the folder is opened.
    for (what, bytes) in [
        ("a byte short", whole[..whole.len() - 1].to_vec()),
        ("a byte long", [&whole[..], b"x"].concat()),
        ("empty", Vec::new()),
        ("a header of 2^64 - 1 bytes", [&[0xff; 8], &whole[8..]].concat()),
    ] {
        std::fs::write(&weights, bytes).expect("write");
        assert_eq!(Generation::open(&dir).expect_err(what).code, Code::ModelDigest, "{what}");
    }

    // Other weights under an honest digest: the names are not those of the architecture.
    let text = String::from_utf8_lossy(&whole[8..8 + 200]).into_owned();
    let other = [&whole[..8], text.replacen("conv1", "conv9", 1).as_bytes(), &whole[208..]].concat();
    let files: [(&str, Vec<u8>); 3] = [
        ("another name", other),
        ("another type", [&whole[..8], text.replacen("F32", "I32", 1).as_bytes(), &whole[208..]].concat()),
        ("a header that is no JSON", [&whole[..8], &[b'x'; 200], &whole[208..]].concat()),
    ];
    for (what, bytes) in files {
        let sha: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        std::fs::write(&weights, &bytes).expect("write");
        std::fs::write(dir.join("manifest.toml"), honest.replace(&old, &sha)).expect("write");
        assert_eq!(code(&dir), Err(Code::ModelMismatch), "{what}");
    }

    std::fs::write(dir.join("manifest.toml"), &honest).expect("write");
    std::fs::remove_file(&weights).expect("remove");
    assert_eq!(code(&dir), Err(Code::ModelMissing), "no weights");
    std::fs::create_dir(&weights).expect("folder");
    assert_eq!(code(&dir), Err(Code::ModelDigest), "a folder as weights");
    std::fs::write(dir.join("manifest.toml"), [0xff, 0xfe]).expect("write");
    assert_eq!(code(&dir), Err(Code::ModelManifest), "not text");
    std::fs::remove_file(dir.join("manifest.toml")).expect("remove");
    assert_eq!(code(&dir), Err(Code::ModelMissing), "no manifest");
    assert_eq!(code(&dir.join("nowhere")), Err(Code::ModelMissing), "no folder");
}

#[test]
fn the_digest_names_everything_that_changes_a_result_and_nothing_else() {
    let (_folder, dir) = tiny();
    let before = Generation::open(&dir).expect("opens").digest;
    let after = |from: &str, to: &str| {
        let (_folder, dir) = tiny();
        edit(&dir, |text| text.replacen(from, to, 1));
        Generation::open(&dir).expect(to).digest
    };
    assert_eq!(after("importer = \"stunetd", "importer = \"another stunetd"), before);
    for (from, to) in [
        ("spacing = [1.5,", "spacing = [1.6,"),
        ("aggregation = \"softmax\"", "aggregation = \"logits\""),
        ("orientation = \"as_stored\"", "orientation = \"ras\""),
        ("status = \"research\"", "status = \"clinical\""),
        ("version = \"1\"", "version = \"2\""),
        ("[2, 2, 2], [1, 1, 2]]", "[2, 2, 2], [2, 1, 2]]"),
        ("sha256 = \"", "sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\" # "),
    ] {
        assert_ne!(after(from, to), before, "{to}");
    }
}

fn stunetd(arguments: &[&str]) -> (Option<i32>, Json) {
    let out = Command::new(env!("CARGO_BIN_EXE_stunetd")).args(arguments).output().expect("stunetd");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    (out.status.code(), serde_json::from_str(&text).unwrap_or(Json::String(text)))
}

#[test]
fn the_verbs_and_their_json() {
    let folder = tempfile::tempdir().expect("folder");
    let models = folder.path().join("models");
    let (root, out) = (models.display().to_string(), models.join("tiny").display().to_string());
    let source = golden("stunet/tiny.model").expect("in tests/goldens").display().to_string();
    let (code, made) = stunetd(&["model", "import", &source, "--out", &out, "--modality", "CT", "--model-version", "2026.1", "--json"]);
    assert_eq!((code, &made["manifest"]["version"], made["warnings"].as_array().map(Vec::len)), (Some(0), &"2026.1".into(), Some(1)));
    assert_eq!(made["manifest"]["scope"]["modality"], serde_json::json!(["CT"]));
    let (code, again) = stunetd(&["model", "import", &source, "--out", &out, "--json"]);
    assert_eq!((code, &again["error"]["code"]), (Some(1), &"model.already_exists".into()));

    let (code, info) = stunetd(&["model", "info", &out, "--json"]);
    assert_eq!(code, Some(0));
    assert_eq!((&info["digest"], &info["manifest"]), (&made["digest"], &made["manifest"]));
    assert_eq!((&info["divisor"], &info["size"]), (&serde_json::json!([16, 16, 32]), &Json::Null));
    let (code, text) = stunetd(&["model", "info", &out]);
    assert!(code == Some(0) && text.as_str().is_some_and(|t| t.contains("310393 parameters") && t.contains("class_4")), "{text}");

    let (code, verified) = stunetd(&["model", "verify", &out, "--json"]);
    assert_eq!((code, &verified["valid"], &verified["digest"]), (Some(0), &true.into(), &made["digest"]));

    // A second model that is broken is listed with its reason; hidden and foreign folders are not.
    for name in ["broken", ".stunetd-1-0.part", "notes"] {
        std::fs::create_dir(models.join(name)).expect("folder");
    }
    std::fs::write(models.join("broken/manifest.toml"), "schema = 1\nnmae = 1\n").expect("write");
    std::fs::write(models.join(".stunetd-1-0.part/manifest.toml"), "").expect("write");
    let (code, listed) = stunetd(&["model", "list", &root, "--json"]);
    assert_eq!(code, Some(1));
    let rows = listed["models"].as_array().expect("models");
    assert_eq!(rows.len(), 2, "{listed}");
    assert_eq!(rows[0]["error"]["code"], "model.bad_manifest");
    assert_eq!((&rows[1]["name"], &rows[1]["labels"], &rows[1]["status"]), (&"tiny".into(), &4.into(), &"research".into()));
    assert_eq!(list(&models).expect("lists").len(), 2);
    assert_eq!(stunetd(&["model", "list", &out, "--json"]).1["models"].as_array().map(Vec::len), Some(1));
    assert_eq!(stunetd(&["model", "list", &format!("{root}/nowhere"), "--json"]).1["error"]["code"], "model.missing");

    let weights = models.join("tiny/weights.safetensors");
    let mut bytes = std::fs::read(&weights).expect("file");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    std::fs::write(&weights, bytes).expect("write");
    let (code, verified) = stunetd(&["model", "verify", &out, "--json"]);
    assert_eq!((code, &verified["error"]["code"]), (Some(1), &"model.digest_mismatch".into()));
    let (code, fault) = stunetd(&["model", "info", &format!("{root}/notes"), "--json"]);
    assert_eq!((code, &fault["error"]["code"]), (Some(1), &"model.missing".into()));
    assert!(fault["error"]["action"].as_str().is_some_and(|a| a.contains("stunetd model import")));
    let (code, fault) = stunetd(&["model", "retire", "--json"]);
    assert_eq!((code, &fault["error"]["code"]), (Some(2), &"config.not_available".into()));
}
