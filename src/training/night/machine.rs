//! The machine itself.

use std::time::Duration;

/// A child that does not answer is killed after this: what it saved before counts.
const DEAF: Duration = Duration::from_secs(30);
/// Before a child that failed is started again; doubled each time.
const PAUSE: Duration = Duration::from_secs(60);
/// So many failures in a row without a step forward, and the work is given up.
const FAILURES: u32 = 3;

/// How patient it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Paused for so long by clinical work, the child has to go.
    pub evict_after: Duration,
    /// No clinical work for so long before anything computes.
    pub calm: Duration,
}

/// What happens. Times are since any beginning, on a clock that never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Time has passed.
    Time,
    /// A study is in work or waits for it, or none does any more.
    Clinic(bool),
    /// A window opened or closed.
    Window(bool),
    /// There is work, or none any more. Work that a person stopped is none.
    Work(bool),
    /// The child computes: it has started or goes on.
    Computes,
    /// The child has got ahead.
    Ahead,
    /// The child has paused.
    Paused,
    /// The child is gone.
    Ended(Ended),
    /// The daemon ends.
    Ending,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its work is done.
    Done,
    /// It was asked to go, and has saved.
    Evicted,
    /// By itself, or it was killed.
    Failed,
    /// For a reason that will be the same the next time.
    Refused,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Start the child; it goes on where it was.
    Start,
    /// Tell the child to pause.
    Pause,
    /// Tell it to go on.
    Resume,
    /// Tell it to save and end.
    Evict,
    /// End it now.
    Kill,
    /// The work is done; what comes next is another work.
    Finish,
    /// The work can not be done.
    GiveUp,
}

/// What the child is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// There is none.
    Absent,
    /// It computes, or is about to.
    Computing,
    /// It was told to pause and has not answered.
    Pausing,
    /// It waits; its memory is taken.
    Paused,
    /// It was told to save and end.
    Leaving,
    /// It was killed, and its end has not been heard yet.
    Killed,
}

/// Decides when a child computes.
#[derive(Clone, Debug)]
pub struct Night {
    settings: Settings,
    posture: Posture,
    /// Since when it has that posture.
    since: Duration,
    open: bool,
    work: bool,
    ending: bool,
    /// Since when there is clinical work; none: there is none.
    busy: Option<Duration>,
    /// Since when there is none.
    quiet: Duration,
    failures: u32,
    /// Not before this after a failure.
    not_before: Duration,
}

impl Night {
    /// Nothing is known yet: it counts as busy until [`Heard::Clinic`] says otherwise.
    pub fn new(settings: Settings, now: Duration) -> Night {
        Night {
            settings,
            posture: Posture::Absent,
            since: now,
            open: false,
            work: false,
            ending: false,
            busy: Some(now),
            quiet: now,
            failures: 0,
            not_before: now,
        }
    }

    /// What the child is at, and since when.
    pub fn posture(&self) -> (Posture, Duration) {
        (self.posture, self.since)
    }

    /// Whether a child may compute now.
    pub fn may_compute(&self, now: Duration) -> bool {
        self.may_stay() && self.busy.is_none() && now >= self.quiet.saturating_add(self.settings.calm)
    }

    /// Takes in what happened at `now`; what is to be done about it, in this order.
    pub fn hear(&mut self, now: Duration, heard: Heard) -> Vec<Act> {
        let mut acts = Vec::new();
        match heard {
            Heard::Time => {}
            Heard::Clinic(true) => self.busy = self.busy.or(Some(now)),
            Heard::Clinic(false) => {
                if self.busy.take().is_some() {
                    self.quiet = now;
                }
            }
            Heard::Window(open) => self.open = open,
            Heard::Work(work) => {
                if work && !self.work {
                    (self.failures, self.not_before) = (0, now);
                }
                self.work = work;
            }
            Heard::Computes if self.posture == Posture::Paused => self.set(Posture::Computing, now),
            Heard::Computes => {}
            Heard::Ahead => self.failures = 0,
            Heard::Paused if self.posture == Posture::Pausing => self.set(Posture::Paused, now),
            Heard::Paused => {}
            Heard::Ended(how) => self.ended(now, how, &mut acts),
            Heard::Ending => self.ending = true,
        }
        self.decide(now, &mut acts);
        acts
    }

    /// When to say [`Heard::Time`] at the latest; none: only something else can change anything.
    pub fn wake(&self) -> Option<Duration> {
        let deaf = self.since.saturating_add(DEAF);
        let calm = self.quiet.saturating_add(self.settings.calm);
        let evict = self.busy.map(|busy| busy.max(self.since).saturating_add(self.settings.evict_after));
        match self.posture {
            Posture::Absent if self.may_stay() && self.busy.is_none() => Some(calm.max(self.not_before)),
            Posture::Pausing => Some(evict.map_or(deaf, |evict| evict.min(deaf))),
            Posture::Paused => evict.or(Some(calm)),
            Posture::Leaving => Some(deaf),
            Posture::Absent | Posture::Computing | Posture::Killed => None,
        }
    }

    /// Whether a child may be there at all, computing or not.
    fn may_stay(&self) -> bool {
        self.open && self.work && !self.ending
    }

    fn ended(&mut self, now: Duration, how: Ended, acts: &mut Vec<Act>) {
        let killed = self.posture == Posture::Killed;
        self.set(Posture::Absent, now);
        let over = match how {
            Ended::Done => Some(Act::Finish),
            Ended::Evicted => None,
            Ended::Refused => Some(Act::GiveUp),
            // We did that: it says nothing about the work.
            Ended::Failed if killed => None,
            Ended::Failed => {
                self.not_before = now.saturating_add(PAUSE.saturating_mul(1 << self.failures.min(8)));
                self.failures += 1;
                (self.failures >= FAILURES).then_some(Act::GiveUp)
            }
        };
        if let Some(act) = over {
            self.work = false;
            acts.push(act);
        }
    }

    fn decide(&mut self, now: Duration, acts: &mut Vec<Act>) {
        let long_enough = |since: Duration, time: Duration| now >= since.saturating_add(time);
        match self.posture {
            Posture::Absent if self.may_compute(now) && now >= self.not_before => {
                self.set(Posture::Computing, now);
                acts.push(Act::Start);
            }
            Posture::Computing | Posture::Pausing | Posture::Paused if !self.may_stay() => {
                self.set(Posture::Leaving, now);
                acts.push(Act::Evict);
            }
            Posture::Computing if self.busy.is_some() => {
                self.set(Posture::Pausing, now);
                acts.push(Act::Pause);
                self.decide(now, acts);
            }
            Posture::Pausing | Posture::Paused
                if self.busy.is_some_and(|busy| long_enough(busy.max(self.since), self.settings.evict_after)) =>
            {
                self.set(Posture::Leaving, now);
                acts.push(Act::Evict);
            }
            Posture::Pausing | Posture::Leaving if long_enough(self.since, DEAF) => {
                self.set(Posture::Killed, now);
                acts.push(Act::Kill);
            }
            // Its answer is not waited for: between the command and the next step there is nothing that could compute too early.
            Posture::Paused if self.may_compute(now) => {
                self.set(Posture::Computing, now);
                acts.push(Act::Resume);
            }
            _ => {}
        }
    }

    fn set(&mut self, posture: Posture, now: Duration) {
        (self.posture, self.since) = (posture, now);
    }
}
