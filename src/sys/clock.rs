//! Time, behind a trait: the only place that reads the clock.
//!
//! Durations come from the monotonic clock; the wall clock only dates results. Waiting goes through
//! [`Clock::after`], so that a test drives every timer of the daemon by hand.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// Tells time and wakes who waits for it.
pub trait Clock: Send + Sync {
    /// Now on a clock that never jumps.
    fn monotonic(&self) -> Instant;

    /// Now as people write it (UTC).
    fn wall(&self) -> SystemTime;

    /// A channel that yields one message once `delay` has passed; to be used in `select!` beside what else may happen.
    fn after(&self, delay: Duration) -> Receiver<Instant>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn after(&self, delay: Duration) -> Receiver<Instant> {
        crossbeam::channel::after(delay)
    }
}

/// What the kernel knows of its own clock: somebody (chrony, systemd-timesyncd) tells it, or nobody does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Somebody keeps it right.
    pub synchronized: bool,
    /// Seconds that it may be off: what is still to be corrected, and the estimated error of that. Says nothing without synchronisation.
    pub off: f64,
}

/// A clock that is farther off is told of, in seconds: dates of results and audit messages are compared with those of other machines.
pub const FAR_OFF: f64 = 1.0;

impl Accuracy {
    /// Asks the kernel (adjtimex(2), which changes nothing when nothing is set).
    pub fn of_the_machine() -> std::io::Result<Accuracy> {
        // SAFETY: a struct of numbers, for which all zeros is a value; `modes` 0 only reads.
        let mut clock: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the struct is ours, of the right type, and lives for the call.
        let state = unsafe { libc::adjtimex(&raw mut clock) };
        if state < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Accuracy::from_kernel(state, clock.status, clock.offset, clock.esterror))
    }

    /// `offset` in ns or µs, as the status says; `error` in µs.
    fn from_kernel(state: i32, status: i32, offset: i64, error: i64) -> Accuracy {
        let unit = if status & libc::STA_NANO != 0 { 1e-9 } else { 1e-6 };
        let synchronized = state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0;
        Accuracy { synchronized, off: offset.unsigned_abs() as f64 * unit + error.max(0) as f64 * 1e-6 }
    }

    /// Whether it is right to [`FAR_OFF`], as far as is known.
    pub fn is_good(self) -> bool {
        self.synchronized && self.off <= FAR_OFF
    }
}

/// Measures how long something takes.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Stopwatch {
        Stopwatch(SystemClock.monotonic())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        SystemClock.monotonic().saturating_duration_since(self.0)
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}

/// A clock that stands still until a test moves it.
pub struct SimulatedClock {
    start: Instant,
    state: Mutex<Simulated>,
}

struct Simulated {
    passed: Duration,
    wall: SystemTime,
    waiting: Vec<(Duration, Sender<Instant>)>,
}

impl SimulatedClock {
    /// A clock that stands at `wall`.
    pub fn new(wall: SystemTime) -> SimulatedClock {
        let state = Simulated { passed: Duration::ZERO, wall, waiting: Vec::new() };
        SimulatedClock { start: SystemClock.monotonic(), state: Mutex::new(state) }
    }

    /// Lets time pass and wakes everybody whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.passed += by;
        state.wall += by;
        let (passed, now) = (state.passed, self.start + state.passed);
        state.waiting.retain(|(due, wake)| {
            let pending = *due > passed;
            if !pending {
                // Who no longer waits has dropped the other end.
                let _ = wake.try_send(now);
            }
            pending
        });
    }

    /// Sets the wall clock alone, as an operator or NTP does.
    pub fn set_wall(&self, wall: SystemTime) {
        self.lock().wall = wall;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Simulated> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Instant {
        self.start + self.lock().passed
    }

    fn wall(&self) -> SystemTime {
        self.lock().wall
    }

    fn after(&self, delay: Duration) -> Receiver<Instant> {
        let (wake, woken) = bounded(1);
        let mut state = self.lock();
        let due = state.passed + delay;
        if delay.is_zero() {
            let _ = wake.try_send(self.start + state.passed);
        } else {
            state.waiting.push((due, wake));
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let of = |state, status, offset, error| Accuracy::from_kernel(state, status, offset, error);
        let good = of(0, libc::STA_PLL | libc::STA_NANO, -1_500_000, 500);
        assert!(good.is_good() && (good.off - 0.002).abs() < 1e-12, "{good:?}");
        assert!((of(0, libc::STA_PLL, -1_500_000, 0).off - 1.5).abs() < 1e-12);
        assert!(!of(0, libc::STA_PLL, 1_500_000, 0).is_good());
        assert!(!of(0, 0, 0, 2_000_000).is_good());
        assert!(!of(libc::TIME_ERROR, 0, 0, 0).is_good());
        assert!(!of(0, libc::STA_UNSYNC, 0, 0).is_good());
        assert!(Accuracy::of_the_machine().is_ok());
    }

    #[test]
    fn simulated_time_passes_only_by_hand() {
        let clock = SimulatedClock::new(SystemTime::UNIX_EPOCH);
        let (start, soon, later) = (clock.monotonic(), clock.after(Duration::from_secs(5)), clock.after(Duration::from_secs(9)));
        assert!(clock.after(Duration::ZERO).try_recv().is_ok());
        assert!(soon.try_recv().is_err());
        clock.advance(Duration::from_secs(6));
        assert!(soon.try_recv().is_ok() && later.try_recv().is_err());
        assert_eq!(clock.monotonic() - start, Duration::from_secs(6));
        clock.set_wall(SystemTime::UNIX_EPOCH);
        clock.advance(Duration::from_secs(3));
        assert!(later.try_recv().is_ok());
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    }
}
