//! Power cuts, disks that fail, clocks that are wrong.

use crate::Dice;
use crate::disk::Names;
use crate::world::World;
use std::time::Duration;
use stunetd::sys::clock::Stopwatch;
use stunetd::sys::crash::Point;

/// What may be asked of a daemon whose disk works again.
const RECOVERY: Duration = Duration::from_secs(60);

fn world() -> Option<World> {
    let world = World::on_a_disk();
    if world.is_none() {
        println!("skipped: a disk that fails needs a C compiler (`cc`)");
    }
    world
}

/// The power is cut again and again, at random and at points of the code, with a clock that is wrong: whatever was promised is there.
pub fn power_cuts(cuts: u32, dice: &mut Dice) {
    let Some(mut world) = world() else { return };
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
    println!(
        "power cuts: {cuts} ({at_points} of them at a point of the code, {done_before} times a job was done before): {}",
        world.tally()
    );
}

/// The proof that the cuts would notice: with any one sync taken out of the code, something that was promised is gone.
pub fn forgotten_syncs_are_noticed() {
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
        let Some(mut world) = world() else { return };
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
            assert!(!running.dies_within(Duration::from_millis(20)) && watch.elapsed() < RECOVERY, "{forget}\n{}", world.log());
        }
        let done = world.done();
        running.kill();
        drop(sending);
        let broken = world.cut(Names::Lost, &done);
        noticed += u32::from(broken.is_err());
        assert!(broken.is_err(), "nothing noticed that {forget} is never synced");
    }
    println!("forgotten syncs: {noticed} of {} noticed", SYNCS.len());
}

/// Changes to the disk fail for a while, from a random one on. The daemon goes on by itself once they succeed, or ends with a code and goes
/// on after its restart.
pub fn failing_disk(runs: u32, error: i32, dice: &mut Dice) {
    let Some(mut world) = world() else { return };
    let (mut failed, mut ended, mut longest) = (0, 0, 0f64);
    for _ in 0..runs {
        world.feed_folder(1);
        let first = 1 + dice.below(300);
        let lasts = Duration::from_millis([0, 200, 2000][dice.below(3) as usize]);
        let disk = world.disk.as_mut().expect("a disk");
        disk.faults.fail = Some((first, error));
        let mut running = world.start(None);
        let sending = world.send(1);
        let watch = Stopwatch::start();
        let (mut broke, mut healed) = (None, None);
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
                assert_eq!(code, 74, "from change {first}\n{}", world.log());
                ended += 1;
                break;
            }
            if world.all_done() {
                longest = longest.max(healed.map_or(0.0, |healed| healed.seconds()));
                break;
            }
            assert!(watch.elapsed() < RECOVERY, "not done, from change {first}: {}\n{}", world.tally(), world.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        failed += u32::from(broke.is_some());
        running.kill();
        drop(sending);
        world.look();
    }
    world.disk.as_mut().expect("a disk").faults.fail = None;
    world.finish();
    println!(
        "{}: {runs} runs, {failed} with a failure, {ended} ended by it and began again, all done at most {longest:.1} s after it: {}",
        std::io::Error::from_raw_os_error(error),
        world.tally()
    );
}
