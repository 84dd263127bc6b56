//! The oracle: a program outside the daemon that feeds studies, kills the daemon again and again, and at the end counts.
//!
//! Every study it fed has exactly one result, with the right labels and with the bytes of its first publication; every instance that was
//! acknowledged over the network is there; no person had to help.
//!
//! It starts itself as the daemon (`oracle daemon FILE`), with a fast scripted engine, and kills that with SIGKILL at random times, at
//! random points of the code and once at each named point. A smaller run kills the shipped binary with the real network. Then the power is
//! cut, and the disk fails (`faults.rs`). `STUNETD_KILLS` sets the number of random kills (`make crash-test N=1000`), `STUNETD_SEED`
//! repeats a run, `STUNETD_PARTS=power,full` makes only some of its parts. `STUNETD_SOAK=30` (`make soak`) watches memory for so
//! many minutes instead.

#[path = "../it/support/ct.rs"]
#[allow(dead_code, reason = "the daemon's tests use more of it")]
mod ct;
mod daemon;
mod disk;
mod faults;
mod soak;
mod world;

use daemon::Program;
use std::process::ExitCode;
use std::time::Duration;
use stunetd::sys::clock::Stopwatch;
use stunetd::sys::crash::Point;
use world::World;

/// Random kills when nothing else is asked for.
const SHORT: u32 = 15;

/// What a run is made of, given the number of kills.
type Part = fn(u32, &mut Dice);
const PARTS: [(&str, Part); 9] = [
    ("random", random_kills),
    ("points", |_, dice| named_points(dice)),
    ("shipped", |kills, dice| the_shipped_binary((kills / 5).clamp(3, 50), dice)),
    ("deadly", |_, _| a_deadly_study_is_parked()),
    ("power", faults::power_cuts),
    ("forgotten", |_, _| faults::forgotten_syncs_are_noticed()),
    ("full", |kills, dice| faults::failing_disk(kills.div_ceil(2), libc::ENOSPC, dice)),
    ("broken", |kills, dice| faults::failing_disk(kills.div_ceil(2), libc::EIO, dice)),
    ("read-only", |kills, dice| faults::failing_disk(kills.div_ceil(2), libc::EROFS, dice)),
];

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
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().expect("a number"));
    let kills = number("STUNETD_KILLS", SHORT.into()) as u32;
    let seed = number("STUNETD_SEED", u64::from(std::process::id()));
    println!("seed {seed}");
    let watch = Stopwatch::start();
    if let Ok(minutes) = std::env::var("STUNETD_SOAK") {
        let minutes = minutes.parse().expect("minutes");
        std::thread::scope(|scope| {
            scope.spawn(|| soak::soak(Program::Scripted, minutes, Duration::from_millis(500)));
            scope.spawn(|| soak::soak(Program::Shipped, minutes, Duration::from_secs(8)));
        });
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::var("STUNETD_PARTS").unwrap_or_default();
    let parts = PARTS.iter().zip(1u64..).filter(|((name, _), _)| wanted.is_empty() || wanted.split(',').any(|w| w == *name));
    // Each has a world of its own, and mostly waits.
    std::thread::scope(|scope| {
        for ((_, part), number) in parts {
            scope.spawn(move || part(kills, &mut Dice((seed << 8 | number) | 1 << 63)));
        }
    });
    println!("all held, in {:.0} s", watch.seconds());
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

fn random_kills(kills: u32, dice: &mut Dice) {
    let mut world = World::new(Program::Scripted);
    let (mut at_points, mut before_ready) = (0, 0);
    for _ in 0..kills {
        world.feed_folder(dice.below(5) as u32);
        let point = Point::ALL[dice.below(Point::ALL.len() as u64) as usize];
        let armed = (dice.below(3) == 0).then(|| format!("{}:{}", point.name(), 1 + dice.below(8)));
        let mut running = world.start(armed.as_deref());
        let sending = world.send(dice.below(2) as u32);
        let patience = Duration::from_millis(if armed.is_some() { 5000 } else { dice.below(2500) });
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
    println!(
        "random kills: {kills} ({at_points} of them at a point of the code, {before_ready} before the daemon was ready): {}",
        world.tally()
    );
}

fn named_points(dice: &mut Dice) {
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
    println!("named points: {} exercised, {exercised} kills: {}", Point::ALL.len(), world.tally());
}

fn the_shipped_binary(kills: u32, dice: &mut Dice) {
    let mut world = World::new(Program::Shipped);
    for _ in 0..kills {
        world.feed_folder(1);
        let mut running = world.start(None);
        running.dies_within(Duration::from_millis(500 + dice.below(4000)));
        running.kill();
        world.look();
    }
    world.finish();
    println!("the shipped binary with the demo network: {kills} kills: {}", world.tally());
}

/// A study at which the engine aborts the process is suspected, runs alone, and is parked; all others are done.
fn a_deadly_study_is_parked() {
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
    println!("a deadly study: parked after {} crashes, {}", starts - 1, world.tally());
}
