//! The daemon's side of one decode worker.

use super::arena::Arena;
use super::pool::{DecodeError, EncodedFrame};
use super::protocol::{self, Answer, Failure, FrameJob};
use super::worker;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Shared memory that a worker starts with: a batch of sixteen slices of 512 × 512 fits.
const ARENA: usize = 12 << 20;
/// Time in which a worker has to be ready: its program is loaded from disk, on a machine that may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames start at multiples of this, so that no two share a cache line.
const ALIGN: usize = 64;

/// One child process. Ends with its value.
pub(super) struct Worker {
    process: Process,
    socket: UnixStream,
    arena: Arena,
    /// It has said that it listens.
    ready: bool,
    batches: u32,
}

impl Worker {
    /// Starts `PROGRAM decode-worker BYTES`. To be called by a thread that outlives the worker.
    pub(super) fn start(program: &std::path::Path, memory: u64) -> io::Result<Worker> {
        let (ours, theirs) = UnixStream::pair()?;
        let arena = Arena::create(ARENA)?;
        let mut command = Command::new(program);
        command.arg0("stunetd").args(["decode-worker", &memory.to_string()]).env_clear();
        // Where the program's libraries lie, when its own search path does not say.
        command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
        command.stdin(OwnedFd::from(theirs)).stdout(arena.file().try_clone_to_owned()?).stderr(Stdio::null());
        let child = command.current_dir("/").spawn()?;
        Ok(Worker { process: Process::Program(child), socket: ours, arena, ready: false, batches: 0 })
    }

    /// Forks this process, if it has no other thread. To be called by a thread that outlives the worker.
    pub(super) fn fork(memory: u64) -> io::Result<Option<Worker>> {
        if std::fs::read_dir("/proc/self/task")?.count() != 1 {
            return Ok(None);
        }
        let (ours, theirs) = UnixStream::pair()?;
        let arena = Arena::create(ARENA)?;
        let shared = File::from(arena.file().try_clone_to_owned()?);
        // SAFETY: there is one thread, so that the child has everything that this process has, no lock held by a thread that is not
        // there. It never returns from here: `worker::forked` ends the process.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => worker::forked(theirs.into(), shared.into(), memory),
            id => Ok(Some(Worker { process: Process::Fork { id, ended: None }, socket: ours, arena, ready: false, batches: 0 })),
        }
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        match &self.process {
            Process::Program(child) => child.id(),
            Process::Fork { id, .. } => *id as u32,
        }
    }

    /// Batches that it has had.
    pub(super) fn batches(&self) -> u32 {
        self.batches
    }

    /// Bytes of memory that it shares.
    pub(super) fn shared_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Copies the pixels of a decoded frame out.
    pub(super) fn pixels(&self, job: &FrameJob, out: &mut Vec<u8>) {
        out.resize(job.spec.bytes(), 0);
        self.arena.read(job.output as usize, out);
    }

    /// Whether it runs still.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.process.status(false), Ok(None))
    }

    /// Waits until it has given up its rights and listens. One that does not come so far says nothing about any frame.
    fn await_ready(&mut self) -> Result<(), DecodeError> {
        self.socket.set_read_timeout(Some(START_TIMEOUT)).map_err(DecodeError::Worker)?;
        self.ready = matches!(protocol::receive_answer(&mut self.socket), Ok(Some(Answer::Decoded)));
        if self.ready { Ok(()) } else { Err(DecodeError::Worker(io::Error::other(format!("it does not start ({})", self.end())))) }
    }

    /// Lays the frames out in the arena and tells the worker.
    pub(super) fn submit(&mut self, frames: &[EncodedFrame]) -> Result<Vec<FrameJob>, DecodeError> {
        if !self.ready {
            self.await_ready()?;
        }
        let mut end = self.arena.start();
        let mut place = |bytes: usize| {
            let start = end;
            end += bytes.next_multiple_of(ALIGN);
            start
        };
        let jobs: Vec<FrameJob> = frames
            .iter()
            .map(|f| {
                let input = (place(f.bytes.len()) as u64, f.bytes.len() as u64);
                FrameJob { codec: f.codec, spec: f.spec, input, output: place(f.spec.bytes()) as u64 }
            })
            .collect();
        self.arena.grow(end).map_err(DecodeError::Worker)?;
        for (frame, job) in frames.iter().zip(&jobs) {
            self.arena.write(job.input.0 as usize, frame.bytes);
        }
        self.batches += 1;
        self.arena.set_progress(0);
        protocol::send_batch(&mut self.socket, self.arena.len(), &jobs).map_err(DecodeError::Worker)?;
        Ok(jobs)
    }

    /// Waits for the answer to a batch of `frames` frames.
    pub(super) fn answer(&mut self, frames: usize, timeout: Duration) -> Result<(), DecodeError> {
        let blame = |worker: &Worker| (worker.arena.progress().load(Ordering::Relaxed) as usize).min(frames - 1);
        self.socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1)))).map_err(DecodeError::Worker)?;
        match protocol::receive_answer(&mut self.socket) {
            Ok(Some(Answer::Decoded)) => Ok(()),
            Ok(Some(Answer::Failed { frame, kind: Failure::Panicked, text })) => {
                Err(DecodeError::Crashed { frame: frame.min(frames - 1), how: text })
            }
            Ok(Some(Answer::Failed { frame, text, .. })) => Err(DecodeError::Codec { frame: frame.min(frames - 1), text }),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(DecodeError::TimedOut { frame: blame(self), seconds: timeout.as_secs_f64() })
            }
            // Nonsense: something else has taken the worker over.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(DecodeError::Crashed { frame: blame(self), how: "an answer that is none".into() })
            }
            Ok(None) | Err(_) => match self.end() {
                // By the kernel for want of memory, or by a person.
                End::Signal(libc::SIGKILL | libc::SIGTERM) => Err(DecodeError::Worker(io::Error::other("it was killed"))),
                how => Err(DecodeError::Crashed { frame: blame(self), how: how.to_string() }),
            },
        }
    }

    /// Ends it, unless it has ended already, and says how.
    fn end(&mut self) -> End {
        self.process.kill();
        match self.process.status(true).map(|s| s.map(|s| (s.signal(), s.code()))) {
            Ok(Some((Some(signal), _))) => End::Signal(signal),
            Ok(Some((None, Some(code)))) => End::Exit(code),
            _ => End::Exit(-1),
        }
    }
}

/// How a process ended.
enum End {
    Signal(i32),
    Exit(i32),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Signal(signal) => write!(f, "signal {signal}"),
            End::Exit(code) => write!(f, "exit code {code}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// How the child was made.
enum Process {
    Program(Child),
    Fork { id: libc::pid_t, ended: Option<ExitStatus> },
}

impl Process {
    /// Kills it; one that was waited for is left alone.
    fn kill(&mut self) {
        match self {
            Process::Program(child) => {
                let _ = child.kill();
            }
            Process::Fork { id, ended: None } => {
                // SAFETY: a child of this process that has not been waited for: the id is still its own.
                unsafe { libc::kill(*id, libc::SIGKILL) };
            }
            Process::Fork { .. } => {}
        }
    }

    /// How it ended, or `None` while it runs; `wait` waits for the end.
    fn status(&mut self, wait: bool) -> io::Result<Option<ExitStatus>> {
        let (id, ended) = match self {
            Process::Program(child) if wait => return child.wait().map(Some),
            Process::Program(child) => return child.try_wait(),
            Process::Fork { id, ended } => (*id, ended),
        };
        while ended.is_none() {
            let mut status = 0;
            // SAFETY: the pointer is to a live integer, the id is of a child that has not been waited for.
            match unsafe { libc::waitpid(id, &mut status, if wait { 0 } else { libc::WNOHANG }) } {
                0 => return Ok(None),
                -1 => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
                _ => *ended = Some(ExitStatus::from_raw(status)),
            }
        }
        Ok(*ended)
    }
}
