//! What destinations get in place of whole objects: some labels, something smaller, and a note that rejects what was replaced.

use super::archive::WHY;
use super::office::{LARGE, Office, instance, object_file, object_of, pacs};
use super::orthanc::Orthanc;
use super::scp::{KEY_OBJECTS, LABEL_MAP, SEG, Scp};
use crate::need;
use crate::seg_object::phantom::{Grid, blobs, generation, label_map, request, series, table, volume};
use crate::serve::daemon::{Daemon, World, free_port};
use crate::support::ct::Ct;
use crate::support::{on_path, schema};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use stunetd::config::{Destination, Format};
use stunetd::dicom::seg::read;
use stunetd::ledger::DeliveryState;
use stunetd::results::{Results, Share, Wanted, build};

const SHAPE: [usize; 3] = [96, 128, 128];

/// Results of the phantom with these shares.
fn made(shares: &[Share], formats: &[Format], out: &Path) -> Results {
    let series = series(&Grid::axial(SHAPE));
    let map = label_map(&series, blobs(SHAPE, 4), table(4));
    let model = generation(map.table());
    let wanted = Wanted { rejections: false, shares: shares.iter().cloned().collect() };
    let mut request = request(&model, formats);
    request.wanted = &wanted;
    build(&map, &volume(&map), &request, out).expect("built")
}

fn share(format: Format, labels: &[&str], limit: Option<u64>) -> Share {
    Share { format, labels: labels.iter().map(|l| l.to_string()).collect(), limit }
}

/// Of an object: which voxels each label has, by slice position and label name.
fn voxels(path: &Path) -> BTreeSet<(String, String, Vec<u16>)> {
    let object = read(path).expect("an object");
    let mut all = BTreeSet::new();
    for (i, frame) in object.frames.iter().enumerate() {
        let values = object.frame(i).expect("a frame");
        // A label map describes its background too.
        for segment in object.segments.iter().filter(|s| s.number != 0) {
            let own: Vec<u16> = match frame.segment {
                Some(number) if number != segment.number => continue,
                Some(_) => values.clone(),
                None => values.iter().map(|v| u16::from(*v == segment.number)).collect(),
            };
            if own.iter().any(|v| *v != 0) {
                all.insert((format!("{:?}", frame.position), segment.label.clone(), own));
            }
        }
    }
    all
}

#[test]
fn a_share_holds_its_labels_and_is_an_object_of_its_own() {
    let names: Vec<String> = table(4).iter().map(|label| label.name.clone()).collect();
    let two = [names[1].as_str(), names[3].as_str()];
    let shares = [share(Format::Seg, &two, None), share(Format::LabelMap, &two, None), share(Format::Seg, &["nobody"], None)];
    let (dir, again) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let results = made(&shares, &[Format::Seg, Format::LabelMap], dir.path());
    schema::conforms("manifest", &serde_json::to_value(&results.manifest).expect("JSON"));
    assert_eq!(results.manifest.outputs.len(), 4, "{:?}", results.manifest.outputs);
    let whole = voxels(&dir.path().join("seg.dcm"));
    let expected: BTreeSet<_> = whole.iter().filter(|(_, label, _)| two.contains(&label.as_str())).cloned().collect();
    assert!(!expected.is_empty() && expected.len() < whole.len());
    for share in &shares[..2] {
        let path = dir.path().join(share.file());
        let brief = |all: &BTreeSet<(String, String, Vec<u16>)>| -> Vec<(String, usize)> {
            all.iter().map(|(place, label, own)| (format!("{label} {place}"), own.iter().filter(|v| **v != 0).count())).take(6).collect()
        };
        let found = voxels(&path);
        assert!(found == expected, "{}: {:?} {:?}", share.file(), brief(&found), brief(&expected));
        let labels: Vec<String> = read(&path).expect("an object").segments.into_iter().filter(|s| s.number != 0).map(|s| s.label).collect();
        assert_eq!(labels, two);
    }
    let uids: BTreeSet<&str> = results.manifest.outputs.iter().map(|o| o.dicom.as_ref().expect("UIDs").sop_instance.as_str()).collect();
    assert_eq!(uids.len(), 4);
    // Made again, it is the same.
    assert_eq!(made(&shares, &[Format::Seg, Format::LabelMap], again.path()).manifest.outputs, results.manifest.outputs);
}

#[test]
fn what_is_too_large_also_comes_as_a_label_map_and_in_parts() {
    let dir = tempfile::tempdir().expect("folder");
    let whole = std::fs::metadata(made(&[], &[Format::Seg], dir.path()).dir.join("seg.dcm")).expect("file").len();
    let parts_of = |limit: u64| {
        let dir = tempfile::tempdir().expect("folder");
        let wanted = share(Format::Seg, &[], Some(limit));
        let results = made(std::slice::from_ref(&wanted), &[Format::Seg], dir.path());
        schema::conforms("manifest", &serde_json::to_value(&results.manifest).expect("JSON"));
        let files: Vec<String> = results.manifest.outputs.iter().map(|o| o.file.clone()).collect();
        let parts: Vec<String> = files.iter().filter(|f| wanted.part(f).is_some()).cloned().collect();
        let mut together = BTreeSet::new();
        let mut labels = Vec::new();
        for part in &parts {
            let path = dir.path().join(part);
            assert!(std::fs::metadata(&path).expect("file").len() <= limit, "{part}");
            assert!(voxels(&path).into_iter().all(|voxels| together.insert(voxels)), "nothing is in two parts");
            labels.extend(read(&path).expect("an object").segments.into_iter().map(|s| s.label));
        }
        if !parts.is_empty() {
            assert!(together == voxels(&dir.path().join("seg.dcm")));
            assert_eq!(labels, table(4).iter().map(|label| label.name.clone()).collect::<Vec<_>>());
        }
        (files.contains(&"labelmap.dcm".to_string()), parts.len())
    };
    assert_eq!(parts_of(whole), (false, 0));
    let (map, parts) = parts_of(whole - 1);
    assert!(map && parts >= 2, "{parts}");
    // Not even one label would fit.
    assert_eq!(parts_of(70_000), (true, 0));
}

#[test]
fn a_destination_gets_what_it_accepts_of_something_large() {
    let files = |number: u32, parts: bool| {
        let mut files = vec![("seg.dcm", object_file(LARGE + number)), ("labelmap.dcm", object_of(number, LABEL_MAP))];
        if parts {
            files.extend([("seg-10mb-1.dcm", object_of(number + 100, SEG)), ("seg-10mb-2.dcm", object_of(number + 200, SEG))]);
        }
        files
    };
    let kept = |scp: &Scp| scp.state().kept.keys().cloned().collect::<BTreeSet<_>>();
    for (accepts_maps, parts, expected) in
        [(true, true, vec![1]), (false, true, vec![101, 201]), (true, false, vec![1]), (false, false, vec![])]
    {
        let scp = Scp::listening(free_port());
        if accepts_maps {
            scp.state().more_classes.push(LABEL_MAP);
        }
        let mut office = Office::new(vec![Destination { max_object_mb: 10, ..pacs(scp.port) }]);
        office.publish_files(1, &files(1, parts));
        office.publish(2, 1);
        office.start();
        office.passes("both have their end", || office.open() == 0);
        office.stop();
        let mut all: BTreeSet<String> = expected.iter().map(|n| instance(*n)).collect();
        all.insert(instance(2));
        assert_eq!(kept(&scp), all, "{accepts_maps} {parts}");
        let parked = office.delivery(1).problem.map(|p| p.code);
        assert_eq!(parked.as_deref(), expected.is_empty().then_some("delivery.too_large"));
    }
    // Nothing smaller was made.
    let scp = Scp::listening(free_port());
    let mut office = Office::new(vec![Destination { max_object_mb: 10, ..pacs(scp.port) }]);
    office.publish(LARGE, 1);
    office.start();
    office.passes("parked", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((office.delivery(1).problem.expect("a reason").code.as_str(), scp.state().begun), ("delivery.too_large", 0));
    office.stop();
}

/// A world that delivers to this.
fn world(destination: Destination) -> World {
    let mut world = World::new();
    world.configure = Box::new(move |config| config.destination = vec![destination.clone()]);
    world
}

fn delivered(daemon: &Daemon<'_>, count: f64) {
    daemon.shows("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"delivered\"}", count);
}

/// The SOP Instance UID of a file of a result.
fn uid(world: &World, folder: &str, file: &str) -> String {
    let manifest = world.manifest(folder);
    let output = manifest.outputs.iter().find(|o| o.file == file).unwrap_or_else(|| panic!("no {file} in {:?}", manifest.outputs));
    output.dicom.as_ref().expect("UIDs").sop_instance.clone()
}

#[test]
fn a_destination_gets_the_labels_that_it_takes() {
    let scp = Scp::listening(free_port());
    let fault = world(Destination { labels: vec!["nobody".into()], ..pacs(scp.port) }).fails_to_start();
    assert!(fault.detail.contains("`nobody`"), "{fault}");
    let first = stunetd::models::Generation::open(&crate::support::root().join("models/demo")).expect("a model");
    let name = first.manifest.labels.iter().next().expect("a label").name.clone();
    let destination = Destination { labels: vec![name], ..pacs(scp.port) };
    let file = Share::of(&destination, Format::Seg).file();
    let world = world(destination);
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    let folder = daemon.next_result();
    delivered(&daemon, 1.0);
    assert_eq!(scp.state().kept.keys().cloned().collect::<Vec<_>>(), [uid(&world, &folder, &file)]);
    daemon.end().expect("a clean end");
}

#[test]
fn a_note_rejects_what_was_delivered_and_replaced() {
    let mut scp = Scp::new(free_port());
    scp.state().more_classes.push(KEY_OBJECTS);
    let world = world(Destination { iocm: true, ..pacs(scp.port) });
    let daemon = Daemon::start(&world);
    let slices = Ct::new(1, 11);
    (0..8).for_each(|slice| slices.write_slice(&world.incoming(), slice));
    let first = daemon.next_result();
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 1.0);
    // The first was never delivered: the second takes its place without a word.
    slices.write_slice(&world.incoming(), 8);
    let second = daemon.next_result();
    scp.up();
    delivered(&daemon, 1.0);
    let kept = |scp: &Scp| scp.state().kept.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(kept(&scp), BTreeSet::from([uid(&world, &second, "seg.dcm")]));
    // The third comes with a note on both.
    slices.write_slice(&world.incoming(), 9);
    let third = daemon.next_result();
    delivered(&daemon, 2.0);
    let all = [uid(&world, &second, "seg.dcm"), uid(&world, &third, "seg.dcm"), uid(&world, &third, "rejection.dcm")];
    assert_eq!(kept(&scp), BTreeSet::from(all));
    let manifest = world.manifest(&third);
    schema::conforms("manifest", &serde_json::to_value(&manifest).expect("JSON"));
    let rejected: Vec<String> = manifest.replaces.expect("earlier ones").objects.into_iter().map(|o| o.sop_instance).collect();
    assert_eq!(rejected, [uid(&world, &first, "seg.dcm"), uid(&world, &second, "seg.dcm")]);
    if let Some(tool) = on_path("dciodvfy") {
        let out = Command::new(tool).arg(world.output().join(&third).join("rejection.dcm")).output().expect("dciodvfy");
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(said.contains("KeyObject") && !said.contains("Error"), "{said}");
    }
    daemon.end().expect("a clean end");
}

#[test]
fn orthanc_gets_the_new_object_and_then_the_note() {
    let mut orthanc = need!(Orthanc::new(), WHY);
    orthanc.up();
    let world = world(Destination { iocm: true, ..pacs(orthanc.dicom) });
    let daemon = Daemon::start(&world);
    let slices = Ct::new(1, 9);
    (0..8).for_each(|slice| slices.write_slice(&world.incoming(), slice));
    let first = daemon.next_result();
    delivered(&daemon, 1.0);
    slices.write_slice(&world.incoming(), 8);
    let second = daemon.next_result();
    delivered(&daemon, 2.0);
    daemon.end().expect("a clean end");
    let [old, new, note] = [uid(&world, &first, "seg.dcm"), uid(&world, &second, "seg.dcm"), uid(&world, &second, "rejection.dcm")];
    assert_eq!(orthanc.stored(), [old.clone(), new, note.clone()], "in this order");
    let tags = orthanc.tags(&note);
    assert_eq!((tags["Modality"].as_str(), tags["ConceptNameCodeSequence"][0]["CodeValue"].as_str()), (Some("KO"), Some("113001")));
    let evidence = &tags["CurrentRequestedProcedureEvidenceSequence"][0]["ReferencedSeriesSequence"][0]["ReferencedSOPSequence"];
    assert_eq!(evidence[0]["ReferencedSOPInstanceUID"].as_str(), Some(old.as_str()));
    assert_eq!(tags["PatientID"].as_str(), Some("CANARY-ID"));
}
