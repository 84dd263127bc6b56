//! What was received is removed when nobody waits for it any more, and not before.

use super::peers::send;
use super::{spooled, world};
use crate::delivery::office::pacs;
use crate::delivery::scp::Scp;
use crate::need;
use crate::serve::daemon::{Daemon, free_port};
use crate::support::ct::Ct;
use crate::support::on_path;
use std::time::Duration;
use stunetd::ledger::{Reader, SqliteReader};
use stunetd::sys::clock::SystemClock;

const DAY: Duration = Duration::from_secs(86_400);

fn sent(port: u16, number: u32, slices: usize) {
    let folder = tempfile::tempdir().expect("folder");
    Ct::new(number, slices).write(folder.path());
    send(port, &["-xe"], folder.path());
}

#[test]
fn what_was_received_stays_until_its_result_is_delivered_and_its_time_is_over() {
    need!(on_path("storescu"), "dcmtk is not here");
    let mut scp = Scp::new(free_port());
    let (mut world, port) = world(|_| {});
    let (listen, destination) = (world.configure, pacs(scp.port));
    world.configure = Box::new(move |config| {
        listen(config);
        config.destination = vec![destination.clone()];
    });
    let daemon = Daemon::start(&world);
    sent(port, 1, 4);
    daemon.next_result();
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 1.0);
    // A month later the destination still has not got it.
    for _ in 0..30 {
        daemon.clock.advance(DAY);
        daemon.metric("stunetd_series_discarded_total");
    }
    daemon.passes("it is tried again", || {
        daemon.metric("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"unreachable\"}") > 3.0
    });
    assert_eq!((spooled(&world).0.len(), daemon.metric("stunetd_series_discarded_total")), (4, 0.0));
    scp.up();
    daemon.shows("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"delivered\"}", 1.0);
    daemon.clock.advance(6 * DAY);
    // Another study comes meanwhile; its time begins now.
    sent(port, 2, 4);
    daemon.next_result();
    daemon.shows("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"delivered\"}", 2.0);
    daemon.clock.advance(DAY);
    daemon.shows("stunetd_series_discarded_total", 1.0);
    assert_eq!(spooled(&world).0.len(), 4);
    // Sent again, it has its result already, and the destination has that too.
    sent(port, 1, 4);
    daemon.shows("stunetd_jobs_ended_total{result=\"already_published\"}", 1.0);
    daemon.shows("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"already_there\"}", 1.0);
    assert_eq!((spooled(&world).0.len(), scp.times_kept()), (8, vec![1, 1]));
    daemon.end().expect("a clean end");
    let reader = SqliteReader::open(&world.state(), std::sync::Arc::new(SystemClock)).expect("read").expect("a ledger");
    assert_eq!(reader.received(0, 100).expect("read").len(), 8);
}
