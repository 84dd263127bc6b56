//! The thread that brings messages to the repository.

use super::line::Line;
use super::office::Office;
use crate::fault::{Code, Fault};
use crossbeam::channel::{Receiver, Sender, bounded, never, select};
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Messages that share a connection.
const BATCH: usize = 200;
/// First pause after a failure; doubled with every further one.
const FIRST: Duration = Duration::from_secs(2);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(300);

/// The running thread. Dropped, it tries for the last time to send what waits, and ends; what the repository does not take then is sent after
/// the next start.
pub struct Courier {
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Courier {
    pub(super) fn start(office: Arc<Office>, line: Line, rung: Receiver<()>) -> Result<Courier, Fault> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || Round { office, line, failures: 0 }.run(&rung, &stopped))
            .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for audit messages: {e}")).caused_by(e))?;
        Ok(Courier { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the hook.
            let _ = thread.join();
        }
    }
}

struct Round {
    office: Arc<Office>,
    line: Line,
    /// Failures in a row.
    failures: u32,
}

impl Round {
    fn run(mut self, rung: &Receiver<()>, stopped: &Receiver<Infallible>) {
        loop {
            // While the repository is away a new message is no reason to call.
            let wait = (self.failures > 0).then(|| self.office.clock().after(pause(self.failures)));
            let bell = if wait.is_some() { never() } else { rung.clone() };
            select! {
                recv(bell) -> _ => {}
                recv(wait.unwrap_or_else(never)) -> _ => {}
                recv(stopped) -> _ => {
                    while self.failures == 0 && self.send() {}
                    return;
                }
            }
            while self.send() {}
        }
    }

    /// Sends a batch; whether there may be more.
    fn send(&mut self) -> bool {
        let batch = self.office.oldest(BATCH);
        if batch.is_empty() {
            self.failures = 0;
            return false;
        }
        let audit = &self.office.metrics().audit;
        match self.line.send(batch.iter().map(|(_, message)| message.as_slice()).filter(|message| !message.is_empty())) {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!("the audit repository takes messages again");
                }
                self.failures = 0;
                audit.up(true);
                audit.sent(batch.len() as u64);
                self.office.sent(&batch.iter().map(|(number, _)| *number).collect::<Vec<_>>());
                true
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                audit.up(false);
                if self.failures == 1 {
                    let code = Code::AuditUnreachable;
                    self.office.metrics().fault(code);
                    tracing::warn!(%code, "audit messages wait: {error}. {}", code.action());
                }
                false
            }
        }
    }
}

fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST)
}
