//! How a job and a delivery go from state to state. Pure: no clock, no table. Every ledger with tables uses them.

use super::contract::Limits;
use super::names::{DeliveryState, Event, Priority, State};
use super::records::{Delivery, Held, Moment, Problem, Progress};
use crate::fault::Code;

/// The wish does not fit the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPossible;

impl Progress {
    /// At the end of the line.
    pub fn queued(priority: Priority, line: u64) -> Progress {
        Progress {
            state: State::Queued,
            attempts: 0,
            failures: 0,
            crashes: 0,
            crashes_alone: 0,
            suspect: false,
            not_before: None,
            held: None,
            problem: None,
            rank: priority,
            line,
        }
    }

    fn to(&mut self, state: State) {
        (self.state, self.held, self.not_before) = (state, None, None);
    }

    /// A worker takes it; the attempt is counted now.
    pub fn claim(&mut self, held: Held) -> Event {
        self.to(State::Running);
        self.attempts += 1;
        self.held = Some(held);
        Event::Claimed
    }

    /// Its worker died.
    pub fn crash(&mut self, limits: Limits, end_of_line: u64) -> Event {
        self.crashes += 1;
        self.crashes_alone += u32::from(self.held.as_ref().is_some_and(|h| h.alone));
        self.to(State::Queued);
        if self.crashes >= limits.suspect_after {
            self.suspect = true;
            self.line = end_of_line;
            self.rank = self.rank.min(Priority::Routine);
        }
        if self.crashes_alone >= limits.park_after {
            let detail = format!("{} crashes, {} of them while it ran alone.", self.crashes, self.crashes_alone);
            self.park(Problem { code: Code::JobCrashed.name().into(), detail });
        }
        Event::Crashed
    }

    /// Its result is published.
    pub fn finish(&mut self) -> Event {
        self.to(State::Done);
        (self.failures, self.problem) = (0, None);
        Event::Finished
    }

    /// It failed for now.
    pub fn postpone(&mut self, until: Moment, problem: Problem) -> Event {
        self.to(State::Waiting);
        self.failures += 1;
        (self.not_before, self.problem) = (Some(until), Some(problem));
        Event::Postponed
    }

    /// It can not be done.
    pub fn park(&mut self, problem: Problem) -> Event {
        self.to(State::Parked);
        self.problem = Some(problem);
        Event::Parked
    }

    /// Its worker gives it back.
    pub fn release(&mut self) -> Event {
        self.to(State::Queued);
        Event::Released
    }

    /// Its model was rolled back: it keeps its place in the line. No failure of the job, and no crash.
    pub fn repin(&mut self) -> Event {
        self.to(State::Queued);
        Event::Repinned
    }

    /// Its series changed.
    pub fn supersede(&mut self) -> Event {
        self.to(State::Superseded);
        Event::Superseded
    }

    /// Its series is again what it was: it has its turn after all.
    pub fn revive(&mut self, line: u64) -> Event {
        self.to(State::Queued);
        self.line = line;
        Event::Queued
    }

    /// A result of it was found.
    pub fn adopt(&mut self) -> Event {
        self.finish();
        Event::Adopted
    }

    /// A person has it tried again, with a clean slate; who was suspect runs alone again. One that is done is looked at: its result is made
    /// again if it is not there.
    pub fn retry(&mut self, line: u64) -> Result<Event, NotPossible> {
        match self.state {
            State::Parked | State::Waiting | State::Cancelled | State::Done => {
                self.to(State::Queued);
                (self.failures, self.crashes_alone, self.problem, self.line) = (0, 0, None, line);
                Ok(Event::Retried)
            }
            _ => Err(NotPossible),
        }
    }

    /// A person ends it; whoever works on it has lost the claim.
    pub fn cancel(&mut self) -> Result<Event, NotPossible> {
        match self.state {
            State::Queued | State::Waiting | State::Parked | State::Running => {
                self.to(State::Cancelled);
                Ok(Event::Cancelled)
            }
            _ => Err(NotPossible),
        }
    }

    /// Its result is damaged.
    pub fn reopen(&mut self, line: u64, problem: Problem) -> Result<Event, NotPossible> {
        match self.state {
            State::Done => {
                self.to(State::Queued);
                (self.problem, self.line) = (Some(problem), line);
                Ok(Event::Reopened)
            }
            _ => Err(NotPossible),
        }
    }
}

/// What a destination said beside yes: it stays with the delivery.
fn is_warning(problem: &Problem) -> bool {
    problem.code == Code::DeliveryCoerced.name()
}

impl Delivery {
    fn to(&mut self, state: DeliveryState) {
        (self.state, self.held, self.not_before) = (state, None, None);
    }

    /// A worker takes it; the attempt is counted now.
    pub fn claim(&mut self, held: Held) -> Event {
        self.to(DeliveryState::Sending);
        self.attempts += 1;
        self.held = Some(held);
        Event::Claimed
    }

    /// Its worker died: it may have arrived, unless the destination has committed itself to keeping it.
    pub fn crash(&mut self) -> Event {
        let kept = self.committed == Some(true);
        self.to(if kept { DeliveryState::Delivered } else { DeliveryState::Pending });
        self.doubtful = !kept;
        Event::Crashed
    }

    /// The destination has it.
    pub fn deliver(&mut self, warning: Option<Problem>) -> Event {
        self.to(DeliveryState::Delivered);
        (self.problem, self.doubtful) = (warning, false);
        Event::Finished
    }

    /// It failed for now.
    pub fn postpone(&mut self, until: Moment, doubtful: bool, refused: bool, problem: Problem) -> Event {
        self.to(DeliveryState::Waiting);
        self.doubtful |= doubtful;
        self.refusals += u32::from(refused);
        (self.not_before, self.problem) = (Some(until), Some(problem));
        Event::Postponed
    }

    /// The destination refuses it.
    pub fn park(&mut self, doubtful: bool, problem: Problem) -> Event {
        self.to(DeliveryState::Parked);
        self.doubtful |= doubtful;
        self.problem = Some(problem);
        Event::Parked
    }

    /// It is about to be sent again without knowing.
    pub fn resend(&mut self) -> Event {
        self.resends += 1;
        Event::Resent
    }

    /// The destination is about to be asked to keep it; what it said to an earlier question counts no more.
    pub fn ask(&mut self, transaction: String) -> Event {
        (self.transaction, self.committed) = (Some(transaction), None);
        Event::Asked
    }

    /// It was sent, and the destination asked to keep it. The answer may be here already.
    pub fn await_commitment(&mut self, now: Moment, until: Moment, problem: Problem) -> Event {
        match self.committed {
            Some(true) => self.deliver(Some(problem).filter(is_warning)),
            Some(false) => self.postpone(now, true, false, problem),
            None => self.postpone(until, true, false, problem),
        }
    }

    /// The destination answered whether it keeps it. If not, it is asked about next: it is not sent again unasked. A no is counted once.
    pub fn commit(&mut self, kept: bool, until: Moment, problem: Problem) -> Result<Event, NotPossible> {
        use DeliveryState::*;
        match (self.state, self.committed) {
            (Sending, None) => {
                self.committed = Some(kept);
                self.refusals += u32::from(!kept);
                Ok(Event::Answered)
            }
            (Pending | Waiting | Parked, _) if kept => {
                self.committed = Some(true);
                let warning = self.problem.take().filter(is_warning);
                Ok(self.deliver(warning))
            }
            (Pending | Waiting, None) => {
                self.committed = Some(false);
                Ok(self.postpone(until, true, true, problem))
            }
            _ => Err(NotPossible),
        }
    }

    /// A person has it tried again, with a clean slate; what may have arrived is still asked for first.
    pub fn retry(&mut self) -> Result<Event, NotPossible> {
        match self.state {
            DeliveryState::Parked | DeliveryState::Waiting | DeliveryState::Cancelled => {
                self.to(DeliveryState::Pending);
                (self.refusals, self.resends, self.problem) = (0, 0, None);
                (self.transaction, self.committed) = (None, None);
                Ok(Event::Retried)
            }
            _ => Err(NotPossible),
        }
    }

    /// It is not wanted any more. What is being sent is let go; it can not be called back.
    pub fn cancel(&mut self) -> Result<Event, NotPossible> {
        match self.state {
            DeliveryState::Pending | DeliveryState::Waiting | DeliveryState::Parked => {
                self.to(DeliveryState::Cancelled);
                Ok(Event::Cancelled)
            }
            _ => Err(NotPossible),
        }
    }
}
