//! From a study in a folder to the destinations, through the daemon.

use super::office::pacs;
use super::scp::Scp;
use crate::serve::daemon::{Daemon, World, free_port};
use crate::support::ct::Ct;
use std::path::{Path, PathBuf};
use stunetd::config::{Accepts, Destination, DestinationKind, Format};

fn folder(name: &str, path: &Path, accepts: Accepts) -> Destination {
    let (kind, formats) = (DestinationKind::Folder, vec![Format::Preview, Format::Seg]);
    Destination { name: name.into(), kind, accepts, formats, path: path.into(), ..Destination::default() }
}

fn bytes_of(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn results_of_research_models_go_to_those_who_accept_them() {
    let mut scp = Scp::new(free_port());
    let (share, clinic) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let away = share.path().join("not mounted");
    let mut world = World::new();
    let destinations = vec![pacs(scp.port), folder("share", &away, Accepts::Research), folder("clinic", clinic.path(), Accepts::Clinical)];
    world.configure = Box::new(move |config| config.destination = destinations.clone());
    let daemon = Daemon::start(&world);
    assert_eq!(daemon.metric("stunetd_delivery_attempts_total{destination=\"clinic\",result=\"delivered\"}"), 0.0);
    Ct::new(1, 4).write(&world.incoming());
    let name = daemon.next_result();
    daemon.shows("stunetd_destination_up{destination=\"share\"}", 0.0);
    daemon.shows("stunetd_destination_up{destination=\"pacs\"}", 0.0);
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 1.0);
    // Below a mount point whose disk is away nothing is made.
    assert!(!away.exists());
    daemon.end().expect("a clean end");

    std::fs::create_dir(&away).expect("mounted");
    scp.up();
    let daemon = Daemon::start(&world);
    for destination in ["pacs", "share"] {
        daemon.shows(&format!("stunetd_delivery_attempts_total{{destination=\"{destination}\",result=\"delivered\"}}"), 1.0);
    }
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 0.0);
    for file in ["seg.dcm", "preview.png"] {
        assert_eq!(bytes_of(away.join(&name).join(file)), bytes_of(world.output().join(&name).join(file)));
    }
    assert_eq!(scp.times_kept(), [1]);
    let uid = world.manifest(&name).outputs.iter().find_map(|o| Some(o.dicom.as_ref()?.sop_instance.clone())).expect("a UID");
    assert!(scp.state().kept.contains_key(&uid));
    assert_eq!(std::fs::read_dir(clinic.path()).expect("folder").count(), 0);
    daemon.end().expect("a clean end");
}

#[test]
fn a_revision_takes_the_place_of_what_was_not_delivered() {
    let mut scp = Scp::new(free_port());
    let mut world = World::new();
    let destination = pacs(scp.port);
    world.configure = Box::new(move |config| config.destination = vec![destination.clone()]);
    let daemon = Daemon::start(&world);
    let series = Ct::new(1, 9);
    (0..8).for_each(|slice| series.write_slice(&world.incoming(), slice));
    let first = daemon.next_result();
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 1.0);
    series.write_slice(&world.incoming(), 8);
    let second = daemon.next_result();
    scp.up();
    daemon.shows("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"delivered\"}", 1.0);
    let uid =
        |folder: &str| world.manifest(folder).outputs.iter().find_map(|o| Some(o.dicom.as_ref()?.sop_instance.clone())).expect("a UID");
    assert_eq!(scp.state().kept.keys().cloned().collect::<Vec<_>>(), [uid(&second)]);
    assert_ne!(uid(&first), uid(&second));
    daemon.end().expect("a clean end");
}
