use super::*;
use crate::sys::clock::{Clock, SimulatedClock};
use proptest::prelude::*;
use std::time::SystemTime;

const LEAST: Duration = Duration::from_secs(5);
const MOST: Duration = Duration::from_secs(30);
const QUIET: Quiet = Quiet { least: LEAST, most: MOST };

/// What can happen between two looks.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    /// So many files more, and what they now look like.
    Grow(u8, usize, Wholeness),
    Vanish(u8),
    /// A look; series are taken when offered. `bool`: it is known when what is new came.
    Look(bool),
    /// A look; nothing is taken.
    LookOnly,
    Release(u8, u64),
    Fail(u8, u64),
}

fn event() -> impl Strategy<Value = Event> {
    let wholeness = prop_oneof![Just(Wholeness::Unknown), Just(Wholeness::Whole), Just(Wholeness::Lacking)];
    prop_oneof![
        3 => (0u64..45_000).prop_map(Event::Pass),
        3 => (0u64..900).prop_map(Event::Pass),
        6 => ((0u8..3), (0usize..9), wholeness).prop_map(|(k, n, w)| Event::Grow(k, n, w)),
        1 => (0u8..3).prop_map(Event::Vanish),
        8 => any::<bool>().prop_map(Event::Look),
        2 => Just(Event::LookOnly),
        1 => ((0u8..3), (0u64..40_000)).prop_map(|(k, ms)| Event::Release(k, ms)),
        1 => ((0u8..3), (0u64..90_000)).prop_map(|(k, ms)| Event::Fail(k, ms)),
    ]
}

/// One look as the twin remembers it: when, what is new came after, and what of one series was there.
#[derive(Clone, Copy)]
struct Sight {
    at: Instant,
    after: Option<Instant>,
    print: u32,
    told: Told,
}

/// The twin that remembers everything of a series: every look since it came, and what happened to it.
#[derive(Default)]
struct Twin {
    sights: Vec<Sight>,
    taken: bool,
    /// The look that saw the first of what came since it was last taken, and the files before.
    start: usize,
    before: usize,
    /// At which print the sender released, and the series failed.
    released: Option<(u32, Instant)>,
    failed: Option<(u32, Instant)>,
}

impl Twin {
    /// When the print that was last seen may be offered, by what the whole history says; none if it is taken.
    fn due(&self) -> Option<(Instant, Evidence)> {
        let run = &self.sights[self.start..];
        let changes: Vec<Sight> = run.chunk_by(|a, b| a.print == b.print).map(|same| same[0]).collect();
        let last = changes.last().filter(|_| !self.taken)?;
        let arrived = last.told.files.saturating_sub(self.before);
        let pause = changes.windows(2).map(|w| w[1].at - w[0].at).max().unwrap_or_default();
        let quiet = match changes[0].after {
            Some(first) if arrived >= 4 => (10 * ((last.at - first) / arrived as u32)).max(3 * pause).max(LEAST).min(MOST),
            _ => MOST,
        };
        let released = self.released.filter(|(print, _)| *print == last.print).map(|(_, at)| at.max(last.at));
        let (due, evidence) = match last.told.wholeness {
            Wholeness::Lacking => (last.at + 3 * MOST, Evidence::Patience),
            Wholeness::Whole => (last.at + Duration::from_millis(500), Evidence::Count),
            Wholeness::Unknown => match released {
                Some(released) if released <= last.at + quiet => (released, Evidence::Association),
                _ => (last.at + quiet, Evidence::Timer),
            },
        };
        let failed = self.failed.filter(|(print, _)| *print == last.print).map(|(_, at)| at);
        Some((failed.map_or(due, |at| at.max(due)), evidence))
    }
}

type Files = BTreeMap<u8, (u32, Told)>;

/// One look by the machine and by the twins; both have to say the same.
fn look(
    settle: &mut Settle<u8, u32>,
    now: Instant,
    after: Option<Instant>,
    files: &Files,
    twins: &mut BTreeMap<u8, Twin>,
    take: bool,
) -> Result<(), TestCaseError> {
    let present = files.iter().map(|(k, (print, _))| (*k, *print)).collect();
    let look = settle.look(now, after, present, |changed| changed.iter().map(|k| (*k, files[k].1)).collect());
    twins.retain(|k, _| files.contains_key(k));
    let (mut complete, mut reopened) = (Vec::new(), Vec::new());
    for (k, (print, told)) in files {
        let twin = twins.entry(*k).or_default();
        let seen = twin.sights.last().copied();
        if seen.is_some_and(|s| s.print != *print) && twin.taken {
            reopened.push(*k);
            (twin.taken, twin.start, twin.before) = (false, twin.sights.len(), seen.map_or(0, |s| s.told.files));
        }
        twin.sights.push(Sight { at: now, after, print: *print, told: *told });
        // A print that is new can not have been unchanged.
        if let Some((due, evidence)) = twin.due().filter(|_| seen.is_some_and(|s| s.print == *print))
            && now >= due
        {
            complete.push((*k, evidence));
        }
    }
    prop_assert_eq!(&look.reopened, &reopened);
    prop_assert_eq!(&look.complete, &complete);
    for (k, _) in look.complete.iter().filter(|_| take) {
        let twin = twins.get_mut(k).expect("it is known");
        let last = twin.sights.last().expect("it was seen").print;
        prop_assert_eq!(settle.take(k), twin.sights.iter().rev().take_while(|s| s.print == last).map(|s| s.at).last());
        twin.taken = true;
    }
    prop_assert_eq!(settle.open(), twins.values().filter(|t| !t.taken).count());
    prop_assert_eq!(settle.next_due(), twins.values().filter_map(|t| Some(t.due()?.0)).min());
    Ok(())
}

proptest! {
    #[test]
    fn a_series_is_offered_exactly_when_its_history_says_so(events in prop::collection::vec(event(), 1..160)) {
        let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
        let mut settle: Settle<u8, u32> = Settle::new(QUIET);
        let (mut files, mut twins) = (Files::new(), BTreeMap::<u8, Twin>::new());
        let (mut prints, mut last_look) = (0u32, clock.monotonic());
        for event in events {
            let now = clock.monotonic();
            match event {
                Event::Pass(ms) => clock.advance(Duration::from_millis(ms)),
                Event::Grow(k, n, wholeness) => {
                    prints += 1;
                    let had = files.get(&k).map_or(0, |(_, told)| told.files);
                    files.insert(k, (prints, Told { files: had + n, wholeness }));
                }
                Event::Vanish(k) => { files.remove(&k); }
                Event::Release(k, ms) => {
                    let at = now + Duration::from_millis(ms);
                    settle.hint(&k, at);
                    if let Some(twin) = twins.get_mut(&k) && let Some(sight) = twin.sights.last() {
                        twin.released = Some((sight.print, at));
                    }
                }
                Event::Fail(k, ms) => {
                    let at = now + Duration::from_millis(ms);
                    settle.again(&k, at);
                    if let Some(twin) = twins.get_mut(&k) && let Some(sight) = twin.sights.last() {
                        (twin.failed, twin.taken) = (Some((sight.print, at)), false);
                    }
                }
                Event::Look(known) => {
                    look(&mut settle, now, known.then_some(last_look), &files, &mut twins, true)?;
                    last_look = now;
                }
                Event::LookOnly => {
                    look(&mut settle, now, Some(last_look), &files, &mut twins, false)?;
                    last_look = now;
                }
            }
        }
        // Left alone, everything is offered at the next due look.
        if let Some(due) = settle.next_due() {
            clock.advance(due.saturating_duration_since(clock.monotonic()));
            let seen: BTreeMap<u8, u32> = twins.iter().filter_map(|(k, t)| Some((*k, t.sights.last()?.print))).collect();
            let offered = settle.look(clock.monotonic(), None, seen, |_| BTreeMap::new());
            prop_assert!(!offered.complete.is_empty());
        }
    }
}

/// A drip of `files` files, one every `every`, seen as they come; how long after the last one the series is offered, and why.
fn wait_after(every: Duration, files: usize, wholeness: Wholeness) -> (Duration, Evidence) {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
    let mut settle = Settle::new(QUIET);
    let told = Told { files: 0, wholeness };
    for n in 1..=files {
        let after = clock.monotonic();
        clock.advance(every);
        let look =
            settle.look(clock.monotonic(), Some(after), BTreeMap::from([("s", n)]), |_| BTreeMap::from([("s", Told { files: n, ..told })]));
        assert_eq!(look.complete, [], "{n} of {files}");
    }
    let last = clock.monotonic();
    loop {
        clock.advance(Duration::from_millis(100));
        let look = settle.look(clock.monotonic(), None, BTreeMap::from([("s", files)]), |_| unreachable!("nothing changed"));
        if let [(_, evidence)] = look.complete[..] {
            return (clock.monotonic() - last, evidence);
        }
    }
}

#[test]
fn the_wait_follows_the_evidence() {
    use Wholeness::{Lacking, Unknown, Whole};
    let ms = Duration::from_millis;
    assert_eq!(wait_after(ms(10), 100, Unknown), (LEAST, Evidence::Timer), "fast");
    assert_eq!(wait_after(ms(1000), 100, Unknown), (ms(10_000), Evidence::Timer), "by the rate");
    assert_eq!(wait_after(ms(20_000), 100, Unknown), (MOST, Evidence::Timer), "slow");
    assert_eq!(wait_after(ms(10), 2, Unknown), (MOST, Evidence::Timer), "two files tell no rate");
    assert_eq!(wait_after(ms(10), 100, Whole), (ms(500), Evidence::Count));
    assert_eq!(wait_after(ms(10), 100, Lacking), (3 * MOST, Evidence::Patience));
}

#[test]
fn late_files_reopen_a_series_once_however_they_drip() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
    let mut settle = Settle::new(QUIET);
    let told = |files| move |_: &[&'static str]| BTreeMap::from([("s", Told { files, wholeness: Wholeness::Unknown })]);
    let mut look = |files: usize| settle_once(&mut settle, &clock, files, told(files));
    fn settle_once(
        settle: &mut Settle<&'static str, usize>,
        clock: &SimulatedClock,
        files: usize,
        told: impl FnOnce(&[&'static str]) -> BTreeMap<&'static str, Told>,
    ) -> (usize, usize) {
        let look = settle.look(clock.monotonic(), None, BTreeMap::from([("s", files)]), told);
        look.complete.iter().for_each(|(k, _)| assert!(settle.take(k).is_some()));
        (look.complete.len(), look.reopened.len())
    }
    assert_eq!(look(20), (0, 0));
    clock.advance(MOST);
    assert_eq!(look(20), (1, 0));
    for (files, reopened) in [(21, 1), (22, 0), (23, 0)] {
        clock.advance(MOST - Duration::from_secs(1));
        assert_eq!(look(files), (0, reopened));
    }
    clock.advance(MOST);
    assert_eq!(look(23), (1, 0));
    clock.advance(MOST * 100);
    assert_eq!(look(23), (0, 0));
}

#[test]
fn a_release_shortens_the_wait_until_the_series_changes() {
    let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
    let mut settle = Settle::new(QUIET);
    let mut complete = Vec::new();
    for files in [1, 2, 2] {
        let told = Told { files, wholeness: Wholeness::Unknown };
        complete.push(settle.look(clock.monotonic(), None, BTreeMap::from([("s", files)]), |_| BTreeMap::from([("s", told)])).complete);
        settle.hint(&"s", clock.monotonic() + Duration::from_secs(5));
        clock.advance(Duration::from_secs(5));
    }
    assert_eq!(complete, [vec![], vec![], vec![("s", Evidence::Association)]]);
}
