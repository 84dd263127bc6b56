//! A daemon in this process, in a world of its own: folders, engine, clock.

use super::scripted::Script;
use crate::support::cases::decoder_config;
use crate::support::{eventually, http_get};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use stunetd::config::{self, ByteSize, Config, HumanDuration};
use stunetd::fault::Fault;
use stunetd::intake::disks::SpaceOf;
use stunetd::results::ResultManifest;
use stunetd::sys::clock::SimulatedClock;
use stunetd::sys::cores::Cores;
use stunetd::sys::notify::Notifier;
use stunetd::sys::shutdown::Shutdown;
use stunetd::{Seams, run};

/// Quiet time of the tests' configuration.
pub const QUIET: Duration = Duration::from_secs(30);

/// What outlives a daemon.
pub struct World {
    dir: tempfile::TempDir,
    pub engine: Script,
    pub host_memory: u64,
    /// How long the daemon may take to finish its work.
    pub drain: Duration,
    /// The service manager.
    pub notifier: Notifier,
    /// What the disks have.
    pub space: SpaceOf,
    /// What else the configuration says.
    pub configure: Box<dyn Fn(&mut Config)>,
}

impl World {
    pub fn new() -> World {
        let world = World {
            dir: tempfile::tempdir().expect("folder"),
            engine: Script::default(),
            host_memory: 2 << 30,
            drain: Duration::from_secs(36_000),
            notifier: Notifier::none(),
            space: stunetd::machine_space(),
            configure: Box::new(|_| {}),
        };
        std::fs::create_dir(world.incoming()).expect("folder");
        world
    }

    pub fn incoming(&self) -> PathBuf {
        self.dir.path().join("incoming")
    }

    pub fn output(&self) -> PathBuf {
        self.dir.path().join("results")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.watch[0].path = self.incoming();
        config.output.path = self.output();
        config.state = self.state();
        config.model.path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        config.intake.quiet = HumanDuration(QUIET);
        config.drain = HumanDuration(self.drain);
        config.host_memory = ByteSize(self.host_memory);
        config.http.listen = config::LoopbackAddress::port(free_port());
        config.spool.path = self.spool();
        (config.spool.min_free, config.spool.low_free) = (ByteSize(0), ByteSize(0));
        (self.configure)(&mut config);
        config
    }

    fn seams(&self, clock: Arc<SimulatedClock>, shutdown: Shutdown) -> Seams {
        Seams {
            engine: self.engine.factory(clock.clone()),
            decoder: decoder_config(),
            cores: Cores::plan(2, false),
            clock,
            shutdown,
            notifier: self.notifier.clone(),
            reload: None,
            space: self.space.clone(),
        }
    }

    /// Why a daemon does not start.
    pub fn fails_to_start(&self) -> Fault {
        let clock = Arc::new(SimulatedClock::new(SystemTime::UNIX_EPOCH));
        run(self.config(), self.seams(clock, Shutdown::default())).expect_err("it does not start")
    }

    /// Names of published results, ascending.
    pub fn results(&self) -> BTreeSet<String> {
        self.entries().into_iter().filter(|name| !name.starts_with('.')).collect()
    }

    /// Names of what was not cleaned up.
    pub fn leftovers(&self) -> Vec<String> {
        self.entries().into_iter().filter(|name| name.starts_with('.')).collect()
    }

    fn entries(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.output()) else { return Vec::new() };
        entries.map(|e| e.expect("entry").file_name().into_string().expect("name")).collect()
    }

    pub fn manifest(&self, folder: &str) -> ResultManifest {
        let text = std::fs::read(self.output().join(folder).join("manifest.json")).expect("manifest");
        serde_json::from_slice(&text).expect("manifest")
    }

    pub fn shape(&self, folder: &str) -> [usize; 3] {
        self.manifest(folder).shape
    }

    /// The folder holds these files and no others, and they are what the manifest says.
    pub fn check_result(&self, folder: &str, files: &[&str]) {
        let dir = self.output().join(folder);
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).expect("folder").map(|e| e.expect("entry").file_name().into_string().expect("name")).collect();
        names.sort();
        assert_eq!(names, files);
        for output in self.manifest(folder).outputs {
            let (bytes, digest) = stunetd::results::file_digest(&dir.join(&output.file)).expect("file");
            assert_eq!((bytes, digest), (output.bytes, output.sha256), "{}", output.file);
        }
    }
}

/// A running daemon. It is given up when dropped.
pub struct Daemon<'w> {
    world: &'w World,
    address: SocketAddr,
    pub clock: Arc<SimulatedClock>,
    pub shutdown: Shutdown,
    thread: Option<JoinHandle<Result<(), Fault>>>,
    known: std::cell::RefCell<BTreeSet<String>>,
}

impl<'w> Daemon<'w> {
    /// Starts and waits until it is ready.
    pub fn start(world: &'w World) -> Daemon<'w> {
        let (config, clock, shutdown) = (world.config(), Arc::new(SimulatedClock::new(SystemTime::UNIX_EPOCH)), Shutdown::default());
        let address = config.http.listen.get();
        let seams = world.seams(clock.clone(), shutdown.clone());
        let thread = Some(std::thread::spawn(move || run(config, seams)));
        let daemon = Daemon { world, address, clock, shutdown, thread, known: world.results().into() };
        eventually("the daemon is ready", || http_get(daemon.address, "/readyz").is_some_and(|(status, _)| status == 200));
        daemon
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        http_get(self.address, path).expect("an answer")
    }

    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    /// Lets time pass until the condition holds.
    pub fn passes(&self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, || {
            let holds = condition();
            if !holds {
                self.clock.advance(Duration::from_secs(1));
            }
            holds
        });
    }

    /// Lets a hundredth of a second pass with every look until the condition holds.
    pub fn passes_slowly(&self, what: &str, mut condition: impl FnMut() -> bool) {
        eventually(what, || {
            self.clock.advance(Duration::from_millis(10));
            condition()
        });
    }

    /// Lets time pass until a metric has this value.
    pub fn shows(&self, metric: &str, value: f64) {
        self.passes(&format!("{metric} {value}"), || self.metric(metric) == value);
    }

    /// Waits, with time standing nearly still, until so many headers were read and every series is open.
    pub fn sees_files(&self, count: f64) {
        eventually(&format!("{count} files are seen"), || {
            self.clock.advance(Duration::from_millis(1));
            self.metric("stunetd_files_read_total") == count
        });
    }

    /// Lets time pass until there is one more result; its name.
    pub fn next_result(&self) -> String {
        let mut name = None;
        self.passes("a result", || {
            name = self.world.results().difference(&self.known.borrow()).next().cloned();
            name.is_some()
        });
        let name = name.expect("there is one");
        self.known.borrow_mut().insert(name.clone());
        name
    }

    /// Drains and waits for the end.
    pub fn end(self) -> Result<(), Fault> {
        self.shutdown.drain();
        self.ended()
    }

    /// Lets time pass until the daemon has ended.
    pub fn ended(mut self) -> Result<(), Fault> {
        let thread = self.thread.take().expect("running");
        self.passes("the daemon ends", || thread.is_finished());
        thread.join().expect("no panic")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.shutdown.abandon();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}
