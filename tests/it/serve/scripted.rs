//! An engine that does as it is told, and marks one block of voxels when it is told nothing.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stunetd::fault::{Code, Fault};
use stunetd::pipeline::{EngineFactory, EngineFacts, Opened};
use stunetd::segment::{Engine, Progress, SegmentOptions};
use stunetd::sys::clock::Clock;
use stunetd::volume::{LabelMap, Labels, Prepared};

/// What the engine does with the next study.
pub enum Act {
    Panic,
    /// Panics with these words in its message.
    PanicSaying(&'static str),
    Fail(Code),
    /// Works until the message, or until it is told to stop.
    Wait(Receiver<()>),
    /// Gets no further, and hears nothing, until the message.
    Hang(Receiver<()>),
}

#[derive(Default)]
struct State {
    acts: VecDeque<Act>,
    times: Vec<Instant>,
    slices: Vec<usize>,
    opened: Vec<String>,
}

/// The script, shared with the engines that follow it.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<State>>);

impl Script {
    pub fn next(&self, act: Act) {
        self.0.lock().expect("script").acts.push_back(act);
    }

    /// The next study waits for the message.
    pub fn next_waits(&self) -> Sender<()> {
        let (go, wait) = channel();
        self.next(Act::Wait(wait));
        go
    }

    /// The next study hangs until the message.
    pub fn next_hangs(&self) -> Sender<()> {
        let (go, wait) = channel();
        self.next(Act::Hang(wait));
        go
    }

    pub fn calls(&self) -> usize {
        self.0.lock().expect("script").times.len()
    }

    pub fn opened(&self) -> usize {
        self.models().len()
    }

    /// The model of each engine that was opened.
    pub fn models(&self) -> Vec<String> {
        self.0.lock().expect("script").opened.clone()
    }

    /// Slices of each study, in the order in which they were begun.
    pub fn slices(&self) -> Vec<usize> {
        self.0.lock().expect("script").slices.clone()
    }

    /// When each study was begun.
    pub fn times(&self) -> Vec<Instant> {
        self.0.lock().expect("script").times.clone()
    }

    pub fn factory(&self, clock: Arc<dyn Clock>) -> EngineFactory {
        let script = self.clone();
        Arc::new(move |model| {
            script.0.lock().expect("script").opened.push(model.manifest.name.clone());
            let engine = Box::new(Scripted { script: script.clone(), clock: clock.clone() });
            Ok(Opened { engine, facts: EngineFacts { device: "cpu".into(), precision: "f32".into() } })
        })
    }
}

struct Scripted {
    script: Script,
    clock: Arc<dyn Clock>,
}

impl Engine for Scripted {
    fn segment(&mut self, prepared: Prepared, _: SegmentOptions, progress: &mut dyn FnMut(Progress) -> bool) -> Result<LabelMap, Fault> {
        let act = {
            let mut state = self.script.0.lock().expect("script");
            state.times.push(self.clock.monotonic());
            state.slices.push(prepared.back.source_shape[0]);
            state.acts.pop_front()
        };
        match act {
            None => {}
            Some(Act::Panic) => panic!("as the script says"),
            Some(Act::PanicSaying(words)) => panic!("{words} is not expected"),
            Some(Act::Fail(code)) => return Err(Fault::new(code, "As the script says.")),
            Some(Act::Hang(message)) => drop(message.recv()),
            Some(Act::Wait(message)) => {
                while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = message.recv_timeout(Duration::from_millis(5)) {
                    if !progress(Progress { done: 1, of: 2 }) {
                        return Err(Fault::new(Code::InternalShutdown, ""));
                    }
                }
                if !progress(Progress { done: 2, of: 2 }) {
                    return Err(Fault::new(Code::InternalShutdown, ""));
                }
            }
        }
        let back = prepared.back;
        let voxels: usize = back.source_shape.iter().product();
        let labels = (0..voxels).map(|i| u8::from(i > voxels / 3 && i < voxels / 2)).collect();
        LabelMap::new(Labels::U8(labels), back.source_shape, back.affine, back.table, back.source)
            .map_err(|e| Fault::new(Code::InternalBug, e.to_string()))
    }
}
