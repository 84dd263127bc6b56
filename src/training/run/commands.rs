//! What the parent asks for, from stdin and signals.

use super::Event;
use crate::sys::shutdown::Shutdown;
use crate::training::Error;
use crossbeam::channel::{Receiver, TryRecvError, bounded};
use std::io::{BufRead, Read};

/// Longest line that is read.
const MAX_LINE: u64 = 256;
/// Commands that wait to be heard.
const WAITING: usize = 16;

/// What the parent may ask for. It is heard between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Wait: the device's memory stays taken, nothing runs on it.
    Pause,
    /// Go on.
    Resume,
    /// Save a checkpoint and end.
    Evict,
}

/// Listens until the process ends: `pause`, `resume` and `evict` on stdin, a line each. The end of stdin, which is the end of the
/// parent, and the beginning of a shutdown mean `evict`. Other lines are told in the log and left alone.
pub fn listen(shutdown: &Shutdown) -> Result<Receiver<Command>, Error> {
    let (lines, commands) = bounded(WAITING);
    let signalled = lines.clone();
    let no_thread = |e: std::io::Error| Error::Settings(format!("no thread for commands could be started: {e}"));
    let read = move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = String::new();
            let command = match input.by_ref().take(MAX_LINE).read_line(&mut line) {
                Ok(0) | Err(_) => Command::Evict,
                Ok(_) => match line.trim() {
                    "pause" => Command::Pause,
                    "resume" => Command::Resume,
                    "evict" => Command::Evict,
                    _ => {
                        tracing::warn!("a line on stdin is not a command; pause, resume and evict are");
                        continue;
                    }
                },
            };
            if lines.send(command).is_err() || command == Command::Evict {
                return;
            }
        }
    };
    std::thread::Builder::new().name("commands".into()).spawn(read).map_err(no_thread)?;
    let shutdown = shutdown.clone();
    let wait = move || {
        // Disconnects when draining begins.
        let _ = shutdown.draining().recv();
        let _ = signalled.send(Command::Evict);
    };
    std::thread::Builder::new().name("ending".into()).spawn(wait).map_err(no_thread)?;
    Ok(commands)
}

/// Hears the commands that have come, and waits while paused. False when the run is to end.
pub fn may_go_on(commands: &Receiver<Command>, step: u64, tell: &mut dyn FnMut(&Event) -> Result<(), Error>) -> Result<bool, Error> {
    let mut paused = false;
    loop {
        let command = match paused {
            true => commands.recv().map_err(|_| TryRecvError::Disconnected),
            false => commands.try_recv(),
        };
        match command {
            Ok(Command::Pause) if !paused => {
                paused = true;
                tell(&Event::Paused { step })?;
            }
            Ok(Command::Resume) if paused => {
                paused = false;
                tell(&Event::Resumed { step })?;
            }
            Ok(Command::Pause | Command::Resume) => {}
            Ok(Command::Evict) | Err(TryRecvError::Disconnected) => return Ok(false),
            Err(TryRecvError::Empty) => return Ok(true),
        }
    }
}
