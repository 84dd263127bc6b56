//! Random nights against a child that does as it is told, or not.

use super::{Act, Ended, Heard, Night, Posture, Settings};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

const SETTINGS: Settings = Settings { evict_after: Duration::from_secs(10), calm: Duration::from_secs(60) };

const NOTHING: [Act; 0] = [];

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What the world does in one second of a simulated night.
#[derive(Clone, Copy, Debug)]
enum World {
    Nothing,
    Clinic(bool),
    Window(bool),
    Work(bool),
    /// The child dies by itself.
    Dies,
}

fn world() -> impl Strategy<Value = World> {
    prop_oneof![
        30 => Just(World::Nothing),
        2 => any::<bool>().prop_map(World::Clinic),
        1 => any::<bool>().prop_map(World::Window),
        1 => any::<bool>().prop_map(World::Work),
        1 => Just(World::Dies),
    ]
}

/// A child process as the machine sees it, and what was promised to clinical work.
#[derive(Default)]
struct Child {
    alive: bool,
    computing: bool,
    /// What it was told and has not done yet.
    told: Option<Act>,
}

impl Child {
    fn act(&mut self, act: Act) {
        match act {
            Act::Start => {
                assert!(!self.alive, "one child at a time");
                *self = Child { alive: true, computing: true, ..Child::default() };
            }
            Act::Pause | Act::Evict => {
                assert!(self.alive, "nobody is told to {act:?}");
                self.told = Some(act);
            }
            Act::Resume => {
                assert!(self.alive && !self.computing, "only who waits is resumed");
                self.computing = true;
            }
            Act::Kill => assert!(self.alive, "nobody is killed twice"),
            Act::Finish | Act::GiveUp => assert!(!self.alive),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: nothing starts or goes on beside clinical work, before the calm or outside of a window; clinical work pauses a child
    /// at once and makes it leave in time; a deaf child is killed.
    #[test]
    fn clinical_work_goes_first(events in prop::collection::vec(world(), 1..600), deaf in prop::bool::weighted(0.2)) {
        let mut night = Night::new(SETTINGS, seconds(0));
        let mut child = Child::default();
        let (mut busy, mut open, mut work, mut quiet, mut busy_since) = (true, false, false, 0, 0);
        for (second, event) in events.into_iter().enumerate().map(|(i, event)| (i as u64, event)) {
            let now = seconds(second);
            let mut heard = Vec::new();
            match event {
                World::Nothing => {}
                World::Clinic(is) => {
                    if busy && !is {
                        quiet = second;
                    }
                    if !busy && is {
                        busy_since = second;
                    }
                    busy = is;
                    heard.push(Heard::Clinic(is));
                }
                World::Window(is) => {
                    open = is;
                    heard.push(Heard::Window(is));
                }
                World::Work(is) => {
                    work = is;
                    heard.push(Heard::Work(is));
                }
                World::Dies if child.alive => {
                    child = Child::default();
                    heard.push(Heard::Ended(Ended::Failed));
                }
                World::Dies => {}
            }
            // The child does what it was told a second ago.
            match child.told.take().filter(|_| !deaf && child.alive) {
                Some(Act::Pause) => {
                    child.computing = false;
                    heard.push(Heard::Paused);
                }
                Some(Act::Evict) => {
                    child = Child::default();
                    heard.push(Heard::Ended(Ended::Evicted));
                }
                _ => {}
            }
            // Last: what happened in this second is known before anything begins.
            heard.push(Heard::Time);
            let mut heard = VecDeque::from(heard);
            while let Some(next) = heard.pop_front() {
                for act in night.hear(now, next) {
                    match act {
                        Act::Start | Act::Resume => {
                            prop_assert!(!busy && open && work, "{act:?} at {second} with busy {busy}, open {open}, work {work}");
                            prop_assert!(second >= quiet + 60, "{act:?} at {second}, quiet since {quiet}");
                        }
                        Act::GiveUp => work = false,
                        _ => {}
                    }
                    child.act(act);
                    if act == Act::Kill {
                        child = Child::default();
                        heard.push_front(Heard::Ended(Ended::Failed));
                    }
                }
            }
            let (posture, since) = night.posture();
            prop_assert_eq!(posture == Posture::Absent, !child.alive);
            prop_assert!(!busy || posture != Posture::Computing, "computes beside clinical work");
            prop_assert!(open && work || matches!(posture, Posture::Absent | Posture::Leaving | Posture::Killed));
            prop_assert!(!(busy && posture == Posture::Paused && now >= since.max(seconds(busy_since)) + seconds(10)), "stays too long");
            prop_assert!(!(matches!(posture, Posture::Pausing | Posture::Leaving) && now > since + seconds(30)), "is not killed");
        }
    }

    /// Between a decision and the time that `wake` names nothing changes by time alone, and at that time something does.
    #[test]
    fn wake_is_exact(events in prop::collection::vec(world(), 1..60), gap in 1u64..40) {
        let mut night = Night::new(SETTINGS, seconds(0));
        let mut now = 0;
        for event in events {
            now += gap;
            let heard = match event {
                World::Clinic(is) => Heard::Clinic(is),
                World::Window(is) => Heard::Window(is),
                World::Work(is) => Heard::Work(is),
                World::Nothing => Heard::Paused,
                World::Dies if night.posture().0 != Posture::Absent => Heard::Ended(Ended::Failed),
                World::Dies => Heard::Time,
            };
            night.hear(seconds(now), heard);
            let before = night.posture();
            match night.wake() {
                Some(wake) if wake > seconds(now) => {
                    let mut early = night.clone();
                    prop_assert_eq!(early.hear(wake - Duration::from_millis(1), Heard::Time), NOTHING.to_vec());
                    prop_assert_eq!(early.posture(), before);
                    prop_assert!(!early.hear(wake, Heard::Time).is_empty(), "{before:?} at {wake:?}");
                }
                Some(wake) => prop_assert!(wake > seconds(now), "it would be woken again and again: {before:?}"),
                None => {
                    let mut late = night.clone();
                    prop_assert_eq!(late.hear(seconds(now + 100_000), Heard::Time), NOTHING.to_vec());
                }
            }
        }
    }
}

/// From evening to morning: it starts after the calm, gives way twice, and leaves at the end of the window.
#[test]
fn a_night() {
    let mut night = Night::new(SETTINGS, seconds(0));
    let mut told = |at: u64, heard: Heard| night.hear(seconds(at), heard);
    assert_eq!(told(1, Heard::Work(true)), NOTHING);
    assert_eq!(told(2, Heard::Clinic(false)), NOTHING);
    assert_eq!(told(10, Heard::Window(true)), NOTHING);
    assert_eq!(told(62, Heard::Time), [Act::Start]);
    assert_eq!(told(100, Heard::Clinic(true)), [Act::Pause]);
    assert_eq!(told(101, Heard::Paused), NOTHING);
    assert_eq!(told(105, Heard::Clinic(false)), NOTHING, "a short study leaves it where it is");
    assert_eq!(told(165, Heard::Time), [Act::Resume]);
    assert_eq!(told(200, Heard::Clinic(true)), [Act::Pause]);
    assert_eq!(told(201, Heard::Paused), NOTHING);
    assert_eq!(told(211, Heard::Time), [Act::Evict], "a long one needs the memory");
    assert_eq!(told(212, Heard::Ended(Ended::Evicted)), NOTHING);
    assert_eq!(told(300, Heard::Clinic(false)), NOTHING);
    assert_eq!(told(360, Heard::Time), [Act::Start]);
    assert_eq!(told(500, Heard::Window(false)), [Act::Evict]);
    assert_eq!(told(530, Heard::Time), [Act::Kill], "it did not hear");
    assert_eq!(told(531, Heard::Ended(Ended::Failed)), NOTHING);
    assert_eq!(told(600, Heard::Window(true)), [Act::Start], "being killed is no failure of the work");
    assert_eq!(told(700, Heard::Ended(Ended::Done)), [Act::Finish]);
    assert_eq!(told(800, Heard::Work(true)), [Act::Start], "the next work");
}

/// Work that fails again and again is given up; a step in between begins the count anew.
#[test]
fn failures_are_counted() {
    let mut night = Night::new(Settings { calm: Duration::ZERO, ..SETTINGS }, seconds(0));
    night.hear(seconds(0), Heard::Work(true));
    night.hear(seconds(0), Heard::Clinic(false));
    assert_eq!(night.hear(seconds(0), Heard::Window(true)), [Act::Start]);
    night.hear(seconds(1), Heard::Ended(Ended::Failed));
    assert_eq!(night.hear(seconds(60), Heard::Time), NOTHING);
    assert_eq!(night.hear(seconds(61), Heard::Time), [Act::Start]);
    night.hear(seconds(62), Heard::Ahead);
    night.hear(seconds(63), Heard::Ended(Ended::Failed));
    assert_eq!(night.hear(seconds(123), Heard::Time), [Act::Start]);
    night.hear(seconds(124), Heard::Ended(Ended::Failed));
    assert_eq!(night.hear(seconds(244), Heard::Time), [Act::Start]);
    assert_eq!(night.hear(seconds(245), Heard::Ended(Ended::Failed)), [Act::GiveUp]);
    assert_eq!(night.hear(seconds(100_000), Heard::Time), NOTHING);
}
