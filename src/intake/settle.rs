//! When is a series complete? When nothing of it changed for the quiet time, seen by a look at the folder after that
//! time: a pure state machine over what the scans saw. It knows no clock, no file and no DICOM.
//!
//! DICOM has no word for "series complete", so a series can change after it was taken. It is then open again, and offered
//! once more when it is quiet.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The series that are known, by key `K`, each with the print `P` of its files as last seen (names, sizes, times).
#[derive(Clone, Debug)]
pub struct Settle<K, P> {
    quiet: Duration,
    series: BTreeMap<K, Seen<P>>,
}

#[derive(Clone, Debug)]
struct Seen<P> {
    print: P,
    /// When this print was first seen.
    since: Instant,
    /// Quiet from here on already, because something says that this is all.
    hint: Option<Instant>,
    /// Not before this, after a failed attempt.
    not_before: Option<Instant>,
    taken: bool,
}

/// What one look told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look<K> {
    /// Quiet for long enough and not taken yet; to be confirmed with [`Settle::take`]. Offered again at the next look if not.
    pub quiet: Vec<K>,
    /// Taken before, and changed since.
    pub reopened: Vec<K>,
}

impl<K: Ord + Clone, P: PartialEq> Settle<K, P> {
    /// Nothing seen yet. `quiet`: how long a series has to stay unchanged.
    pub fn new(quiet: Duration) -> Settle<K, P> {
        Settle { quiet, series: BTreeMap::new() }
    }

    /// What is there at `now`, all of it: a series that is not in `present` is forgotten. Only a look that finds a series
    /// unchanged after its quiet time offers it, so a change that nobody reported is seen too.
    pub fn look(&mut self, now: Instant, present: BTreeMap<K, P>) -> Look<K> {
        let mut look = Look { quiet: Vec::new(), reopened: Vec::new() };
        self.series.retain(|key, _| present.contains_key(key));
        for (key, print) in present {
            match self.series.get_mut(&key) {
                Some(seen) if seen.print == print => {
                    if !seen.taken && now >= seen.due(self.quiet) {
                        look.quiet.push(key);
                    }
                }
                Some(seen) => {
                    if seen.taken {
                        look.reopened.push(key);
                    }
                    *seen = Seen { print, since: now, hint: None, not_before: None, taken: false };
                }
                None => {
                    self.series.insert(key, Seen { print, since: now, hint: None, not_before: None, taken: false });
                }
            }
        }
        look
    }

    /// The series is in work: it is not offered again unless it changes. Returns when its files were last seen to change.
    pub fn take(&mut self, key: &K) -> Option<Instant> {
        let seen = self.series.get_mut(key)?;
        seen.taken = true;
        Some(seen.since)
    }

    /// Something says that no more of the series comes: it is offered from `at` on, if it stays as it was at the last look.
    pub fn hint(&mut self, key: &K, at: Instant) {
        if let Some(seen) = self.series.get_mut(key) {
            seen.hint = Some(at);
        }
    }

    /// The work failed for now: the series is offered again, not before `at`.
    pub fn again(&mut self, key: &K, at: Instant) {
        if let Some(seen) = self.series.get_mut(key) {
            (seen.taken, seen.not_before) = (false, Some(at));
        }
    }

    /// The series whose quiet time is over at `now`: the next look has to look at their files.
    pub fn due(&self, now: Instant) -> Vec<K> {
        self.series.iter().filter(|(_, s)| !s.taken && s.due(self.quiet) <= now).map(|(key, _)| key.clone()).collect()
    }

    /// When the next look can find a series quiet.
    pub fn next_due(&self) -> Option<Instant> {
        self.series.values().filter(|s| !s.taken).map(|s| s.due(self.quiet)).min()
    }

    /// Series that are not taken.
    pub fn open(&self) -> usize {
        self.series.values().filter(|s| !s.taken).count()
    }
}

impl<P> Seen<P> {
    fn due(&self, quiet: Duration) -> Instant {
        let due = self.hint.map_or(self.since + quiet, |at| at.min(self.since + quiet));
        self.not_before.map_or(due, |at| at.max(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::{Clock, SimulatedClock};
    use proptest::prelude::*;
    use std::time::SystemTime;

    const QUIET: Duration = Duration::from_secs(30);

    /// What can happen between two looks.
    #[derive(Clone, Debug)]
    enum Event {
        Pass(u64),
        Grow(u8),
        Vanish(u8),
        /// A look; series are taken when offered.
        Look,
        /// A look; nothing is taken.
        LookOnly,
        Fail(u8, u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0u64..45).prop_map(Event::Pass),
            (0u8..3).prop_map(Event::Grow),
            (0u8..3).prop_map(Event::Vanish),
            Just(Event::Look),
            Just(Event::LookOnly),
            ((0u8..3), (0u64..90)).prop_map(|(k, s)| Event::Fail(k, s)),
        ]
    }

    /// The twin that remembers everything: every look with its time and what was there.
    #[derive(Default)]
    struct Twin {
        looks: Vec<(Instant, BTreeMap<u8, u32>)>,
        taken: BTreeMap<u8, u32>,
        not_before: BTreeMap<u8, Instant>,
    }

    impl Twin {
        /// Since when the latest looks saw this very print without a break.
        fn since(&self, key: u8, print: u32) -> Option<Instant> {
            self.looks.iter().rev().take_while(|(_, p)| p.get(&key) == Some(&print)).map(|(at, _)| *at).last()
        }
    }

    proptest! {
        #[test]
        fn a_series_is_offered_exactly_when_it_was_seen_unchanged_for_the_quiet_time(events in prop::collection::vec(event(), 1..120)) {
            let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
            let mut settle: Settle<u8, u32> = Settle::new(QUIET);
            let (mut files, mut twin) = (BTreeMap::<u8, u32>::new(), Twin::default());
            let mut prints = 0u32;
            for event in events {
                match event {
                    Event::Pass(s) => clock.advance(Duration::from_secs(s)),
                    Event::Grow(k) => { prints += 1; files.insert(k, prints); }
                    Event::Vanish(k) => { files.remove(&k); }
                    Event::Fail(k, s) => {
                        let at = clock.monotonic() + Duration::from_secs(s);
                        settle.again(&k, at);
                        if twin.looks.last().is_some_and(|(_, p)| p.contains_key(&k)) {
                            twin.taken.remove(&k);
                            twin.not_before.insert(k, at);
                        }
                    }
                    Event::Look | Event::LookOnly => {
                        let now = clock.monotonic();
                        let look = settle.look(now, files.clone());
                        let before = twin.looks.last().map(|(_, p)| p.clone()).unwrap_or_default();
                        twin.looks.push((now, files.clone()));
                        twin.taken.retain(|k, _| files.contains_key(k));
                        // A new print, or a series that went away and came back, knows of no failed attempt.
                        twin.not_before.retain(|k, _| files.contains_key(k) && before.get(k) == files.get(k));
                        let reopened: Vec<u8> = twin.taken.iter().filter(|(k, p)| files.get(k) != Some(p)).map(|(k, _)| *k).collect();
                        reopened.iter().for_each(|k| { twin.taken.remove(k); });
                        prop_assert_eq!(&look.reopened, &reopened);
                        let due: Vec<u8> = files.iter().filter(|(k, p)| {
                            let quiet = twin.since(**k, **p).is_some_and(|since| since < now && now >= since + QUIET);
                            quiet && !twin.taken.contains_key(k) && twin.not_before.get(k).is_none_or(|at| now >= *at)
                        }).map(|(k, _)| *k).collect();
                        prop_assert_eq!(&look.quiet, &due);
                        if matches!(event, Event::Look) {
                            for k in look.quiet {
                                prop_assert_eq!(settle.take(&k), twin.since(k, files[&k]));
                                twin.taken.insert(k, files[&k]);
                            }
                        }
                        prop_assert_eq!(settle.open(), files.len() - twin.taken.len());
                    }
                }
            }
            // Left alone, everything is offered at the next due look.
            if let Some(due) = settle.next_due() {
                clock.advance(due.saturating_duration_since(clock.monotonic()));
                let seen = twin.looks.last().map(|(_, p)| p.clone()).unwrap_or_default();
                prop_assert!(!settle.look(clock.monotonic(), seen).quiet.is_empty());
            }
        }
    }

    #[test]
    fn a_hint_shortens_the_wait_until_the_series_changes() {
        let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
        let mut settle = Settle::new(QUIET);
        let mut look = |files| settle_look(&mut settle, &clock, files);
        fn settle_look(settle: &mut Settle<&'static str, u32>, clock: &SimulatedClock, files: u32) -> Vec<&'static str> {
            let quiet = settle.look(clock.monotonic(), BTreeMap::from([("s", files)])).quiet;
            settle.hint(&"s", clock.monotonic() + Duration::from_secs(5));
            quiet
        }
        assert_eq!(look(1), Vec::<&str>::new());
        clock.advance(Duration::from_secs(5));
        assert_eq!(look(2), Vec::<&str>::new(), "it changed");
        clock.advance(Duration::from_secs(5));
        assert_eq!(look(2), ["s"]);
    }

    #[test]
    fn a_dripping_series_waits_for_its_last_file() {
        let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
        let mut settle = Settle::new(QUIET);
        for files in 1..=20 {
            assert_eq!(settle.look(clock.monotonic(), BTreeMap::from([("s", files)])).quiet, Vec::<&str>::new());
            clock.advance(QUIET - Duration::from_secs(1));
        }
        clock.advance(Duration::from_secs(1));
        assert_eq!(settle.look(clock.monotonic(), BTreeMap::from([("s", 20)])).quiet, ["s"]);
        settle.take(&"s");
        clock.advance(QUIET * 100);
        assert_eq!(settle.look(clock.monotonic(), BTreeMap::from([("s", 20)])).quiet, Vec::<&str>::new());
        assert_eq!(settle.look(clock.monotonic(), BTreeMap::from([("s", 21)])).reopened, ["s"]);
    }
}
