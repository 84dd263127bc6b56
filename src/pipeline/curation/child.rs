//! The daemon's side of the child process that makes cases.

use crate::fault::{Code, Fault};
use crate::sys::child::Background;
use crate::sys::shutdown::Shutdown;
use crate::training::store::worker::{Answer, Request, Setting};
use crossbeam::channel::{Receiver, Sender, bounded, select};
use serde::Serialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

/// Longest answer.
const MAX_ANSWER: u64 = 1 << 20;

/// The child; ends with its value.
pub struct Child {
    _process: Background,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Child {
    /// Starts `PROGRAM case-worker`. To be called by a thread that outlives the child.
    pub fn start(program: &Path, setting: &Setting) -> Result<Child, Fault> {
        let mut command = Command::new(program);
        command.arg("case-worker");
        let started = Background::start(&mut command);
        let (process, requests, answers) =
            started.map_err(|e| Fault::new(Code::InternalBug, format!("The case worker does not start: {}.", e.kind())).caused_by(e))?;
        let (heard, listening) = bounded(1);
        let listen = move || hear(answers, &heard);
        let thread = std::thread::Builder::new().name("case-answers".into()).spawn(listen);
        thread.map_err(|e| Fault::new(Code::InternalBug, format!("no thread for the case worker: {e}")).caused_by(e))?;
        let mut child = Child { _process: process, requests, answers: listening };
        child.tell(setting)?;
        Ok(child)
    }

    /// Waits for its answer, however long that takes, or for the end of the daemon.
    ///
    /// # Errors
    /// `internal.shutdown`; it has ended, or says what nobody understands.
    pub fn ask(&mut self, request: &Request, shutdown: &Shutdown) -> Result<Answer, Fault> {
        self.tell(request)?;
        let line = select! {
            recv(self.answers) -> line => line.map_err(|_| ended("it has ended"))?,
            recv(shutdown.draining()) -> _ => return Err(Fault::new(Code::InternalShutdown, "A case was not finished.")),
        };
        serde_json::from_str(&line).map_err(|_| ended("it says what nobody understands"))
    }

    fn tell(&mut self, line: &impl Serialize) -> Result<(), Fault> {
        let mut bytes = serde_json::to_vec(line).map_err(|e| ended(&e.to_string()))?;
        bytes.push(b'\n');
        self.requests.write_all(&bytes).and_then(|()| self.requests.flush()).map_err(|e| ended(&e.kind().to_string()))
    }
}

/// Passes lines on until there are no more: the child has ended then.
fn hear(answers: ChildStdout, heard: &Sender<String>) {
    let mut answers = BufReader::new(answers);
    loop {
        let mut line = String::new();
        match (&mut answers).take(MAX_ANSWER).read_line(&mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if heard.send(line).is_err() => return,
            Ok(_) => {}
        }
    }
}

fn ended(what: &str) -> Fault {
    Fault::new(Code::InternalBug, format!("The case worker: {what}."))
}
