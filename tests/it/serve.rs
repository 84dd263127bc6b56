//! The daemon: watches, takes what is quiet, publishes, survives failures, ends cleanly.
//!
//! Most tests run it in this process with a scripted engine and a clock that is moved by hand; `program` starts the real
//! one.

mod complete;
pub mod daemon;
mod generations;
pub mod program;
mod rules;
pub mod scripted;

use crate::support::ct::Ct;
use daemon::{Daemon, QUIET, World};
use scripted::Act;
use std::time::Duration;
use stunetd::fault::Code;

#[test]
fn a_series_is_taken_when_it_is_quiet_and_published_whole() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".into()));
    let series = Ct::new(1, 8);
    // It drips in: every file starts the quiet time anew.
    for slice in 0..8 {
        series.write_slice(&world.incoming(), slice);
        daemon.sees_files(slice as f64 + 1.0);
        daemon.clock.advance(QUIET - Duration::from_secs(1));
        assert_eq!(daemon.metric("stunetd_series_open"), 1.0);
    }
    assert_eq!(world.engine.calls(), 0);
    let folder = daemon.next_result();
    world.check_result(&folder, &["manifest.json", "preview.png", "seg.dcm"]);
    assert_eq!(world.engine.calls(), 1);
    for (metric, value) in [
        ("stunetd_series_open", 0.0),
        ("stunetd_series_closed_total{evidence=\"timer\"}", 1.0),
        ("stunetd_jobs_ended_total{result=\"published\"}", 1.0),
        ("stunetd_stage_duration_seconds_count{stage=\"segment\"}", 1.0),
        ("stunetd_turnaround_seconds_count{priority=\"routine\"}", 1.0),
        ("stunetd_queue_bytes{queue=\"host\"}", 0.0),
        ("stunetd_jobs{state=\"working\"}", 0.0),
        ("stunetd_faults_total{code=\"internal.bug\"}", 0.0),
    ] {
        daemon.shows(metric, value);
    }
    assert!(daemon.get("/livez").1.starts_with("live\n"));
    daemon.end().expect("a clean end");

    // After a restart the result is known, and nothing is done again.
    let daemon = Daemon::start(&world);
    daemon.shows("stunetd_series_closed_total{evidence=\"timer\"}", 1.0);
    daemon.end().expect("a clean end");
    assert_eq!((world.engine.calls(), world.results().len()), (1, 1));
}

#[test]
fn late_slices_give_a_second_result() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    let series = Ct::new(1, 9);
    (0..8).for_each(|slice| series.write_slice(&world.incoming(), slice));
    let first = daemon.next_result();
    series.write_slice(&world.incoming(), 8);
    daemon.shows("stunetd_series_reopened_total", 1.0);
    let second = daemon.next_result();
    assert_ne!(first, second);
    assert_eq!(world.shape(&second)[0], world.shape(&first)[0] + 1);
    let instance = |folder: &str| world.manifest(folder).outputs.iter().find_map(|o| Some(o.dicom.as_ref()?.sop_instance.clone()));
    let replaced = world.manifest(&second).replaces.expect("the first");
    assert_eq!((replaced.revision, replaced.instances), (2, Vec::from_iter(instance(&first))));
    let object = std::fs::read(world.output().join(&second).join("seg.dcm")).expect("object");
    let says = |text: &str| object.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(says(" rev 2") && says(&format!("Replaces {}", instance(&first).expect("a UID"))));
    assert_eq!(world.manifest(&first).replaces, None);
    daemon.end().expect("a clean end");
}

#[test]
fn a_panic_parks_the_job_and_the_daemon_goes_on_with_a_new_engine() {
    let world = World::new();
    world.engine.next(Act::Panic);
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.shows("stunetd_jobs{state=\"parked\"}", 1.0);
    daemon.shows("stunetd_jobs_parked_total{code=\"internal.bug\"}", 1.0);
    daemon.shows("stunetd_panics_total{stage=\"segment\"}", 1.0);
    Ct::new(2, 4).write(&world.incoming());
    daemon.next_result();
    assert_eq!((world.engine.calls(), world.engine.opened()), (2, 2));
    daemon.end().expect("a clean end");
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn what_may_pass_is_tried_again_and_what_will_not_is_parked() {
    let world = World::new();
    world.engine.next(Act::Fail(Code::DiskUnwritable));
    world.engine.next(Act::Fail(Code::DiskUnwritable));
    world.engine.next(Act::Fail(Code::DiskFull));
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    daemon.shows("stunetd_jobs_ended_total{result=\"retried\"}", 3.0);
    // The second pause is twice the first, and nobody waits longer for a disk that may have space again.
    let attempts = world.engine.times();
    let pauses: Vec<u64> = attempts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!(matches!(pauses[..], [5..10, 10..20, 5..10]), "{pauses:?}");
    world.engine.next(Act::Fail(Code::MemoryTooLarge));
    Ct::new(2, 4).write(&world.incoming());
    daemon.shows("stunetd_jobs_parked_total{code=\"memory.volume_too_large\"}", 1.0);
    // A parked series is left alone until its files change.
    daemon.clock.advance(QUIET * 100);
    Ct::new(3, 4).write(&world.incoming());
    daemon.next_result();
    assert_eq!(world.engine.calls(), 6);
    daemon.end().expect("a clean end");
}

#[test]
fn a_dead_device_ends_the_daemon_with_its_code() {
    let world = World::new();
    world.engine.next(Act::Fail(Code::DeviceUnavailable));
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    let fault = daemon.ended().expect_err("a fault");
    assert_eq!((fault.code, fault.exit_code()), (Code::DeviceUnavailable, 70));
    assert_eq!(world.leftovers(), Vec::<String>::new());
}

#[test]
fn draining_finishes_what_is_in_flight() {
    let world = World::new();
    let go = world.engine.next_waits();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    Ct::new(2, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 1);
    daemon.shutdown.drain();
    daemon.shows("stunetd_draining", 1.0);
    assert_eq!(daemon.get("/readyz"), (503, "draining\n".into()));
    go.send(()).expect("the engine waits");
    daemon.ended().expect("a clean end");
    // Both were past the point of claiming, or the second was not begun and stays for the next start.
    let done = world.results().len();
    assert!(done >= 1 && world.leftovers().is_empty(), "{done}");
    let daemon = Daemon::start(&world);
    daemon.passes("both are done", || world.results().len() == 2);
    daemon.end().expect("a clean end");
}

#[test]
fn what_does_not_finish_within_the_drain_time_is_given_up_and_done_after_the_next_start() {
    let mut world = World::new();
    world.drain = Duration::from_secs(60);
    let _never = world.engine.next_waits();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 1);
    daemon.shutdown.drain();
    daemon.shows("stunetd_draining", 1.0);
    daemon.ended().expect("a clean end");
    assert_eq!((world.results().len(), world.leftovers()), (0, vec![]));
    let daemon = Daemon::start(&world);
    daemon.next_result();
    daemon.end().expect("a clean end");
}

#[test]
fn what_can_not_be_done_is_refused_by_name_and_its_files_stay() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    let gap = Ct::new(1, 6);
    [0, 1, 2, 4, 5].iter().for_each(|slice| gap.write_slice(&world.incoming(), *slice));
    Ct::new(2, 2).write(&world.incoming());
    std::fs::write(world.incoming().join("note.txt"), b"not DICOM").expect("file");
    daemon.shows("stunetd_series_refused_total{code=\"series.missing_slice\"}", 1.0);
    daemon.shows("stunetd_series_refused_total{code=\"series.too_few_slices\"}", 1.0);
    daemon.shows("stunetd_instances_rejected_total{reason=\"input.not_dicom\"}", 1.0);
    // The missing slice comes after all.
    gap.write_slice(&world.incoming(), 3);
    daemon.next_result();
    daemon.end().expect("a clean end");
    assert_eq!(std::fs::read_dir(world.incoming()).expect("folder").count(), 9);
}

#[test]
fn a_study_that_needs_more_than_all_memory_is_parked_with_the_numbers() {
    let mut world = World::new();
    world.host_memory = 1 << 20;
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.shows("stunetd_jobs_parked_total{code=\"memory.volume_too_large\"}", 1.0);
    assert_eq!(world.engine.calls(), 0);
    daemon.end().expect("a clean end");
}

#[test]
fn more_series_than_may_wait_are_all_done_in_the_end() {
    const MANY: usize = stunetd::pipeline::channels::WAITING + 20;
    let world = World::new();
    let go = world.engine.next_waits();
    let daemon = Daemon::start(&world);
    for series in 0..MANY {
        Ct::new(series as u32 + 1, 3).write(&world.incoming());
    }
    daemon.passes("the engine works", || world.engine.calls() == 1);
    go.send(()).expect("the engine waits");
    daemon.passes("all are done", || world.results().len() == MANY);
    assert_eq!(world.engine.calls(), MANY);
    daemon.end().expect("a clean end");
}
