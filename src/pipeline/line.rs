//! The waiting line: whose turn comes when, and how far the journal of what happened was counted.

use super::board::Beat;
use crate::fault::Fault;
use crate::ledger::{Job, Reader, Seq};
use crate::telemetry::{Metrics, Post, Stage};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Jobs that are shown; the rest is counted.
const SHOWN: usize = 20;

/// A job that waits for its turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its number.
    pub job: u64,
    /// Its place in the line, from 1.
    pub position: u64,
    /// Seconds until its result is published, when all goes as it did lately; none before anything went.
    pub eta_s: Option<u64>,
}

/// How long each stage took lately, s, in the order of [`Stage::ALL`].
pub type Usual = [Option<f64>; Stage::ALL.len()];

/// The first of those that wait, in the order in which the ledger gives them out: by priority, then as they came.
pub fn line(mut jobs: Vec<Job>, beats: &[Beat], usual: Usual, now: Instant) -> Vec<Waiting> {
    jobs.sort_by_key(|job| (Reverse(job.progress.rank as i64), job.progress.line));
    let ahead = Ahead::of(beats, usual, now);
    let places = jobs.iter().take(SHOWN).enumerate();
    places.map(|(i, job)| Waiting { job: job.id.0, position: i as u64 + 1, eta_s: ahead.as_ref().map(|a| a.until(i)) }).collect()
}

/// What is to be done before the first of the line.
struct Ahead {
    /// The time of the slowest stage, which jobs go through one after the other, s.
    slowest: f64,
    /// That of all others together: stages work beside each other, so it counts once.
    others: f64,
    /// What the slowest stage has still to do for jobs in work, s.
    left: f64,
}

impl Ahead {
    /// None before a job went through the device.
    fn of(beats: &[Beat], usual: Usual, now: Instant) -> Option<Ahead> {
        usual[Stage::Segment as usize]?;
        let times = || usual.iter().map(|time| time.unwrap_or(0.0));
        let (at, slowest) = times().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
        let left = beats.iter().filter(|beat| beat.job.is_some()).map(|beat| match beat.post {
            Post::Stage(stage) if stage as usize == at => {
                (slowest - now.saturating_duration_since(beat.since).as_secs_f64()).clamp(0.0, slowest)
            }
            Post::Stage(stage) if (stage as usize) < at => slowest,
            // Past it, or no job of the street.
            _ => 0.0,
        });
        Some(Ahead { slowest, others: times().sum::<f64>() - slowest, left: left.sum() })
    }

    /// Seconds until the job with so many others before it is done.
    fn until(&self, before: usize) -> u64 {
        (self.left + self.slowest * (before as f64 + 1.0) + self.others).round() as u64
    }
}

/// How far the journal was counted: what was in it when the daemon was started counts for no rate.
#[derive(Clone)]
pub struct Counted(Arc<Mutex<Seq>>);

impl Counted {
    /// From now on.
    pub fn from_here(ledger: &dyn Reader) -> Result<Counted, Fault> {
        Ok(Counted(Arc::new(Mutex::new(ledger.transitions(Seq(0))?.0))))
    }

    /// Tells the metrics what happened since.
    pub fn tell(&self, ledger: &dyn Reader, metrics: &Metrics) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A ledger that can not be read is told of by those who need it.
        let Ok((last, transitions)) = ledger.transitions(*at) else { return };
        for t in transitions {
            metrics.flow.transitions(t.from.as_deref(), t.to.as_deref(), t.count);
        }
        *at = last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::JobId;
    use crate::sys::clock::{Clock, SystemClock};
    use std::time::Duration;

    fn beat(post: Post, since: Instant) -> Beat {
        Beat { post, job: Some(JobId(1)), bytes: 0, since, moved: since, progress: None }
    }

    #[test]
    fn the_slowest_stage_sets_the_pace() {
        let now = SystemClock.monotonic();
        let usual = [Some(2.0), Some(1.0), Some(30.0), Some(4.0), Some(1.0)];
        assert!(Ahead::of(&[], [Some(2.0), Some(1.0), None, None, None], now).is_none());
        let idle = Ahead::of(&[], usual, now).expect("known");
        assert_eq!((idle.until(0), idle.until(1), idle.until(10)), (38, 68, 338));
        // One on the device for 10 s, one before it, one after it, and somebody who has no job of the street.
        let segment = beat(Post::Stage(Stage::Segment), now.checked_sub(Duration::from_secs(10)).expect("later"));
        let others = [beat(Post::Stage(Stage::Read), now), beat(Post::Stage(Stage::Finish), now), beat(Post::Outbox, now)];
        let busy = Ahead::of(&[&[segment][..], &others].concat(), usual, now).expect("known");
        assert_eq!(busy.until(0), 38 + 20 + 30);
        // One that takes longer than usual is done at any moment.
        let late = beat(Post::Stage(Stage::Segment), now.checked_sub(Duration::from_secs(90)).expect("later"));
        assert_eq!(Ahead::of(&[late], usual, now).expect("known").until(0), 38);
    }
}
