//! Hostile files in a watched folder, and hostile objects from the network: each gets a code that can be asked for, and the daemon goes on.

use crate::need;
use crate::receive::{files_below, peers, world};
use crate::serve::daemon::{Daemon, World};
use crate::support::cases::{cases, manifest};
use crate::support::ct::Ct;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use stunetd::dicom::guard::Limits;
use stunetd::dicom::read_identity;
use stunetd::fault::Code;
use stunetd::intake::unusable::place;
use stunetd::ledger::{Origin, Reader, RefusedFile, SqliteReader};
use stunetd::results::Input;
use stunetd::sys::clock::SystemClock;

fn reader(world: &World) -> SqliteReader {
    SqliteReader::open(&world.state(), Arc::new(SystemClock)).expect("read").expect("a ledger")
}

/// Why a file is not used: its own code, or those of its series when its header can be read.
fn codes(ledger: &SqliteReader, rows: &BTreeMap<String, RefusedFile>, file: &Path) -> Vec<String> {
    let key = ledger.instance().expect("read");
    if let Some(row) = rows.get(&place(&key, file)) {
        return vec![row.code.clone()];
    }
    let Ok(identity) = read_identity(file, &Limits::default()) else { return Vec::new() };
    let series = ledger.series(identity.series_uid.as_str()).expect("read");
    series.into_iter().flat_map(|s| s.refusals).map(|refusal| refusal.code).collect()
}

#[test]
fn every_hostile_file_gets_a_code_and_the_next_study_its_result() {
    let cases = need!(cases(), "no generated cases");
    let world = World::new();
    let incoming = world.incoming();
    // What is no case of the generator.
    let outside = tempfile::tempdir().expect("folder");
    std::fs::write(outside.path().join("secret"), b"CANARY").expect("file");
    std::os::unix::fs::symlink(outside.path().join("secret"), incoming.join("link.dcm")).expect("link");
    std::os::unix::fs::symlink(outside.path(), incoming.join("link")).expect("link");
    assert!(Command::new("mkfifo").arg(incoming.join("pipe.dcm")).status().expect("mkfifo").success());
    let noise: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(incoming.join("NAME^OF.dcm"), &noise).expect("file");
    std::fs::create_dir(incoming.join(".hidden")).expect("folder");
    let mut expected: Vec<(PathBuf, String)> = [
        ("link.dcm", "special_file"),
        ("link", "special_file"),
        ("pipe.dcm", "special_file"),
        ("NAME^OF.dcm", "not_dicom"),
        (".hidden", "temporary_or_truncated"),
    ]
    .map(|(name, reason)| (incoming.join(name), reason.to_string()))
    .into();
    let hostile = ["broken", "resource", "security", "uid"];
    for case in manifest(cases) {
        let tags = case["tags"].as_array().expect("tags");
        if !tags.iter().any(|tag| hostile.iter().any(|h| tag == h)) {
            continue;
        }
        let name = case["name"].as_str().expect("a name");
        // Links, pipes and permissions as they are; what may not be read is left behind.
        Command::new("cp").arg("-a").arg(cases.join(name)).arg(&incoming).output().expect("cp");
        for ignored in case["expect"]["ignored_files"].as_array().expect("files") {
            let (path, reason) = (ignored["path"].as_str().expect("a path"), ignored["reason"].as_str().expect("a reason"));
            let file = incoming.join(name).join(path);
            if std::fs::symlink_metadata(&file).is_ok() {
                expected.push((file, reason.to_string()));
            }
        }
    }
    assert!(expected.len() > 30, "{expected:?}");
    let daemon = Daemon::start(&world);
    let told = |file: &Path| {
        let ledger = reader(&world);
        let rows = ledger.refused(10_000).expect("read").into_iter().map(|row| (row.place.clone(), row)).collect();
        codes(&ledger, &rows, file)
    };
    for (file, reason) in &expected {
        let name = file.strip_prefix(&incoming).expect("below").display();
        daemon.passes(&format!("a code for {name}"), || !told(file).is_empty());
        let codes = told(file);
        assert!(codes.iter().all(|code| Code::from_name(code).is_some()), "{name}: {codes:?}");
        // What is refused by its pixels alone is part of a series that is refused: which code that has is `inspect`'s story.
        let by_pixels = reason == "decode_error" || name.to_string().ends_with("unreadable.dcm");
        assert!(by_pixels || codes.iter().any(|code| code.ends_with(&format!(".{reason}"))), "{name}: {codes:?} instead of {reason}");
    }
    // Names of files may hold patient data: the ledger has none of them.
    let page = std::fs::read(world.state().join("ledger.sqlite")).expect("file");
    let log = std::fs::read(world.state().join("ledger.sqlite-wal")).unwrap_or_default();
    assert!(!page.windows(7).chain(log.windows(7)).any(|w| w == b"NAME^OF"));

    let good = Ct::new(1, 8);
    good.write(&incoming);
    let is_of = |folder: &String| match world.manifest(folder).source {
        Input::Dicom { series, .. } => series.iter().any(|s| s.uid == good.series_uid().as_str()),
        Input::Nifti { .. } => false,
    };
    daemon.passes("the good study has its result", || world.results().iter().any(is_of));
    assert_eq!(daemon.metric("stunetd_faults_total{code=\"internal.bug\"}"), 0.0);
    assert_eq!(std::fs::read(outside.path().join("secret")).expect("file"), b"CANARY");
    daemon.end().expect("a clean end");
}

#[test]
fn refused_objects_are_kept_with_their_code_and_go_after_their_time() {
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let quarantine = world.spool().join("quarantine");
    let mut client = peers::Client::associate(port, peers::CT, peers::EXPLICIT).expect("associated");
    assert_ne!(client.store(peers::CT, "1.2.3.4", b"\x08\x00\x05\x00CS\xff\x7fnonsense"), Some(0));
    client.release();
    let rows = reader(&world).refused(9).expect("read");
    assert_eq!((rows.len(), rows[0].origin), (1, Origin::Network));
    assert!(Code::from_name(&rows[0].code).is_some(), "{rows:?}");
    assert_eq!(files_below(&quarantine), [world.spool().join(&rows[0].place)]);
    assert_eq!(std::fs::metadata(world.spool().join(&rows[0].place)).expect("file").len(), rows[0].bytes);
    daemon.clock.advance(Duration::from_secs(31 * 86_400));
    daemon.passes("it is removed", || files_below(&quarantine).is_empty());
    daemon.end().expect("a clean end");
}
