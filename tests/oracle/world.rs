//! What outlives every daemon: folders, what was fed, what was acknowledged, what was seen published.

use crate::ct::Ct;
use crate::daemon::{DEADLY, Program, Running, label};
use crate::disk::{Disk, Names};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use stunetd::ledger::{DeliveryState, Limits, Options, Reader, SqliteLedger, SqliteReader, State, Which};
use stunetd::pipeline::reconcile::{self, Depth};
use stunetd::results::{Input, ResultManifest, file_digest};
use stunetd::sys::clock::{Stopwatch, SystemClock};
use stunetd::sys::crash::Point;

/// Slices of a series; with fewer it is refused, so that a series that has not come whole is never segmented.
pub const SLICES: usize = 4;

pub struct World {
    dir: tempfile::TempDir,
    program: Program,
    /// What the daemon's folders are on, when that is not the real one.
    pub disk: Option<Disk>,
    http: SocketAddr,
    dicom: SocketAddr,
    storescu: Option<PathBuf>,
    /// `jobs.suspect_after` and `jobs.park_after`.
    pub limits: (u32, u32),
    /// `intake.quiet`.
    pub quiet: &'static str,
    /// `retention.received`.
    pub retention: &'static str,
    /// The port of a C-STORE destination, where there is one.
    pub pacs: Option<u16>,
    /// The ledger was set back or begun anew: what it knew of instances and their history is not all there.
    pub set_back: bool,
    next: u32,
    /// Series in the watched folder.
    fed: BTreeSet<u32>,
    /// Those of them whose files are to leave it.
    leaving: BTreeSet<u32>,
    deadly: u32,
    /// Series that are being sent over the network, and those that were acknowledged.
    to_send: Vec<u32>,
    acknowledged: Arc<Mutex<BTreeSet<u32>>>,
    /// Results as they were seen first: digest and inode of each file.
    seen: BTreeMap<String, Vec<(String, String, u64)>>,
}

/// Series on their way over the network; waits for the sender when dropped.
pub struct Sending {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the sender");
        }
    }
}

impl World {
    /// Nothing that was received goes.
    pub const FOR_EVER: &'static str = "3650 d";

    pub fn new(program: Program) -> World {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir(dir.path().join("incoming")).expect("folder");
        std::fs::create_dir(dir.path().join("leaving")).expect("folder");
        std::fs::create_dir(dir.path().join("to-send")).expect("folder");
        std::fs::create_dir(dir.path().join("delivered")).expect("folder");
        let storescu = std::env::var_os("PATH")
            .and_then(|path| std::env::split_paths(&path).map(|d| d.join("storescu")).find(|p| p.is_file()))
            .filter(|_| program == Program::Scripted);
        World {
            dir,
            program,
            disk: None,
            http: free_address(),
            dicom: free_address(),
            storescu,
            limits: (1_000_000, 1_000_000),
            quiet: "100 ms",
            retention: World::FOR_EVER,
            pacs: None,
            set_back: false,
            next: 0,
            fed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            deadly: 0,
            to_send: Vec::new(),
            acknowledged: Arc::default(),
            seen: BTreeMap::new(),
        }
    }

    /// A world whose state, spool and results are on a disk that can fail; none when there is no compiler.
    pub fn on_a_disk() -> Option<World> {
        let mut world = World::new(Program::Scripted);
        let disk = Disk::new(world.dir.path(), &["delivered"])?;
        world.disk = Some(disk);
        Some(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One of the daemon's folders.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.path(if self.disk.is_some() { "disk" } else { "." }).join(name)
    }

    fn config(&self) -> String {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let listen = if self.can_send() { format!("listen = \"{}\"", self.dicom) } else { String::new() };
        let on = if self.disk.is_some() { "disk/" } else { "" };
        let pacs = self.pacs.map_or(String::new(), |port| {
            format!(
                "[[destination]]\nname = \"pacs\"\nkind = \"cstore\"\naccepts = \"research\"\naddress = \"127.0.0.1:{port}\"\n\
                 ae_title = \"PACS\"\ntimeout = \"5 s\"\n"
            )
        });
        format!(
            "state = \"{on}state\"\n[[watch]]\npath = \"incoming\"\n[[watch]]\npath = \"leaving\"\nafter = \"move\"\nmove_to = \"left\"\n[intake]\nquiet = \"{}\"\nquiet_min = \"100 ms\"\nrescan = \"200 ms\"\nmin_slices = {SLICES}\n\
             [jobs]\nsuspect_after = {}\npark_after = {}\n[dimse]\n{listen}\n[spool]\npath = \"{on}spool\"\nmin_free = \"1 MiB\"\nlow_free = \"1 MiB\"\n\
             [model]\npath = \"{}\"\n[output]\npath = \"{on}results\"\nformats = [\"seg\"]\n[[destination]]\nname = \"archive\"\n\
             kind = \"folder\"\naccepts = \"research\"\npath = \"{on}delivered\"\n{pacs}[retention]\nreceived = \"{}\"\n[http]\nlisten = \"{}\"\n",
            self.quiet,
            self.limits.0,
            self.limits.1,
            model.display(),
            self.retention,
            self.http
        )
    }

    /// Starts a daemon, armed to die at a point.
    pub fn start(&self, point: Option<&str>) -> Running {
        let config = self.path("stunetd.toml");
        std::fs::write(&config, self.config()).expect("written");
        Running::start(self.program, &config, &self.path("log"), self.http, point, self.disk.as_ref())
    }

    /// Puts some series into the watched folders, in turn, each a folder that appears whole.
    pub fn feed_folder(&mut self, count: u32) {
        for _ in 0..count {
            let number = self.next_number();
            if self.fed.len() % 2 == 1 {
                self.leaving.insert(number);
            }
            self.put(number, SLICES);
            self.fed.insert(number);
        }
    }

    /// A series of which nothing is there yet; its number.
    pub fn feed_slowly(&mut self) -> u32 {
        let number = self.next_number();
        std::fs::create_dir(self.path("incoming").join(number.to_string())).expect("folder");
        self.fed.insert(number);
        number
    }

    /// One slice of it.
    pub fn feed_slice(&self, number: u32, slice: usize) {
        Ct::new(number, SLICES).write_slice(&self.path("incoming").join(number.to_string()), slice);
    }

    /// One more series; its number.
    pub fn feed_one(&mut self) -> u32 {
        self.feed_folder(1);
        self.next
    }

    /// Takes a series out of the watched folder, as whoever keeps it does when it is done.
    pub fn take_away(&self, number: u32) {
        std::fs::remove_dir_all(self.watched(number).join(number.to_string())).expect("removed");
    }

    /// The study that the scripted engine dies of.
    pub fn feed_deadly(&mut self) {
        let number = self.next_number();
        self.put(number, DEADLY);
        self.deadly += 1;
    }

    fn next_number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn put(&self, number: u32, slices: usize) {
        let hidden = self.watched(number).join(format!(".{number}"));
        std::fs::create_dir(&hidden).expect("folder");
        Ct::new(number, slices).write(&hidden);
        stunetd::sys::durable::rename(&hidden, &self.watched(number).join(number.to_string())).expect("renamed");
    }

    /// The watched folder that a series comes into.
    fn watched(&self, number: u32) -> PathBuf {
        self.path(if self.leaving.contains(&number) { "leaving" } else { "incoming" })
    }

    /// Whether the files of a series are where those go that leave.
    fn has_left(&self, number: u32) -> bool {
        let count = |folder: PathBuf| std::fs::read_dir(folder.join(number.to_string())).map_or(0, |entries| entries.count());
        (count(self.path("leaving")), count(self.path("left"))) == (0, SLICES)
    }

    pub fn can_send(&self) -> bool {
        self.storescu.is_some()
    }

    /// Whether only a series whose files leave comes to the point.
    pub fn is_of_leaving(&self, point: Point) -> bool {
        matches!(point, Point::LeavingBegun | Point::FileLeft | Point::LeavingEnded)
    }

    pub fn is_of_the_network(&self, point: Point) -> bool {
        matches!(point, Point::InstanceReceived | Point::InstanceSynced | Point::Acknowledging)
    }

    /// Sends some more series over the network, and those that were not acknowledged before, as a modality does: again and again until
    /// each of its instances was taken.
    pub fn send(&mut self, count: u32) -> Sending {
        let stop = Arc::new(AtomicBool::new(false));
        let Some(storescu) = self.storescu.clone() else { return Sending { stop, thread: None } };
        for _ in 0..count {
            let number = self.next_number();
            let folder = self.path("to-send").join(number.to_string());
            std::fs::create_dir(&folder).expect("folder");
            Ct::new(number, SLICES).write(&folder);
            self.to_send.push(number);
        }
        let taken = self.acknowledged.clone();
        self.to_send.retain(|number| !taken.lock().expect("list").contains(number));
        let (numbers, root, port, ends) = (self.to_send.clone(), self.path("to-send"), self.dicom.port(), stop.clone());
        let run = move || {
            for number in numbers {
                while !ends.load(Ordering::Relaxed) {
                    if send_series(&storescu, port, &root.join(number.to_string())) {
                        taken.lock().expect("list").insert(number);
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        Sending { stop, thread: Some(std::thread::spawn(run)) }
    }

    /// Notes new results, and that those seen before are untouched.
    pub fn look(&mut self) {
        for (folder, files) in self.published() {
            let first = self.seen.entry(folder.clone()).or_insert_with(|| files.clone());
            assert_eq!(*first, files, "{folder} was published again");
        }
        if self.disk.is_some() {
            // What nobody has been promised may go with the power: the ledger says what has to be there.
            return;
        }
        let now: BTreeSet<String> = self.published().into_keys().collect();
        let gone: Vec<&String> = self.seen.keys().filter(|folder| !now.contains(*folder)).collect();
        assert!(gone.is_empty(), "{gone:?} are gone");
    }

    /// Result folders with name, digest and inode of each file.
    fn published(&self) -> BTreeMap<String, Vec<(String, String, u64)>> {
        let Ok(entries) = std::fs::read_dir(self.folder("results")) else { return BTreeMap::new() };
        let folders = entries.map(|e| e.expect("entry")).filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
        folders
            .map(|folder| {
                let files = std::fs::read_dir(folder.path()).expect("folder").map(|file| {
                    let file = file.expect("file");
                    // After a power loss files are copies.
                    let inode = if self.disk.is_some() { 0 } else { file.metadata().expect("metadata").ino() };
                    (file.file_name().to_string_lossy().into_owned(), file_digest(&file.path()).expect("file").1, inode)
                });
                let mut files: Vec<_> = files.collect();
                files.sort();
                (folder.file_name().to_string_lossy().into_owned(), files)
            })
            .collect()
    }

    /// Of the ledger and its log.
    pub fn ledger_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(self.folder("state")).into_iter().flatten().map(|e| e.expect("entry"));
        entries.filter_map(|e| e.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
    }

    /// Files of received instances.
    pub fn spooled(&self) -> usize {
        files(&self.folder("spool").join("series"))
    }

    fn reader(&self) -> Option<SqliteReader> {
        SqliteReader::open(&self.folder("state"), Arc::new(SystemClock)).ok().flatten()
    }

    fn count(&self, states: &[State]) -> usize {
        let which = Which { states: states.to_vec(), ..Which::default() };
        self.reader().and_then(|reader| reader.jobs(&which).ok()).map_or(0, |jobs| jobs.len())
    }

    pub fn parked(&self) -> usize {
        self.count(&[State::Parked])
    }

    /// Results that the destination has not.
    fn undelivered(&self) -> u64 {
        self.reader().and_then(|reader| reader.outbox().ok()).map_or(0, |all| all.iter().map(|o| o.open + o.parked).sum())
    }

    pub fn open_jobs(&self) -> usize {
        self.count(&[State::Queued, State::Running, State::Waiting])
    }

    /// The jobs that a running daemon says are done.
    pub fn done(&self) -> BTreeSet<u64> {
        let which = Which { states: vec![State::Done], ..Which::default() };
        self.reader().and_then(|reader| reader.jobs(&which).ok()).unwrap_or_default().into_iter().map(|job| job.id.0).collect()
    }

    /// Whether all that was fed and sent is done.
    pub fn all_done(&self) -> bool {
        let sent = self.to_send.iter().all(|n| self.acknowledged.lock().expect("list").contains(n));
        sent && self.done().len() >= self.expected().len() && self.open_jobs() + self.undelivered() as usize == 0
    }

    /// The power is cut while no daemon runs. `done`: what one had said. Tells which promise is broken.
    pub fn cut(&mut self, names: Names, done: &BTreeSet<u64>) -> Result<(), String> {
        self.disk.as_ref().expect("a disk").cut(names);
        let acknowledged = self.acknowledged.lock().expect("list").len() * SLICES;
        let Some(reader) = self.reader() else {
            let nothing = done.is_empty() && acknowledged == 0;
            return if nothing { Ok(()) } else { Err("the ledger is gone".into()) };
        };
        reader.check().map_err(|e| e.to_string())?;
        let lost: Vec<_> = done.difference(&self.done()).copied().collect();
        if !lost.is_empty() {
            return Err(format!("the jobs {lost:?} are not done any more"));
        }
        let (_, damaged) = reconcile::compare(&reader, &self.folder("results"), Depth::All).map_err(|e| e.to_string())?;
        if let Some(finding) = damaged.first() {
            return Err(finding.problem.detail.clone());
        }
        for job in reader.jobs(&Which { states: vec![State::Done], ..Which::default() }).map_err(|e| e.to_string())? {
            let deliveries = reader.deliveries(job.id).map_err(|e| e.to_string())?;
            let Some(result) = job.result.filter(|_| deliveries.iter().any(|d| d.state == DeliveryState::Delivered)) else { continue };
            let digest = |place: &str| file_digest(&self.folder(place).join(&result.folder).join("seg.dcm")).ok();
            if digest("delivered").is_none_or(|d| Some(d) != digest("results")) {
                return Err(format!("{} was delivered and is not there", result.folder));
            }
        }
        let received = reader.received(0, u64::MAX >> 1).map_err(|e| e.to_string())?;
        let whole = |path: &str, bytes: u64| std::fs::metadata(self.folder("spool").join(path)).is_ok_and(|meta| meta.len() == bytes);
        if let Some(lost) = received.iter().find(|i| !whole(&i.path, i.bytes)) {
            return Err(format!("the acknowledged instance {} is not whole", lost.path));
        }
        if received.len() < acknowledged {
            return Err(format!("{} of {acknowledged} acknowledged instances are known", received.len()));
        }
        Ok(())
    }

    /// Lets a daemon do all there is to do, ends it, and judges.
    pub fn finish(&mut self) {
        let mut running = self.start(None);
        let sending = self.send(0);
        let watch = Stopwatch::start();
        loop {
            assert!(!running.dies_within(Duration::from_millis(100)), "died\n{}", self.log());
            if running.is_ready() && self.all_done() && self.leaving.iter().all(|number| self.has_left(*number)) {
                break;
            }
            assert!(watch.seconds() < 240.0, "not done in time: {}\n{}", self.tally(), self.log());
        }
        drop(sending);
        running.ask_to_end();
        assert!(running.wait().success(), "{}", self.log());
        self.look();
        self.judge();
    }

    /// Numbers of all series that were accepted for good.
    pub fn expected(&self) -> BTreeSet<u32> {
        self.fed.union(&self.acknowledged.lock().expect("list")).copied().collect()
    }

    fn judge(&self) {
        let results = self.folder("results");
        let mut by_series: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut identities = BTreeSet::new();
        for folder in self.seen.keys() {
            let text = std::fs::read(results.join(folder).join("manifest.json")).expect("manifest");
            let manifest: ResultManifest = serde_json::from_slice(&text).expect("manifest");
            assert!(identities.insert(manifest.identity.clone()), "one identity twice");
            assert_eq!(manifest.shape[0], SLICES, "{folder}");
            for output in &manifest.outputs {
                let (bytes, digest) = file_digest(&results.join(folder).join(&output.file)).expect("file");
                assert_eq!((bytes, &digest), (output.bytes, &output.sha256), "{folder}/{}", output.file);
            }
            if self.program == Program::Scripted {
                self.labels_are_right(folder, &manifest);
            }
            let Input::Dicom { series, .. } = manifest.source else { panic!("{folder} is not of DICOM") };
            series.into_iter().for_each(|channel| by_series.entry(channel.uid).or_default().push(folder.clone()));
        }
        let expected: BTreeSet<String> = self.expected().into_iter().map(series_uid).collect();
        let found: BTreeSet<String> = by_series.keys().cloned().collect();
        assert_eq!(found, expected, "series without, or of no, study");
        assert!(by_series.values().all(|folders| folders.len() == 1), "{by_series:?}");
        let hidden = std::fs::read_dir(&results)
            .expect("folder")
            .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with('.')));
        assert_eq!(hidden.count(), 0, "left in the output folder");

        // The destination has the same files, once each.
        let delivered = |folder: &str| self.folder("delivered").join(folder);
        let names = |folder: &Path| -> BTreeSet<String> {
            let entries = std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
            entries.collect()
        };
        assert_eq!(names(&self.folder("delivered")), self.seen.keys().cloned().collect());
        for folder in self.seen.keys() {
            assert_eq!(names(&delivered(folder)), BTreeSet::from(["manifest.json".to_string(), "seg.dcm".to_string()]));
            let digest = |path: PathBuf| file_digest(&path.join("seg.dcm")).expect("file");
            assert_eq!(digest(delivered(folder)), digest(results.join(folder)), "{folder}");
        }

        // The ledger says the same, byte for byte, and nobody helped.
        let reader = self.reader().expect("a ledger");
        reader.check().expect("sound");
        let (compared, findings) = reconcile::compare(&reader, &results, Depth::All).expect("compared");
        assert!(findings.is_empty() && compared as usize == expected.len(), "{compared} of {}: {findings:?}", expected.len());
        let received = reader.received(0, u64::MAX >> 1).expect("read");
        for instance in &received {
            let meta = std::fs::metadata(self.folder("spool").join(&instance.path));
            assert!(meta.is_ok_and(|meta| meta.len() == instance.bytes), "an acknowledged instance is gone");
        }
        let acknowledged = self.acknowledged.lock().expect("list").len() * SLICES;
        let removed = self.retention != World::FOR_EVER;
        assert!(received.len() >= acknowledged || removed || self.set_back, "{} of {acknowledged} acknowledged instances", received.len());
        if removed {
            // What the ledger forgot is gone, and what it knows is there: nothing was removed by half.
            assert_eq!(self.spooled(), received.len(), "files of {} instances", received.len());
        }
        drop(reader);
        let options =
            Options { state: self.folder("state"), limits: Limits::default(), clock: Arc::new(SystemClock), who: "oracle".into() };
        let (ledger, opening) = SqliteLedger::open(&options).expect("opened");
        assert!(opening.requeued == 0 && !opening.restored, "{opening:?}");
        for job in ledger.jobs(&Which::default()).expect("read") {
            let journal = ledger.journal(Some(job.id)).expect("read");
            use stunetd::ledger::Event;
            assert!(!journal.iter().any(|e| matches!(e.event, Event::Retried | Event::Cancelled)), "a person helped");
            let finished =
                |delivery: bool| journal.iter().filter(|e| e.event == Event::Finished && e.destination.is_some() == delivery).count();
            let done = usize::from(job.progress.state == State::Done);
            let destinations = done * (1 + usize::from(self.pacs.is_some()));
            assert_eq!((finished(false), finished(true)), (done, destinations), "{journal:?}");
        }
    }

    /// The labels are what the scripted engine says, on the series' own grid.
    fn labels_are_right(&self, folder: &str, manifest: &ResultManifest) {
        let voxels: usize = manifest.shape.iter().product();
        let labels: Vec<u8> = (0..voxels).map(|i| label(i, voxels)).collect();
        let counted = labels.iter().filter(|l| **l == 1).count() as u64;
        let told: u64 = manifest.labels.iter().map(|l| l.voxels).sum();
        assert_eq!(told, counted, "{folder}");
    }

    pub fn tally(&self) -> String {
        let (fed, network) = (self.fed.len(), self.acknowledged.lock().expect("list").len());
        let attempts: u32 =
            self.reader().and_then(|r| r.jobs(&Which::default()).ok()).unwrap_or_default().iter().map(|j| j.progress.attempts).sum();
        format!(
            "{fed} series by folder, {network} acknowledged over the network, {} results, {attempts} attempts, {} parked",
            self.seen.len(),
            self.parked()
        )
    }

    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|e| e.expect("entry").path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

/// The Series Instance UID that [`Ct`] gives a series.
fn series_uid(number: u32) -> String {
    stunetd::dicom::Uid::from_digest(&Sha256::digest(format!("test ct {number} series")).into()).to_string()
}

/// Whether every instance was answered with success.
fn send_series(storescu: &Path, port: u16, folder: &Path) -> bool {
    let mut command = Command::new(storescu);
    command.args(["-to", "2", "-td", "2", "-ta", "2", "-aec", "STUNETD", "+sd", "127.0.0.1"]).arg(port.to_string()).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn free_address() -> SocketAddr {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a port").port();
    (Ipv4Addr::LOCALHOST, port).into()
}
