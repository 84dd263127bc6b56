//! `[[select]]` in the daemon: which series, by which model, in which order; studies that wait; pairs of PET and CT.

use super::daemon::{Daemon, QUIET, World};
use super::program::{Program, Site};
use crate::need;
use crate::support::cases::{cases, reference_object};
use crate::support::ct::Ct;
use crate::support::{eventually, made};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stunetd::config::{self, HumanDuration};
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::results::Input;

const STUDY_QUIET: Duration = Duration::from_secs(60);

/// A copy of the demo model under another name, which makes it another model.
fn other_model(dir: &Path, name: &str) -> PathBuf {
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"), dir.join(name));
    std::fs::create_dir_all(&to).expect("folder");
    std::fs::copy(from.join("weights.safetensors"), to.join("weights.safetensors")).expect("weights");
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).expect("manifest");
    std::fs::write(to.join("manifest.toml"), manifest.replacen("\"demo\"", &format!("{name:?}"), 1)).expect("manifest");
    to
}

/// A world with these rules.
fn world(rules: &str) -> World {
    let mut world = World::new();
    let select = config::parse(rules).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).select;
    world.configure = Box::new(move |config| {
        config.select = select.clone();
        config.intake.study_quiet = HumanDuration(STUDY_QUIET);
    });
    world
}

fn refused(code: &str) -> String {
    format!("stunetd_series_refused_total{{code=\"{code}\"}}")
}

fn selected(rule: &str) -> String {
    format!("stunetd_series_selected_total{{rule=\"{rule}\"}}")
}

/// Series that were found complete.
fn closed(daemon: &Daemon) -> f64 {
    ["count", "association", "timer", "patience"]
        .iter()
        .map(|e| daemon.metric(&format!("stunetd_series_closed_total{{evidence=\"{e}\"}}")))
        .sum()
}

/// Model and slices of each result.
fn results(world: &World) -> Vec<(String, usize)> {
    let mut all: Vec<_> = world.results().iter().map(|f| world.manifest(f)).map(|m| (m.model.name, m.shape[0])).collect();
    all.sort();
    all
}

#[test]
fn rules_choose_series_and_model() {
    let models = tempfile::tempdir().expect("folder");
    let other = other_model(models.path(), "other");
    let world = world(&format!(
        "[[select]]\nname = \"tiny\"\nignore = true\nslices = {{ max = 4 }}\n\
         [[select]]\nname = \"long\"\nmodel = {other:?}\nslices = {{ min = 10 }}\n\
         [[select]]\nname = \"demo\"\nslices = {{ min = 6 }}\nkernel = \"NONE\"\n"
    ));
    let daemon = Daemon::start(&world);
    daemon.shows(&selected("long"), 0.0);
    for (number, slices) in [(1, 4), (2, 5), (3, 6), (4, 10), (5, 12)] {
        Ct::new(number, slices).write(&world.incoming());
    }
    daemon.passes("three results", || world.results().len() == 3);
    let expected = [("demo", 6), ("other", 10), ("other", 12)].map(|(model, slices)| (model.to_owned(), slices));
    assert_eq!(results(&world), expected);
    for (metric, value) in
        [(refused("select.ignored"), 1.0), (refused("select.no_rule"), 1.0), (selected("long"), 2.0), (selected("demo"), 1.0)]
    {
        daemon.shows(&metric, value);
    }
    // The first rule's model is opened at the start, and another one in its place where a study needs it.
    let opened = world.engine.models();
    assert!(opened[0] == "other" && opened.contains(&"demo".to_owned()), "{opened:?}");
    daemon.end().expect("a clean end");
}

#[test]
fn a_higher_priority_overtakes_what_waits() {
    let world = world("[[select]]\nname = \"urgent\"\npriority = \"stat\"\nslices = { min = 20 }\n[[select]]\nname = \"rest\"\n");
    let go = world.engine.next_waits();
    let daemon = Daemon::start(&world);
    (1..=10).for_each(|number| Ct::new(number, 4).write(&world.incoming()));
    daemon.shows(&selected("rest"), 10.0);
    daemon.passes("the engine works", || world.engine.calls() == 1);
    Ct::new(11, 20).write(&world.incoming());
    daemon.shows(&selected("urgent"), 1.0);
    go.send(()).expect("the engine waits");
    daemon.passes("all are done", || world.results().len() == 11);
    // Some had been claimed before it came: one at each stage, and one on the way to each.
    let place = world.engine.slices().iter().position(|&slices| slices == 20).expect("it was done");
    assert!(place <= 5, "{:?}", world.engine.slices());
    daemon.end().expect("a clean end");
}

#[test]
fn one_series_of_a_study_is_segmented_and_a_better_late_one_too() {
    let world = world("[[select]]\nname = \"best\"\nper_study = \"best\"\nprefer = [\"slices\"]\n");
    let daemon = Daemon::start(&world);
    for (number, slices) in [(1, 4), (2, 8), (3, 6)] {
        Ct::new(number, slices).in_study(1).write(&world.incoming());
    }
    Ct::new(9, 5).write(&world.incoming());
    // All are complete before the study has been quiet.
    daemon.sees_files(23.0);
    daemon.shows("stunetd_series_open", 0.0);
    assert_eq!(world.engine.calls(), 0);
    daemon.passes("one result of each study", || world.results().len() == 2);
    assert_eq!(results(&world), [("demo".to_owned(), 5), ("demo".to_owned(), 8)]);
    daemon.shows(&refused("select.not_best"), 2.0);
    // Worse ones change nothing; a better one is segmented, and the former best is now told that it is not.
    Ct::new(4, 7).in_study(1).write(&world.incoming());
    daemon.shows(&refused("select.not_best"), 3.0);
    Ct::new(5, 12).in_study(1).write(&world.incoming());
    daemon.passes("the better one's result", || world.results().len() == 3);
    assert_eq!((world.engine.calls(), daemon.metric(&selected("best"))), (3, 3.0));
    daemon.end().expect("a clean end");

    let daemon = Daemon::start(&world);
    daemon.passes("all are known", || closed(&daemon) == 6.0);
    daemon.end().expect("a clean end");
    assert_eq!((world.engine.calls(), world.results().len()), (3, 3));
}

#[test]
fn a_better_series_that_comes_late_takes_the_place_of_the_former_best() {
    let rules = "[[select]]\nname = \"best\"\nper_study = \"best\"\nprefer = [\"slices\"]\n";
    let mut world = world(rules);
    let share = world.spool().with_file_name("share");
    let (configure, path) = (world.configure, share.clone());
    world.configure = Box::new(move |config| {
        configure(config);
        let (kind, accepts) = (stunetd::config::DestinationKind::Folder, stunetd::config::Accepts::Research);
        let name = "share".to_string();
        config.destination = vec![stunetd::config::Destination { name, kind, accepts, path: path.clone(), ..Default::default() }];
    });
    let daemon = Daemon::start(&world);
    Ct::new(1, 6).in_study(1).write(&world.incoming());
    let first = daemon.next_result();
    // The share is away, so the first result is still to be delivered when a better series comes.
    let attempts = |result: &str| daemon.metric(&format!("stunetd_delivery_attempts_total{{destination=\"share\",result=\"{result}\"}}"));
    daemon.passes("it is tried", || attempts("unreachable") > 0.0);
    Ct::new(2, 8).in_study(1).write(&world.incoming());
    let second = daemon.next_result();
    std::fs::create_dir(&share).expect("folder");
    daemon.passes("the better one is delivered", || attempts("delivered") == 1.0);
    Ct::new(3, 10).in_study(1).write(&world.incoming());
    let third = daemon.next_result();
    daemon.passes("the best is delivered", || attempts("delivered") == 2.0);
    let mut delivered: Vec<String> =
        std::fs::read_dir(&share).expect("folder").map(|e| e.expect("entry").file_name().into_string().expect("name")).collect();
    delivered.sort();
    let mut expected = vec![second.clone(), third.clone()];
    expected.sort();
    assert_eq!(delivered, expected);
    daemon.end().expect("a clean end");

    let instances = |folder: &str| -> Vec<String> {
        world.manifest(folder).outputs.iter().filter_map(|o| Some(o.dicom.as_ref()?.sop_instance.clone())).collect()
    };
    let replaces = |folder: &str| world.manifest(folder).replaces.map(|r| (r.revision, r.instances, r.first_source));
    let source = || Some(Ct::new(1, 6).series_uid().to_string());
    assert_eq!(replaces(&first), None);
    assert_eq!(replaces(&second), Some((2, instances(&first), source())));
    assert_eq!(replaces(&third), Some((3, instances(&second), source())));
    let number = |folder: &str| {
        let object = std::fs::read(world.output().join(folder).join("seg.dcm")).expect("object");
        let at = object.windows(6).position(|w| w == b"\x20\x00\x11\x00IS").expect("Series Number");
        let length = usize::from(object[at + 6]);
        String::from_utf8_lossy(&object[at + 8..at + 8 + length]).trim().parse::<u32>().expect("a number")
    };
    assert_eq!((number(&second), number(&third)), (number(&first) + 1, number(&first) + 2));
}

#[test]
fn when_the_best_series_can_not_be_used_the_next_best_is_taken() {
    // The daemon may end between the two.
    for ends in [false, true] {
        let world = world("[[select]]\nname = \"best\"\nper_study = \"best\"\nprefer = [\"slices\"]\n");
        let mut daemon = Daemon::start(&world);
        // The best two are not in HU, which only their pixels tell.
        Ct::new(1, 9).without_air().in_study(1).write(&world.incoming());
        Ct::new(2, 8).without_air().in_study(1).write(&world.incoming());
        Ct::new(3, 6).in_study(1).write(&world.incoming());
        Ct::new(4, 4).in_study(1).write(&world.incoming());
        daemon.shows("stunetd_jobs{state=\"parked\"}", 1.0);
        if ends {
            daemon.end().expect("a clean end");
            assert_eq!(world.engine.calls(), 0);
            daemon = Daemon::start(&world);
        }
        daemon.passes("a result", || world.results().len() == 1);
        assert_eq!(results(&world), [("demo".to_owned(), 6)]);
        // Those that failed stay for people to see.
        assert_eq!((daemon.metric("stunetd_jobs{state=\"parked\"}"), world.engine.calls()), (2.0, 1));
        // A better one that comes late takes their place too.
        Ct::new(5, 12).in_study(1).write(&world.incoming());
        daemon.passes("the better one's result", || world.results().len() == 2);
        daemon.shows("stunetd_jobs{state=\"parked\"}", 0.0);
        daemon.end().expect("a clean end");
    }
}

#[test]
fn the_ledger_knows_what_waits_and_what_is_never_segmented() {
    use stunetd::ledger::{Reader, SqliteReader};
    let world = world("[[select]]\nname = \"best\"\nper_study = \"best\"\n");
    let ledger =
        || SqliteReader::open(&world.state(), std::sync::Arc::new(stunetd::sys::clock::SystemClock)).expect("read").expect("a ledger");
    let daemon = Daemon::start(&world);
    let ct = Ct::new(1, 6);
    ct.write(&world.incoming());
    // The same images say that they are secondary captures, of another series.
    let other = tempfile::tempdir().expect("folder");
    Ct::new(2, 1).write(other.path());
    let object = std::fs::read(other.path().join("2-0.dcm")).expect("file");
    let (image, capture) = (b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.7\0");
    let captured: Vec<u8> = {
        let mut bytes = object.clone();
        while let Some(at) = bytes.windows(image.len()).position(|w| w == image) {
            bytes[at..at + image.len()].copy_from_slice(capture);
        }
        bytes
    };
    std::fs::write(world.incoming().join("capture.dcm"), captured).expect("file");
    let record = |uid: &str| ledger().series(uid).expect("read").into_iter().next();
    daemon.passes("it waits", || record(ct.series_uid().as_str()).is_some_and(|record| record.waiting.is_some()));
    assert_eq!(world.engine.calls(), 0);
    let capture = record(Ct::new(2, 1).series_uid().as_str()).expect("known");
    assert_eq!((capture.closings, capture.refusals[0].code.as_str()), (0, "input.sop_class_not_segmentable"));
    daemon.next_result();
    let done = record(ct.series_uid().as_str()).expect("known");
    assert_eq!((done.waiting, done.closings), (None, 1));
    daemon.end().expect("a clean end");
}

/// The files of the generated PET and CT of one patient, by modality.
fn pair() -> Option<BTreeMap<String, Vec<PathBuf>>> {
    let found = scan(&cases()?.join("pet_ct_pair"), &ScanLimits::default()).expect("scan");
    let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    found.instances.into_iter().for_each(|i| files.entry(i.object.modality().into()).or_default().push(i.path));
    Some(files)
}

fn bring(world: &World, files: &[PathBuf], modality: &str) {
    for (i, file) in files.iter().enumerate() {
        std::fs::copy(file, world.incoming().join(format!("{modality}-{i}.dcm"))).expect("copied");
    }
}

#[test]
fn pet_and_ct_meet_whatever_comes_first() {
    let files = need!(pair(), "no generated cases");
    let models = tempfile::tempdir().expect("folder");
    let mut made_of = Vec::new();
    for (grid, order) in [(0, ["CT", "PT"]), (0, ["PT", "CT"]), (1, ["CT", "PT"]), (1, ["PT", "CT"])] {
        let model = models.path().join(format!("{grid}{}", order[0]));
        made::pet_ct(&model, grid);
        let world = world(&format!("[[select]]\nname = \"petct\"\nmodel = {model:?}\n"));
        let daemon = Daemon::start(&world);
        for (number, modality) in order.iter().enumerate() {
            bring(&world, &files[*modality], modality);
            daemon.passes("complete", || closed(&daemon) == number as f64 + 1.0);
            assert_eq!(world.engine.calls(), 0);
        }
        let folder = daemon.next_result();
        daemon.shows(&selected("petct"), 1.0);
        let manifest = world.manifest(&folder);
        let Input::Dicom { series, .. } = &manifest.source else { panic!("{:?}", manifest.source) };
        assert_eq!(series.iter().map(|s| s.modality.as_str()).collect::<Vec<_>>(), ["CT", "PT"]);
        assert_eq!(manifest.shape, [[16, 56, 64], [14, 40, 44]][grid]);
        daemon.end().expect("a clean end");
        made_of.push((folder, manifest.labels_sha256));
    }
    assert_eq!(made_of[0], made_of[1]);
    assert_eq!(made_of[2], made_of[3]);
    assert_ne!(made_of[0].0, made_of[2].0);
}

#[test]
fn a_ct_without_its_pet_is_refused_by_name_in_time_and_done_when_the_pet_comes() {
    let files = need!(pair(), "no generated cases");
    let models = tempfile::tempdir().expect("folder");
    made::pet_ct(models.path(), 0);
    let world = world(&format!("[[select]]\nname = \"petct\"\nmodel = {:?}\n", models.path()));
    let daemon = Daemon::start(&world);
    bring(&world, &files["CT"], "CT");
    let start = stunetd::sys::clock::Clock::monotonic(&*daemon.clock);
    daemon.shows(&refused("select.no_partner"), 1.0);
    let waited = stunetd::sys::clock::Clock::monotonic(&*daemon.clock) - start;
    assert!(waited >= STUDY_QUIET && waited <= 2 * STUDY_QUIET + QUIET, "{waited:?}");
    assert_eq!(world.engine.calls(), 0);
    bring(&world, &files["PT"], "PT");
    daemon.next_result();
    assert_eq!(daemon.metric(&refused("select.no_partner")), 1.0);
    daemon.end().expect("a clean end");
    // After a restart the pair has its result.
    let daemon = Daemon::start(&world);
    daemon.passes("both are known", || closed(&daemon) == 2.0);
    daemon.end().expect("a clean end");
    assert_eq!((world.engine.calls(), world.results().len()), (1, 1));
}

#[test]
fn a_dose_in_mbq_parks_the_job_unless_the_configuration_allows_it() {
    let object = need!(reference_object("DRO_3_0"), "the reference objects are not there");
    let models = tempfile::tempdir().expect("folder");
    made::pet(models.path());
    for allowed in [false, true] {
        let mut world = World::new();
        let model = models.path().to_path_buf();
        world.configure = Box::new(move |config| {
            config.model.path = model.clone();
            config.intake.assume_mbq = allowed;
        });
        let daemon = Daemon::start(&world);
        for file in std::fs::read_dir(object.path()).expect("folder") {
            let file = file.expect("entry");
            std::fs::copy(file.path(), world.incoming().join(file.file_name())).expect("copied");
        }
        if allowed {
            let manifest = world.manifest(&daemon.next_result());
            assert!(manifest.settings.assume_mbq && manifest.warnings.iter().any(|w| w == "dose_assumed_mbq"), "{:?}", manifest.warnings);
        } else {
            daemon.shows("stunetd_faults_total{code=\"quantity.suv_dose_not_in_bq\"}", 1.0);
            assert_eq!((world.engine.calls(), world.results().len()), (0, 0));
        }
        daemon.end().expect("a clean end");
    }
}

#[test]
fn missing_slices_are_refused_and_resampled_where_the_configuration_says_so() {
    for resample in [false, true] {
        let mut world = World::new();
        world.configure = Box::new(move |config| {
            config.intake.irregular = if resample { config::Irregular::Resample } else { config::Irregular::Refuse };
        });
        let daemon = Daemon::start(&world);
        let series = Ct::new(1, 9);
        (0..9).filter(|&slice| slice != 4).for_each(|slice| series.write_slice(&world.incoming(), slice));
        if resample {
            let manifest = world.manifest(&daemon.next_result());
            // The labels are on the slices that exist.
            assert_eq!((manifest.shape, manifest.settings.irregular), ([8, 24, 32], config::Irregular::Resample));
            assert!(manifest.outputs.iter().any(|output| output.file == "seg.dcm"));
        } else {
            daemon.shows(&refused("series.missing_slice"), 1.0);
            assert_eq!((world.engine.calls(), world.results().len()), (0, 0));
        }
        daemon.end().expect("a clean end");
    }
}

#[test]
fn the_real_program_follows_its_rules() {
    let models = tempfile::tempdir().expect("folder");
    let other = other_model(models.path(), "other");
    let site = Site::with_rules(&format!(
        "[[select]]\nname = \"no\"\nignore = true\ndescription = \"CANARY\"\nslices = {{ max = 5 }}\n\
         [[select]]\nname = \"long\"\nmodel = {other:?}\nslices = {{ min = 9 }}\n\
         [[select]]\nname = \"demo\"\nslices = {{ min = 7 }}\nper_study = \"best\"\n"
    ));
    let program = Program::start(&site);
    for (number, slices) in [(1, 4), (2, 6), (3, 8), (4, 10)] {
        Ct::new(number, slices).write(&site.incoming());
    }
    eventually("two results", || site.results().len() == 2);
    for (metric, value) in
        [(selected("long"), 1.0), (selected("demo"), 1.0), (refused("select.ignored"), 1.0), (refused("select.no_rule"), 1.0)]
    {
        program.shows(&metric, value);
    }
    // A person asks why: the rule that took a series, and what the rules missed of another.
    for (number, told) in [(4, "long"), (3, "demo"), (2, "`demo`: slices is 6, asked for"), (1, "Rule `no`")] {
        let explained = site.ask(&["jobs", "explain", Ct::new(number, 0).series_uid().as_str()]);
        assert!(explained.contains(told), "{number}: {explained}");
    }
    let log = program.log();
    assert!(
        log.contains("rule=\"long\"") && log.contains("select.no_rule") && !log.contains("CANARY^") && !log.contains("CANARY S"),
        "{log}"
    );
    assert_eq!(program.terminate(), Some(0));
}
