//! `stunetd purge`: the real program removes all that there is of a study or a patient, and nothing else.

use crate::jobs::Place;
use crate::support::ct::Ct;
use crate::support::eventually;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use stunetd::dicom::guard::Limits as FileLimits;
use stunetd::dicom::read_identity;
use stunetd::intake::spool::Spool;
use stunetd::ledger::*;
use stunetd::pipeline::reconcile::{damaged_of, remove_damaged};
use stunetd::sys::clock::{Clock, SystemClock};

fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.is_file() && std::fs::read(&path).expect("file").windows(text.len()).any(|w| w == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_study_or_a_patient_is_removed_and_a_line_without_either_stays() {
    let place = Place::new();
    std::fs::create_dir(place.path("share")).expect("folder");
    let config = std::fs::read_to_string(place.path("stunetd.toml")).expect("read");
    let share = "\n[[destination]]\nname = \"share\"\nkind = \"folder\"\naccepts = \"research\"\npath = \"share\"\n";
    std::fs::write(place.path("stunetd.toml"), config + share).expect("written");
    let fed: Vec<Ct> = (1..=3).map(|number| Ct::new(number, 4)).collect();
    fed.iter().for_each(|ct| ct.write(&place.path("incoming")));
    let daemon = place.daemon();
    let folders = |name: &str| {
        let entries =
            std::fs::read_dir(place.path(name)).expect("folder").map(|e| e.expect("entry").file_name().into_string().expect("name"));
        entries.filter(|name| !name.starts_with('.')).count()
    };
    eventually("all are delivered", || folders("share") == 3);
    eventually("and written down", || place.json("jobs-list", 0, &["jobs", "list"])["jobs"].as_array().map(Vec::len) == Some(0));
    // The ledger is the daemon's.
    let study = place.json("jobs-show", 0, &["jobs", "show", "1"])["job"]["series"]["study"].as_str().expect("a UID").to_string();
    assert_eq!(place.json("error", 74, &["purge", "--study", &study])["error"]["code"], "ledger.in_use");
    drop(daemon);
    std::fs::remove_dir_all(place.path("incoming")).expect("removed");
    std::fs::create_dir(place.path("incoming")).expect("folder");

    assert_eq!(place.json("error", 1, &["purge", "--study", "1.2.3"])["error"]["code"], "job.unknown");
    assert_eq!(place.json("error", 2, &["purge"])["error"]["code"], "config.usage");
    let purged = place.json("purge", 0, &["purge", "--study", &study]);
    assert_eq!((&purged["jobs"], &purged["folders"]), (&1.into(), &2.into()));
    assert_eq!((folders("results"), folders("share")), (2, 2));
    assert_eq!(place.json("jobs-list", 0, &["jobs", "list", "--all"])["jobs"].as_array().map(Vec::len), Some(2));

    // The rest is of one patient, whose ID comes over standard input.
    let patient = |id: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        command.args(["purge", "--patient", "-", "--config"]).arg(place.path("stunetd.toml")).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::null()).spawn().expect("started");
        writeln!(child.stdin.take().expect("a pipe"), "{id}").expect("written");
        child.wait().expect("ended").code()
    };
    assert_eq!(patient("SOMEBODY"), Some(1));
    assert_eq!(folders("results"), 2);
    assert_eq!(patient("CANARY-ID"), Some(0));
    assert_eq!((folders("results"), folders("share")), (0, 0));
    assert_eq!(files_with(place.path("").as_path(), "CANARY"), Vec::<PathBuf>::new());
    let reader = SqliteReader::open(&place.path("state"), Arc::new(SystemClock)).expect("read").expect("a ledger");
    let lines: Vec<Entry> = reader.journal(None).expect("read").into_iter().filter(|e| e.event == Event::Purged).collect();
    assert_eq!((lines.len(), &lines[0].who), (3, &stunetd::sys::person::own()));
    let told = lines[0].problem.as_ref().expect("words").detail.clone();
    assert!(told.contains("1 jobs") && !told.contains(&study), "{told}");
}

/// Puts a series where received ones lie, as a process does that dies before the ledger hears of it.
fn spool(place: &Place, ct: &Ct) -> (PathBuf, String) {
    let folder = tempfile::tempdir().expect("folder");
    ct.write(folder.path());
    let spool = Spool::open(&place.path("spool"), 1 << 20).expect("a spool");
    let (mut to, mut study) = (PathBuf::new(), String::new());
    for entry in std::fs::read_dir(folder.path()).expect("folder") {
        let path = entry.expect("entry").path();
        let identity = read_identity(&path, &FileLimits::default()).expect("an object");
        let mut incoming = spool.begin().expect("a place");
        incoming.write(&std::fs::read(&path).expect("file")).expect("written");
        to = incoming.commit(&identity).expect("kept").path;
        study = identity.study_uid.to_string();
    }
    (to.parent().expect("its folder").to_path_buf(), study)
}

#[test]
fn nothing_is_left_of_what_the_ledger_forgot() {
    let place = Place::new();
    let (folder, study) = spool(&place, &Ct::new(1, 4));
    let check = |name: &str, exit: i32, verb: &[&str]| {
        let found = place.json("doctor", exit, verb);
        let checks = found["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|c| c["name"] == name).expect("this check")
    };
    let counts = || place.json("jobs-list", 0, &["jobs", "list"])["counts"].clone();
    let daemon = place.daemon();
    eventually("it is done", || counts()["done"] == 1);
    drop(daemon);
    // The start before took it in.
    assert!(check("received", 0, &["doctor"])["found"].as_str().expect("words").starts_with("4 acknowledged"));

    // Its result is damaged and set aside; then the ledger breaks and is begun anew, and somebody leaves a note in the spool.
    let seg = files_with(&place.path("results"), "CANARY").remove(0);
    let whole = std::fs::read(&seg).expect("file");
    std::fs::write(&seg, &whole[..whole.len() - 1]).expect("written");
    assert_eq!(check("results", 0, &["doctor", "--repair"])["verdict"], "warn");
    let daemon = place.daemon();
    eventually("it is made again", || counts()["done"] == 1);
    drop(daemon);
    std::fs::write(place.path("state/ledger.sqlite"), b"no ledger".repeat(1000)).expect("written");
    std::fs::write(folder.join("note"), b"CANARY").expect("written");
    assert!(check("received", 0, &["doctor", "--repair"])["found"].as_str().expect("words").starts_with("1 files"));
    let strays = check("strays", 0, &["doctor"]);
    assert!(strays["found"].as_str().expect("words").starts_with("1 results are no job's") && strays["verdict"] == "warn", "{strays}");
    let known = SqliteReader::open(&place.path("state"), Arc::new(SystemClock)).expect("read").expect("a ledger").received(0, 9);
    assert_eq!(known.expect("read").len(), 4);

    let purged = place.json("purge", 0, &["purge", "--study", &study]);
    assert_eq!((&purged["studies"], &purged["folders"], &purged["instances"]), (&1.into(), &2.into(), &4.into()));
    for canary in ["CANARY", &study] {
        assert_eq!(files_with(place.path("").as_path(), canary), Vec::<PathBuf>::new(), "{canary}");
    }
    // Nor does it come back: a later study is the only job.
    let daemon = place.daemon();
    Ct::new(2, 4).write(&place.path("incoming"));
    eventually("the other is done", || counts()["done"] == 1);
    drop(daemon);
    assert_eq!(place.json("jobs-list", 0, &["jobs", "list", "--all"])["jobs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn damaged_results_that_were_set_aside_go_after_their_time() {
    let output = tempfile::tempdir().expect("folder");
    for name in [".damaged-0123abcd-1", "0123abcd", ".stunetd-1-0.part"] {
        std::fs::create_dir(output.path().join(name)).expect("folder");
    }
    assert_eq!((damaged_of(".damaged-0123abcd-12"), damaged_of("0123abcd"), damaged_of(".damaged-x")), (Some("0123abcd"), None, None));
    let now = Moment::from(SystemClock.wall());
    assert_eq!(remove_damaged(output.path(), Moment(now.0 - 60_000)).expect("looked"), 0);
    assert_eq!(remove_damaged(output.path(), Moment(now.0 + 60_000)).expect("looked"), 1);
    assert_eq!(std::fs::read_dir(output.path()).expect("folder").count(), 2);
}
