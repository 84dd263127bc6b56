//! The control socket: how a person's command reaches the running daemon.
//!
//! `<state>/control.sock`, mode 0660: one request and one answer a connection, each a line of JSON. The system vouches for who asks, and
//! that name goes into the journal. With no daemon running, the command opens the ledger itself.

use super::promotion::{self, ModelCommand};
use super::status::{Snapshot, Status};
use crate::audit::{Audit, Event, Study};
use crate::fault::{Code, Fault};
use crate::ledger::{CaseState, Change, JobId, Ledger, Reader, State, TrainingChange};
use crate::models::Store;
use crate::sys::durable::{Step, StorageError};
use crate::sys::person;
use crate::training::store::registry;
use crossbeam::channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The socket in the state folder.
pub const SOCKET: &str = "control.sock";
/// Longest request or answer, in bytes.
const LONGEST: u64 = 64 << 10;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a person can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Command {
    /// Try the job, or its parked deliveries, again.
    Retry {
        /// Its number.
        job: u64,
    },
    /// End the job, or its open deliveries.
    Cancel {
        /// Its number.
        job: u64,
    },
}

/// What a person can decide about cases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum CaseCommand {
    /// A reader's record is in the case's folder: the ledger learns of it.
    DecideCase {
        /// The case.
        id: String,
        /// Name of a [`CaseState`].
        state: String,
        /// Digest of the labels that the record is about.
        labels: String,
    },
    /// Two patients are one person.
    LinkPatients {
        /// Their keys.
        keys: [String; 2],
    },
}

/// What a person can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
enum Look {
    /// How things are.
    Status,
}

/// What stands in a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Request {
    Look(Look),
    Change(Command),
    Cases(CaseCommand),
    Models(ModelCommand),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// Done; the job is in this state now, or this model serves.
    State(String),
    /// How things are.
    Status(Box<Snapshot>),
    /// Not done.
    Refused { code: String, detail: String },
}

/// Does what a person asks, in the ledger; the job's state after it. The audit repository hears of it.
pub fn carry_out(ledger: &dyn Ledger, audit: &Audit, command: Command, who: String) -> Result<State, Fault> {
    let what = match command {
        Command::Retry { job } => format!("retry job {job}"),
        Command::Cancel { job } => format!("cancel job {job}"),
    };
    let person = who.clone();
    let (job, change) = match command {
        Command::Retry { job } => (JobId(job), Change::Retry { job: JobId(job), who }),
        Command::Cancel { job } => (JobId(job), Change::Cancel { job: JobId(job), who }),
    };
    ledger.commit(vec![change])?;
    let job = Reader::job(ledger, job)?.ok_or_else(|| Fault::new(Code::JobUnknown, format!("{job}")))?;
    audit.record(&Event::Command { who: &person, what: &what, study: &Study::named(&job.series.study) });
    Ok(job.progress.state)
}

/// Does what a person decided about cases, in the ledger.
pub fn carry_out_cases(ledger: &dyn Ledger, command: &CaseCommand, who: &str) -> Result<(), Fault> {
    match command.clone() {
        CaseCommand::DecideCase { id, state, labels } => {
            let Some(state) = CaseState::from_name(&state) else {
                return Err(Fault::new(Code::ConfigUsage, "The daemon does not know this state of a case."));
            };
            let change = TrainingChange::DecideCase { id, state, labels: Some(labels), problem: None, who: who.into() };
            ledger.commit(vec![Change::Training(change)])?;
            Ok(())
        }
        CaseCommand::LinkPatients { keys } => registry::link(ledger, keys, who),
    }
}

/// Sends what a person decided about cases to the daemon that uses this state folder; false when there is no daemon.
pub fn ask_cases(state: &Path, command: &CaseCommand) -> Result<bool, Fault> {
    match exchange(state, command)? {
        Some(Answer::State(_)) => Ok(true),
        Some(answer) => Err(refused(answer)),
        None => Ok(false),
    }
}

/// Sends a command about models to the daemon that uses this state folder; none when there is no daemon.
pub fn ask_models(state: &Path, command: &ModelCommand) -> Result<Option<String>, Fault> {
    match exchange(state, command)? {
        Some(Answer::State(serves)) => Ok(Some(serves)),
        Some(answer) => Err(refused(answer)),
        None => Ok(None),
    }
}

/// Sends a command to the daemon that uses this state folder; none when there is no daemon.
pub fn ask(state: &Path, command: Command) -> Result<Option<String>, Fault> {
    match exchange(state, &command)? {
        Some(Answer::State(state)) => Ok(Some(state)),
        Some(answer) => Err(refused(answer)),
        None => Ok(None),
    }
}

/// How the daemon is that uses this state folder; none when there is no daemon.
pub fn status(state: &Path) -> Result<Option<Snapshot>, Fault> {
    match exchange(state, &Look::Status)? {
        Some(Answer::Status(snapshot)) => Ok(Some(*snapshot)),
        Some(answer) => Err(refused(answer)),
        None => Ok(None),
    }
}

fn refused(answer: Answer) -> Fault {
    match answer {
        Answer::Refused { code, detail } => Fault::new(Code::from_name(&code).unwrap_or(Code::InternalBug), detail),
        Answer::State(_) | Answer::Status(_) => Fault::new(Code::InternalBug, "the daemon answered another question"),
    }
}

fn exchange(state: &Path, request: &impl Serialize) -> Result<Option<Answer>, Fault> {
    let path = state.join(SOCKET);
    let connected = near(&path).and_then(|(_folder, short)| UnixStream::connect(short));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(StorageError::at(Step::Read, &path)(e).into()),
    };
    Ok(Some(send(&mut stream, request).map_err(StorageError::at(Step::Read, &path))?))
}

fn send(stream: &mut UnixStream, request: &impl Serialize) -> io::Result<Answer> {
    patient(stream)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(serde_json::from_str(&read_line(stream)?)?)
}

/// The listening socket; gone when dropped.
pub struct Control {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    bell: Sender<()>,
}

impl Control {
    /// To be rung after the ledger was changed from within the daemon as a command would have changed it. Full: it has been rung already.
    pub fn bell(&self) -> Sender<()> {
        self.bell.clone()
    }

    /// Listens in a state folder. The caller has the ledger there open for writing, so a socket that lies there is a dead process's.
    /// The channel yields something after commands that were carried out.
    pub fn listen(
        state: &Path,
        ledger: Arc<dyn Ledger>,
        store: Store,
        status: Status,
        audit: Audit,
    ) -> Result<(Control, Receiver<()>), Fault> {
        let path = state.join(SOCKET);
        let failed = |e: io::Error| Fault::from(StorageError::at(Step::Create, &path)(e));
        let (folder, short) = near(&path).map_err(failed)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = UnixListener::bind(short).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        drop(folder);
        let (ring, changed) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let bell = ring.clone();
        let run = {
            let stop = stop.clone();
            move || serve(&listener, &Desk { ledger, store, status, ring, audit }, &stop)
        };
        let thread = std::thread::Builder::new().name("control".into()).spawn(run).map_err(failed)?;
        Ok((Control { path, stop, thread: Some(thread), bell }, changed))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread; if even that fails there is nobody to wake.
        let woken = near(&self.path).and_then(|(_folder, short)| UnixStream::connect(short));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            // A panic there was told by the hook.
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// What answers need.
struct Desk {
    ledger: Arc<dyn Ledger>,
    store: Store,
    status: Status,
    ring: Sender<()>,
    audit: Audit,
}

fn serve(listener: &UnixListener, desk: &Desk, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let answered = stream.and_then(|mut stream| answer(&mut stream, desk));
        if let Err(error) = answered {
            tracing::debug!("control socket: {error}");
        }
    }
}

fn answer(stream: &mut UnixStream, desk: &Desk) -> io::Result<()> {
    patient(stream)?;
    let who = person::peer(stream)?;
    let answer = match serde_json::from_str::<Request>(&read_line(stream)?) {
        Err(_) => Answer::Refused { code: Code::ConfigUsage.name().into(), detail: "The daemon does not know this command.".into() },
        Ok(Request::Look(Look::Status)) => Answer::Status(Box::new(desk.status.snapshot())),
        Ok(Request::Cases(command)) => match carry_out_cases(&*desk.ledger, &command, &who) {
            Ok(()) => {
                tracing::info!(who, "a person's word about cases");
                Answer::State("done".into())
            }
            Err(fault) => Answer::Refused { code: fault.code.name().into(), detail: fault.detail },
        },
        Ok(Request::Models(command)) => match promotion::carry_out(&*desk.ledger, &desk.store, command.clone(), &who) {
            Ok(serves) => {
                tracing::info!(?command, who, "a person's word about models");
                let _ = desk.ring.try_send(());
                Answer::State(serves)
            }
            Err(fault) => Answer::Refused { code: fault.code.name().into(), detail: fault.detail },
        },
        Ok(Request::Change(command)) => match carry_out(&*desk.ledger, &desk.audit, command, who.clone()) {
            Ok(state) => {
                tracing::info!(?command, who, "a person's command");
                // Full: it has been rung already.
                let _ = desk.ring.try_send(());
                Answer::State(state.name().into())
            }
            Err(fault) => Answer::Refused { code: fault.code.name().into(), detail: fault.detail },
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    Ok(line)
}

/// A short path of the same file: an address of a socket has at most 107 characters. Holds while the folder is kept open.
fn near(path: &Path) -> io::Result<(File, PathBuf)> {
    let folder = File::open(crate::sys::durable::parent(path))?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(path.file_name().unwrap_or_default());
    Ok((folder, short))
}
