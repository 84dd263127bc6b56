//! `stunetd jobs` and what `stunetd doctor` says of the ledger: the real program, with and without a daemon.

use crate::support::ct::Ct;
use crate::support::{eventually, schema};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use stunetd::dicom::SeriesKey;
use stunetd::ledger::*;
use stunetd::sys::clock::SystemClock;

pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().expect("folder") };
        for folder in ["incoming", "results"] {
            std::fs::create_dir(place.path(folder)).expect("folder");
        }
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let text = format!(
            "state = \"state\"\n[[watch]]\npath = \"incoming\"\n[intake]\nquiet = \"100 ms\"\nrescan = \"200 ms\"\n[spool]\npath = \"spool\"\n\
             [model]\npath = {model:?}\ndevice = \"cpu\"\n[output]\npath = \"results\"\nformats = [\"seg\"]\n[http]\nlisten = \"127.0.0.1:0\"\n"
        );
        std::fs::write(place.path("stunetd.toml"), text).expect("written");
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ledger(&self) -> SqliteLedger {
        let options = Options { state: self.path("state"), limits: Limits::default(), clock: Arc::new(SystemClock), who: "test".into() };
        SqliteLedger::open(&options).expect("a ledger").0
    }

    fn run(&self, exit: i32, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        let output = command.args(arguments).arg("--config").arg(self.path("stunetd.toml")).output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub fn json(&self, name: &str, exit: i32, arguments: &[&str]) -> Value {
        let text = self.run(exit, &[arguments, &["--json"]].concat());
        let document = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {text}"));
        schema::conforms(name, &document);
        document
    }

    pub fn daemon(&self) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        command.args(["serve", "--config"]).arg(self.path("stunetd.toml")).stderr(Stdio::null());
        let daemon = Daemon(command.spawn().expect("started"));
        eventually("the daemon listens", || self.path("state/control.sock").exists());
        daemon
    }
}

pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check<'d>(document: &'d Value, name: &str) -> &'d Value {
    let checks = document["checks"].as_array().expect("checks");
    checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no {name} in {document}"))
}

fn close(series: &str, input: &str, refusals: Vec<Problem>) -> Change {
    let volume = NewVolume {
        input: input.into(),
        priority: Priority::Routine,
        rule: Some("chest".into()),
        contest: None,
        result: None,
        destinations: vec!["pacs".into()],
    };
    let volumes = if input.is_empty() { vec![] } else { vec![volume] };
    let series = SeriesKey { study: "1.2.3".into(), series: series.into() };
    Change::Close(Closing { series, evidence: Evidence::Timer, print: "p".into(), volumes, refusals })
}

fn problem(code: &str) -> Problem {
    Problem { code: code.into(), detail: "In numbers: 7.".into() }
}

#[test]
fn people_see_and_change_jobs_without_a_daemon() {
    let place = Place::new();
    assert_eq!(place.json("error", 74, &["jobs", "list"])["error"]["code"], "ledger.missing");
    let ledger = place.ledger();
    let lease = Lease { owner: "w".into(), hold: std::time::Duration::from_secs(60), model: "m".into() };
    let refused = vec![problem("series.missing_slice")];
    ledger.commit(vec![close("1.2.3.1", "a", vec![]), close("1.2.3.2", "b", vec![]), close("1.2.3.3", "", refused)]).expect("durable");
    let token = ledger.claim(&lease).expect("asked").expect("a job").token;
    ledger.commit(vec![Change::Park { token, problem: problem("memory.volume_too_large") }]).expect("durable");
    let token = ledger.claim(&lease).expect("asked").expect("a job").token;
    let object = Object { file: "seg.dcm".into(), bytes: 3, sha256: "0".repeat(64) };
    let result = Published { folder: "0123abcd".into(), identity: "i".into(), objects: vec![object] };
    ledger.commit(vec![Change::Finish { token, result, destinations: vec!["pacs".into()], doubtful: false }]).expect("durable");
    ledger.close().expect("closed");

    let listed = place.json("jobs-list", 0, &["jobs", "list"]);
    assert_eq!((listed["jobs"].as_array().map(Vec::len), &listed["counts"]["done"]), (Some(2), &1.into()));
    // The second is done, but not delivered.
    assert_eq!((&listed["jobs"][1]["state"], &listed["jobs"][1]["deliveries"][0]["state"]), (&"done".into(), &"pending".into()));
    assert_eq!(place.json("jobs-list", 0, &["jobs", "list", "--all"])["jobs"].as_array().map(Vec::len), Some(2));
    assert_eq!(place.json("jobs-list", 0, &["jobs", "list", "--state", "done,queued"])["jobs"][0]["id"], 2);
    let shown = place.json("jobs-show", 0, &["jobs", "show", "2"]);
    assert_eq!((&shown["objects"][0]["file"], &shown["deliveries"][0]["state"]), (&"seg.dcm".into(), &"pending".into()));
    let explained = place.json("jobs-explain", 0, &["jobs", "explain", "1"]);
    assert!(explained["jobs"][0]["action"].as_str().expect("words").contains("host_memory"));
    let delivery = place.json("jobs-explain", 0, &["jobs", "explain", "2"])["jobs"][0]["deliveries"][0].clone();
    assert_eq!((&delivery["destination"], &delivery["attempts"]), (&"pacs".into(), &0.into()));
    let explained = place.json("jobs-explain", 0, &["jobs", "explain", "1.2.3.3"]);
    assert_eq!(
        (&explained["series"][0]["refusals"][0]["code"], explained["jobs"].as_array().map(Vec::len)),
        (&"series.missing_slice".into(), Some(0))
    );
    assert_eq!(place.json("jobs-explain", 0, &["jobs", "explain", "1.2.3"])["series"].as_array().map(Vec::len), Some(3));
    let page = place.run(0, &["jobs", "explain", "1.2.3.1"]);
    assert!(page.contains("Job 1 is parked") && page.contains("In numbers: 7.") && page.contains("next: Raise `host_memory` or"), "{page}");

    assert_eq!(place.json("jobs-changed", 0, &["jobs", "retry", "1"])["state"], "queued");
    assert_eq!(place.json("error", 1, &["jobs", "retry", "1"])["error"]["code"], "job.wrong_state");
    assert_eq!(place.json("jobs-changed", 0, &["jobs", "cancel", "1"])["state"], "cancelled");
    assert_eq!(place.json("error", 1, &["jobs", "cancel", "77"])["error"]["code"], "job.unknown");
    assert_eq!(place.json("error", 1, &["jobs", "explain", "9.9"])["error"]["code"], "job.unknown");
    let journal = place.json("jobs-show", 0, &["jobs", "show", "1"])["journal"].clone();
    let people: Vec<&str> = journal.as_array().expect("lines").iter().rev().take(2).map(|e| e["who"].as_str().expect("who")).collect();
    assert!(people.iter().all(|who| *who == stunetd::sys::person::own()), "{people:?}");
}

#[test]
fn commands_reach_the_running_daemon_and_the_rest_is_read_beside_it() {
    let place = Place::new();
    let ledger = place.ledger();
    ledger.commit(vec![close("1.2.3.1", "a", vec![])]).expect("durable");
    ledger.commit(vec![Change::Cancel { job: JobId(1), who: "anna".into() }]).expect("durable");
    ledger.close().expect("closed");
    let mut daemon = place.daemon();
    Ct::new(1, 4).write(&place.path("incoming"));
    eventually("the study is done", || place.json("jobs-list", 0, &["jobs", "list"])["counts"]["done"] == 1);
    // Its files are not there, so it is taken up and found to be outdated, maybe before the answer tells its state.
    let state = place.json("jobs-changed", 0, &["jobs", "retry", "1"])["state"].clone();
    assert!(["queued", "running", "superseded"].iter().any(|s| state == *s), "{state}");
    eventually("the daemon has looked", || place.json("jobs-list", 0, &["jobs", "list", "--all"])["counts"]["superseded"] == 1);
    assert_eq!(place.json("error", 1, &["jobs", "cancel", "9"])["error"]["code"], "job.unknown");
    // The ledger is the daemon's; a second one is refused, and so is repairing.
    let second =
        Command::new(env!("CARGO_BIN_EXE_stunetd")).args(["serve", "--config"]).arg(place.path("stunetd.toml")).output().expect("runs");
    assert_eq!(second.status.code(), Some(74), "{}", String::from_utf8_lossy(&second.stderr));
    assert_eq!(check(&place.json("doctor", 74, &["doctor", "--repair"]), "ledger")["code"], "ledger.in_use");
    assert_eq!(check(&place.json("doctor", 0, &["doctor"]), "results")["verdict"], "ok");
    daemon.0.kill().expect("killed");
    daemon.0.wait().expect("dead");
    // The socket of the dead daemon is in nobody's way.
    assert!(place.path("state/control.sock").exists());
    assert_eq!(place.json("error", 1, &["jobs", "retry", "1"])["error"]["code"], "job.wrong_state");
}

#[test]
fn doctor_finds_what_does_not_fit_and_repair_mends_it() {
    let place = Place::new();
    Ct::new(1, 4).write(&place.path("incoming"));
    Ct::new(2, 4).write(&place.path("incoming"));
    let results = || {
        let entries = std::fs::read_dir(place.path("results")).expect("folder").map(|e| e.expect("entry").path());
        let mut folders: Vec<PathBuf> = entries.filter(|p| !p.file_name().expect("name").to_string_lossy().starts_with('.')).collect();
        folders.sort();
        folders
    };
    let done = |count: u64| place.json("jobs-list", 0, &["jobs", "list"])["counts"]["done"] == count;
    let daemon = place.daemon();
    eventually("both are done", || done(2));
    drop(daemon);
    assert_eq!(check(&place.json("doctor", 0, &["doctor", "--deep"]), "results")["verdict"], "ok");

    // One result loses a byte, the other goes; and a temporary folder of a dead process lies about.
    let before = results();
    let seg = before[0].join("seg.dcm");
    let whole = std::fs::read(&seg).expect("file");
    std::fs::write(&seg, &whole[..whole.len() - 1]).expect("written");
    std::fs::remove_dir_all(&before[1]).expect("removed");
    std::fs::create_dir(place.path("results/.stunetd-4294967295-0.part")).expect("folder");
    assert_eq!(check(&place.json("doctor", 74, &["doctor"]), "results")["code"], "results.changed");
    let mended = place.json("doctor", 0, &["doctor", "--repair"]);
    assert_eq!((&check(&mended, "results")["verdict"], &check(&mended, "leftovers")["found"]), (&"warn".into(), &"1 removed".into()));
    let daemon = place.daemon();
    eventually("both are made again", || done(2));
    drop(daemon);
    // Under the same names, with the same bytes: their dates are those of the jobs.
    assert_eq!(results(), before);
    assert_eq!(std::fs::read(&seg).expect("file"), whole);

    // A damaged ledger is set aside; the folders are read anew, and what lies published counts.
    let file = place.path("state/ledger.sqlite");
    std::fs::write(&file, b"no ledger".repeat(1000)).expect("written");
    assert_eq!(check(&place.json("doctor", 74, &["doctor"]), "ledger")["code"], "ledger.corrupt");
    assert_eq!(place.json("error", 74, &["jobs", "list"])["error"]["code"], "ledger.corrupt");
    assert_eq!(check(&place.json("doctor", 0, &["doctor", "--repair"]), "results")["verdict"], "ok");
    assert!(place.path("state/ledger.sqlite.broken-1").exists());
    let daemon = place.daemon();
    eventually("both are known again", || done(2));
    drop(daemon);
    assert_eq!((results(), std::fs::read(&seg).expect("file")), (before, whole));
}

#[test]
fn what_can_not_be_used_and_what_has_to_be_hidden_is_told() {
    let place = Place::new();
    std::fs::create_dir(place.path("share")).expect("folder");
    let config = std::fs::read_to_string(place.path("stunetd.toml")).expect("read");
    let share = "\n[[destination]]\nname = \"share\"\nkind = \"folder\"\naccepts = \"research\"\npath = \"share\"\n";
    std::fs::write(place.path("stunetd.toml"), config + share).expect("written");
    std::fs::write(place.path("incoming/letter.txt"), b"Dear colleague").expect("written");
    let ct = Ct::new(1, 5);
    (0..4).for_each(|slice| ct.write_slice(&place.path("incoming"), slice));
    let daemon = place.daemon();
    let delivered = || {
        let entries = std::fs::read_dir(place.path("share")).expect("folder").map(|e| e.expect("entry").file_name());
        entries.filter(|name| !name.to_string_lossy().starts_with('.')).count()
    };
    let open = || place.json("jobs-list", 0, &["jobs", "list"])["jobs"].as_array().map(Vec::len);
    eventually("it is delivered", || delivered() == 1 && open() == Some(0));
    assert_eq!(place.json("jobs-superseded", 0, &["jobs", "list", "--superseded"])["superseded"].as_array().map(Vec::len), Some(0));
    ct.write_slice(&place.path("incoming"), 4);
    eventually("the revision is delivered", || delivered() == 2 && open() == Some(0));
    let hide = place.json("jobs-superseded", 0, &["jobs", "list", "--superseded"])["superseded"].clone();
    assert_eq!(hide.as_array().map(Vec::len), Some(1));
    assert_eq!((&hide[0]["job"], &hide[0]["by"]["revision"], &hide[0]["destinations"][0]), (&1.into(), &2.into(), &"share".into()));
    assert!(place.run(0, &["jobs", "list", "--superseded"]).contains(hide[0]["instances"][0].as_str().expect("a UID")));

    let refused = place.json("jobs-refused", 0, &["jobs", "refused"])["files"].clone();
    assert_eq!(refused.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&refused[0]["code"], &refused[0]["origin"], &refused[0]["bytes"]),
        (&"input.not_dicom".into(), &"folder".into(), &14.into())
    );
    assert!(refused[0]["path"].as_str().expect("a path").ends_with("incoming/letter.txt"), "{refused}");
    std::fs::remove_file(place.path("incoming/letter.txt")).expect("removed");
    assert!(place.json("jobs-refused", 0, &["jobs", "refused"])["files"][0]["path"].is_null());
    assert!(place.run(0, &["jobs", "refused"]).contains("input.not_dicom: "));
    drop(daemon);
}
