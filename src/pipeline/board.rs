//! Who does what since when: every thread of the street has a seat, and anybody may look.

use super::work::JobId;
use crate::segment::Progress;
use crate::sys::clock::Clock;
use crate::telemetry::Stage;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// The stage.
    pub stage: Stage,
    /// For which job.
    pub job: JobId,
    /// Since when.
    pub since: Instant,
    /// When it last got ahead.
    pub moved: Instant,
    /// How far, where the stage can tell.
    pub progress: Option<Progress>,
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
        beats.sort_by_key(|b| (b.stage, b.job));
        beats
    }
}

impl Seat {
    /// A stage begins with a job.
    pub fn begin(&self, stage: Stage, job: JobId) {
        let now = self.clock.monotonic();
        *lock(&self.place) = Some(Beat { stage, job, since: now, moved: now, progress: None });
    }

    /// The stage got ahead.
    pub fn progress(&self, progress: Progress) {
        if let Some(beat) = lock(&self.place).as_mut() {
            (beat.moved, beat.progress) = (self.clock.monotonic(), Some(progress));
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
