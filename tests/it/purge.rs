//! `stunetd purge`: the real program removes all that there is of a study or a patient, and nothing else.

use crate::jobs::Place;
use crate::support::ct::Ct;
use crate::support::eventually;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use stunetd::ledger::*;
use stunetd::sys::clock::SystemClock;

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
