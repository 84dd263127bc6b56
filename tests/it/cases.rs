//! `stunetd cases` and the folders of curated cases: the real program, with a daemon.

use crate::jobs::Place;
use crate::need;
use crate::receive::peers::send;
use crate::serve::daemon::free_port;
use crate::support::ct::Ct;
use crate::support::on_path;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use stunetd::fault::Code;
use stunetd::ledger::{AuditEvent, CaseRow, CaseState, PatientRole, Reader, SqliteReader, first_broken};
use stunetd::sys::clock::{Stopwatch, SystemClock};
use stunetd::training::store::{Store, registry};

/// A place whose daemon takes cases.
fn place(keep_studies: usize) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("curated")).expect("folder");
    let config = std::fs::read_to_string(place.path("stunetd.toml")).expect("read");
    let training = format!("[training]\nenabled = true\ncurated = [\"curated\"]\nkeep_studies = {keep_studies}\nwindows = []\n");
    std::fs::write(place.path("stunetd.toml"), config + &training).expect("written");
    place
}

fn phantom(seed: u64, folder: &Path) {
    let (seed, mut command) = (seed.to_string(), Command::new(env!("CARGO_BIN_EXE_stunetd")));
    command.arg("demo").arg(folder).args(["--seed", &seed, "--small", "--labels"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("stunetd").success());
}

fn list(place: &Place) -> Vec<Value> {
    place.json("cases-list", 0, &["cases", "list"])["cases"].as_array().expect("cases").clone()
}

/// What the ledger has, without starting a program for every look.
fn rows(place: &Place) -> Vec<CaseRow> {
    let reader = SqliteReader::open(&place.path("state"), Arc::new(SystemClock)).expect("read");
    reader.map(|reader| reader.cases().expect("cases")).unwrap_or_default()
}

/// How many cases are in each of these states.
fn count(place: &Place, states: [CaseState; 3]) -> [usize; 3] {
    let rows = rows(place);
    states.map(|state| rows.iter().filter(|row| row.state == state).count())
}

/// Waits, longer than `eventually`: what makes cases gives way to every other test on the machine.
fn in_time(what: &str, mut condition: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !condition() {
        assert!(watch.seconds() < 1800.0, "not within half an hour: {what}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn of_state<'c>(cases: &'c [Value], state: &str) -> Vec<&'c Value> {
    cases.iter().filter(|case| case["state"] == state).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn joined(value: &Value) -> String {
    value.as_array().expect("names").iter().map(text).collect::<Vec<_>>().join(",")
}

#[test]
fn folders_become_cases_that_a_reader_decides_about() {
    let place = place(1);
    std::fs::create_dir(place.path("curated/letters")).expect("folder");
    std::fs::write(place.path("curated/letters/letter.txt"), b"Dear colleague").expect("written");
    phantom(1, &place.path("curated/one"));
    Ct::new(1, 9).write(&place.path("incoming"));
    let daemon = place.daemon();
    in_time("all are looked at", || count(&place, [CaseState::Pending, CaseState::Rejected, CaseState::Accepted]) == [1, 1, 1]);
    let cases = list(&place);
    let rejected = of_state(&cases, "rejected")[0];
    assert_eq!(rejected["problem"]["code"], Code::CasesNoLabels.name());
    assert!(text(&rejected["folder"]).ends_with("curated/letters"));
    let kept = of_state(&cases, "accepted")[0];
    assert_eq!((&kept["kind"], kept["labels"].is_null()), (&"unlabelled".into(), true));
    let pending = of_state(&cases, "pending")[0];
    let (id, classes) = (text(&pending["id"]).to_string(), joined(&pending["classes"]));
    assert!(["training", "locked"].contains(&text(&pending["role"])));
    let shown = place.json("cases-show", 0, &["cases", "show", &id]);
    let changed: Vec<f64> = shown["record"]["changed"].as_object().expect("shares").values().filter_map(Value::as_f64).collect();
    assert!(changed.len() == 1 && changed[0] > 0.05 && changed[0] < 1.0, "the model was asked: {changed:?}");
    assert_eq!(shown["signoffs"].as_array().map(Vec::len), Some(0));

    // What does not hold is not written down.
    let accept = |classes: &str, more: &[&str], exit, name| {
        let words =
            [&["cases", "accept", &id, "--reader", "Dr. A. Reader", "--origin", "ai_corrected", "--classes", classes], more].concat();
        place.json(name, exit, &words)
    };
    assert_eq!(accept("liver", &[], 1, "error")["error"]["code"], Code::CasesSignOff.name());
    assert_eq!(accept("lever", &[], 1, "error")["error"]["code"], Code::CasesSignOff.name());
    let confirm = joined(&pending["implausible"]);
    let more = if confirm.is_empty() { vec![] } else { vec!["--confirm", &confirm] };
    assert_eq!(accept(&classes, &more, 0, "cases-changed")["state"], "accepted");
    let listed = place.json("cases-list", 0, &["cases", "list", "--state", "accepted"]);
    assert_eq!(listed["cases"].as_array().map(Vec::len), Some(2));
    let patients: u64 = listed["patients"]["liver"].as_array().expect("counts").iter().filter_map(Value::as_u64).sum();
    assert_eq!(patients, 1);
    assert_eq!(place.json("cases-changed", 0, &["cases", "withdraw", &id, "--reader", "Dr. B. Reader"])["state"], "withdrawn");
    assert_eq!(accept(&classes, &more, 1, "error")["error"]["code"], Code::CasesSignOff.name());
    assert_eq!(place.json("cases-show", 0, &["cases", "show", &id])["signoffs"].as_array().map(Vec::len), Some(2));
    assert_eq!(place.json("error", 1, &["cases", "show", "0123456789abcdef"])["error"]["code"], Code::CasesUnknown.name());
    drop(daemon);

    // The daemon comes back, and does nothing twice.
    let before = list(&place);
    let daemon = place.daemon();
    phantom(2, &place.path("curated/two"));
    in_time("the next one", || rows(&place).len() == before.len() + 1);
    drop(daemon);
    let reader = SqliteReader::open(&place.path("state"), Arc::new(SystemClock)).expect("read").expect("a ledger");
    let audit = reader.audit().expect("audit");
    assert_eq!(first_broken(&audit), None);
    let decided: Vec<&str> = audit.iter().filter(|e| e.event == AuditEvent::CaseDecided).map(|e| e.who.as_str()).collect();
    let own = stunetd::sys::person::own();
    assert_eq!(decided, [own.as_str(), own.as_str()]);
    assert!(!audit.iter().any(|e| e.detail.contains("PHANTOM") || e.detail.contains("CANARY")));

    // A person asks for what is kept of them to go. The line of the split stays: it names nobody.
    let store = Store::open(&place.path("state")).expect("store");
    let study = store.links().expect("links").into_iter().find(|link| link.patient_id == "STUNETD-PHANTOM-2").expect("a link").study;
    drop(reader);
    let purged = place.json("purge", 0, &["purge", "--study", &study]);
    assert_eq!(purged["cases"].as_array().map(Vec::len), Some(1));
    assert!(!store.links().expect("links").iter().any(|link| link.study == study));
    assert_eq!(list(&place).len(), before.len());
    let reader = SqliteReader::open(&place.path("state"), Arc::new(SystemClock)).expect("read").expect("a ledger");
    assert_eq!(reader.patients().expect("patients").len(), 3);
}

#[test]
fn two_who_are_one_person_can_not_be_on_both_sides() {
    let place = place(0);
    // Under this secret the first two are locked and the third is not.
    for seed in [4, 6, 8] {
        phantom(seed, &place.path(&format!("curated/{seed}")));
    }
    std::fs::create_dir_all(place.path("state/training")).expect("folder");
    std::fs::write(place.path("state/training/secret"), [7; 32]).expect("written");
    let daemon = place.daemon();
    in_time("all are cases", || rows(&place).len() == 3);
    let cases = list(&place);
    let sides: BTreeSet<&str> = cases.iter().map(|case| text(&case["role"])).collect();
    assert_eq!(sides, BTreeSet::from(["locked", "training"]));
    let of = |side: &str| cases.iter().filter(|case| case["role"] == side).map(|case| text(&case["id"])).collect::<Vec<_>>();
    let (training, locked) = (of("training"), of("locked"));
    let across = place.json("error", 1, &["cases", "link", training[0], locked[0]]);
    assert_eq!(across["error"]["code"], Code::CasesLeak.name());
    assert_eq!((training.len(), locked.len()), (1, 2));
    place.json("cases-changed", 0, &["cases", "link", locked[0], locked[1]]);
    drop(daemon);
    let reader = SqliteReader::open(&place.path("state"), Arc::new(SystemClock)).expect("read").expect("a ledger");
    let patients = reader.patients().expect("patients");
    let persons: BTreeSet<&str> = patients.iter().map(|p| p.person.as_str()).collect();
    assert_eq!((patients.len(), persons.len()), (3, 2));
    // The same cases, with one patient's line on the other side: nothing is trained.
    let store = Store::open(&place.path("state")).expect("store");
    let stored = store.cases().expect("cases");
    let (roles, _) = registry::split(&stored, &patients, &|_| true).expect("sides");
    assert_eq!(roles.len(), 3);
    let linked = patients.iter().find(|p| p.person != p.key).expect("a linked one").key.clone();
    let mut wrong = patients;
    for patient in wrong.iter_mut().filter(|p| p.key == linked) {
        patient.role = if patient.role == PatientRole::Locked { PatientRole::Training } else { PatientRole::Locked };
    }
    assert_eq!(registry::split(&stored, &wrong, &|_| true).expect_err("both sides").code, Code::CasesLeak);
}

#[test]
fn received_label_objects_are_cases_and_results_that_come_back_are_not() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (place, port) = (place(0), free_port());
    let config = std::fs::read_to_string(place.path("stunetd.toml")).expect("read");
    let config = config.replace("path = \"spool\"\n", "path = \"spool\"\nmin_free = \"0 B\"\nlow_free = \"0 B\"\n");
    std::fs::write(place.path("stunetd.toml"), config + &format!("[dimse]\nlisten = \"127.0.0.1:{port}\"\n")).expect("written");
    let daemon = place.daemon();
    phantom(4, &place.path("labelled"));
    send(port, &["-R", "-xe"], &place.path("labelled"));
    let waiting = [CaseState::Pending, CaseState::Accepted, CaseState::Rejected];
    in_time("a case of what was received", || count(&place, waiting) == [1, 0, 0]);
    // Another patient's images; what the daemon says of them comes back from the archive.
    phantom(6, &place.path("plain"));
    std::fs::remove_file(place.path("plain/labels.dcm")).expect("removed");
    let results = || {
        let folders = std::fs::read_dir(place.path("results")).expect("folder").flatten().map(|entry| entry.path().join("seg.dcm"));
        folders.filter(|file| file.is_file()).collect::<Vec<_>>()
    };
    in_time("the first result", || results().len() == 1);
    let first = results();
    send(port, &["-R", "-xe"], &place.path("plain"));
    in_time("the second result", || results().len() == 2);
    let second = results().into_iter().find(|file| !first.contains(file)).expect("another");
    std::fs::create_dir(place.path("back")).expect("folder");
    std::fs::copy(second, place.path("back/seg.dcm")).expect("copied");
    send(port, &["-R", "-xe"], &place.path("back"));
    in_time("it is told apart", || count(&place, waiting) == [1, 0, 1]);
    drop(daemon);
    let cases = list(&place);
    assert_eq!(of_state(&cases, "rejected")[0]["problem"]["code"], Code::CasesUnchanged.name());
    assert_eq!(Store::open(&place.path("state")).expect("store").cases().expect("cases").len(), 1);
}
