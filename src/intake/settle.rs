//! When is a series complete? A pure state machine over what the looks at the folders saw: it knows no clock, no file and no DICOM.
//!
//! DICOM has no word for "series complete", so this weighs evidence:
//! * As many instances as the headers announce, evenly spaced: taken nearly at once.
//! * The sender has ended its association: taken when nothing more came for a short time.
//! * Nothing came for the quiet time, which follows the observed rate: a series whose files came quickly is taken sooner.
//! * Something is missing (fewer than announced, gaps between positions, unreadable files): several times the quiet time.
//!
//! All of it can err, so a series can change after it was taken. It is then open again, and offered once more when it is complete.

use crate::series::Wholeness;
use crate::telemetry::Evidence;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a series that is announced as whole has to stay unchanged.
const WHOLE: Duration = Duration::from_millis(500);
/// The quiet time is so many mean distances of arrivals, or so many of the longest pause, whichever is more.
const INTERVALS: u32 = 10;
const PAUSES: u32 = 3;
/// Fewer files than this tell no rate.
const RATE_FILES: usize = 4;
/// A series that lacks something is waited for so many times as long.
const PATIENCE: u32 = 3;

/// Bounds on the quiet time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// Never less than this, however quickly the files came (or `most`, if that is less).
    pub least: Duration,
    /// Never more than this, unless something is missing.
    pub most: Duration,
}

/// What is told of a series besides the print of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its files.
    pub files: usize,
    /// Whether they look like all of it.
    pub wholeness: Wholeness,
}

/// The series that are known, by key `K`, each with the print `P` of its files as last seen (names, sizes, times).
#[derive(Clone, Debug)]
pub struct Settle<K, P> {
    quiet: Quiet,
    series: BTreeMap<K, Seen<P>>,
}

#[derive(Clone, Debug)]
struct Seen<P> {
    print: P,
    told: Told,
    /// Before its first file came, or the first late one; unknown for what was there from the start.
    first: Option<Instant>,
    /// Files that were there before that.
    before: usize,
    /// The longest time between two changes.
    pause: Duration,
    /// When this print was first seen.
    since: Instant,
    /// The sender was done; taken from here on.
    released: Option<Instant>,
    /// Not before this, after a failed attempt.
    not_before: Option<Instant>,
    taken: bool,
}

/// What one look told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look<K> {
    /// Complete and not taken yet, with the evidence; to be confirmed with [`Settle::take`]. Offered again at the next look if not.
    pub complete: Vec<(K, Evidence)>,
    /// Taken before, and changed since.
    pub reopened: Vec<K>,
}

impl<K: Ord + Clone, P: PartialEq> Settle<K, P> {
    /// Nothing seen yet.
    pub fn new(quiet: Quiet) -> Settle<K, P> {
        Settle { quiet, series: BTreeMap::new() }
    }

    /// From now on these bounds count.
    pub fn set_quiet(&mut self, quiet: Quiet) {
        self.quiet = quiet;
    }

    /// What is there at `now`, all of it: a series that is not in `present` is forgotten. `after`: what is new came after this moment, if
    /// that is known. `tell` is asked once, about those that are new or changed; one it says nothing about counts as lacking.
    ///
    /// Only a look that finds a series unchanged offers it, so a change that nobody reported is seen too.
    pub fn look(
        &mut self,
        now: Instant,
        after: Option<Instant>,
        present: BTreeMap<K, P>,
        tell: impl FnOnce(&[K]) -> BTreeMap<K, Told>,
    ) -> Look<K> {
        let mut look = Look { complete: Vec::new(), reopened: Vec::new() };
        self.series.retain(|key, _| present.contains_key(key));
        let changed: Vec<K> =
            present.iter().filter(|(k, p)| self.series.get(k).is_none_or(|s| s.print != **p)).map(|(k, _)| k.clone()).collect();
        let told = if changed.is_empty() { BTreeMap::new() } else { tell(&changed) };
        for (key, print) in present {
            let told = told.get(&key).copied().unwrap_or(Told { files: 0, wholeness: Wholeness::Lacking });
            match self.series.get_mut(&key) {
                Some(seen) if seen.print == print => {
                    if !seen.taken && now >= seen.due(self.quiet) {
                        look.complete.push((key, seen.evidence(self.quiet)));
                    }
                }
                Some(seen) => {
                    if seen.taken {
                        look.reopened.push(key);
                    }
                    // What comes to a series that was taken comes at a rate of its own.
                    let (first, before, pause) = match seen.taken {
                        true => (after, seen.told.files, Duration::ZERO),
                        false => (seen.first, seen.before, seen.pause.max(now.saturating_duration_since(seen.since))),
                    };
                    *seen = Seen { print, told, first, before, pause, since: now, released: None, not_before: None, taken: false };
                }
                None => {
                    let pause = Duration::ZERO;
                    let seen =
                        Seen { print, told, first: after, before: 0, pause, since: now, released: None, not_before: None, taken: false };
                    self.series.insert(key, seen);
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

    /// The sender says that it is done: the series is offered from `at` on, if it stays as it was at the last look and lacks nothing.
    pub fn hint(&mut self, key: &K, at: Instant) {
        if let Some(seen) = self.series.get_mut(key) {
            seen.released = Some(at);
        }
    }

    /// The work failed for now: the series is offered again, not before `at`.
    pub fn again(&mut self, key: &K, at: Instant) {
        if let Some(seen) = self.series.get_mut(key) {
            (seen.taken, seen.not_before) = (false, Some(at));
        }
    }

    /// The series whose wait is over at `now`: the next look has to look at their files.
    pub fn due(&self, now: Instant) -> Vec<K> {
        self.series.iter().filter(|(_, s)| !s.taken && s.due(self.quiet) <= now).map(|(key, _)| key.clone()).collect()
    }

    /// When the next look can find a series complete.
    pub fn next_due(&self) -> Option<Instant> {
        self.series.values().filter(|s| !s.taken).map(|s| s.due(self.quiet)).min()
    }

    /// The series that are known, and whether each is taken.
    pub fn known(&self) -> impl Iterator<Item = (&K, bool)> {
        self.series.iter().map(|(key, seen)| (key, seen.taken))
    }

    /// Series that are not taken.
    pub fn open(&self) -> usize {
        self.series.values().filter(|s| !s.taken).count()
    }
}

impl<P> Seen<P> {
    /// When it may be offered, and why.
    fn verdict(&self, quiet: Quiet) -> (Instant, Evidence) {
        let timer = self.since + self.quiet_time(quiet);
        match (self.told.wholeness, self.released) {
            (Wholeness::Lacking, _) => (self.since + PATIENCE * quiet.most, Evidence::Patience),
            (Wholeness::Whole, _) => (self.since + WHOLE.min(quiet.most), Evidence::Count),
            (Wholeness::Unknown, Some(at)) if at <= timer => (at.max(self.since), Evidence::Association),
            (Wholeness::Unknown, _) => (timer, Evidence::Timer),
        }
    }

    fn due(&self, quiet: Quiet) -> Instant {
        let due = self.verdict(quiet).0;
        self.not_before.map_or(due, |at| at.max(due))
    }

    fn evidence(&self, quiet: Quiet) -> Evidence {
        self.verdict(quiet).1
    }

    /// By the rate at which the files came, if that is known.
    fn quiet_time(&self, quiet: Quiet) -> Duration {
        let files = self.told.files.saturating_sub(self.before);
        let Some(first) = self.first.filter(|_| files >= RATE_FILES) else { return quiet.most };
        let mean = self.since.saturating_duration_since(first) / files.try_into().unwrap_or(u32::MAX);
        (INTERVALS * mean).max(PAUSES * self.pause).max(quiet.least).min(quiet.most)
    }
}

#[cfg(test)]
mod tests;
