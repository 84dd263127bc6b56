//! `stunetd model activate`, `rollback`, `approve` and `list --config` with the real network, and no daemon.

use crate::support::schema;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use stunetd::ledger::{Limits, Options, Reader, SqliteLedger, SqliteReader, first_broken};
use stunetd::sys::clock::SystemClock;

struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().expect("folder") };
        std::fs::create_dir(site.path("incoming")).expect("folder");
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let text = format!(
            "state = {:?}\n[[watch]]\npath = {:?}\n[model]\npath = {demo:?}\ndevice = \"cpu\"\n[output]\npath = {:?}\n",
            site.path("state"),
            site.path("incoming"),
            site.path("out")
        );
        std::fs::write(site.path("stunetd.toml"), text).expect("written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The exit code and the document.
    fn model(&self, arguments: &[&str]) -> (i32, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        command.arg("model").args(arguments).arg("--config").arg(self.path("stunetd.toml")).arg("--json");
        let output = command.output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr);
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {told}"));
        (output.status.code().expect("code"), document)
    }

    fn roles(&self) -> Vec<(String, String)> {
        let (code, listed) = self.model(&["list"]);
        assert_eq!(code, 0, "{listed}");
        schema::conforms("model-list", &listed);
        let text = |model: &Value, key: &str| model[key].as_str().expect("text").to_owned();
        listed["models"].as_array().expect("list").iter().map(|m| (text(m, "name"), text(m, "role"))).collect()
    }
}

#[test]
fn people_bring_generations_into_service_and_out_of_it() {
    let site = Site::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let other = site.path("other");
    std::fs::create_dir(&other).expect("folder");
    std::fs::copy(demo.join("weights.safetensors"), other.join("weights.safetensors")).expect("weights");
    let manifest = std::fs::read_to_string(demo.join("manifest.toml")).expect("manifest").replacen("\"demo\"", "\"other\"", 1);
    std::fs::write(other.join("manifest.toml"), manifest).expect("manifest");
    let folder = other.to_str().expect("UTF-8");
    let activate = ["activate", folder, "--by", "Dr. Ada", "--reason", "a trial"];

    // Before the daemon's first start there is no ledger to write into.
    assert_eq!(site.model(&activate).1["error"]["code"], "ledger.missing");
    let options = Options { state: site.path("state"), limits: Limits::default(), clock: Arc::new(SystemClock), who: "test".into() };
    SqliteLedger::open(&options).expect("a ledger").0.close().expect("closed");

    let (code, activated) = site.model(&activate);
    assert_eq!(code, 0, "{activated}");
    schema::conforms("model-changed", &activated);
    let digest = activated["generation"].as_str().expect("digest").to_owned();
    let pair = |name: &str, role: &str| (name.to_owned(), role.to_owned());
    assert_eq!(site.roles(), [pair("demo", "previous"), pair("other", "active")]);
    // The canary was recorded, twice the same.
    assert_eq!(std::fs::read_dir(site.path("state/training/canaries").join(&digest)).expect("folder").count(), 1);
    assert_eq!(site.model(&["activate", &digest, "--by", "Dr. Ada"]).1["error"]["code"], "ledger.not_allowed");

    let (code, back) = site.model(&["rollback", "--reason", "a trial"]);
    assert_eq!(code, 0, "{back}");
    schema::conforms("model-changed", &back);
    assert_eq!(back["generation"], back["slot"]);
    assert_eq!(site.roles(), [pair("demo", "active"), pair("other", "withdrawn")]);
    assert_eq!(site.model(&["rollback"]).1["error"]["code"], "ledger.not_allowed");

    let (code, approved) = site.model(&["approve", &digest[..12], "--by", "Dr. Ada", "--document", "QM 7"]);
    assert_eq!(code, 0, "{approved}");
    schema::conforms("model-changed", &approved);
    let (code, activated) = site.model(&["activate", approved["generation"].as_str().expect("digest"), "--by", "Dr. Ada"]);
    assert_eq!(code, 0, "{activated}");
    assert_eq!(site.model(&["activate", &digest, "--by", "Dr. Ada"]).1["error"]["code"], "model.not_promotable");
    let unknown = site.model(&["activate", &"ab".repeat(32), "--by", "Dr. Ada"]).1;
    assert_eq!(unknown["error"]["code"], "model.unknown_generation");

    let reader = SqliteReader::open(&site.path("state"), Arc::new(SystemClock)).expect("readable").expect("there");
    let audit = reader.audit().expect("read");
    assert_eq!((audit.len(), first_broken(&audit)), (4, None));
    assert!(audit[2].who.starts_with("Dr. Ada") && audit[2].detail.contains("QM 7"), "{audit:?}");
}
