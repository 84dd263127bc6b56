//! The oracle: a program outside the daemon that feeds studies, kills the daemon again and again, and at the end counts.
//!
//! Every study it fed has exactly one result, with the right labels and with the bytes of its first publication; every instance that was
//! acknowledged over the network is there; no person had to help.
//!
//! It starts itself as the daemon (`oracle daemon FILE`), with a fast scripted engine, and kills that with SIGKILL at random times, at
//! random points of the code and once at each named point. A smaller run kills the shipped binary with the real network. Then the power is
//! cut, the disk fails at every write and read, the clock jumps (`faults.rs`), and destinations and ledgers are not what they should be
//! (`edges.rs`). How often is a matter of the run: `STUNETD_ORACLE=ci` (what is run by default), `nightly` or `release`, or so many random kills and
//! as much of everything else as goes with them (`STUNETD_KILLS`, `make crash-test N=1000`). `STUNETD_SEED` repeats a run,
//! `STUNETD_PARTS=power,full` makes only some of its parts, `STUNETD_AT_ONCE=1` one after the other. `STUNETD_SOAK=30` (`make soak`) watches
//! memory for so many minutes instead.

#[path = "../it/support/ct.rs"]
#[allow(dead_code, reason = "the daemon's tests use more of it")]
mod ct;
mod daemon;
mod disk;
mod edges;
mod faults;
#[path = "../it/delivery/scp.rs"]
#[allow(dead_code, reason = "the tests of delivery use more of it")]
mod scp;
mod soak;
mod world;

use daemon::Program;
use faults::Failing;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;
use stunetd::sys::clock::Stopwatch;
use stunetd::sys::crash::Point;
use world::World;

/// Everything that there is.
const ALL: u32 = u32::MAX;

/// A part of a run: how it is chosen, what it is for a person, how often something is done in a short, a nightly and a release run, and how it
/// is done; the tally is answered.
struct Part {
    name: &'static str,
    goal: &'static str,
    times: [u32; 3],
    run: fn(u32, &mut Dice) -> String,
}

const PARTS: [Part; 17] = {
    const fn part(name: &'static str, goal: &'static str, times: [u32; 3], run: fn(u32, &mut Dice) -> String) -> Part {
        Part { name, goal, times, run }
    }
    [
        // Each kill waits for something: four worlds are killed side by side.
        part("random", "R1 random kills, first quarter", [50, 500, 2500], random_kills),
        part("random-2", "R1 random kills, second quarter", [50, 500, 2500], random_kills),
        part("random-3", "R1 random kills, third quarter", [50, 500, 2500], random_kills),
        part("random-4", "R1 random kills, last quarter", [50, 500, 2500], random_kills),
        part("points", "R1 a kill at each named point", [1, 1, 1], |_, dice| named_points(dice)),
        part("shipped", "R1 kills of the shipped binary", [3, 50, 200], the_shipped_binary),
        part("deadly", "a study that kills the daemon", [1, 1, 1], |_, _| a_deadly_study_is_parked()),
        part("power", "R2 power cuts", [20, 100, 500], faults::power_cuts),
        part("forgotten", "R2 forgotten syncs", [1, 1, 1], |_, _| faults::forgotten_syncs_are_noticed()),
        part("full", "R5 a full disk", [5, ALL, ALL], |n, dice| faults::failing_disk(n, Failing::Changes, libc::ENOSPC, dice)),
        part("broken", "R5 a broken disk, writes", [5, ALL, ALL], |n, dice| faults::failing_disk(n, Failing::Changes, libc::EIO, dice)),
        part("unreadable", "R5 a broken disk, reads", [0, ALL, ALL], |n, dice| faults::failing_disk(n, Failing::Reads, libc::EIO, dice)),
        part("read-only", "R5 a disk made read-only", [5, ALL, ALL], |n, dice| {
            faults::failing_disk(n, Failing::Changes, libc::EROFS, dice)
        }),
        part("clock", "R14 a clock that jumps", [0, 400, 2000], faults::clock_jumps),
        part("destinations", "R10 bad destinations", [0, 80, 400], edges::bad_destinations),
        part("ledgers", "damaged and older ledgers", [0, 5, 25], edges::damaged_ledgers),
        part("removal", "kills while spool files go", [10, 100, 500], edges::killed_removals),
    ]
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("decode-worker") => return stunetd::volume::decode::worker_main(),
        Some("daemon") => return daemon::run(args.next().expect("a configuration file").as_ref()),
        // `cargo test NAME` hands its filter to every program.
        Some(filter) if !filter.starts_with('-') && !"oracle".contains(filter) => return ExitCode::SUCCESS,
        Some("--list") => return ExitCode::SUCCESS,
        _ => {}
    }
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let seed = number("STUNETD_SEED").unwrap_or(u64::from(std::process::id()));
    println!("seed {seed}");
    let watch = Stopwatch::start();
    if let Some(minutes) = number("STUNETD_SOAK") {
        return soak::soaks(minutes);
    }
    let run = std::env::var("STUNETD_ORACLE").unwrap_or_else(|_| "ci".into());
    let column = ["ci", "nightly", "release"].iter().position(|name| *name == run).expect("ci, nightly or release");
    let kills = number("STUNETD_KILLS");
    let times = |part: &Part| match kills {
        // As many as a release run has for as many kills, and never fewer than a short run.
        Some(kills) if part.times[1] != ALL => (u64::from(part.times[2]) * kills).div_ceil(10_000).max(part.times[0].min(1).into()) as u32,
        Some(kills) => (kills.div_ceil(20) as u32).max(part.times[0]),
        None => part.times[column],
    };
    let wanted = std::env::var("STUNETD_PARTS").unwrap_or_default();
    let parts: Vec<(u64, &Part)> = (1u64..)
        .zip(&PARTS)
        .filter(|&(_, part)| times(part) > 0 && (wanted.is_empty() || wanted.split(',').any(|w| w == part.name)))
        .collect();
    // A check that is left out says so.
    PARTS.iter().filter(|&part| times(part) == 0).for_each(|part| println!("not in a {run} run: {}", part.goal));
    let (queue, tallies) = (Mutex::new(parts.iter()), Mutex::new(Vec::new()));
    // Each has a world of its own, and mostly waits.
    let at_once = number("STUNETD_AT_ONCE").unwrap_or(12) as usize;
    let failed = std::thread::scope(|scope| {
        let work = || {
            loop {
                let next = queue.lock().expect("parts").next();
                let Some((number, part)) = next else { return };
                let watch = Stopwatch::start();
                let held = (part.run)(times(part), &mut Dice((seed << 8 | number) | 1 << 63));
                println!("tally {}: {held}, in {:.0} s", part.goal, watch.seconds());
                tallies.lock().expect("tallies").push((*number, part.goal, held));
            }
        };
        let threads: Vec<_> = (0..at_once.clamp(1, parts.len().max(1))).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).count()
    });
    let mut tallies = tallies.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tallies.sort();
    println!("\n| | what held ({run}, seed {seed}, {:.0} s) |\n|---|---|", watch.seconds());
    tallies.iter().for_each(|(_, goal, held)| println!("| {goal} | {held} |"));
    if failed > 0 || tallies.len() < parts.len() {
        println!("\n{} of {} parts did not hold", parts.len() - tallies.len(), parts.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Random numbers (xorshift64*) that a seed repeats.
pub struct Dice(u64);

impl Dice {
    /// At least 0, below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

fn random_kills(kills: u32, dice: &mut Dice) -> String {
    let mut world = World::new(Program::Scripted);
    let (mut at_points, mut before_ready) = (0, 0);
    for _ in 0..kills {
        world.feed_folder(dice.below(5) as u32);
        let point = Point::ALL[dice.below(Point::ALL.len() as u64) as usize];
        let armed = (dice.below(3) == 0).then(|| format!("{}:{}", point.name(), 1 + dice.below(8)));
        let mut running = world.start(armed.as_deref());
        let sending = world.send(dice.below(2) as u32);
        // In the middle of its work, or of its start.
        let works = armed.is_none() && dice.below(4) > 0 && !running.dies_starting();
        let patience = Duration::from_millis(if armed.is_some() { 4000 } else { dice.below(if works { 1500 } else { 2000 }) });
        if running.dies_within(patience) {
            at_points += 1;
        } else {
            before_ready += u32::from(!running.is_ready());
            running.kill();
        }
        drop(sending);
        world.look();
    }
    world.finish();
    format!("{kills} ({at_points} of them at a point of the code, {before_ready} before the daemon was ready): {}", world.tally())
}

fn named_points(dice: &mut Dice) -> String {
    let mut world = World::new(Program::Scripted);
    let mut exercised = 0;
    for &point in Point::ALL {
        if world.is_of_the_network(point) && !world.can_send() {
            println!("skipped: the point {} needs storescu (Debian package dcmtk)", point.name());
            continue;
        }
        // The first visit, and a later one: the first may be at the start.
        for visit in [1, 2 + dice.below(3)] {
            // Of two, one has files that leave.
            world.feed_folder(if world.is_of_leaving(point) { 2 } else { 1 });
            let mut running = world.start(Some(&format!("{}:{visit}", point.name())));
            let sending = world.send(1);
            let died = running.dies_starting() || running.dies_within(Duration::from_secs(if visit == 1 { 5 } else { 3 })) || {
                // Some points lie at a clean end.
                running.ask_to_end();
                running.dies_within(Duration::from_secs(10))
            };
            assert!(died || visit > 1, "the point {} was not reached\n{}", point.name(), world.log());
            exercised += u32::from(died);
            running.kill();
            drop(sending);
            world.look();
        }
    }
    world.finish();
    format!("{} points, {exercised} kills: {}", Point::ALL.len(), world.tally())
}

fn the_shipped_binary(kills: u32, dice: &mut Dice) -> String {
    let mut world = World::new(Program::Shipped);
    for _ in 0..kills {
        world.feed_folder(1);
        let mut running = world.start(None);
        running.dies_within(Duration::from_millis(500 + dice.below(4000)));
        running.kill();
        world.look();
    }
    world.finish();
    format!("{kills} kills, with the demo network: {}", world.tally())
}

/// A study at which the engine aborts the process is suspected, runs alone, and is parked; all others are done.
fn a_deadly_study_is_parked() -> String {
    let mut world = World::new(Program::Scripted);
    world.limits = (2, 3);
    world.feed_deadly();
    world.feed_folder(3);
    let mut starts = 0;
    while world.parked() == 0 {
        starts += 1;
        assert!(starts < 20, "not parked after {starts} starts\n{}", world.log());
        let mut running = world.start(None);
        running.dies_or(Duration::from_secs(30), || world.parked() == 1 && world.open_jobs() == 0);
        running.kill();
    }
    world.finish();
    assert!((4..=9).contains(&starts), "{starts} starts");
    format!("parked after {} crashes: {}", starts - 1, world.tally())
}
