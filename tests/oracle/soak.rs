//! A long run without a kill: memory and descriptors stay where they are.

use crate::daemon::{Program, Running};
use crate::world::World;
use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;
use stunetd::sys::clock::Stopwatch;

/// Not counted: caches fill.
const WARM_UP: f64 = 5.0 * 60.0;
/// MiB an hour that resident memory may grow by, with 95 % certainty.
const MOST_GROWTH: f64 = 1.0;
/// KiB of the ledger, its log included, with what retention leaves.
const MOST_LEDGER: u64 = 16 << 10;
/// Studies with the real network.
const WITH_NETWORK: u32 = 200;
/// Studies stay in the watched folder for as many others.
const KEPT: usize = 20;

/// What was seen of a process, second by second.
#[derive(Default)]
struct Seen {
    /// Minutes since the start, resident memory in MiB, open descriptors.
    samples: Vec<(f64, f64, u64)>,
}

impl Seen {
    fn look(&mut self, seconds: f64, running: &Running) {
        let proc = std::path::PathBuf::from(format!("/proc/{}", running.id()));
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
        let descriptors = std::fs::read_dir(proc.join("fd")).map_or(0, |entries| entries.count() as u64);
        self.samples.extend(resident.map(|kib| (seconds / 60.0, kib / 1024.0, descriptors)));
    }

    /// The 95th percentile of resident memory in each whole minute after the warm-up.
    fn minutes(&self) -> Vec<(f64, f64)> {
        let first = (WARM_UP / 60.0) as u64;
        let last = self.samples.last().map_or(0, |s| s.0 as u64);
        let of = |minute: u64| {
            let mut inside: Vec<f64> = self.samples.iter().filter(|s| s.0 as u64 == minute).map(|s| s.1).collect();
            inside.sort_by(f64::total_cmp);
            inside.get(inside.len() * 95 / 100).map(|&mib| (minute as f64, mib))
        };
        (first..last).filter_map(of).collect()
    }

    /// Says what was seen, and whether it grew.
    fn tell(&self, what: &str, ledger: u64) -> bool {
        let minutes = self.minutes();
        let descriptors = |range: std::ops::Range<usize>| self.samples[range].iter().map(|s| s.2).max().unwrap_or(0);
        let half = self.samples.len() / 2;
        let most = self.samples.iter().map(|s| s.1).fold(0.0, f64::max);
        let warm = self.samples.iter().take_while(|s| s.0 * 60.0 < WARM_UP).count();
        let (before, after) = (descriptors(warm..half.max(warm)), descriptors(half.max(warm)..self.samples.len()));
        let start = format!("tally R6 {what}: at most {most:.0} MiB, descriptors {before} then {after}, ledger {ledger} KiB");
        let Some((slope, error)) = slope(&minutes) else {
            println!("{start}, too short for a slope");
            return true;
        };
        let [slope, low, high] = [slope, slope - 2.0 * error, slope + 2.0 * error].map(|s| s * 60.0);
        println!("{start}, {slope:+.2} MiB/h (95 % between {low:+.2} and {high:+.2}) over {} minutes", minutes.len());
        // Descriptors come and go with callers; a leak loses some with every study.
        high < MOST_GROWTH && after <= before + 2 && ledger < MOST_LEDGER
    }
}

/// Least squares: change a minute, and its standard error.
fn slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2)).sum();
    Some((slope, (rest / (n - 2.0) / spread).sqrt()))
}

/// The daemon with a fast scripted engine, and the shipped one with the demo network, side by side.
pub fn soaks(minutes: u64) -> ExitCode {
    let time = WARM_UP + minutes as f64 * 60.0;
    let held = std::thread::scope(|scope| {
        let scripted = scope.spawn(move || soak(Program::Scripted, time, Duration::from_millis(500)));
        let shipped = scope.spawn(move || soak(Program::Shipped, time, Duration::from_secs_f64(time / f64::from(WITH_NETWORK))));
        [scripted, shipped].map(|thread| thread.join().unwrap_or(false))
    });
    if held == [true; 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Feeds studies for some seconds, `every` so often, and takes old ones out of the watched folder. Whether nothing grew.
fn soak(program: Program, time: f64, every: Duration) -> bool {
    let mut world = World::new(program);
    world.retention = "0 s";
    let mut running = world.start(None);
    let mut seen = Seen::default();
    let (watch, mut fed, mut kept) = (Stopwatch::start(), 0u32, VecDeque::new());
    while watch.seconds() < time {
        while watch.seconds() > fed as f64 * every.as_secs_f64() {
            kept.push_back(world.feed_one());
            fed += 1;
        }
        while kept.len() > KEPT {
            world.take_away(kept.pop_front().expect("not empty"));
        }
        assert!(!running.dies_within(Duration::from_millis(990)), "it ended\n{}", world.log());
        seen.look(watch.seconds(), &running);
    }
    let done = world.done().len();
    let ledger = world.ledger_bytes() >> 10;
    running.ask_to_end();
    assert!(running.wait().success(), "{}", world.log());
    let what = if program == Program::Scripted { "soak, scripted engine" } else { "soak, the shipped binary with the demo network" };
    assert!(done + KEPT >= fed as usize, "{done} of {fed}");
    seen.tell(&format!("{what}, {fed} studies fed, {done} done"), ledger)
}
