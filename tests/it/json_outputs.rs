//! Every verb's `--json`, held to its schema in `docs/json`.

use crate::need;
use crate::support::ct::Ct;
use crate::support::{Tensors, golden, relative_error, schema};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use stunetd::ledger::{Change, Ledger, Limits, Options, SqliteLedger, TrainingChange};
use stunetd::sys::clock::SystemClock;

/// The answer of the real program: one JSON document on stdout whose schema is `docs/json/NAME.schema.json`.
fn answer(name: &str, exit: i32, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_stunetd")).args(arguments).arg("--json").output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {told}");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {told}"));
    schema::conforms(name, &json);
    json
}

#[test]
fn every_verb_says_what_its_schema_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_string();
    for folder in ["ct", "phantom", "out", "incoming", "models", "models/broken"] {
        std::fs::create_dir(dir.path().join(folder)).expect("folder");
    }
    Ct::new(1, 6).write(&dir.path().join("ct"));
    Ct::new(2, 2).write(&dir.path().join("ct"));
    std::fs::write(path("ct/letter.txt"), b"Dear colleague").expect("written");
    std::fs::write(path("models/broken/manifest.toml"), b"schema = 2").expect("written");
    let demo = root.join("models/demo").to_str().expect("UTF-8").to_string();
    let config = |name: &str, model: &str| {
        let text = format!(
            "state = \"state\"\n[[watch]]\npath = \"incoming\"\n[model]\npath = {model:?}\ndevice = \"cpu\"\n[output]\npath = \"out\"\n[intake]\nquiet = \"1 s\"\n"
        );
        std::fs::write(path(name), text).expect("written");
        path(name)
    };
    let (good, bad) = (config("good.toml", &demo), config("bad.toml", "absent"));
    std::fs::write(path("wrong.toml"), b"[intake]\nquite = \"1 s\"\nrescan = 7\n").expect("written");
    let tiny = golden("stunet/tiny.model").expect("in tests/goldens").to_str().expect("UTF-8").to_string();
    let (models, made, out, ct) = (path("models"), path("models/tiny"), path("out"), path("ct"));

    let segment = ["segment", &ct, "--model", &demo, "--out", &out, "--device", "cpu", "--format", "seg,nifti,labelmap,preview"];
    let first = answer("segment", 1, &segment);
    assert_eq!((&first["refused"][0]["code"], &first["ignored"]["input.not_dicom"]), (&"series.too_few_slices".into(), &1.into()));
    let stages: BTreeSet<_> = first["results"][0]["seconds"].as_object().expect("stages").keys().map(String::as_str).collect();
    assert_eq!(stages, BTreeSet::from(["read", "prepare", "segment", "finish", "deliver"]));
    let again = answer("segment", 1, &segment);
    assert_eq!(again["results"][0]["outcome"], "already_published");
    assert_eq!(again["results"][0]["manifest"], first["results"][0]["manifest"]);

    assert_eq!(answer("inspect", 1, &["inspect", &ct])["rejected"][0]["code"], "series.too_few_slices");
    let imported = answer("model-info", 0, &["model", "import", &tiny, "--out", &made]);
    assert_eq!(answer("model-info", 0, &["model", "info", &made])["manifest"], imported["manifest"]);
    answer("model-info", 0, &["model", "info", &demo]);
    answer("model-verify", 0, &["model", "verify", &made]);
    let listed = answer("model-list", 1, &["model", "list", &models]);
    assert_eq!(listed["models"].as_array().map(Vec::len), Some(2));
    answer("doctor", 0, &["doctor", "--config", &good]);
    let sick = answer("doctor", 78, &["doctor", "--config", &bad]);
    let failed: Vec<_> = sick["checks"].as_array().expect("list").iter().filter(|c| c["verdict"] == "fail").collect();
    assert_eq!((failed.len(), &failed[0]["code"]), (1, &"model.missing".into()));
    let rules = "[[select]]\nname = \"short\"\nslices = { max = 5 }\n[[select]]\nname = \"rest\"\npriority = \"stat\"\n";
    let text = std::fs::read_to_string(&good).expect("configuration");
    std::fs::write(path("rules.toml"), text + rules).expect("written");
    let inspected = answer("inspect", 1, &["inspect", &ct, "--config", &path("rules.toml")]);
    let told = &inspected["volumes"][0]["selection"];
    assert_eq!(
        (&told["verdict"], &told["rule"], &told["model"], &told["priority"]),
        (&"selected".into(), &"rest".into(), &"demo".into(), &"stat".into())
    );
    let probed = answer("check-config", 0, &["check-config", &path("rules.toml"), "--probe", &ct]);
    assert_eq!(probed["probe"]["series"][0]["selection"], *told);
    assert_eq!(probed["probe"]["rejected"][0]["code"], "series.too_few_slices");
    std::fs::write(path("none.toml"), std::fs::read_to_string(&good).expect("configuration") + &rules[..46]).expect("written");
    let none = answer("inspect", 1, &["inspect", &ct, "--config", &path("none.toml")]);
    let told = &none["volumes"][0]["selection"];
    assert_eq!((&told["code"], &told["misses"][0]["condition"]), (&"select.no_rule".into(), &"slices".into()));
    // The watched folder is empty.
    let watched = answer("check-config", 0, &["check-config", &good, "--probe"]);
    assert_eq!(watched["probe"]["series"].as_array().map(Vec::len), Some(0));
    answer("check-config", 0, &["check-config", &good]);
    let mistakes = answer("check-config", 78, &["check-config", &path("wrong.toml")]);
    assert_eq!(mistakes["mistakes"].as_array().map(Vec::len), Some(2));
    answer("demo", 0, &["demo", &path("phantom")]);
    for failing in [
        &["segment", &ct, "--model", &made, "--out", &path("ct/letter.txt")][..],
        &["inspect", &path("absent")],
        &["model", "verify", &path("absent")],
        &["doctor", "--repare"],
        &["jobs", "list"],
    ] {
        let exit = Command::new(env!("CARGO_BIN_EXE_stunetd")).args(failing).output().expect("runs").status.code().expect("code");
        assert!(exit > 0);
        answer("error", exit, failing);
    }
}

#[test]
fn training_verbs_say_what_their_schemas_allow() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().expect("folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_string();
    std::fs::create_dir(path("incoming")).expect("folder");
    let demo = root.join("models/demo").to_str().expect("UTF-8").to_string();
    let shipped = std::fs::read_to_string(root.join("config/change-plan.toml")).expect("plan");
    let text = format!("state = \"state\"\n[[watch]]\npath = \"incoming\"\n[model]\npath = {demo:?}\n[training]\nplan = \"plan.toml\"\n");
    std::fs::write(path("stunetd.toml"), text).expect("written");
    let config = path("stunetd.toml");
    let (status, history) = (["train", "status", "--config", &config], ["train", "history", "--config", &config]);
    assert_eq!(answer("error", 74, &status)["error"]["code"], "ledger.missing");

    let limits = Limits { suspect_after: 2, park_after: 3 };
    let options = Options { state: dir.path().join("state"), limits, clock: Arc::new(SystemClock), who: "test".into() };
    let (ledger, _) = SqliteLedger::open(&options).expect("ledger");
    // Without a plan, and with one that this process could change.
    assert_eq!(answer("train-status", 0, &status)["waits_for"]["code"], "training.plan_refused");
    std::fs::write(path("plan.toml"), &shipped).expect("written");
    assert_eq!(answer("train-status", 0, &status)["waits_for"]["code"], "training.plan_refused");
    // For a demonstration it may be; but it names no class of which more is to be known, and then there are no cases.
    let demonstration = shipped.replace("demonstration = false", "demonstration = true");
    std::fs::write(path("plan.toml"), &demonstration).expect("written");
    assert_eq!(answer("train-status", 0, &status)["waits_for"]["code"], "training.plan_refused");
    std::fs::write(path("plan.toml"), demonstration.clone() + "[[classes]]\nvalue = 77\ntarget = true\n").expect("written");
    assert_eq!(answer("train-status", 0, &status)["waits_for"]["code"], "training.plan_refused", "the model has no such class");
    std::fs::write(path("plan.toml"), demonstration + "[[classes]]\nvalue = 3\ntarget = true\n").expect("written");
    let told = answer("train-status", 0, &status);
    assert_eq!(
        (&told["waits_for"]["code"], &told["run"], &told["plan"]["mode"]),
        (&"training.too_few_cases".into(), &Value::Null, &"manual".into())
    );
    let targets: Vec<_> = told["cases"]["classes"].as_array().expect("classes").iter().filter(|c| c["target"] == true).collect();
    assert_eq!((targets.len(), &targets[0]["name"], &targets[0]["locked"]), (1, &"liver".into(), &0.into()));
    assert_eq!(answer("train-history", 0, &history)["runs"], serde_json::json!([]));
    let begin = TrainingChange::BeginRun {
        slot: "a".repeat(64),
        base: "a".repeat(64),
        serving: "a".repeat(64),
        plan: "b".repeat(64),
        steps: 250,
        who: "test".into(),
    };
    ledger.commit(vec![Change::Training(begin)]).expect("begun");
    let told = answer("train-status", 0, &status);
    assert_eq!((&told["run"]["run"], &told["run"]["state"], &told["run"]["steps"]), (&1.into(), &"queued".into(), &250.into()));
    assert_eq!(answer("train-history", 0, &history)["runs"][0], told["run"]);
}

#[test]
fn forward_gives_the_reference_network_s_numbers() {
    let dir = tempfile::tempdir().expect("folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_string();
    let file = need!(golden("stunet/tiny_forward.safetensors"), "golden not here");
    let tiny = golden("stunet/tiny.model").expect("in tests/goldens").to_str().expect("UTF-8").to_string();
    let reference = Tensors::open(&file);
    let (shape, values) = reference.f32("input");
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes).expect("tensor");
    safetensors::serialize_to_file([("input", view)], None, Path::new(&path("x"))).expect("written");
    answer("model-info", 0, &["model", "import", &tiny, "--out", &path("tiny")]);
    for (precision, tolerance) in [("f32", 1e-5), ("f64", 1e-11)] {
        let (model, x, y) = (path("tiny"), path("x"), path(precision));
        let files = ["model", "forward", "--model", &model, "--input", &x, "--output", &y, "--precision", precision, "--all-heads"];
        assert_eq!(answer("model-forward", 0, &files)["precision"], precision);
        let found = Tensors::open(Path::new(&y));
        assert_eq!(found.names(), ["output.0", "output.1", "output.2", "output.3", "output.4"]);
        // The golden file thins the largest f64 output out.
        for name in found.names().into_iter().filter(|name| reference.has(&format!("{precision}/{name}"))) {
            let (got, want) = (found.get(&name), reference.get(&format!("{precision}/{name}")));
            assert_eq!(got.shape, want.shape, "{name}");
            let error = relative_error(got.values, &want.values);
            assert!(error <= tolerance, "{precision} {name}: {error:e}");
        }
    }
    let refused =
        answer("error", 1, &["model", "forward", "--model", &path("tiny"), "--input", &path("tiny/manifest.toml"), "--output", &path("z")]);
    assert_eq!(refused["error"]["code"], "model.bad_input");
    assert!(!Path::new(&path("z")).exists());
}
