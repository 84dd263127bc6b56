//! The ledger of a busy year, and how soon a daemon that has it is ready. The bench `ingest` uses this file too.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use stunetd::dicom::SeriesKey;
use stunetd::ledger::*;
use stunetd::sys::clock::{Stopwatch, SystemClock};

fn key(n: u64) -> SeriesKey {
    SeriesKey { study: format!("1.2.826.0.1.3680043.8.498.{}", n / 4), series: format!("1.2.826.0.1.3680043.8.498.{}.{n}", n / 4) }
}

/// Writes a ledger of `rows` jobs: 1000 are parked, 8 were in work when the process died, all others are done.
pub fn fill(state: &Path, rows: u64) {
    let options = Options { state: state.into(), limits: Limits::default(), clock: Arc::new(SystemClock), who: "full".into() };
    let (ledger, _) = SqliteLedger::open(&options).expect("a ledger");
    let lease = Lease { owner: "w".into(), hold: Duration::from_secs(60), model: "0123456789abcdef".into() };
    for start in (0..rows).step_by(1000) {
        let closings = (start..(start + 1000).min(rows)).map(|n| {
            let object = |file: &str| Object { file: file.into(), bytes: 1 << 20, sha256: format!("{n:064x}") };
            let objects = vec![object("seg.dcm"), object("preview.png")];
            let found = Published { folder: format!("{n:08x}"), identity: format!("{n:064x}"), objects };
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
    // What was finished before the last check point is not compared again: it was there then.
    ledger.commit(vec![Change::Verified]).expect("durable");
    for _ in 0..1000 {
        let token = ledger.claim(&lease).expect("asked").expect("a job").token;
        let problem = Problem { code: "series.missing_slice".into(), detail: "Slice 17 of 300 is missing.".into() };
        ledger.commit(vec![Change::Park { token, problem }]).expect("durable");
    }
    (0..8).for_each(|_| drop(ledger.claim(&lease).expect("asked").expect("a job")));
    // As a crash leaves it.
    ledger.leave();
}

/// Starts `program serve` with the demo model on the state folder in `dir`; seconds until it says that it is ready, and how many jobs
/// it then says are parked.
pub fn ready_after(program: &Path, dir: &Path) -> (f64, Option<f64>) {
    let address: SocketAddr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port");
    std::fs::create_dir_all(dir.join("incoming")).expect("folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let text = format!(
        "state = \"state\"\n[[watch]]\npath = \"incoming\"\n[model]\npath = {model:?}\ndevice = \"cpu\"\n[output]\npath = \"results\"\n\
         [spool]\npath = \"spool\"\nmin_free = \"0 B\"\nlow_free = \"0 B\"\n[http]\nlisten = \"{address}\"\n"
    );
    let config = dir.join("stunetd.toml");
    std::fs::write(&config, text).expect("written");
    let watch = Stopwatch::start();
    let mut child = Command::new(program).args(["serve", "--config"]).arg(&config).stderr(Stdio::null()).spawn().expect("starts");
    let seconds = loop {
        if get(address, "/readyz").is_some_and(|answer| answer.contains(" 200 ")) || watch.seconds() > 120.0 {
            break watch.seconds();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let metrics = get(address, "/metrics").unwrap_or_default();
    let parked = metrics.lines().find_map(|line| line.strip_prefix("stunetd_jobs{state=\"parked\"} ")?.parse().ok());
    // It has nothing to lose.
    let _ = child.kill();
    let _ = child.wait();
    (seconds, parked)
}

/// The whole answer to a GET.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut answer = String::new();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
