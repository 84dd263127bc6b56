//! The ledger on this machine's disk: acknowledgements a second with group commit, and how long an opening takes.
//!
//! `cargo bench --bench ledger -- [--instances 5000] [--rows 100000] [--dir FOLDER]`
//!
//! An acknowledgement is one instance written down durably by a caller that waits for it, as a C-STORE does. `--dir` names a folder on
//! the disk to be measured; without it, `target`.

use std::path::PathBuf;
use std::sync::Arc;
use stunetd::dicom::SeriesKey;
use stunetd::ledger::*;
use stunetd::sys::clock::{Stopwatch, SystemClock};

fn options(state: PathBuf) -> Options {
    Options { state, limits: Limits::default(), clock: Arc::new(SystemClock), who: "bench".into() }
}

fn key(n: u64) -> SeriesKey {
    SeriesKey { study: format!("1.2.826.0.1.3680043.8.498.{}", n / 4), series: format!("1.2.826.0.1.3680043.8.498.{}.{n}", n / 4) }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let number = |name: &str, default: u64| option(name).map_or(default, |v| v.parse().expect("a number"));
    let (instances, rows) = (number("--instances", 5000), number("--rows", 100_000));
    let parent = option("--dir").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("folder");

    println!("{:<12} {:>16} {:>14}", "callers", "acknowledged/s", "ms a caller");
    for callers in [1u64, 2, 4, 8, 16, 64] {
        let (ledger, _) = SqliteLedger::open(&options(dir.path().join(format!("ack-{callers}")))).expect("a ledger");
        let each = instances / callers;
        let watch = Stopwatch::start();
        std::thread::scope(|scope| {
            for caller in 0..callers {
                let ledger = &ledger;
                scope.spawn(move || {
                    for n in 0..each {
                        let received = Received {
                            series: key(caller),
                            sop_instance: format!("1.2.826.0.1.3680043.8.498.{caller}.{n}"),
                            path: format!("{caller:032x}/{n:032x}-0123456789abcdef.dcm"),
                            bytes: 526_000,
                        };
                        ledger.commit(vec![Change::Receive(received)]).expect("durable");
                    }
                });
            }
        });
        let seconds = watch.seconds();
        println!("{callers:<12} {:>16.0} {:>14.2}", (each * callers) as f64 / seconds, 1000.0 * seconds / each as f64);
    }

    // A year of a busy hospital, and a crash with a thousand parked jobs and eight in work.
    let state = dir.path().join("full");
    let (ledger, _) = SqliteLedger::open(&options(state.clone())).expect("a ledger");
    let lease = Lease { owner: "w".into(), hold: std::time::Duration::from_secs(60), model: "0123456789abcdef".into() };
    let problem = || Problem { code: "series.missing_slice".into(), detail: "Slice 17 of 300 is missing.".into() };
    let watch = Stopwatch::start();
    for start in (0..rows).step_by(1000) {
        let closings = (start..(start + 1000).min(rows)).map(|n| {
            let object = |file: &str| Object { file: file.into(), bytes: 1 << 20, sha256: format!("{n:064x}") };
            let found = Published {
                folder: format!("{n:08x}"),
                identity: format!("{n:064x}"),
                objects: vec![object("seg.dcm"), object("preview.png")],
            };
            let volume = NewVolume {
                input: format!("{n:064x}"),
                priority: Priority::Routine,
                rule: None,
                contest: None,
                result: (n + 1008 < rows).then_some(found),
                destinations: vec![],
            };
            Change::Close(Closing { series: key(n), evidence: Evidence::Timer, print: "p".into(), volumes: vec![volume], refusals: vec![] })
        });
        ledger.commit(closings.collect()).expect("durable");
    }
    for _ in 0..1000 {
        let token = ledger.claim(&lease).expect("asked").expect("a job").token;
        ledger.commit(vec![Change::Park { token, problem: problem() }]).expect("durable");
    }
    (0..8).for_each(|_| drop(ledger.claim(&lease).expect("asked").expect("a job")));
    println!("\n{rows} jobs written in {:.1} s", watch.seconds());
    drop(ledger);
    let bytes = std::fs::metadata(state.join(FILE)).expect("file").len();
    let watch = Stopwatch::start();
    let (ledger, opening) = SqliteLedger::open(&options(state)).expect("a ledger");
    let open = watch.seconds();
    let watch = Stopwatch::start();
    ledger.claim(&lease).expect("asked").expect("a job");
    println!(
        "opened and recovered in {open:.2} s ({} MB, {} put back); first claim after {:.1} ms",
        bytes >> 20,
        opening.requeued,
        1000.0 * watch.seconds()
    );
    let watch = Stopwatch::start();
    let parked = ledger.jobs(&Which { states: vec![State::Parked], ..Which::default() }).expect("read").len();
    println!("{parked} parked jobs listed in {:.1} ms", 1000.0 * watch.seconds());
}
