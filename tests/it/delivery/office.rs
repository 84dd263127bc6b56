//! An outbox at work on a ledger of its own, with results of a few hundred bytes, and a clock that is moved by hand.

use crate::support::eventually;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use stunetd::config::{Accepts, Destination, DestinationKind};
use stunetd::dicom::encode::{Encoder, file_meta};
use stunetd::dicom::{SeriesKey, Uid};
use stunetd::ledger::*;
use stunetd::pipeline::Board;
use stunetd::pipeline::outbox::{Outbox, OutboxPlan};
use stunetd::sys::clock::SimulatedClock;
use stunetd::sys::shutdown::Shutdown;
use stunetd::telemetry::Metrics;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

pub struct Office {
    dir: tempfile::TempDir,
    pub ledger: Arc<SqliteLedger>,
    pub clock: Arc<SimulatedClock>,
    pub metrics: Arc<Metrics>,
    pub destinations: Vec<Destination>,
    running: Option<(Outbox, Shutdown)>,
    starts: u32,
}

/// A destination `pacs` by C-STORE at this port.
pub fn pacs(port: u16) -> Destination {
    Destination {
        name: "pacs".into(),
        kind: DestinationKind::Cstore,
        accepts: Accepts::Research,
        address: format!("127.0.0.1:{port}"),
        ae_title: Some("PACS".parse().expect("title")),
        timeout: stunetd::config::HumanDuration(Duration::from_secs(20)),
        ..Destination::default()
    }
}

/// The same by STOW-RS.
pub fn web(url: &str) -> Destination {
    Destination { kind: DestinationKind::Stow, url: Some(url.parse().expect("address")), ae_title: None, ..pacs(1) }
}

/// The file of a result.
pub fn object_file(number: u32) -> Vec<u8> {
    object(number, super::scp::SEG).1
}

/// The file of a result of another class.
pub fn object_of(number: u32, class: &str) -> Vec<u8> {
    object(number, class).1
}

fn uid(role: &str, number: u32) -> Uid {
    Uid::from_digest(&Sha256::digest(format!("delivery test {role} {number}")).into())
}

/// The SOP Instance UID of a result.
pub fn instance(number: u32) -> String {
    uid("instance", number).to_string()
}

/// Results from this number on are larger than what sockets buffer.
pub const LARGE: u32 = 1000;

/// A segmentation object with little in it: the data set, and the file.
fn object(number: u32, class: &str) -> (Vec<u8>, Vec<u8>) {
    let mut e = Encoder::new();
    e.text(tags::SOP_CLASS_UID, VR::UI, class);
    e.uid(tags::SOP_INSTANCE_UID, &uid("instance", number));
    e.uid(tags::STUDY_INSTANCE_UID, &uid("study", number));
    e.uid(tags::SERIES_INSTANCE_UID, &uid("series", number));
    e.text(tags::MODALITY, VR::CS, "SEG");
    e.text(tags::PATIENT_ID, VR::LO, &format!("P{number}"));
    e.text(tags::PATIENT_NAME, VR::PN, "Canary^Delivery");
    e.text(tags::SERIES_DESCRIPTION, VR::LO, "RESEARCH - not for diagnosis");
    if number >= LARGE {
        e.text(tags::TEXT_VALUE, VR::UT, &"x".repeat(32 << 20));
    }
    let data_set = e.into_data_set();
    let file = [file_meta(class, &uid("instance", number), EXPLICIT), data_set.clone()].concat();
    (data_set, file)
}

/// SHA-256 of the data set of a result.
pub fn data_set_digest(number: u32) -> [u8; 32] {
    Sha256::digest(object(number, super::scp::SEG).0).into()
}

impl Office {
    pub fn new(destinations: Vec<Destination>) -> Office {
        let dir = tempfile::tempdir().expect("folder");
        let clock = Arc::new(SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        let ledger = Arc::new(open(&dir.path().join("state"), &clock));
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        Office { dir, ledger, clock, metrics, destinations, running: None, starts: 0 }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("results")
    }

    /// Results numbered from `first` are published and wait for every destination.
    pub fn publish(&self, first: u32, count: u32) {
        (first..first + count).for_each(|number| self.publish_files(number, &[("seg.dcm", object_file(number))]));
    }

    /// A result with these files is published and waits for every destination.
    pub fn publish_files(&self, number: u32, files: &[(&str, Vec<u8>)]) {
        let lease = Lease { owner: "w".into(), hold: Duration::from_secs(60), model: "m".into() };
        let folder = format!("{number:08x}");
        std::fs::create_dir_all(self.output().join(&folder)).expect("folder");
        let written = files.iter().map(|(name, bytes)| {
            std::fs::write(self.output().join(&folder).join(name), bytes).expect("written");
            let sha256 = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
            Object { file: name.to_string(), bytes: bytes.len() as u64, sha256 }
        });
        let objects = written.collect();
        let series = SeriesKey { study: uid("study", number).to_string(), series: uid("source", number).to_string() };
        let volume =
            NewVolume { input: "v".into(), priority: Priority::Routine, rule: None, contest: None, result: None, destinations: vec![] };
        let (evidence, print) = (Evidence::Timer, "p".into());
        let close = Closing { series, evidence, print, volumes: vec![volume], refusals: vec![] };
        self.ledger.commit(vec![Change::Close(close)]).expect("durable");
        let token = self.ledger.claim(&lease).expect("asked").expect("a job").token;
        let result = Published { folder, identity: format!("i{number}"), objects };
        let destinations = self.destinations.iter().map(|d| d.name.clone()).collect();
        self.ledger.commit(vec![Change::Finish { token, result, destinations, doubtful: false }]).expect("durable");
        if let Some((outbox, _)) = &self.running {
            outbox.ring();
        }
    }

    /// Starts the workers.
    pub fn start(&mut self) {
        self.starts += 1;
        let shutdown = Shutdown::default();
        let plan = OutboxPlan {
            ledger: self.ledger.clone(),
            output: self.output(),
            owner: format!("daemon-{}", self.starts),
            board: Board::new(self.clock.clone()),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            audit: stunetd::audit::Audit::none(),
            shutdown: shutdown.clone(),
        };
        self.running = Some((Outbox::start(&plan, &self.destinations).expect("started"), shutdown));
    }

    /// Ends the workers after what they have in hand.
    pub fn stop(&mut self) {
        if let Some((outbox, shutdown)) = self.running.take() {
            shutdown.drain();
            outbox.join(&stunetd::sys::clock::SystemClock, Duration::from_secs(60), &shutdown);
        }
    }

    /// As after a crash: deliveries that were being sent are put back as doubtful.
    pub fn crash(&mut self) {
        self.stop();
        self.ledger.leave();
        self.ledger = Arc::new(open(&self.dir.path().join("state"), &self.clock));
    }

    /// A person has a job's deliveries tried again.
    pub fn retry(&self, job: u64) {
        self.ledger.commit(vec![Change::Retry { job: JobId(job), who: "anna".into() }]).expect("durable");
        self.running.as_ref().expect("running").0.hurry();
    }

    /// The delivery of a job to `pacs`.
    pub fn delivery(&self, job: u64) -> Delivery {
        self.ledger.deliveries(JobId(job)).expect("read").remove(0)
    }

    /// Jobs whose delivery is in a state.
    pub fn count(&self, state: DeliveryState) -> usize {
        let jobs = self.ledger.jobs(&Which::default()).expect("read");
        jobs.iter().flat_map(|job| self.ledger.deliveries(job.id).expect("read")).filter(|d| d.state == state).count()
    }

    /// Results that wait, all destinations together.
    pub fn open(&self) -> u64 {
        self.ledger.outbox().expect("read").iter().map(|o| o.open).sum()
    }

    /// Lets time pass until the condition holds.
    pub fn passes(&self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, || {
            let holds = condition();
            if !holds {
                self.clock.advance(Duration::from_millis(200));
            }
            holds
        });
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.text().expect("text");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    pub fn attempts(&self, result: &str) -> f64 {
        self.metric(&format!("stunetd_delivery_attempts_total{{destination=\"pacs\",result=\"{result}\"}}"))
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some((_, shutdown)) = &self.running {
            shutdown.abandon();
        }
    }
}

fn open(state: &std::path::Path, clock: &Arc<SimulatedClock>) -> SqliteLedger {
    let options = Options { state: state.to_path_buf(), limits: Limits::default(), clock: clock.clone(), who: "test".into() };
    SqliteLedger::open(&options).expect("a ledger").0
}
