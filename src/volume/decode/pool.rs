//! The pool of decode workers: children that are started when first needed, kept warm, watched, and replaced.
//!
//! A worker is lent to one thread for one batch at a time. One that crashes, answers nonsense or nothing in time is killed, and the batch
//! fails with a code; one that reports a broken code stream is retired after its answer, because its codec has seen hostile bytes.

use super::child::Worker;
use super::codec::{Codec, FrameSpec};
use super::protocol::{self, FrameJob};
use crate::fault::{Code, Fault};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A worker whose arena has grown beyond this is retired after the batch, to give the memory back.
const LARGE_ARENA: usize = 64 << 20;
/// Batches after which a worker is retired.
const BATCHES: u32 = 2000;

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
    /// Whether the first workers are forked from this process in [`Decoder::new`], provided that no other thread exists yet: ready at
    /// once, where starting the program takes some tenths of a second to load libtorch. For verbs that end soon: such workers can see
    /// what this process had in memory, and end with the thread that made the decoder.
    pub fork: bool,
}

impl Default for DecoderConfig {
    /// This binary, a worker for each processor, half a minute a batch, 1 GiB, started anew.
    fn default() -> DecoderConfig {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
        DecoderConfig { program: "/proc/self/exe".into(), workers, timeout: Duration::from_secs(30), memory: 1 << 30, fork: false }
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
    /// A decoder that starts its workers when compressed frames first come, unless `fork` says now.
    pub fn new(config: DecoderConfig) -> Result<Decoder, Fault> {
        let config = DecoderConfig { workers: config.workers.max(1), ..config };
        let mut state = State::default();
        if config.fork {
            // Where that fails, or must not be done, they are started in the usual way.
            state.idle.extend((0..config.workers).map_while(|_| Worker::fork(config.memory).ok().flatten()));
        }
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
        Ok(Decoder { config, state: Mutex::new(state), returned: Condvar::new(), orders: Mutex::new(Some(orders)), keeper: Some(keeper) })
    }

    /// Most workers at a time: more threads than that wait for each other.
    pub fn workers(&self) -> usize {
        self.config.workers
    }

    /// Process ids of the workers that wait for work.
    pub fn idle_workers(&self) -> Vec<u32> {
        self.state().idle.iter().map(Worker::id).collect()
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
            worker.pixels(job, &mut pixels);
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
                lease.worker = Some(self.start()?);
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
        self.keep = worker.batches() < BATCHES && worker.shared_bytes() <= LARGE_ARENA;
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
