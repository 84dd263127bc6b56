//! Delivery by C-STORE: to a peer that does as it is told, and to dcmtk's.

use super::office::{LARGE, Office, data_set_digest, instance, pacs};
use super::scp::{Act, Scp};
use super::storescp::{Storescp, objects};
use crate::need;
use crate::receive::dimse::certificates;
use crate::serve::daemon::free_port;
use crate::support::on_path;
use std::process::Command;
use stunetd::config::Resend;
use stunetd::ledger::DeliveryState;

fn code(office: &Office, job: u64) -> Option<String> {
    office.delivery(job).problem.map(|p| p.code)
}

#[test]
fn a_status_decides_what_is_tried_again_and_what_is_parked() {
    let scp = Scp::listening(free_port());
    let mut office = Office::new(vec![pacs(scp.port)]);
    scp.script(&[Act::Answer(0xA700), Act::Answer(0xA701), Act::Answer(0xA700), Act::Answer(0xA700), Act::Answer(0x0000)]);
    office.publish(1, 1);
    office.start();
    office.passes("out of resources passes", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.times_kept(), office.attempts("postponed"), office.attempts("delivered")), (vec![1], 4.0, 1.0));
    // Nothing was in doubt, so nothing was asked.
    assert_eq!((scp.state().queries, office.delivery(1).attempts), (0, 5));

    scp.script(&[Act::Answer(0xB000)]);
    office.publish(2, 1);
    office.passes("a warning is no refusal", || office.count(DeliveryState::Delivered) == 2);
    assert_eq!(code(&office, 2).as_deref(), Some("delivery.coerced"));

    scp.script(&[Act::Answer(0xC000), Act::Answer(0xA900), Act::Answer(0x0122)]);
    office.publish(3, 1);
    office.passes("refused three times", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((code(&office, 3).as_deref(), office.delivery(3).attempts), (Some("delivery.refused"), 3));
    assert_eq!((office.attempts("refused"), office.attempts("parked")), (2.0, 1.0));
    assert_eq!(office.metric("stunetd_destination_up{destination=\"pacs\"}"), 0.0);
    assert_eq!(office.metric("stunetd_outbox_objects{destination=\"pacs\",state=\"parked\"}"), 1.0);
    // Others are not held up for ever, and show that the destination works.
    office.publish(4, 1);
    office.passes("the next one is delivered", || office.count(DeliveryState::Delivered) == 3);
    office.passes("it is up again", || office.metric("stunetd_destination_up{destination=\"pacs\"}") == 1.0);
    // After the fix.
    office.retry(3);
    office.passes("delivered after all", || office.count(DeliveryState::Delivered) == 4);
    assert_eq!(scp.times_kept(), [1; 4]);

    // A processing failure may mean no: tried more often, not for ever.
    scp.script(&[Act::Answer(0x0110); 10]);
    office.publish(5, 1);
    office.passes("parked in the end", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((code(&office, 5).as_deref(), office.delivery(5).attempts), (Some("delivery.busy"), 10));
    let bytes: Vec<_> = (1..=4).map(|n| scp.state().kept[&instance(n)].clone()).collect();
    assert_eq!(bytes, (1..=4).map(|n| vec![data_set_digest(n)]).collect::<Vec<_>>());
    office.stop();
}

#[test]
fn what_may_have_arrived_is_asked_about_before_it_is_sent_again() {
    let scp = Scp::listening(free_port());
    let mut office = Office::new(vec![pacs(scp.port)]);
    // Gone before the object was whole: it can not be there, and is sent again unasked.
    scp.script(&[Act::DieDuring]);
    office.publish(LARGE, 1);
    office.start();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.times_kept(), scp.state().queries), (vec![1], 0));
    // Gone after it: the peer is asked, and has it.
    scp.script(&[Act::DieAfter]);
    office.publish(2, 1);
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 2);
    assert_eq!((scp.times_kept(), scp.state().queries), (vec![1, 1], 1));
    assert_eq!(office.metric("stunetd_delivery_verified_total{destination=\"pacs\",method=\"query\"}"), 1.0);
    assert_eq!((office.attempts("already_there"), office.delivery(2).doubtful), (1.0, false));
    // Asked, it may also not have it.
    scp.script(&[Act::DieAfter]);
    office.publish(3, 1);
    office.passes("tried", || office.delivery(3).doubtful);
    scp.state().kept.remove(&instance(3));
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 3);
    assert_eq!((scp.times_kept(), scp.state().queries), (vec![1; 3], 2));
    office.stop();
}

#[test]
fn a_peer_that_can_not_be_asked_gets_the_same_bytes_once_more_or_never() {
    let scp = Scp::listening(free_port());
    scp.state().answers_queries = false;
    let mut office = Office::new(vec![pacs(scp.port)]);
    scp.script(&[Act::DieAfter, Act::Answer(0), Act::DieAfter, Act::DieAfter]);
    office.publish(1, 2);
    office.start();
    office
        .passes("one is delivered, one parked", || (office.count(DeliveryState::Delivered), office.count(DeliveryState::Parked)) == (1, 1));
    // The first was sent twice, and so was the second, of which nobody knows.
    assert_eq!(scp.times_kept(), [2, 2]);
    assert!(scp.state().kept.values().all(|copies| copies[0] == copies[1]));
    assert_eq!(code(&office, 2).as_deref(), Some("delivery.unverified"));
    office.retry(2);
    office.passes("a person has it sent once more", || office.count(DeliveryState::Delivered) == 2);
    assert_eq!(scp.state().kept[&instance(2)].len(), 3);
    office.stop();

    office.destinations[0].resend = Resend::Never;
    scp.script(&[Act::DieAfter]);
    office.publish(3, 1);
    office.start();
    office.passes("parked", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((scp.state().kept[&instance(3)].len(), code(&office, 3).as_deref()), (1, Some("delivery.unverified")));
    office.stop();
}

#[test]
fn a_peer_that_takes_no_segmentations_refuses_by_name() {
    need!(on_path("storescp"), "dcmtk is not here");
    let folder = tempfile::tempdir().expect("folder");
    let profile = folder.path().join("profile.cfg");
    let text = "[[TransferSyntaxes]]\n[LE]\nTransferSyntax1 = LittleEndianExplicit\n[[PresentationContexts]]\n[CT]\n\
                PresentationContext1 = CTImageStorage\\LE\n[[Profiles]]\n[CTOnly]\nPresentationContexts = CT\n";
    std::fs::write(&profile, text).expect("written");
    let peer = Storescp::start(folder.path(), &["-xf", profile.to_str().expect("UTF-8"), "CTOnly"]);
    let mut office = Office::new(vec![pacs(peer.port)]);
    office.publish(1, 1);
    office.start();
    office.passes("parked", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((code(&office, 1).as_deref(), office.delivery(1).attempts), (Some("delivery.refused"), 3));
    office.stop();
}

#[test]
fn a_flapping_peer_gets_everything_once() {
    const RESULTS: u32 = 60;
    let mut scp = Scp::new(free_port());
    let mut office = Office::new(vec![pacs(scp.port)]);
    office.publish(1, RESULTS);
    office.start();
    for round in 1.. {
        office.passes("down is noticed", || office.attempts("unreachable") >= f64::from(round));
        scp.up();
        // It dies after the seventh, and does not say that it has it.
        scp.state().objects_left = Some(7);
        let dead = || scp.state().objects_left == Some(0) || office.open() == 0;
        office.passes("the peer has died", dead);
        if office.open() == 0 {
            break;
        }
        scp.down();
    }
    office.stop();
    assert_eq!(scp.times_kept(), [1; RESULTS as usize]);
    assert_eq!((office.count(DeliveryState::Delivered), office.attempts("parked")), (RESULTS as usize, 0.0));
    assert!(office.attempts("already_there") >= 7.0, "{}", office.attempts("already_there"));
}

#[test]
fn what_was_in_hand_when_the_daemon_died_is_asked_about() {
    let scp = Scp::listening(free_port());
    let mut office = Office::new(vec![pacs(scp.port)]);
    office.publish(1, 2);
    // A daemon took it, sent it, and died before it could write that down.
    let lease = stunetd::ledger::Lease { owner: "dead".into(), hold: std::time::Duration::from_secs(60), model: String::new() };
    use stunetd::ledger::Ledger;
    office.ledger.claim_delivery("pacs", &lease).expect("asked").expect("one");
    scp.state().kept.insert(instance(1), vec![data_set_digest(1)]);
    office.crash();
    office.start();
    office.passes("both are there", || office.count(DeliveryState::Delivered) == 2);
    assert_eq!((scp.times_kept(), scp.state().queries), (vec![1, 1], 1));
    office.stop();
}

#[test]
fn five_hundred_results_wait_for_a_peer_that_was_down_the_whole_time() {
    need!(on_path("storescp"), "dcmtk is not here");
    const RESULTS: u32 = 500;
    let folder = tempfile::tempdir().expect("folder");
    let mut office = Office::new(vec![pacs(free_port())]);
    office.publish(1, RESULTS);
    office.start();
    office.passes("down is noticed", || office.metric("stunetd_destination_up{destination=\"pacs\"}") == 0.0);
    // Half a day.
    (0..720).for_each(|_| office.clock.advance(std::time::Duration::from_secs(60)));
    assert_eq!(office.open(), u64::from(RESULTS));
    assert!(office.metric("stunetd_outbox_oldest_age_seconds{destination=\"pacs\"}") > 0.0);
    office.stop();
    // Down, it was called for the first result only, and ever more rarely: pauses of 2 s, 4 s … up to 10 min.
    assert!(office.delivery(2).attempts == 0 && office.delivery(1).attempts <= 9 + 720 / 10, "{:?}", office.delivery(1));

    let peer = Storescp::start(folder.path(), &[]);
    office.destinations[0] = pacs(peer.port);
    office.start();
    office.passes("all are delivered", || office.open() == 0);
    office.stop();
    assert_eq!((office.count(DeliveryState::Delivered), objects(folder.path())), (RESULTS as usize, RESULTS as usize));
}

#[test]
fn tls_checks_the_peer_and_shows_our_certificate() {
    need!(on_path("openssl"), "openssl is not here");
    need!(on_path("storescp"), "dcmtk is not here");
    let help = Command::new("storescp").arg("--help").output().expect("storescp");
    need!(String::from_utf8_lossy(&help.stdout).contains("--enable-tls").then_some(()), "storescp was built without TLS");
    let folder = tempfile::tempdir().expect("folder");
    let keys = tempfile::tempdir().expect("folder");
    certificates(keys.path(), &["server", "caller"]);
    let key = |name: &str| keys.path().join(name).to_str().expect("UTF-8").to_string();
    let arguments = ["+tls", &key("server.key"), &key("server.pem"), "+cf", &key("ca.pem"), "-rc"];
    let peer = Storescp::start(folder.path(), &arguments);
    let with = |ca: &str, own: bool| {
        let mut destination = pacs(peer.port);
        destination.address = format!("localhost:{}", peer.port);
        (destination.tls, destination.tls_ca) = (true, key(ca).into());
        if own {
            (destination.tls_certificate, destination.tls_key) = (key("caller.pem").into(), key("caller.key").into());
        }
        destination
    };
    let mut office = Office::new(vec![with("ca.pem", true)]);
    office.publish(1, 1);
    office.start();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    office.stop();
    assert_eq!(objects(folder.path()), 1);
    // An authority that did not sign the peer's certificate, and no certificate of ours.
    for destination in [with("caller.pem", true), with("ca.pem", false)] {
        let mut office = Office::new(vec![destination]);
        office.publish(2, 1);
        office.start();
        office.passes("not reached", || office.delivery(1).attempts >= 2);
        assert_eq!(office.count(DeliveryState::Delivered), 0);
        office.stop();
    }
    assert_eq!(objects(folder.path()), 1);
}
