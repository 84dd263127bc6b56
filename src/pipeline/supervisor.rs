//! Watches over everybody who works. Whoever does not get ahead within their deadline is told of, and while there is one the service
//! manager gets no sign of life: it ends the process, the next one takes the work up again, and a job that does it every time is parked.

use super::board::{Beat, Board};
use super::work::JobId;
use crate::fault::{Code, Fault};
use crate::intake::disks::{Disks, Room};
use crate::sys::clock::Clock;
use crate::sys::notify::Notifier;
use crate::telemetry::{JobState, Metrics, Post};
use crossbeam::channel::{Receiver, Sender, bounded, select};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The board is looked at this often at least.
const LOOK: Duration = Duration::from_secs(5);

/// What the supervisor needs to know.
pub struct SupervisorPlan {
    /// Who works.
    pub board: Board,
    /// How long anybody may take to get ahead, and the same again for every GiB of their job.
    pub deadline: Duration,
    /// Who is told.
    pub notifier: Notifier,
    /// Looked at too.
    pub disks: Arc<Disks>,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The running supervisor; ends when dropped.
pub struct Supervisor {
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts its thread.
    pub fn start(plan: SupervisorPlan) -> Result<Supervisor, Fault> {
        let (stop, stopped) = bounded(0);
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || Watch { plan, told: BTreeSet::new(), status: String::new() }.run(&stopped))
            .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for the supervisor: {e}")).caused_by(e))?;
        Ok(Supervisor { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the hook.
            let _ = thread.join();
        }
    }
}

struct Watch {
    plan: SupervisorPlan,
    /// Who is late and has been told of.
    told: BTreeSet<(Post, Option<JobId>, Instant)>,
    status: String,
}

impl Watch {
    fn run(mut self, stopped: &Receiver<Infallible>) {
        // Twice in the time that the service manager waits would do.
        let pause = self.plan.notifier.watchdog().map_or(LOOK, |watchdog| (watchdog / 3).min(LOOK));
        loop {
            self.look();
            let timer = self.plan.clock.after(pause);
            select! {
                recv(timer) -> _ => {}
                recv(stopped) -> _ => return,
            }
        }
    }

    fn look(&mut self) {
        let SupervisorPlan { board, deadline, notifier, disks, clock, metrics } = &self.plan;
        let (now, beats) = (clock.monotonic(), board.beats());
        let late: Vec<&Beat> = beats.iter().filter(|beat| beat.is_late(now, *deadline)).collect();
        for beat in &late {
            if self.told.insert((beat.post, beat.job, beat.since)) {
                let seconds = now.saturating_duration_since(beat.moved).as_secs();
                metrics.stalled(beat.post);
                let job = beat.job.map(tracing::field::display);
                tracing::error!(stage = beat.post.name(), job, seconds, "gets no further");
            }
        }
        let is_late = |who: &(Post, Option<JobId>, Instant)| late.iter().any(|beat| (beat.post, beat.job, beat.since) == *who);
        self.told.retain(is_late);
        // A destination that hangs (a mount whose server is gone) is no reason to end the work of all others.
        if late.iter().all(|beat| beat.post == Post::Outbox) && notifier.watchdog().is_some() {
            notifier.alive();
        }
        let status = status(metrics, disks.room(), &late);
        if status != self.status {
            notifier.status(&status);
            self.status = status;
        }
    }
}

/// One line for people.
fn status(metrics: &Metrics, room: Room, late: &[&Beat]) -> String {
    let jobs = |state| metrics.jobs(state);
    let (working, queued) = (jobs(JobState::Working), jobs(JobState::Queued) + jobs(JobState::Waiting));
    let mut text = if metrics.draining.get() != 0 { format!("Ending: {working} in work") } else { format!("{working} in work") };
    text += &format!(", {queued} waiting, {} parked", jobs(JobState::Parked));
    match room {
        Room::Enough => {}
        Room::Low => text += "; little space on disk",
        Room::Full => text += "; no space on disk: nothing is taken",
    }
    for beat in late {
        text += &format!("; {} gets no further", beat.post.name());
        if let Some(job) = beat.job {
            text += &format!(" with job {job}");
        }
    }
    text
}
