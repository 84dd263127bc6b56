//! Storage commitment: a destination is asked to keep what it got, and reports on the same association, on one of its own, or never.

use super::office::{Office, instance, pacs};
use super::orthanc::Orthanc;
use super::scp::{Commits, Scp, report_command};
use crate::need;
use crate::serve::daemon::{Daemon, World, free_port};
use crate::support::ct::Ct;
use dicom_ul::association::{Association, ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu, RequestorRoles};
use std::net::TcpStream;
use std::time::Duration;
use stunetd::config::{Destination, Listen};
use stunetd::dicom::command::CommandSet;
use stunetd::dicom::commitment::{PUSH_MODEL, request, request_command};
use stunetd::ledger::DeliveryState;

const BY_COMMITMENT: &str = "stunetd_delivery_verified_total{destination=\"pacs\",method=\"commitment\"}";
const BY_QUERY: &str = "stunetd_delivery_verified_total{destination=\"pacs\",method=\"query\"}";
const UNCOMMITTED: Option<&str> = Some("delivery.uncommitted");

fn committing(port: u16) -> Destination {
    Destination { commitment: true, ..pacs(port) }
}

/// A peer that does this, and who sends to it.
fn pair(commits: Option<Commits>) -> (Scp, Office) {
    let scp = Scp::listening(free_port());
    scp.state().commits = commits;
    let office = Office::new(vec![committing(scp.port)]);
    (scp, office)
}

/// How often it was asked what it has, and asked to keep something. One guard: a second one in the same statement would wait for the first.
fn seen(scp: &Scp) -> (usize, usize) {
    let state = scp.state();
    (state.queries as usize, state.asked.len())
}

fn code(office: &Office, job: u64) -> Option<String> {
    office.delivery(job).problem.map(|p| p.code)
}

#[test]
fn what_a_peer_commits_itself_to_is_delivered() {
    for first in [false, true] {
        let (scp, mut office) = pair(Some(Commits::Here { kept: true, first }));
        office.publish(1, 3);
        office.start();
        office.passes("all are delivered", || office.count(DeliveryState::Delivered) == 3);
        office.stop();
        assert_eq!((office.metric(BY_COMMITMENT), office.metric(BY_QUERY), office.attempts("delivered")), (3.0, 0.0, 3.0));
        let state = scp.state();
        assert_eq!((state.queries, &state.answers, state.asked.len()), (0, &vec![0; 3], 3));
        // Each request has a name of its own, and names the object.
        let delivery = office.delivery(2);
        assert_eq!((delivery.committed, delivery.problem, delivery.doubtful), (Some(true), None, false));
        let transaction = delivery.transaction.expect("a transaction");
        assert!(state.asked.contains(&request(&transaction, &[(super::scp::SEG, &instance(2))])));
    }
}

#[test]
fn a_report_that_never_comes_has_the_peer_asked_and_nothing_sent_again() {
    let (scp, mut office) = pair(Some(Commits::Later));
    office.publish(1, 1);
    office.start();
    office.passes("it was sent", || office.count(DeliveryState::Waiting) == 1);
    assert_eq!((code(&office, 1).as_deref(), office.delivery(1).committed), (UNCOMMITTED, None));
    office.clock.advance(Duration::from_secs(3500));
    office.passes("time goes by", || office.metric("stunetd_outbox_oldest_age_seconds{destination=\"pacs\"}") > 3400.0);
    assert_eq!((scp.state().queries, office.count(DeliveryState::Waiting)), (0, 1));
    office.passes("it is asked", || office.count(DeliveryState::Delivered) == 1);
    office.stop();
    assert_eq!((scp.times_kept(), seen(&scp)), (vec![1], (1, 1)));
    assert_eq!((office.metric(BY_COMMITMENT), office.metric(BY_QUERY)), (0.0, 1.0));
    assert_eq!(code(&office, 1).as_deref(), UNCOMMITTED);
}

#[test]
fn a_peer_that_keeps_nothing_is_asked_what_it_has() {
    // It has it nevertheless.
    let (scp, mut office) = pair(Some(Commits::Here { kept: false, first: false }));
    office.publish(1, 1);
    office.start();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.times_kept(), scp.state().queries, office.metric(BY_QUERY)), (vec![1], 1, 1.0));
    assert_eq!((code(&office, 1).as_deref(), office.delivery(1).committed), (UNCOMMITTED, Some(false)));
    // It has lost it: it gets the same bytes again.
    scp.state().commits = Some(Commits::Loses);
    office.publish(2, 1);
    office.passes("it was lost", || office.delivery(2).refusals == 1);
    scp.state().commits = Some(Commits::Here { kept: true, first: false });
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 2);
    assert_eq!((scp.times_kept(), office.metric(BY_COMMITMENT), office.attempts("delivered")), (vec![1, 1], 1.0, 3.0));
    // It loses it again and again: that is for a person.
    scp.state().commits = Some(Commits::Loses);
    office.publish(3, 1);
    office.passes("parked", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((code(&office, 3).as_deref(), scp.times_kept()), (UNCOMMITTED, vec![1, 1]));
    scp.state().commits = Some(Commits::Here { kept: true, first: true });
    office.retry(3);
    office.passes("delivered after all", || office.count(DeliveryState::Delivered) == 3);
    assert_eq!(scp.times_kept(), [1; 3]);
    office.stop();
}

#[test]
fn who_can_not_be_asked_either_gets_nothing_blindly() {
    let (scp, mut office) = pair(Some(Commits::Later));
    scp.state().answers_queries = false;
    office.publish(1, 1);
    office.start();
    office.passes("it was sent", || office.count(DeliveryState::Waiting) == 1);
    office.clock.advance(Duration::from_secs(3500));
    office.passes("parked", || office.count(DeliveryState::Parked) == 1);
    assert_eq!((code(&office, 1).as_deref(), scp.times_kept()), (Some("delivery.unverified"), vec![1]));
    // A person wants it sent once more.
    scp.state().commits = Some(Commits::Here { kept: true, first: false });
    office.retry(1);
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.times_kept(), office.delivery(1).resends), (vec![2], 1));
    office.stop();
}

#[test]
fn a_peer_without_storage_commitment_is_believed() {
    let (scp, mut office) = pair(None);
    office.publish(1, 1);
    office.start();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.state().queries, code(&office, 1).as_deref()), (0, UNCOMMITTED));
    office.stop();
    // One that offers it and does not do it is asked what it has.
    let (scp, mut office) = pair(Some(Commits::Refuses(0x0211)));
    office.publish(1, 1);
    office.start();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((scp.times_kept(), seen(&scp)), (vec![1], (1, 1)));
    office.stop();
}

#[test]
fn what_was_in_hand_when_the_daemon_died_may_be_committed_already() {
    use stunetd::ledger::{Change, Lease, Ledger, Problem};
    let (scp, mut office) = pair(Some(Commits::Later));
    office.publish(1, 1);
    let lease = Lease { owner: "dead".into(), hold: Duration::from_secs(60), model: String::new() };
    let token = office.ledger.claim_delivery("pacs", &lease).expect("asked").expect("one").token;
    let problem = Problem { code: "delivery.uncommitted".into(), detail: String::new() };
    let ask = Change::AskCommitment { token, transaction: "2.25.1".into() };
    office
        .ledger
        .commit(vec![ask, Change::Committed { transaction: "2.25.1".into(), kept: true, pause: Duration::ZERO, problem }])
        .expect("durable");
    office.crash();
    office.start();
    assert_eq!((office.count(DeliveryState::Delivered), office.open(), scp.state().associations), (1, 0, 0));
    office.stop();
}

/// A world whose daemon listens at the second port and sends to the first.
fn world(pacs: u16, port: u16) -> World {
    let mut world = World::new();
    let destination = committing(pacs);
    world.configure = Box::new(move |config| {
        config.dimse.listen = Listen(Some(([127, 0, 0, 1], port).into()));
        config.destination = vec![destination.clone()];
    });
    world
}

/// Says something on an association: the status that comes back.
fn say(association: &mut ClientAssociation<TcpStream>, command: Vec<u8>, data: &[u8]) -> u16 {
    let presentation_context_id = association.presentation_contexts().first().expect("a context").id;
    for (value_type, data) in [(PDataValueType::Command, command), (PDataValueType::Data, data.to_vec())] {
        let value = PDataValue { presentation_context_id, value_type, is_last: true, data };
        association.send(&Pdu::PData { data: vec![value] }).expect("sent");
    }
    let Ok(Pdu::PData { data }) = association.receive() else { panic!("no answer") };
    CommandSet::read(&data[0].data).expect("a command").number(0x0900).expect("a status")
}

fn reporter(port: u16) -> Result<ClientAssociation<TcpStream>, dicom_ul::association::Error> {
    ClientAssociationOptions::new()
        .calling_ae_title("PACS")
        .called_ae_title("STUNETD")
        .with_presentation_context(PUSH_MODEL, vec!["1.2.840.10008.1.2"])
        .with_role_selection(PUSH_MODEL, false, true)
        .establish(("127.0.0.1", port))
}

#[test]
fn a_report_may_come_on_an_association_of_its_own() {
    let (scp, port) = (Scp::listening(free_port()), free_port());
    scp.state().commits = Some(Commits::Later);
    let world = world(scp.port, port);
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    daemon.passes("it is asked to keep it", || scp.state().asked.len() == 1);
    let asked = scp.state().asked[0].clone();
    let mut association = reporter(port).expect("an association");
    assert_eq!(association.requestor_roles_for(PUSH_MODEL), RequestorRoles { scu: false, scp: true });
    // Nobody asked for that, that is no report, and we are no archive.
    assert_eq!(say(&mut association, report_command(1), &request("1.2.3", &[])), 0x0115);
    assert_eq!(say(&mut association, report_command(1), &[0x5A; 99]), 0x0115);
    assert_eq!(say(&mut association, request_command(1), &asked), 0x0211);
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 1.0);
    for _ in 0..2 {
        assert_eq!(say(&mut association, report_command(1), &asked), 0);
    }
    association.release().expect("released");
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 0.0);
    assert_eq!((daemon.metric(BY_COMMITMENT), scp.state().queries), (1.0, 0));
    daemon.end().expect("a clean end");
}

#[test]
fn without_a_destination_that_commits_nobody_may_report() {
    let port = free_port();
    let mut world = World::new();
    world.configure = Box::new(move |config| config.dimse.listen = Listen(Some(([127, 0, 0, 1], port).into())));
    let daemon = Daemon::start(&world);
    assert!(reporter(port).is_err());
    daemon.end().expect("a clean end");
}

#[test]
fn orthanc_reports_what_it_keeps() {
    let port = free_port();
    let mut orthanc = need!(Orthanc::knowing(port), "Orthanc is not here (Debian packages orthanc, orthanc-dicomweb)");
    orthanc.up();
    let world = world(orthanc.dicom, port);
    let daemon = Daemon::start(&world);
    for number in 1..=3 {
        Ct::new(number, 4).write(&world.incoming());
        daemon.next_result();
    }
    daemon.passes("it keeps them", || daemon.metric(BY_COMMITMENT) == 3.0);
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 0.0);
    assert_eq!((daemon.metric(BY_QUERY), orthanc.arrivals()), (0.0, 3));
    daemon.end().expect("a clean end");
}
