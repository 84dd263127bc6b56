//! Destinations that fail and come back: everything arrives, once, and whoever sends studies to us does not notice.

use super::office::{LARGE, Office, pacs};
use super::scp::{Act, Scp};
use super::storescp::{Storescp, objects};
use crate::need;
use crate::receive::peers::send;
use crate::serve::daemon::{Daemon, World, free_port};
use crate::support::ct::Ct;
use crate::support::on_path;
use std::net::TcpListener;
use std::time::{Duration, SystemTime};
use stunetd::config::{Destination, Format, HumanDuration, Listen};
use stunetd::ledger::DeliveryState;
use stunetd::sys::clock::Clock;

/// A peer that is given up after two seconds of silence.
fn impatient(port: u16) -> Destination {
    Destination { timeout: HumanDuration(Duration::from_secs(2)), ..pacs(port) }
}

#[test]
fn a_peer_that_broke_off_and_came_back_has_everything_once() {
    need!(on_path("storescp"), "dcmtk is not here");
    // With the last, the whole object had gone, and dcmtk's program can not be asked for it: it is sent once more.
    for (arguments, resends) in [("--refuse", 0), ("--abort-during", 0), ("--abort-after", 1)] {
        let folder = tempfile::tempdir().expect("folder");
        let peer = Storescp::at(free_port(), folder.path(), &[arguments]);
        let mut office = Office::new(vec![pacs(peer.port)]);
        office.publish(LARGE, 1);
        office.publish(1, 4);
        office.start();
        office.passes("it is tried in vain", || office.delivery(1).problem.is_some());
        assert_eq!((objects(folder.path()), office.count(DeliveryState::Delivered)), (0, 0), "{arguments}");
        let port = peer.port;
        drop(peer);
        let _healthy = Storescp::at(port, folder.path(), &[]);
        office.passes("all are delivered", || office.open() == 0);
        office.stop();
        assert_eq!((objects(folder.path()), office.count(DeliveryState::Delivered)), (5, 5), "{arguments}");
        assert_eq!(
            (office.delivery(1).resends, office.attempts("delivered"), office.attempts("parked")),
            (resends, 5.0, 0.0),
            "{arguments}"
        );
    }
}

#[test]
fn a_program_that_is_killed_again_and_again_gets_everything() {
    need!(on_path("storescp"), "dcmtk is not here");
    const RESULTS: u32 = 120;
    let folder = tempfile::tempdir().expect("folder");
    let port = free_port();
    let mut office = Office::new(vec![pacs(port)]);
    office.publish(1, RESULTS);
    office.start();
    for round in 1..=3 {
        let peer = Storescp::at(port, folder.path(), &[]);
        office.passes("some are delivered", || office.open() <= u64::from(RESULTS - round * 30));
        drop(peer);
    }
    let _peer = Storescp::at(port, folder.path(), &[]);
    office.passes("all are delivered", || office.open() == 0);
    office.stop();
    assert_eq!(office.count(DeliveryState::Delivered), RESULTS as usize);
    // It can not be asked: what was on its way when it was killed may have been kept, and was sent once more.
    let resent: u32 = (1..=u64::from(RESULTS)).map(|job| office.delivery(job).resends).sum();
    let files = objects(folder.path()) as u32;
    assert!(resent <= 3 && (RESULTS..=RESULTS + resent).contains(&files), "{files} files, {resent} sent once more");
}

#[test]
fn a_silent_peer_is_given_up_for_now() {
    let mut scp = Scp::new(free_port());
    let mut office = Office::new(vec![impatient(scp.port)]);
    // The system takes the connection; nobody ever says a word on it.
    let deaf = TcpListener::bind(("127.0.0.1", scp.port)).expect("the port is free");
    office.publish(1, 1);
    office.start();
    office.passes("it is given up", || office.attempts("unreachable") >= 1.0);
    assert!(!office.delivery(1).doubtful);
    drop(deaf);
    scp.up();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.times_kept(), scp.state().queries), (vec![1], 0));
    // It has the object, or has not, and says neither: it is asked.
    scp.script(&[Act::Silent { kept: true }, Act::Silent { kept: false }]);
    office.publish(2, 2);
    office.passes("both are there", || office.count(DeliveryState::Delivered) == 3);
    assert_eq!((scp.times_kept(), scp.state().queries, office.attempts("already_there")), (vec![1; 3], 2, 1.0));
    // It reads no further in the middle of an object, which can not be there then.
    scp.script(&[Act::Stall]);
    office.publish(LARGE, 1);
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 4);
    assert_eq!((scp.times_kept(), scp.state().queries), (vec![1; 4], 2));
    office.stop();
}

/// A peer that takes its time is no silent peer.
#[test]
fn a_slow_peer_is_waited_for() {
    need!(on_path("storescp"), "dcmtk is not here");
    let folder = tempfile::tempdir().expect("folder");
    let peer = Storescp::start(folder.path(), &["--sleep-after", "1"]);
    let mut office = Office::new(vec![pacs(peer.port)]);
    office.publish(1, 3);
    office.start();
    office.passes("all are delivered", || office.open() == 0);
    office.stop();
    assert_eq!((objects(folder.path()), office.attempts("delivered"), office.attempts("postponed")), (3, 3.0, 0.0));
}

/// The destination is away while five hundred studies come, then flaps: every C-STORE is answered with success, nothing waits on the way to
/// its result, the destination is hardly called, and in the end it has each object once.
#[test]
fn who_sends_studies_does_not_notice_that_a_destination_is_down() {
    need!(on_path("storescu"), "dcmtk is not here");
    const STUDIES: u32 = 500;
    let mut scp = Scp::new(free_port());
    let port = free_port();
    let mut world = World::new();
    let destination = pacs(scp.port);
    world.configure = Box::new(move |config| {
        config.dimse.listen = Listen(Some(([127, 0, 0, 1], port).into()));
        config.output.formats = vec![Format::Seg];
        config.destination = vec![destination.clone()];
    });
    let daemon = Daemon::start(&world);
    let waiting = || daemon.metric("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}");
    for batch in 0..10 {
        let folder = tempfile::tempdir().expect("folder");
        let (first, last) = (batch * STUDIES / 10 + 1, (batch + 1) * STUDIES / 10);
        (first..=last).for_each(|number| Ct::new(number, 3).write(folder.path()));
        // It ends well only if every object was taken.
        send(port, &["-xe"], folder.path());
        daemon.passes("all are published", || world.results().len() == last as usize);
    }
    daemon.passes("all wait", || waiting() == f64::from(STUDIES));
    assert_eq!(daemon.metric("stunetd_network_instances_total{result=\"stored\",transport=\"dimse\"}"), f64::from(3 * STUDIES));
    assert_eq!(daemon.metric("stunetd_network_instances_total{result=\"refused\",transport=\"dimse\"}"), 0.0);
    let calls = || daemon.metric("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"unreachable\"}");
    let hours = daemon.clock.wall().duration_since(SystemTime::UNIX_EPOCH).expect("it starts there").as_secs_f64() / 3600.0;
    // Pauses of 2 s, 4 s … up to 10 min.
    assert!(calls() <= 10.0 + hours * 6.0, "{} calls in {hours} h", calls());

    for _ in 0..4 {
        let before = calls();
        scp.up();
        scp.state().objects_left = Some(STUDIES / 5);
        daemon.passes("the peer has died", || scp.state().objects_left == Some(0));
        scp.down();
        daemon.passes("that is noticed", || calls() > before);
    }
    scp.up();
    daemon.passes("all are delivered", || waiting() == 0.0);
    assert_eq!(scp.times_kept(), [1; STUDIES as usize]);
    let begun = scp.state().begun;
    assert!(begun <= STUDIES + STUDIES / 10, "{begun} objects were sent for {STUDIES}");
    daemon.end().expect("a clean end");
}
