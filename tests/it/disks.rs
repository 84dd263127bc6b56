//! Little space and none: what is left out, what is refused, and that work goes on by itself.

use crate::serve::daemon::{Daemon, World};
use crate::support::ct::Ct;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stunetd::config::{ByteSize, Format};
use stunetd::fault::{Code, Fault};
use stunetd::sys::clock::Clock;
use stunetd::sys::machine::Space;

/// A world whose disks have as many bytes free as the number says, with watermarks at 100 and 50.
fn world() -> (World, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(1000));
    let mut world = World::new();
    world.space = {
        let free = free.clone();
        Arc::new(move |_| Ok(Space { free: free.load(Ordering::SeqCst), used: 7 }))
    };
    world.configure = Box::new(|config| {
        (config.spool.min_free, config.spool.low_free) = (ByteSize(50), ByteSize(100));
        config.output.formats = vec![Format::Seg, Format::Nifti, Format::Preview];
    });
    (world, free)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn with_little_space_what_is_optional_is_left_out() {
    let (world, free) = world();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    world.check_result(&daemon.next_result(), &["labels.nii.gz", "manifest.json", "preview.png", "seg.dcm"]);
    free.store(99, Ordering::SeqCst);
    Ct::new(2, 4).write(&world.incoming());
    world.check_result(&daemon.next_result(), &["manifest.json", "seg.dcm"]);
    for (metric, value) in [
        ("stunetd_optional_files_skipped_total{format=\"nifti\"}", 1.0),
        ("stunetd_optional_files_skipped_total{format=\"preview\"}", 1.0),
        ("stunetd_spool_free_bytes{place=\"output\"}", 99.0),
        ("stunetd_spool_used_bytes{place=\"state\"}", 7.0),
        ("stunetd_spool_watermark_bytes{level=\"low\"}", 100.0),
        ("stunetd_spool_watermark_bytes{level=\"full\"}", 50.0),
    ] {
        assert_eq!(daemon.metric(metric), value, "{metric}");
    }
    assert!(daemon.metric("stunetd_spool_low_seconds_total{level=\"low\"}") > 0.0);
    assert_eq!(daemon.metric("stunetd_spool_low_seconds_total{level=\"full\"}"), 0.0);
    free.store(100, Ordering::SeqCst);
    Ct::new(3, 4).write(&world.incoming());
    world.check_result(&daemon.next_result(), &["labels.nii.gz", "manifest.json", "preview.png", "seg.dcm"]);
    daemon.end().expect("a clean end");
}

#[test]
fn what_was_asked_for_alone_is_never_left_out() {
    let (mut world, free) = world();
    let before = std::mem::replace(&mut world.configure, Box::new(|_| {}));
    world.configure = Box::new(move |config| {
        before(config);
        config.output.formats = vec![Format::Nifti];
    });
    free.store(99, Ordering::SeqCst);
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    world.check_result(&daemon.next_result(), &["labels.nii.gz", "manifest.json"]);
    daemon.end().expect("a clean end");
}

#[test]
fn without_space_nothing_is_taken_until_there_is_some() {
    let (world, free) = world();
    free.store(49, Ordering::SeqCst);
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    for _ in 0..300 {
        daemon.clock.advance(SECOND);
        std::thread::yield_now();
    }
    daemon.passes("the disk is seen to be full", || daemon.metric("stunetd_spool_low_seconds_total{level=\"full\"}") > 100.0);
    assert_eq!(daemon.metric("stunetd_faults_total{code=\"disk.full\"}"), 1.0);
    assert_eq!((daemon.metric("stunetd_files_read_total"), world.engine.calls()), (0.0, 0));
    free.store(1000, Ordering::SeqCst);
    let start = daemon.clock.monotonic();
    daemon.passes_slowly("the folders are looked at", || daemon.metric("stunetd_files_read_total") == 4.0);
    let took = daemon.clock.monotonic() - start;
    assert!(took <= Duration::from_secs(10), "{took:?}");
    daemon.next_result();
    daemon.end().expect("a clean end");
}

#[test]
fn what_is_in_work_when_space_runs_out_is_finished() {
    let (world, free) = world();
    let go = world.engine.next_waits();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 1);
    free.store(49, Ordering::SeqCst);
    daemon.passes("the disk is seen to be full", || daemon.metric("stunetd_spool_low_seconds_total{level=\"full\"}") > 0.0);
    go.send(()).expect("the engine waits");
    daemon.next_result();
    Ct::new(2, 4).write(&world.incoming());
    for _ in 0..100 {
        daemon.clock.advance(SECOND);
    }
    assert_eq!(world.engine.calls(), 1);
    free.store(1000, Ordering::SeqCst);
    daemon.next_result();
    daemon.end().expect("a clean end");
}

/// The spool of a first start is made after the disks were looked at.
#[test]
fn folders_that_are_not_there_yet_have_the_room_of_what_they_will_lie_on() {
    let (mut world, _) = world();
    world.space = Arc::new(|path| match path.exists() {
        true => Ok(Space { free: 1000, used: 7 }),
        false => Err(Fault::new(Code::DiskUnreadable, "not there")),
    });
    let before = std::mem::replace(&mut world.configure, Box::new(|_| {}));
    world.configure = Box::new(move |config| {
        before(config);
        config.stow.enabled = true;
    });
    let daemon = Daemon::start(&world);
    assert_eq!(daemon.metric("stunetd_faults_total{code=\"disk.full\"}"), 0.0);
    assert_eq!(daemon.metric("stunetd_spool_free_bytes{place=\"spool\"}"), 1000.0);
    daemon.end().expect("a clean end");
}
