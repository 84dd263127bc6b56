//! The pool of decode workers: children that are started when first needed, kept warm, watched, and replaced.
//!
//! A worker is lent to one thread for one batch at a time. One that crashes, answers nonsense or nothing in time is killed, and the batch
//! fails with a code; one that reports a broken code stream is retired after its answer, because its codec has seen hostile bytes.

use super::arena::Arena;
use super::codec::{Codec, FrameSpec};
use super::protocol::{self, Answer, Failure, FrameJob};
use crate::fault::{Code, Fault};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Shared memory that a worker starts with: a batch of sixteen slices of 512 × 512 fits.
const ARENA: usize = 12 << 20;
/// A worker whose arena has grown beyond this is retired after the batch, to give the memory back.
const LARGE_ARENA: usize = 64 << 20;
/// Batches after which a worker is retired.
const BATCHES: u32 = 2000;
/// Time in which a worker has to be ready: its program is loaded from disk, on a machine that may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames start at multiples of this, so that no two share a cache line.
const ALIGN: usize = 64;

/// How compressed pixel data is decoded.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// The program that is started as `PROGRAM decode-worker BYTES`: this binary.
    pub program: PathBuf,
    /// Most workers at a time.
    pub workers: usize,
    /// Time that a worker has for one batch of frames.
    pub timeout: Duration,
    /// Memory that one worker may use beyond its program, shared memory included, in bytes.
    pub memory: u64,
}

impl Default for DecoderConfig {
    /// This binary, a worker for each processor, half a minute a batch, 1 GiB.
    fn default() -> DecoderConfig {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
        DecoderConfig { program: "/proc/self/exe".into(), workers, timeout: Duration::from_secs(30), memory: 1 << 30 }
    }
}

/// Why a batch of frames was not decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The codec refuses the code stream.
    #[error("frame {frame} of the batch: {text}")]
    Codec {
        /// Index in the batch.
        frame: usize,
        /// What the codec said.
        text: String,
    },
    /// The worker died.
    #[error("frame {frame} of the batch ended its decode worker ({how})")]
    Crashed {
        /// Index in the batch of the frame that was being decoded.
        frame: usize,
        /// Signal or exit code.
        how: String,
    },
    /// The worker did not answer in time.
    #[error("frame {frame} of the batch was not decoded within {seconds} s")]
    TimedOut {
        /// Index in the batch of the frame that was being decoded.
        frame: usize,
        /// The time it had.
        seconds: f64,
    },
    /// No worker can be started or reached.
    #[error("no decode worker: {0}")]
    Worker(#[source] io::Error),
}

impl DecodeError {
    /// Which frame of the batch is to blame, if one is.
    pub fn frame(&self) -> Option<usize> {
        match self {
            DecodeError::Codec { frame, .. } | DecodeError::Crashed { frame, .. } | DecodeError::TimedOut { frame, .. } => Some(*frame),
            DecodeError::Worker(_) => None,
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Fault {
        let code = match &error {
            DecodeError::Codec { .. } => Code::CodecDecode,
            DecodeError::Crashed { .. } => Code::CodecCrashed,
            DecodeError::TimedOut { .. } => Code::CodecTimeout,
            DecodeError::Worker(_) => Code::CodecWorker,
        };
        Fault::new(code, error.to_string())
    }
}

/// A compressed frame.
#[derive(Clone, Copy, Debug)]
pub struct EncodedFrame<'a> {
    /// What it is compressed with.
    pub codec: Codec,
    /// What the header says it holds.
    pub spec: FrameSpec,
    /// The code stream.
    pub bytes: &'a [u8],
}

/// Decodes compressed frames in child processes. Shared by all threads; its workers end with it.
pub struct Decoder {
    config: DecoderConfig,
    state: Mutex<State>,
    returned: Condvar,
    /// Asks the keeper thread for a worker. Taken when the decoder is dropped.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    keeper: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    idle: Vec<Worker>,
    /// Workers lent or being started.
    lent: usize,
}

/// Where a started worker goes.
type Order = mpsc::Sender<io::Result<Worker>>;

impl Decoder {
    /// A decoder that starts its workers when compressed frames first come.
    pub fn new(config: DecoderConfig) -> Result<Decoder, Fault> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let (program, memory) = (config.program.clone(), config.memory);
        // Workers die with the thread that made them (PR_SET_PDEATHSIG is about threads), so one thread makes them all and lives as
        // long as the decoder.
        let keeper = std::thread::Builder::new().name("decode-keeper".into()).spawn(move || {
            for order in inbox {
                // Who ordered it may have gone; the worker is then dropped, which ends it.
                let _ = order.send(Worker::start(&program, memory));
            }
        });
        let keeper = keeper.map_err(DecodeError::Worker)?;
        let config = DecoderConfig { workers: config.workers.max(1), ..config };
        let state = Mutex::new(State::default());
        Ok(Decoder { config, state, returned: Condvar::new(), orders: Mutex::new(Some(orders)), keeper: Some(keeper) })
    }

    /// Most workers at a time: more threads than that wait for each other.
    pub fn workers(&self) -> usize {
        self.config.workers
    }

    /// Process ids of the workers that wait for work.
    pub fn idle_workers(&self) -> Vec<u32> {
        self.state().idle.iter().map(|w| w.child.id()).collect()
    }

    /// Decodes a batch of at most [`Decoder::BATCH`] frames in one worker and gives each frame's pixels (little-endian words) to `take` in order. Waits for
    /// a free worker. When a frame fails, `take` is called for none.
    pub fn decode(&self, frames: &[EncodedFrame], mut take: impl FnMut(usize, &[u8])) -> Result<(), DecodeError> {
        if frames.is_empty() {
            return Ok(());
        }
        if frames.len() > Decoder::BATCH {
            return Err(DecodeError::Worker(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let mut lease = self.lend()?;
        let mut outcome = lease.run(frames, self.config.timeout);
        while let (Err(DecodeError::Worker(_)), true) = (&outcome, lease.warm) {
            // It has waited since an earlier batch and may have been killed meanwhile.
            drop(lease);
            lease = self.lend()?;
            outcome = lease.run(frames, self.config.timeout);
        }
        let jobs = outcome?;
        let Some(worker) = &lease.worker else { return Ok(()) };
        let mut pixels = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            pixels.resize(job.spec.bytes(), 0);
            worker.arena.read(job.output as usize, &mut pixels);
            take(index, &pixels);
        }
        Ok(())
    }

    /// Most frames of one batch.
    pub const BATCH: usize = protocol::MAX_FRAMES;

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A living worker: an idle one, a new one, or the next that is given back.
    fn lend(&self) -> Result<Lease<'_>, DecodeError> {
        let mut state = self.state();
        loop {
            if let Some(mut worker) = state.idle.pop() {
                if worker.lives() {
                    state.lent += 1;
                    return Ok(Lease { decoder: self, worker: Some(worker), warm: true, keep: false });
                }
                continue;
            }
            if state.lent < self.config.workers {
                state.lent += 1;
                drop(state);
                let mut lease = Lease { decoder: self, worker: None, warm: false, keep: false };
                lease.worker.insert(self.start()?).ready()?;
                return Ok(lease);
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn start(&self) -> Result<Worker, DecodeError> {
        let gone = || DecodeError::Worker(io::Error::from(io::ErrorKind::BrokenPipe));
        let (send, receive) = mpsc::channel();
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref().and_then(|orders| orders.send(send).ok()).ok_or_else(gone)?;
        drop(orders);
        receive.recv().map_err(|_| gone())?.map_err(DecodeError::Worker)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.state().idle.clear();
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// A worker on loan; given back when dropped, or ended unless `keep`.
struct Lease<'a> {
    decoder: &'a Decoder,
    worker: Option<Worker>,
    /// It has worked before.
    warm: bool,
    keep: bool,
}

impl Lease<'_> {
    fn run(&mut self, frames: &[EncodedFrame], timeout: Duration) -> Result<Vec<FrameJob>, DecodeError> {
        let worker = self.worker.as_mut().ok_or_else(|| DecodeError::Worker(io::Error::from(io::ErrorKind::NotFound)))?;
        let jobs = worker.submit(frames)?;
        worker.answer(frames.len(), timeout)?;
        self.keep = worker.batches < BATCHES && worker.arena.len() <= LARGE_ARENA;
        Ok(jobs)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let worker = self.worker.take().filter(|_| self.keep);
        let mut state = self.decoder.state();
        state.lent -= 1;
        state.idle.extend(worker);
        drop(state);
        self.decoder.returned.notify_one();
    }
}

/// One child process.
struct Worker {
    child: Child,
    socket: UnixStream,
    arena: Arena,
    batches: u32,
}

impl Worker {
    fn start(program: &std::path::Path, memory: u64) -> io::Result<Worker> {
        let (ours, theirs) = UnixStream::pair()?;
        let arena = Arena::create(ARENA)?;
        let mut command = Command::new(program);
        command.arg0("stunetd").args(["decode-worker", &memory.to_string()]).env_clear();
        // Where the program's libraries lie, when its own search path does not say.
        command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
        command.stdin(OwnedFd::from(theirs)).stdout(arena.file().try_clone_to_owned()?).stderr(Stdio::null());
        let child = command.current_dir("/").spawn()?;
        Ok(Worker { child, socket: ours, arena, batches: 0 })
    }

    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has given up its rights and listens. One that does not come so far says nothing about any frame.
    fn ready(&mut self) -> Result<(), DecodeError> {
        self.socket.set_read_timeout(Some(START_TIMEOUT)).map_err(DecodeError::Worker)?;
        match protocol::receive_answer(&mut self.socket) {
            Ok(Some(Answer::Decoded)) => Ok(()),
            _ => Err(DecodeError::Worker(io::Error::other(format!("it does not start ({})", self.end())))),
        }
    }

    /// Lays the frames out in the arena and tells the worker.
    fn submit(&mut self, frames: &[EncodedFrame]) -> Result<Vec<FrameJob>, DecodeError> {
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
    fn answer(&mut self, frames: usize, timeout: Duration) -> Result<(), DecodeError> {
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
        let status = self.child.kill().and_then(|()| self.child.wait());
        match status.map(|s| (s.signal(), s.code())) {
            Ok((Some(signal), _)) => End::Signal(signal),
            Ok((None, code)) => End::Exit(code.unwrap_or(-1)),
            Err(_) => End::Exit(-1),
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
        // Kill does nothing to a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
