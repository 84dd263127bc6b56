//! Delivery to Debian's Orthanc, by C-STORE and by STOW-RS.

use super::office::{Office, instance, object_file, pacs, web};
use super::orthanc::Orthanc;
use crate::need;
use std::collections::BTreeSet;
use std::time::Duration;
use stunetd::config::Destination;
use stunetd::ledger::{DeliveryState, Lease, Ledger};

pub const WHY: &str = "Orthanc is not here (Debian packages orthanc, orthanc-dicomweb)";

/// Both ways to it.
fn ways(orthanc: &Orthanc) -> [Destination; 2] {
    [pacs(orthanc.dicom), web(&format!("http://127.0.0.1:{}/dicom-web", orthanc.http))]
}

fn expected(count: u32) -> BTreeSet<String> {
    (1..=count).map(instance).collect()
}

#[test]
fn five_hundred_results_wait_for_an_archive_that_was_down() {
    const RESULTS: u32 = 500;
    for way in 0..2 {
        let mut orthanc = need!(Orthanc::new(), WHY);
        let mut office = Office::new(vec![ways(&orthanc)[way].clone()]);
        office.publish(1, RESULTS);
        office.start();
        office.passes("down is noticed", || office.metric("stunetd_destination_up{destination=\"pacs\"}") == 0.0);
        assert_eq!(office.open(), u64::from(RESULTS));
        orthanc.up();
        office.passes("all are delivered", || office.open() == 0);
        office.stop();
        assert_eq!((office.count(DeliveryState::Delivered), office.attempts("delivered")), (RESULTS as usize, f64::from(RESULTS)));
        assert_eq!((orthanc.instances(), orthanc.arrivals(), orthanc.uids()), (RESULTS as usize, RESULTS as usize, expected(RESULTS)));
        assert!(orthanc.came().len() == RESULTS as usize && orthanc.came().values().all(|times| *times == 1));
    }
}

#[test]
fn an_archive_that_is_killed_again_and_again_gets_everything_once() {
    const RESULTS: u32 = 300;
    for way in 0..2 {
        let mut orthanc = need!(Orthanc::new(), WHY);
        let mut office = Office::new(vec![ways(&orthanc)[way].clone()]);
        office.publish(1, RESULTS);
        office.start();
        for round in 1..=3 {
            orthanc.up();
            office.passes("some are delivered", || office.open() <= u64::from(RESULTS - round * 60));
            orthanc.kill();
        }
        orthanc.up();
        office.passes("all are delivered", || office.open() == 0);
        office.stop();
        // Each became an instance of it once.
        assert_eq!(
            (office.count(DeliveryState::Delivered), orthanc.arrivals(), orthanc.uids()),
            (RESULTS as usize, RESULTS as usize, expected(RESULTS))
        );
        let sent = office.attempts("delivered") + office.attempts("already_there");
        assert_eq!(sent, f64::from(RESULTS));
        // What came a second time is what was on its way when it was killed, before it was an instance.
        let came = orthanc.came();
        let again: usize = came.values().map(|times| times - 1).sum();
        assert!(came.len() == RESULTS as usize && again <= 3, "{again} came again");
    }
}

#[test]
fn an_archive_is_asked_before_anything_is_sent_again() {
    for way in 0..2 {
        let mut orthanc = need!(Orthanc::new(), WHY);
        orthanc.up();
        let mut office = Office::new(vec![ways(&orthanc)[way].clone()]);
        office.publish(1, 2);
        // Two were in hand when the daemon died; one had arrived.
        let lease = Lease { owner: "dead".into(), hold: Duration::from_secs(60), model: String::new() };
        for _ in 0..2 {
            office.ledger.claim_delivery("pacs", &lease).expect("asked").expect("one");
        }
        orthanc.request("POST", "/instances", &object_file(1)).expect("stored");
        office.crash();
        office.start();
        office.passes("both are there", || office.count(DeliveryState::Delivered) == 2);
        office.stop();
        assert_eq!((office.attempts("already_there"), office.attempts("delivered")), (1.0, 1.0));
        assert_eq!((orthanc.arrivals(), orthanc.uids()), (2, expected(2)));
        assert_eq!(office.metric("stunetd_delivery_verified_total{destination=\"pacs\",method=\"query\"}"), 1.0);
    }
}

#[test]
fn an_archive_that_stands_still_is_given_up_and_gets_everything_once() {
    const RESULTS: u32 = 60;
    for way in 0..2 {
        let mut orthanc = need!(Orthanc::new(), WHY);
        orthanc.up();
        let mut destination = ways(&orthanc)[way].clone();
        destination.timeout = stunetd::config::HumanDuration(Duration::from_secs(3));
        let mut office = Office::new(vec![destination]);
        office.publish(1, RESULTS);
        office.start();
        office.passes("some are delivered", || office.open() <= u64::from(RESULTS - 10));
        orthanc.freeze();
        let given_up = || office.attempts("postponed") + office.attempts("unreachable") > 0.0 || office.open() == 0;
        office.passes("it is given up", given_up);
        assert!(office.open() > 0, "it stood still too late");
        orthanc.thaw();
        office.passes("all are delivered", || office.open() == 0);
        office.stop();
        assert_eq!(
            (office.count(DeliveryState::Delivered), orthanc.arrivals(), orthanc.uids()),
            (RESULTS as usize, RESULTS as usize, expected(RESULTS))
        );
    }
}
