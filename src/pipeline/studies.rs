//! Studies that the rules can only decide about as a whole: when have all their series come? A pure state machine, told what happens.
//!
//! A study is due when no series came or became complete for the quiet time and none is still coming in; after a longer time it is due
//! whatever comes in. What comes later makes it wait again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A study is waited for at most so many quiet times.
const LONGEST: u32 = 10;

/// The studies that wait.
#[derive(Clone, Debug)]
pub struct Studies {
    quiet: Duration,
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// When its first series was complete, and its last.
    first: Instant,
    last: Instant,
    /// When its files last changed.
    changed: Instant,
}

impl Waiting {
    fn due(&self, quiet: Duration, open: bool) -> Instant {
        let longest = self.first + quiet * LONGEST;
        if open { longest } else { longest.min(self.last + quiet) }
    }
}

impl Studies {
    /// None waits. `quiet`: how long a study has to be without a change.
    pub fn new(quiet: Duration) -> Studies {
        Studies { quiet, waiting: BTreeMap::new() }
    }

    /// From now on this quiet time counts.
    pub fn set_quiet(&mut self, quiet: Duration) {
        self.quiet = quiet;
    }

    /// A series of the study, whose files last changed at `changed`, is complete.
    pub fn wait(&mut self, study: &str, now: Instant, changed: Instant) {
        let waiting = self.waiting.entry(study.to_owned()).or_insert(Waiting { first: now, last: now, changed });
        waiting.last = waiting.last.max(now);
        waiting.changed = waiting.changed.max(changed);
    }

    /// The studies that are due, which do not wait any more, with the time of their last change. `open`: whether series of a study are
    /// still coming in.
    pub fn due(&mut self, now: Instant, open: impl Fn(&str) -> bool) -> Vec<(String, Instant)> {
        let quiet = self.quiet;
        let mut due = Vec::new();
        self.waiting.retain(|study, w| {
            let waits = now < w.due(quiet, open(study));
            if !waits {
                due.push((study.clone(), w.changed));
            }
            waits
        });
        due
    }

    /// When the next study is due, as things are.
    pub fn next_due(&self, open: impl Fn(&str) -> bool) -> Option<Instant> {
        self.waiting.iter().map(|(study, w)| w.due(self.quiet, open(study))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::{Clock, SimulatedClock};
    use proptest::prelude::*;
    use std::time::SystemTime;

    const QUIET: u64 = 60;

    proptest! {
        /// Against a twin that knows the whole past, second by second.
        #[test]
        fn a_study_is_due_once_it_is_quiet_and_closed_or_waited_for_too_long(
            events in prop::collection::vec((1u64..200, any::<bool>(), any::<bool>()), 1..40),
        ) {
            let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
            let mut studies = Studies::new(Duration::from_secs(QUIET));
            let start = clock.monotonic();
            let seconds = |at: Instant| at.saturating_duration_since(start).as_secs();
            let (mut first, mut last) = (None, 0);
            for (pause, comes, open) in events {
                clock.advance(Duration::from_secs(pause));
                let now = seconds(clock.monotonic());
                if comes {
                    studies.wait("s", clock.monotonic(), clock.monotonic());
                    first.get_or_insert(now);
                    last = now;
                }
                let due = first.is_some_and(|first| now >= first + 10 * QUIET || (!open && now >= last + QUIET));
                let expected = first.map(|first| if open { first + 10 * QUIET } else { (last + QUIET).min(first + 10 * QUIET) });
                prop_assert_eq!(studies.next_due(|_| open).map(seconds), expected);
                let told = studies.due(clock.monotonic(), |_| open);
                prop_assert_eq!(told.iter().map(|(study, changed)| (study.as_str(), seconds(*changed))).collect::<Vec<_>>(), if due { vec![("s", last)] } else { vec![] });
                if due {
                    first = None;
                }
            }
        }
    }
}
