//! The thread that teaches outside of working hours: it hears windows, clinical work, the ledger and its child, asks the state machine of
//! `training::night`, and does what that says.
//!
//! What is to be done stands in the ledger: one run at a time is open, and each state of it is one kind of child. So a restart goes on with the
//! state that was reached, and a person's command needs to change the ledger only.

mod child;
mod judge;
mod runs;

pub use judge::{PlanInForce, judge_run, plan_in_force};
pub use runs::{publish, serving_generation};

use super::Clinic;
use crate::config::{Training, Windows};
use crate::fault::{Code, Fault};
use crate::ledger::{Change, Ledger, Problem, RunRow, RunState, TrainingChange};
use crate::models::Generation;
use crate::segment::SegmentOptions;
use crate::sys::clock::Clock;
use crate::sys::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::training::night::{Act, Ended, Heard, Night, Posture, Settings};
use child::{Child, Line, Task};
use crossbeam::channel::{Receiver, Sender, bounded, select};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The ledger and the wall clock are looked at this often, whatever rings.
const LOOK: Duration = Duration::from_secs(2);
/// Whether a run should begin by itself is asked this often.
const BEGIN: Duration = Duration::from_secs(60);
/// Lines of the child that wait to be heard.
const LINES: usize = 256;

/// What the thread is built from.
pub struct NightPlan {
    /// The section of the configuration.
    pub training: Training,
    /// The state folder.
    pub state: PathBuf,
    /// The configured model.
    pub base: Arc<Generation>,
    /// How the daemon lays windows.
    pub options: SegmentOptions,
    /// Folder of a full libtorch, if one is configured.
    pub libtorch: PathBuf,
    /// The program that children run: this one.
    pub program: PathBuf,
    /// What is to be done, and what was done.
    pub ledger: Arc<dyn Ledger>,
    /// Names this process.
    pub owner: String,
    /// Whether there is clinical work.
    pub clinic: Clinic,
    /// Rung when another generation serves.
    pub bell: Sender<()>,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ends everything.
    pub shutdown: Shutdown,
}

/// The running thread; it ends with the shutdown.
pub struct NightWatch {
    thread: Option<JoinHandle<()>>,
}

impl NightWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// `config.invalid` for windows that are none; no thread.
    pub fn start(plan: NightPlan) -> Result<NightWatch, Fault> {
        let windows = Windows::parse(&plan.training.windows, &plan.training.zone).map_err(|why| Fault::new(Code::ConfigInvalid, why))?;
        let body = move || Shift::new(plan, windows).run();
        let thread = std::thread::Builder::new().name("night".into()).spawn(body);
        let thread = thread.map_err(|e| Fault::new(Code::InternalBug, format!("no thread for `night`: {e}")).caused_by(e))?;
        Ok(NightWatch { thread: Some(thread) })
    }
}

impl Drop for NightWatch {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was told by the hook.
            let _ = thread.join();
        }
    }
}

struct Shift {
    plan: NightPlan,
    windows: Windows,
    night: Night,
    /// The beginning of the machine's time.
    began: Instant,
    /// The run that is open.
    run: Option<RunRow>,
    child: Option<Child>,
    /// What the machine was last told.
    told: (Option<bool>, Option<bool>, Option<bool>),
    /// When clinical work asked the child to pause, and when it was told to go.
    asked: [Option<Instant>; 2],
    next_begin: Instant,
    /// Why no run begins; told once.
    waits_for: Option<String>,
}

impl Shift {
    fn new(plan: NightPlan, windows: Windows) -> Shift {
        let began = plan.clock.monotonic();
        let settings = Settings { evict_after: plan.training.evict_after.0, calm: plan.training.calm.0 };
        Shift {
            night: Night::new(settings, Duration::ZERO),
            began,
            windows,
            run: None,
            child: None,
            told: (None, None, None),
            asked: [None, None],
            next_begin: began,
            waits_for: None,
            plan,
        }
    }

    fn now(&self) -> Duration {
        self.plan.clock.monotonic().saturating_duration_since(self.began)
    }

    fn run(mut self) {
        let rung = self.plan.clinic.rung().clone();
        let shutdown = self.plan.shutdown.clone();
        let mut ending = false;
        loop {
            let lines = self.child.as_ref().map_or_else(crossbeam::channel::never, |child| child.lines.clone());
            let wake = self.night.wake().map_or(LOOK, |wake| wake.saturating_sub(self.now())).min(LOOK);
            let timer = self.plan.clock.after(wake);
            let drained = if ending { crossbeam::channel::never() } else { shutdown.draining().clone() };
            select! {
                recv(rung) -> _ => {}
                recv(lines) -> line => self.line(line.unwrap_or(Line::End)),
                recv(timer) -> _ => {}
                recv(drained) -> _ => {
                    ending = true;
                    self.tell(Heard::Ending);
                }
            }
            if ending && self.child.is_none() {
                return;
            }
            self.tell(Heard::Time);
            self.look();
        }
    }

    /// Tells the machine what has changed since the last look.
    fn look(&mut self) {
        let busy = self.plan.clinic.is_busy();
        if self.told.0.replace(busy) != Some(busy) {
            if busy {
                self.asked[0] = Some(self.plan.clock.monotonic());
            }
            self.tell(Heard::Clinic(busy));
        }
        let open = self.windows.is_open(self.plan.clock.wall());
        if self.told.1.replace(open) != Some(open) {
            tracing::info!(open, "training window");
            self.tell(Heard::Window(open));
        }
        match self.open_run() {
            Ok(run) => {
                let same = self.run.as_ref().map(|run| run.id) == run.as_ref().map(|run| run.id);
                if !same && self.told.2 == Some(true) {
                    // A person ended it, or it ended: the child of another run has to go first.
                    self.told.2 = Some(false);
                    self.tell(Heard::Work(false));
                }
                if same || self.child.is_none() {
                    self.run = run;
                }
                let work = self.run.is_some() && same;
                if self.told.2.replace(work) != Some(work) {
                    self.tell(Heard::Work(work));
                }
            }
            Err(fault) => tracing::warn!(code = %fault.code, "training: the ledger does not answer: {}", fault.detail),
        }
        let now = self.plan.clock.monotonic();
        if self.run.is_none() && open && now >= self.next_begin {
            self.next_begin = now + BEGIN;
            self.begin();
        }
        self.plan.metrics.training.is(self.state());
    }

    /// What it does, in a word of the metrics.
    fn state(&self) -> &'static str {
        match (self.night.posture().0, self.child.as_ref().map(|child| child.task)) {
            (Posture::Absent | Posture::Killed, _) | (_, None) => "idle",
            (Posture::Paused | Posture::Pausing | Posture::Leaving, _) => "paused",
            (Posture::Computing, Some(Task::Prepare)) => "preparing",
            (Posture::Computing, Some(Task::Train)) => "training",
            (Posture::Computing, Some(Task::Evaluate)) => "evaluating",
        }
    }

    fn tell(&mut self, heard: Heard) {
        let now = self.now();
        let mut acts: std::collections::VecDeque<Act> = self.night.hear(now, heard).into();
        while let Some(act) = acts.pop_front() {
            acts.extend(self.act(act));
        }
    }

    /// Does one thing; what the machine says to what came of it.
    fn act(&mut self, act: Act) -> Vec<Act> {
        let now = self.now();
        match act {
            Act::Start => match self.start_child() {
                Ok(()) => return Vec::new(),
                Err(fault) => {
                    tracing::warn!(code = %fault.code, "training could not start its process: {}", fault.detail);
                    return self.night.hear(now, Heard::Ended(Ended::Failed));
                }
            },
            Act::Pause => self.say("pause"),
            Act::Resume => self.say("resume"),
            Act::Evict => {
                self.asked[1] = Some(self.plan.clock.monotonic());
                self.say("evict");
            }
            Act::Kill => {
                tracing::warn!("the process of training does not answer: killed");
                if let Some(child) = &mut self.child {
                    child.process.kill();
                }
            }
            Act::Finish => self.finished(),
            Act::GiveUp => self.fail(Fault::new(Code::TrainingWorkerFailed, "see the lines of the process above in this log")),
        }
        Vec::new()
    }

    fn say(&mut self, word: &str) {
        if let Some(child) = &mut self.child {
            child.say(word);
        }
    }

    fn line(&mut self, line: Line) {
        match line {
            Line::Event(event) => {
                let now = self.plan.clock.monotonic();
                if let (Some(step), Some(of)) = (event.step, event.of.or(self.child.as_ref().map(|child| child.of))) {
                    self.plan.metrics.training.at(step, of);
                    self.ahead(step, of);
                }
                match event.event.as_str() {
                    "started" | "resumed" => self.tell(Heard::Computes),
                    "step" | "saved" => self.tell(Heard::Ahead),
                    "paused" => {
                        if let Some(asked) = self.asked[0].take() {
                            self.plan.metrics.training.preempted("pause", now.saturating_duration_since(asked));
                        }
                        self.tell(Heard::Paused);
                    }
                    _ => {}
                }
            }
            Line::End => {
                let Some(mut child) = self.child.take() else { return };
                let ended = child.ended();
                if let Some(asked) = self.asked[1].take() {
                    self.plan.metrics.training.preempted("evict", self.plan.clock.monotonic().saturating_duration_since(asked));
                }
                tracing::info!(task = child.task.verb(), ?ended, "the process of training has ended");
                self.tell(Heard::Ended(ended));
            }
        }
    }

    fn start_child(&mut self) -> Result<(), Fault> {
        let Some(run) = &self.run else { return Err(Fault::new(Code::InternalBug, "there is no run")) };
        let task = match run.state {
            RunState::Queued | RunState::Preparing => Task::Prepare,
            RunState::Training => Task::Train,
            _ => Task::Evaluate,
        };
        let id = run.id;
        if run.state == RunState::Queued {
            self.move_run(RunState::Preparing, None, None)?;
        }
        if task == Task::Prepare {
            self.assign(id)?;
        }
        let (send, lines): (_, Receiver<Line>) = bounded(LINES);
        self.child = Some(Child::start(&self.plan, task, &self.folder_of(id), id.0, send, lines)?);
        tracing::info!(run = id.0, task = task.verb(), "training goes on");
        Ok(())
    }

    fn move_run(&mut self, state: RunState, candidate: Option<String>, problem: Option<Problem>) -> Result<(), Fault> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let who = self.plan.owner.clone();
        let change = TrainingChange::MoveRun { id: run.id, state, step: run.step, candidate, problem, who };
        self.plan.ledger.commit(vec![Change::Training(change)])?;
        run.state = state;
        Ok(())
    }

    fn fail(&mut self, fault: Fault) {
        self.end_run(RunState::Failed, fault);
    }

    /// Ends the run with a reason.
    fn end_run(&mut self, state: RunState, fault: Fault) {
        tracing::warn!(code = %fault.code, state = state.name(), "a training run has ended: {} {}", fault.detail, fault.code.action());
        self.plan.metrics.fault(fault.code);
        self.plan.metrics.training.run_ended(state.name());
        let problem = Problem { code: fault.code.name().into(), detail: fault.detail };
        if let Err(fault) = self.move_run(state, None, Some(problem)) {
            tracing::warn!(code = %fault.code, "the end of a training run could not be written down: {}", fault.detail);
        }
    }
}
