//! The daemon under test: this program with a scripted engine, or the shipped binary.

use crate::disk::Disk;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use stunetd::config;
use stunetd::fault::{Code, Fault};
use stunetd::pipeline::{EngineFacts, Opened};
use stunetd::segment::{Engine, Progress, SegmentOptions};
use stunetd::sys::clock::{Stopwatch, SystemClock};
use stunetd::sys::cores::Cores;
use stunetd::sys::crash;
use stunetd::sys::notify::Notifier;
use stunetd::sys::shutdown::Shutdown;
use stunetd::sys::signals::{self, FirstSignal};
use stunetd::volume::decode::DecoderConfig;
use stunetd::volume::{LabelMap, Labels, Prepared};
use stunetd::{Seams, run as serve};

/// Slices of the study at which the engine aborts the process.
pub const DEADLY: usize = 13;

/// What is run as the daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// This program with [`Scripted`].
    Scripted,
    /// `stunetd serve`.
    Shipped,
}

/// Serves until SIGTERM, as `stunetd serve` does.
pub fn run(file: &Path) -> ExitCode {
    let served = config::load(file).and_then(|config| {
        stunetd::telemetry::log::start(false, config.log.level.name());
        let shutdown = Shutdown::default();
        signals::listen(shutdown.clone(), FirstSignal::Drains, None).map_err(|e| Fault::new(Code::InternalBug, e.to_string()))?;
        let facts = EngineFacts { device: "cpu".into(), precision: "f32".into() };
        let engine = Arc::new(move |_: &stunetd::models::Generation| Ok(Opened { engine: Box::new(Scripted), facts: facts.clone() }));
        let decoder = DecoderConfig { workers: 1, ..DecoderConfig::default() };
        serve(
            config,
            Seams {
                engine,
                decoder,
                cores: Cores::plan(2, false),
                clock: Arc::new(SystemClock),
                shutdown,
                notifier: Notifier::none(),
                reload: None,
                space: stunetd::machine_space(),
            },
        )
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            ExitCode::from(fault.exit_code())
        }
    }
}

/// Marks the middle of every study; dies of one kind of them.
struct Scripted;

/// The label of a voxel, by its place among all.
pub fn label(place: usize, of: usize) -> u8 {
    u8::from(place > of / 3 && place < of / 2)
}

impl Engine for Scripted {
    fn segment(&mut self, prepared: Prepared, _: SegmentOptions, _: &mut dyn FnMut(Progress) -> bool) -> Result<LabelMap, Fault> {
        let back = prepared.back;
        if back.source_shape[0] == DEADLY {
            std::process::abort();
        }
        let voxels: usize = back.source_shape.iter().product();
        let labels = Labels::U8((0..voxels).map(|i| label(i, voxels)).collect());
        LabelMap::new(labels, back.source_shape, back.affine, back.table, back.source)
            .map_err(|e| Fault::new(Code::InternalBug, e.to_string()))
    }
}

/// A daemon that runs. Killed when dropped.
pub struct Running {
    child: Child,
    http: SocketAddr,
}

impl Running {
    pub fn start(program: Program, config: &Path, log: &Path, http: SocketAddr, point: Option<&str>, disk: Option<&Disk>) -> Running {
        let log = File::options().create(true).append(true).open(log).expect("log");
        let mut command = match program {
            Program::Scripted => Command::new(std::env::current_exe().expect("this program")),
            Program::Shipped => Command::new(env!("CARGO_BIN_EXE_stunetd")),
        };
        match program {
            Program::Scripted => command.arg("daemon"),
            Program::Shipped => command.args(["serve", "--config"]),
        };
        if let Some(point) = point {
            command.env(crash::VARIABLE, point);
        }
        if let Some(disk) = disk {
            disk.mount(&mut command);
        }
        let command = command.arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running { child: command.spawn().expect("started"), http }
    }

    /// Waits for the process to be killed by itself. An end of any other kind fails the run.
    pub fn dies_within(&mut self, patience: Duration) -> bool {
        self.dies_or(patience, || false)
    }

    /// The same, or until the condition holds.
    pub fn dies_or(&mut self, patience: Duration, mut enough: impl FnMut() -> bool) -> bool {
        let watch = Stopwatch::start();
        loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                let signal = status.signal();
                assert!(matches!(signal, Some(libc::SIGKILL | libc::SIGABRT)) || status.success(), "the daemon ended by itself: {status}");
                return signal.is_some();
            }
            if enough() || watch.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("waited for")?;
        Some(status.code().unwrap_or_else(|| panic!("the daemon was ended by signal {:?}", status.signal())))
    }

    /// Waits until the daemon is ready; true when it dies before.
    pub fn dies_starting(&mut self) -> bool {
        let http = self.http;
        self.dies_or(Duration::from_secs(60), || is_ready(http))
    }

    /// A metric, once it answers.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = get(self.http, "/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub fn is_ready(&self) -> bool {
        is_ready(self.http)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM.
    pub fn ask_to_end(&mut self) {
        // SAFETY: sends a signal to a child that has not been waited for to its end, so its number is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("waited for")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // Fails when it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_ready(http: SocketAddr) -> bool {
    get(http, "/readyz").is_some_and(|answer| answer.contains(" 200 "))
}

/// The whole answer to a GET.
fn get(http: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut answer = String::new();
    let mut stream = TcpStream::connect_timeout(&http, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
