//! A long run without a kill: memory and descriptors stay where they are.

use crate::daemon::{Program, Running};
use crate::world::World;
use std::collections::VecDeque;
use std::time::Duration;
use stunetd::sys::clock::Stopwatch;

/// Not counted: caches fill.
const WARM_UP: f64 = 5.0 * 60.0;
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

    fn tell(&self, what: &str) {
        let minutes = self.minutes();
        let descriptors = |range: std::ops::Range<usize>| self.samples[range].iter().map(|s| s.2).max().unwrap_or(0);
        let half = self.samples.len() / 2;
        let most = self.samples.iter().map(|s| s.1).fold(0.0, f64::max);
        print!("{what}: at most {most:.0} MiB, descriptors {} then {}", descriptors(0..half), descriptors(half..self.samples.len()));
        match slope(&minutes) {
            Some((slope, error)) => println!(
                ", {:+.2} MiB/h (95 % between {:+.2} and {:+.2}) over {} minutes",
                slope * 60.0,
                (slope - 2.0 * error) * 60.0,
                (slope + 2.0 * error) * 60.0,
                minutes.len()
            ),
            None => println!(", too short for a slope"),
        }
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

/// Feeds studies for some minutes after the warm-up, `every` so often, and takes old ones out of the watched folder.
pub fn soak(program: Program, minutes: u64, every: Duration) {
    let mut world = World::new(program);
    let mut running = world.start(None);
    let mut seen = Seen::default();
    let (watch, mut fed, mut kept) = (Stopwatch::start(), 0u32, VecDeque::new());
    while watch.seconds() < WARM_UP + minutes as f64 * 60.0 {
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
    running.ask_to_end();
    assert!(running.wait().success(), "{}", world.log());
    let what = if program == Program::Scripted { "scripted engine" } else { "the shipped binary with the demo network" };
    seen.tell(&format!("soak, {what}, {fed} studies fed, {done} done"));
    assert!(done + KEPT >= fed as usize, "{done} of {fed}");
}
