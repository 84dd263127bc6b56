//! The ledger: one suite that every implementation passes, random histories against the reference, and what only a file can suffer.

mod file;
mod model;
mod properties;
mod suite;
mod training;

use model::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use stunetd::dicom::SeriesKey;
use stunetd::ledger::*;
use stunetd::sys::clock::SimulatedClock;

/// A place where a ledger of some kind lives, to be opened again and again.
pub trait Site {
    /// Opens it.
    fn open(&mut self) -> (Box<dyn Ledger>, Opening);

    /// What a crash leaves: only what was committed. The ledger was opened by [`Site::open`].
    fn crash(&mut self, ledger: Box<dyn Ledger>);

    fn clock(&self) -> Arc<SimulatedClock>;
}

pub fn clock() -> Arc<SimulatedClock> {
    Arc::new(SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)))
}

/// The reference.
pub struct InMemory {
    disk: Disk,
    clock: Arc<SimulatedClock>,
}

impl InMemory {
    pub fn new() -> InMemory {
        let clock = clock();
        InMemory { disk: Disk::new(Limits::default(), clock.clone()), clock }
    }
}

impl Site for InMemory {
    fn open(&mut self) -> (Box<dyn Ledger>, Opening) {
        let (model, opening) = self.disk.open();
        (Box::new(model), opening)
    }

    fn crash(&mut self, ledger: Box<dyn Ledger>) {
        drop(ledger);
    }

    fn clock(&self) -> Arc<SimulatedClock> {
        self.clock.clone()
    }
}

/// SQLite in a folder.
pub struct OnDisk {
    dir: tempfile::TempDir,
    crashes: usize,
    clock: Arc<SimulatedClock>,
}

impl OnDisk {
    pub fn new() -> OnDisk {
        OnDisk { dir: tempfile::tempdir().expect("folder"), crashes: 0, clock: clock() }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join(self.crashes.to_string())
    }

    pub fn options(&self) -> Options {
        Options { state: self.state(), limits: Limits::default(), clock: self.clock.clone(), who: "test".into() }
    }
}

impl Site for OnDisk {
    fn open(&mut self) -> (Box<dyn Ledger>, Opening) {
        let (ledger, opening) = SqliteLedger::open(&self.options()).expect("a ledger");
        (Box::new(ledger), opening)
    }

    /// What lies on disk at this moment, the log not folded into the file, is what the next opening finds.
    fn crash(&mut self, ledger: Box<dyn Ledger>) {
        let old = self.state();
        self.crashes += 1;
        copy_ledger(&old, &self.state());
        drop(ledger);
        std::fs::remove_dir_all(old).expect("removed");
    }

    fn clock(&self) -> Arc<SimulatedClock> {
        self.clock.clone()
    }
}

/// Copies the ledger's files, but not the index of its log, which a crash of the machine takes along.
pub fn copy_ledger(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.mark"] {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copied");
        }
    }
}

pub fn key(number: u32) -> SeriesKey {
    SeriesKey { study: format!("1.2.{}", number / 4), series: format!("1.2.{}.{number}", number / 4) }
}

pub fn volume(input: impl Into<String>) -> NewVolume {
    NewVolume {
        input: input.into(),
        priority: Priority::Routine,
        rule: Some("all".into()),
        contest: None,
        result: None,
        destinations: vec![],
    }
}

pub fn close(series: u32, inputs: &[&str]) -> Change {
    let volumes = inputs.iter().map(|i| volume(*i)).collect();
    Change::Close(Closing { series: key(series), evidence: Evidence::Timer, print: "p".into(), volumes, refusals: vec![] })
}

pub fn lease(owner: &str) -> Lease {
    Lease { owner: owner.into(), hold: Duration::from_secs(60), model: "m".into() }
}

pub fn result(folder: &str) -> Published {
    let object = |file: &str| Object { file: file.into(), bytes: 7, sha256: "ab".into() };
    Published { folder: folder.into(), identity: format!("id of {folder}"), objects: vec![object("seg.dcm"), object("preview.png")] }
}

pub fn problem(code: &str) -> Problem {
    Problem { code: code.into(), detail: "as the test says".into() }
}

pub fn finish(token: Token, destinations: &[&str]) -> Change {
    let destinations = destinations.iter().map(|d| d.to_string()).collect();
    Change::Finish { token, result: result("r"), destinations, doubtful: false }
}

pub fn state(ledger: &dyn Ledger, job: u64) -> State {
    ledger.job(JobId(job)).expect("read").expect("known").progress.state
}
