//! Who does what since when: every thread that works has a seat, and anybody may look.

use super::work::JobId;
use crate::segment::Progress;
use crate::sys::clock::Clock;
use crate::sys::hang;
use crate::telemetry::Post;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a GiB.
const GIB: f64 = (1u64 << 30) as f64;

/// The seats of all threads.
#[derive(Clone)]
pub struct Board {
    seats: Arc<Mutex<Vec<Place>>>,
    clock: Arc<dyn Clock>,
}

/// What a thread is doing, if it is not at rest.
type Place = Arc<Mutex<Option<Beat>>>;

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Where.
    pub post: Post,
    /// For which job, if for one.
    pub job: Option<JobId>,
    /// Bytes that the job may hold.
    pub bytes: u64,
    /// Since when.
    pub since: Instant,
    /// When it last got ahead.
    pub moved: Instant,
    /// How far, where it can tell.
    pub progress: Option<Progress>,
}

impl Beat {
    /// Whether it has got no further for too long: `deadline`, and the same again for every GiB of the job.
    pub fn is_late(&self, now: Instant, deadline: Duration) -> bool {
        let stood = now.saturating_duration_since(self.moved).as_secs_f64();
        stood > deadline.as_secs_f64() * (1.0 + self.bytes as f64 / GIB)
    }
}

/// One thread's place on the board.
pub struct Seat {
    place: Place,
    clock: Arc<dyn Clock>,
}

impl Board {
    /// Without seats.
    pub fn new(clock: Arc<dyn Clock>) -> Board {
        Board { seats: Arc::default(), clock }
    }

    /// A new seat.
    pub fn seat(&self) -> Seat {
        let place = Arc::new(Mutex::new(None));
        lock(&self.seats).push(place.clone());
        Seat { place, clock: self.clock.clone() }
    }

    /// What is being done now, in the order of the street.
    pub fn beats(&self) -> Vec<Beat> {
        let mut beats: Vec<Beat> = lock(&self.seats).iter().filter_map(|seat| *lock(seat)).collect();
        beats.sort_by_key(|b| (b.post, b.job));
        beats
    }
}

impl Seat {
    /// Work begins, for a job that may hold this many bytes or for none.
    pub fn begin(&self, post: Post, job: Option<JobId>, bytes: u64) {
        let now = self.clock.monotonic();
        *lock(&self.place) = Some(Beat { post, job, bytes, since: now, moved: now, progress: None });
        hang::at(post.name());
    }

    /// It got ahead.
    pub fn progress(&self, progress: Progress) {
        if let Some(beat) = lock(&self.place).as_mut() {
            (beat.moved, beat.progress) = (self.clock.monotonic(), Some(progress));
        }
    }

    /// It got ahead; nobody knows how far it is.
    pub fn moved(&self) {
        if let Some(beat) = lock(&self.place).as_mut() {
            beat.moved = self.clock.monotonic();
        }
    }

    /// The thread waits for work, or for the next stage to take what it has.
    pub fn rest(&self) {
        *lock(&self.place) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
