//! When a series is taken: what the headers announce, what is missing, what comes late or twice, and modalities that drip.

use super::daemon::{Daemon, QUIET, World};
use crate::need;
use crate::support::ct::Ct;
use crate::support::{eventually, on_path, python_with, shared};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const CLOSED_BY_COUNT: &str = "stunetd_series_closed_total{evidence=\"count\"}";
const CLOSED_BY_TIMER: &str = "stunetd_series_closed_total{evidence=\"timer\"}";
const CLOSED_BY_PATIENCE: &str = "stunetd_series_closed_total{evidence=\"patience\"}";

/// From the last slice to the start of the job within two seconds.
#[test]
fn a_ct_whose_headers_count_it_does_not_wait() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    let series = Ct::new(1, 8).announcing(8);
    (0..7).for_each(|slice| series.write_slice(&world.incoming(), slice));
    daemon.sees_files(7.0);
    daemon.clock.advance(QUIET * 2);
    series.write_slice(&world.incoming(), 7);
    daemon.sees_files(8.0);
    assert_eq!((world.engine.calls(), daemon.metric("stunetd_series_open")), (0, 1.0), "one short of what was announced");
    daemon.clock.advance(Duration::from_millis(1900));
    eventually("the engine works", || world.engine.calls() == 1);
    assert_eq!((daemon.metric(CLOSED_BY_COUNT), daemon.metric(CLOSED_BY_TIMER)), (1.0, 0.0));
    daemon.end().expect("a clean end");
}

#[test]
fn what_lacks_a_slice_is_waited_for_longer() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    let series = Ct::new(1, 8);
    [0, 1, 2, 4, 5, 6, 7].iter().for_each(|slice| series.write_slice(&world.incoming(), *slice));
    daemon.sees_files(7.0);
    daemon.clock.advance(2 * QUIET);
    series.write_slice(&world.incoming(), 3);
    daemon.next_result();
    assert_eq!((daemon.metric(CLOSED_BY_TIMER), daemon.metric("stunetd_series_reopened_total")), (1.0, 0.0));
    // What never comes is not waited for without end.
    let gap = Ct::new(2, 8);
    [0, 1, 2, 4, 5, 6, 7].iter().for_each(|slice| gap.write_slice(&world.incoming(), *slice));
    daemon.shows("stunetd_series_refused_total{code=\"series.missing_slice\"}", 1.0);
    assert_eq!(daemon.metric(CLOSED_BY_PATIENCE), 1.0);
    daemon.end().expect("a clean end");
}

#[test]
fn one_series_by_two_routes_is_one_job() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    let (one, two) = (world.incoming().join("one"), world.incoming().join("two"));
    let series = Ct::new(1, 6);
    for route in [&one, &two] {
        std::fs::create_dir(route).expect("folder");
        series.write(route);
    }
    daemon.next_result();
    // A third copy comes late, in another transfer syntax where there is a tool for it.
    let three = world.incoming().join("three");
    std::fs::create_dir(&three).expect("folder");
    match on_path("dcmcrle") {
        Some(tool) => {
            for entry in std::fs::read_dir(&one).expect("folder") {
                let from = entry.expect("entry").path();
                let to = three.join(from.file_name().expect("name"));
                assert!(Command::new(&tool).arg(&from).arg(&to).status().expect("dcmcrle").success());
            }
        }
        None => series.write(&three),
    }
    daemon.shows(CLOSED_BY_TIMER, 2.0);
    assert_eq!(daemon.metric("stunetd_series_reopened_total"), 1.0);
    daemon.shows("stunetd_jobs{state=\"queued\"}", 0.0);
    daemon.shows("stunetd_jobs{state=\"working\"}", 0.0);
    assert_eq!((world.engine.calls(), world.results().len()), (1, 1));
    daemon.end().expect("a clean end");
}

#[test]
fn a_corrected_header_gives_a_new_object_without_the_network() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    Ct::new(1, 6).write(&world.incoming());
    let first = daemon.next_result();
    Ct::new(1, 6).of("CANARY^CORRECTED").write(&world.incoming());
    let second = daemon.next_result();
    assert_eq!((second.as_str(), world.engine.calls()), (format!("{first}-2").as_str(), 1));
    let (old, new) = (world.manifest(&first), world.manifest(&second));
    assert_eq!((&old.volume_key, &old.labels_sha256), (&new.volume_key, &new.labels_sha256));
    assert_ne!(old.outputs[0].dicom, new.outputs[0].dicom, "other UIDs");
    assert_eq!(new.replaces.map(|r| r.revision), Some(2));
    world.check_result(&second, &["manifest.json", "preview.png", "seg.dcm"]);
    let seg = std::fs::read(world.output().join(&second).join("seg.dcm")).expect("object");
    assert!(seg.windows(16).any(|w| w == b"CANARY^CORRECTED"));
    // Sent once more, and once more after a restart, it is known.
    Ct::new(1, 6).of("CANARY^CORRECTED").write(&world.incoming());
    daemon.shows("stunetd_jobs_ended_total{result=\"already_published\"}", 1.0);
    daemon.end().expect("a clean end");
    let daemon = Daemon::start(&world);
    daemon.shows(CLOSED_BY_TIMER, 1.0);
    daemon.end().expect("a clean end");
    assert_eq!((world.engine.calls(), world.results().len()), (1, 2));
}

/// The case generator's modalities, with its clock in our hands: every pause that is longer than a moment lasts until the test opens the
/// gate of its name.
const DRIP: &str = r#"
import os, sys, time
tools, gates, out = sys.argv[1:4]
sys.path.insert(0, tools)
import make_cases
moment = time.sleep
def sleep(seconds):
    if seconds < 100:
        return moment(min(seconds, 0.005))
    while not os.path.exists(os.path.join(gates, "%d" % seconds)):
        moment(0.01)
time.sleep = sleep
make_cases.main([out, *sys.argv[4:]])
"#;

/// Names of the gates: seconds that the generator believes to wait.
const STALL: &str = "700";
const LATE: &str = "800";

struct Drip {
    child: Child,
    gates: tempfile::TempDir,
}

impl Drip {
    fn start(python: &Path, tools: &Path, out: &Path, more: &[&str]) -> Drip {
        let gates = tempfile::tempdir().expect("folder");
        let mut command = Command::new(python);
        command.args(["-c", DRIP]).args([tools, gates.path(), out]).args(["--rows", "24", "--cols", "28", "--slices", "12"]);
        let truth = gates.path().join("truth.json");
        let child = command.arg("--truth").arg(truth).args(more).stdout(Stdio::null()).spawn().expect("python");
        Drip { child, gates }
    }

    fn open(&self, gate: &str) {
        std::fs::write(self.gates.path().join(gate), b"").expect("gate");
    }

    /// Waits for the end; by Series Instance UID, whether its last slice was late.
    fn truth(mut self) -> BTreeMap<String, bool> {
        assert!(self.child.wait().expect("python").success());
        let text = std::fs::read(self.gates.path().join("truth.json")).expect("truth");
        let truth: serde_json::Value = serde_json::from_slice(&text).expect("json");
        let studies = truth["studies"].as_array().expect("studies").iter();
        studies.map(|s| (s["expect"]["series_instance_uid"].as_str().expect("uid").to_owned(), !s["late_slice_after"].is_null())).collect()
    }
}

impl Drop for Drip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Six modalities at once: files that appear whole, grow in place, or are renamed into place; in order and not; with a stall in the middle, a
/// late last slice (every second one) and one instance that is sent again.
#[test]
fn dripping_modalities_give_one_result_each_and_one_more_for_a_late_slice() {
    const STUDIES: usize = 6;
    let shared = need!(shared(), "the case generator is not there");
    let python = need!(python_with("pydicom, numpy"), "no python with pydicom ($STUNETD_PYTHON) to generate cases with");
    for flat in [false, true] {
        let world = World::new();
        let daemon = Daemon::start(&world);
        let studies = STUDIES.to_string();
        let mut arguments = vec!["--drip", "60", "--studies", &studies, "--stall", STALL, "--late", LATE];
        arguments.extend(flat.then_some("--flat"));
        let drip = Drip::start(&python, &shared.join("tools"), &world.incoming(), &arguments);
        let files = || count_files(&world.incoming());
        // They stall after slice 7 of 12, or of 11. Nothing is taken that is only half there and shorter than the quiet time.
        daemon.passes_slowly("all have stalled", || files() == complete_before_stall(STUDIES));
        daemon.clock.advance(Duration::from_secs(4));
        assert_eq!(world.engine.calls(), 0);
        drip.open(STALL);
        // All but the late slices are there. In one study, sent in disorder, the late one leaves a hole: it is waited for, then refused.
        let late = STUDIES.div_ceil(2);
        eventually("all but the late slices are there", || files() == 12 * STUDIES - late);
        daemon.passes("a result of each but one", || world.results().len() == STUDIES - 1);
        daemon.shows("stunetd_series_refused_total{code=\"series.missing_slice\"}", 1.0);
        assert_eq!((world.engine.calls(), daemon.metric(CLOSED_BY_PATIENCE)), (STUDIES - 1, 1.0));
        drip.open(LATE);
        let all = STUDIES - 1 + late;
        daemon.passes("a further result of the late ones", || world.results().len() == all);
        let truth = drip.truth();
        assert_eq!(truth.values().filter(|late| **late).count(), late);
        // Whatever more was sent changes nothing.
        daemon.clock.advance(QUIET * 4);
        daemon.shows("stunetd_series_open", 0.0);
        daemon.shows("stunetd_jobs{state=\"working\"}", 0.0);
        daemon.shows("stunetd_jobs{state=\"queued\"}", 0.0);
        assert_eq!((world.engine.calls(), world.results().len()), (all, all));
        let mut slices: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for folder in world.results() {
            let manifest = world.manifest(&folder);
            let stunetd::results::Input::Dicom { series, .. } = manifest.source else { panic!("a DICOM input") };
            slices.entry(series[0].uid.clone()).or_default().push(manifest.shape[0]);
        }
        slices.values_mut().for_each(|s| s.sort());
        let twice: Vec<&String> = slices.iter().filter(|(_, s)| **s == [11, 12]).map(|(uid, _)| uid).collect();
        assert!(twice.len() == late - 1 && twice.iter().all(|uid| truth[*uid]), "{slices:?}");
        assert_eq!(slices.values().filter(|s| **s == [12]).count(), STUDIES - twice.len());
        daemon.end().expect("a clean end");
    }
}

/// Files when every modality has stalled: it does so after the slice in the middle of what it sends at first.
fn complete_before_stall(studies: usize) -> usize {
    (0..studies).map(|i| if i % 2 == 0 { 11 / 2 + 1 } else { 12 / 2 + 1 }).sum()
}

/// Files below a folder that have their final name.
fn count_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => count_files(&entry.path()),
        Ok(_) if entry.file_name().to_string_lossy().ends_with(".dcm") => 1,
        _ => 0,
    };
    entries.flatten().map(count).sum()
}
