//! A child of the night: its process, what it is told and what it says.

use super::NightPlan;
use crate::fault::{Code, Fault};
use crate::sys::child::Background;
use crate::sys::libtorch;
use crate::training::night::Ended;
use crossbeam::channel::{Receiver, Sender};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

/// Longest line that is read.
const MAX_LINE: u64 = 64 << 10;
/// Exit code of a verb for something that will be the same the next time.
const REFUSED: i32 = 1;
const BAD_CONFIGURATION: i32 = 78;

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Prepare,
    Train,
    Evaluate,
}

impl Task {
    /// Its verb.
    pub fn verb(self) -> &'static str {
        match self {
            Task::Prepare => "train-prepare",
            Task::Train => "train-worker",
            Task::Evaluate => "train-evaluate",
        }
    }
}

/// What a child says.
pub(super) enum Line {
    Event(Said),
    /// Its stdout has ended, and so will it.
    End,
}

/// A line of its stdout; what is not known here is for people.
#[derive(Clone, Debug, serde::Deserialize)]
pub(super) struct Said {
    pub event: String,
    pub step: Option<u64>,
    pub of: Option<u64>,
}

/// The process.
pub(super) struct Child {
    pub process: Background,
    pub task: Task,
    pub lines: Receiver<Line>,
    /// Steps of its work.
    pub of: u64,
    stdin: Option<ChildStdin>,
    last: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Child {
    pub fn start(plan: &NightPlan, task: Task, run: &Path, number: u64, send: Sender<Line>, lines: Receiver<Line>) -> Result<Child, Fault> {
        let failed = |e: std::io::Error| Fault::new(Code::TrainingWorkerFailed, format!("{}: {e}", task.verb())).caused_by(e);
        let mut command = Command::new(&plan.program);
        command.arg(task.verb()).arg("--run").arg(run);
        command.args(["--device", &plan.training.device.to_string(), "--threads", &plan.training.threads.to_string()]);
        if task == Task::Evaluate {
            command.args(["--number", &number.to_string()]);
        }
        if !plan.libtorch.as_os_str().is_empty() {
            command.env(libtorch::VARIABLE, &plan.libtorch);
        }
        let (process, stdin, stdout) = Background::start(&mut command).map_err(failed)?;
        let last = std::sync::Arc::default();
        let heard = std::sync::Arc::clone(&last);
        std::thread::Builder::new().name("night-child".into()).spawn(move || read(stdout, &send, &heard)).map_err(failed)?;
        Ok(Child { process, task, lines, of: 0, stdin: Some(stdin), last })
    }

    /// Tells it a word. Where it can not be told it has gone, and its end is heard of anyway.
    pub fn say(&mut self, word: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = writeln!(stdin, "{word}");
        }
    }

    /// How it ended; waits for that.
    pub fn ended(&mut self) -> Ended {
        self.stdin = None;
        let last = self.last.lock().map_or_else(|e| e.into_inner().clone(), |last| last.clone());
        match (self.process.wait(), last.as_str()) {
            (Ok(Some(0)), "finished") => Ended::Done,
            (Ok(Some(0)), "evicted") => Ended::Evicted,
            (Ok(Some(REFUSED | BAD_CONFIGURATION)), _) => Ended::Refused,
            _ => Ended::Failed,
        }
    }
}

/// Reads until the end: a pipe that nobody empties would stop the child.
fn read(stdout: ChildStdout, send: &Sender<Line>, last: &std::sync::Mutex<String>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut line = String::new();
        match stdout.by_ref().take(MAX_LINE).read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let Ok(said) = serde_json::from_str::<Said>(&line) else { continue };
        last.lock().map_or_else(|e| e.into_inner().clone_from(&said.event), |mut last| last.clone_from(&said.event));
        if send.send(Line::Event(said)).is_err() {
            return;
        }
    }
    let _ = send.send(Line::End);
}
