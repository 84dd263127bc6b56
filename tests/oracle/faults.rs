//! Power cuts, disks that fail, clocks that are wrong.

use crate::Dice;
use crate::disk::Names;
use crate::world::{SLICES, World};
use std::collections::BTreeSet;
use std::time::Duration;
use stunetd::sys::clock::Stopwatch;
use stunetd::sys::crash::Point;

/// Within this time of its disk working again a daemon has done all that was left.
const RECOVERY: Duration = Duration::from_secs(10);
/// For a run without a fault, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SKIPPED: &str = "skipped: a disk that fails needs a C compiler (`cc`)";

fn world() -> Option<World> {
    World::on_a_disk()
}

/// The power is cut again and again, at random and at points of the code, with a clock that is wrong: whatever was promised is there.
pub fn power_cuts(cuts: u32, dice: &mut Dice) -> String {
    let Some(mut world) = world() else { return SKIPPED.into() };
    let (mut at_points, mut done_before) = (0, 0);
    for cut in 0..cuts {
        world.feed_folder(1 + dice.below(2) as u32);
        let point = Point::ALL[dice.below(Point::ALL.len() as u64) as usize];
        let armed = (cut % 2 == 0).then(|| format!("{}:{}", point.name(), 1 + dice.below(8)));
        let day = 24 * 3600;
        world.disk.as_mut().expect("a disk").faults.clock = dice.below(20) as i64 * day - 10 * day;
        let mut running = world.start(armed.as_deref());
        let sending = world.send(1);
        let patience = Duration::from_millis(if armed.is_some() { 4000 } else { 300 + dice.below(2500) });
        let watch = Stopwatch::start();
        let mut done = world.done();
        while !running.dies_within(Duration::from_millis(20)) && watch.elapsed() < patience {
            done = world.done();
        }
        at_points += u32::from(watch.elapsed() < patience);
        running.kill();
        drop(sending);
        done_before += done.len();
        let names = if dice.below(2) == 0 { Names::Lost } else { Names::Kept };
        world.look();
        world.cut(names, &done).unwrap_or_else(|broken| panic!("{names:?} after {armed:?}: {broken}\n{}", world.log()));
    }
    world.disk.as_mut().expect("a disk").faults.clock = 0;
    world.finish();
    format!("{cuts} ({at_points} of them at a point of the code, {done_before} times a job was done before): {}", world.tally())
}

/// The proof that the cuts would notice: with any one sync taken out of the code, something that was promised is gone.
pub fn forgotten_syncs_are_noticed() -> String {
    const SYNCS: [&str; 9] = [
        "file:/results/.",
        "folder:/results/.",
        "folder:/results/",
        "file:/delivered/",
        "folder:/delivered/",
        "file:/spool/",
        "folder:/spool/",
        "file:/ledger.sqlite",
        "folder:/state/",
    ];
    let mut noticed = 0;
    for forget in SYNCS {
        let Some(mut world) = world() else { return SKIPPED.into() };
        if !world.can_send() && forget.contains("spool") {
            println!("skipped: {forget} needs storescu (Debian package dcmtk)");
            continue;
        }
        world.disk.as_mut().expect("a disk").forget = Some(forget);
        world.feed_folder(1);
        let mut running = world.start(None);
        let sending = world.send(1);
        let watch = Stopwatch::start();
        while !world.all_done() {
            assert!(!running.dies_within(Duration::from_millis(20)) && watch.elapsed() < PATIENCE, "{forget}\n{}", world.log());
        }
        let done = world.done();
        running.kill();
        drop(sending);
        let broken = world.cut(Names::Lost, &done);
        noticed += u32::from(broken.is_err());
        assert!(broken.is_err(), "nothing noticed that {forget} is never synced");
    }
    format!("{noticed} of {} noticed", SYNCS.len())
}

/// What fails of a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    Changes,
    Reads,
}

/// From each change to the disk, or each read, of a daemon's life on they fail for a while: from the first one on, that makes the ledger, to
/// the last. Once they succeed the daemon has done everything within [`RECOVERY`], or it ends with a code and its next start does it. `runs`
/// of them are made, spread evenly, or all.
pub fn failing_disk(runs: u32, what: Failing, error: i32, dice: &mut Dice) -> String {
    let Some(count) = operations(what) else { return SKIPPED.into() };
    let runs = u64::from(runs).min(count);
    let shift = dice.below(count);
    let (mut failed, mut ended, mut longest, mut whole) = (0, 0, 0f64, 0);
    for run in 0..runs {
        let first = 1 + (shift + run * count / runs) % count;
        let Some(mut world) = world() else { return SKIPPED.into() };
        world.feed_folder(1);
        let lasts = Duration::from_millis([0, 200, 2000][dice.below(3) as usize]);
        let faults = &mut world.disk.as_mut().expect("a disk").faults;
        match what {
            Failing::Changes => faults.fail = Some((first, error)),
            Failing::Reads => faults.fail_reads = Some((first, error)),
        }
        let mut running = world.start(None);
        let sending = world.send(1);
        let watch = Stopwatch::start();
        let (mut broke, mut healed) = (None, None::<Stopwatch>);
        loop {
            let disk = world.disk.as_ref().expect("a disk");
            if broke.is_none() && disk.has_failed() {
                broke = Some(Stopwatch::start());
            }
            if healed.is_none() && broke.as_ref().is_some_and(|broke| broke.elapsed() >= lasts) {
                disk.heal();
                healed = Some(Stopwatch::start());
            }
            if let Some(code) = running.exit_code() {
                // 74: storage. Nothing else is a reason to end.
                assert_eq!(code, 74, "from number {first} of {count} on\n{}", world.log());
                ended += 1;
                break;
            }
            if world.all_done() {
                longest = longest.max(healed.map_or(0.0, |healed| healed.seconds()));
                break;
            }
            let late = healed.as_ref().is_some_and(|healed| healed.elapsed() >= RECOVERY) || watch.elapsed() >= PATIENCE;
            assert!(!late, "not done, from number {first} of {count} on: {}\n{}", world.tally(), world.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        failed += u32::from(broke.is_some());
        running.kill();
        drop(sending);
        world.look();
        let faults = &mut world.disk.as_mut().expect("a disk").faults;
        (faults.fail, faults.fail_reads) = (None, None);
        world.finish();
        whole += world.expected().len();
    }
    let kind = if what == Failing::Changes { "changes" } else { "reads" };
    format!(
        "{}: from {runs} of {count} {kind} on, {failed} times met, {ended} ended by it and began again, all done at most {longest:.1} s after it, \
         {whole} series each with its result",
        std::io::Error::from_raw_os_error(error),
    )
}

/// How many changes or reads of its disk a daemon makes, from its first start until a series from a folder and one from the network are done.
fn operations(what: Failing) -> Option<u64> {
    let mut world = world()?;
    world.feed_folder(1);
    let mut running = world.start(None);
    let sending = world.send(1);
    let watch = Stopwatch::start();
    while !world.all_done() {
        assert!(!running.dies_within(Duration::from_millis(20)) && watch.elapsed() < PATIENCE, "not done\n{}", world.log());
    }
    running.kill();
    drop(sending);
    let (changes, reads) = world.disk.as_ref().expect("a disk").counts();
    assert!(changes > 20 && reads > 20, "{changes} changes and {reads} reads");
    Some(if what == Failing::Changes { changes } else { reads })
}

/// The wall clock jumps by a day, by an hour and by a second while series come in slice by slice. None is closed before it is whole, and none
/// is left waiting.
pub fn clock_jumps(jumps: u32, dice: &mut Dice) -> String {
    const QUIET: Duration = Duration::from_secs(3);
    const DAY: i64 = 86_400;
    let Some(mut world) = world() else { return SKIPPED.into() };
    world.quiet = "3 s";
    let mut running = world.start(None);
    assert!(!running.dies_starting(), "{}", world.log());
    let (mut dripping, mut done, mut clock, mut longest) = (Vec::<(u32, usize)>::new(), BTreeSet::new(), 0i64, Duration::ZERO);
    let sending = world.send(2);
    let mut step = Stopwatch::start();
    for jump in 0..jumps {
        if jump % 4 == 0 {
            dripping.push((world.feed_slowly(), 0));
        }
        for (number, slice) in &mut dripping {
            if *slice < SLICES {
                world.feed_slice(*number, *slice);
                *slice += 1;
            }
        }
        longest = longest.max(step.elapsed());
        step = Stopwatch::start();
        let by = [DAY, -DAY, 3600, -3600, 1, -1, 400 * DAY, -400 * DAY][dice.below(8) as usize];
        clock = (clock + by).clamp(-4000 * DAY, 4000 * DAY);
        world.disk.as_mut().expect("a disk").set_clock(clock);
        assert!(!running.dies_within(Duration::from_millis(150)), "{}", world.log());
        done.extend(world.done());
    }
    for (number, slice) in &dripping {
        (*slice..SLICES).for_each(|slice| world.feed_slice(*number, slice));
    }
    let watch = Stopwatch::start();
    while !world.all_done() {
        let waits = watch.elapsed() < PATIENCE && !running.dies_within(Duration::from_millis(20));
        assert!(waits, "not done: {}\n{}", world.tally(), world.log());
    }
    drop(sending);
    let reopened = running.metric("stunetd_series_reopened_total").expect("a metric");
    // A machine that stood still for as long as a series has to be quiet proves nothing.
    assert!(reopened == 0.0 || longest >= QUIET / 2, "{reopened} series were closed too early\n{}", world.log());
    running.ask_to_end();
    assert!(running.wait().success(), "{}", world.log());
    world.disk.as_mut().expect("a disk").faults.clock = 0;
    world.finish();
    format!("{jumps} jumps by up to 400 days, {reopened} series closed too early: {}", world.tally())
}
