//! How long the daemon keeps results.

use super::daemon::{Daemon, World};
use crate::support::ct::Ct;
use std::sync::Arc;
use std::time::Duration;
use stunetd::config::Keep;
use stunetd::ledger::{Reader, SqliteReader, Which};
use stunetd::sys::clock::SystemClock;

const DAY: Duration = Duration::from_secs(86_400);

fn jobs(world: &World) -> usize {
    let ledger = SqliteReader::open(&world.state(), Arc::new(SystemClock)).expect("read").expect("a ledger");
    ledger.jobs(&Which::default()).expect("read").len()
}

#[test]
fn a_result_goes_after_its_time_and_its_files_are_not_done_again() {
    let mut world = World::new();
    world.configure = Box::new(|config| config.retention.results = Keep::days(7));
    let daemon = Daemon::start(&world);
    Ct::new(1, 6).write(&world.incoming());
    let first = daemon.next_result();
    daemon.clock.advance(6 * DAY);
    Ct::new(2, 6).write(&world.incoming());
    let second = daemon.next_result();
    daemon.clock.advance(DAY + DAY / 2);
    daemon.passes("the older one is removed", || !world.results().contains(&first) && world.leftovers().is_empty());
    assert_eq!(world.results().into_iter().collect::<Vec<_>>(), [second]);
    assert_eq!(jobs(&world), 1);
    daemon.end().expect("a clean end");

    // By other rules every series is judged anew; what was done stays done.
    world.configure = Box::new(|config| {
        config.retention.results = Keep::days(7);
        config.intake.min_slices = 4;
    });
    let daemon = Daemon::start(&world);
    daemon.shows("stunetd_series_closed_total{evidence=\"timer\"}", 2.0);
    Ct::new(3, 6).write(&world.incoming());
    daemon.next_result();
    assert_eq!((world.engine.calls(), jobs(&world)), (3, 2));
    daemon.end().expect("a clean end");
}
