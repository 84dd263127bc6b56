//! Room on the disks of ledger, spool and results: two watermarks, looked at again and again.
//!
//! Below the first, what is optional is not written. Below the second nothing is taken: folders are not looked at, no job is begun, senders
//! are told to come again. What was acknowledged and not delivered is never removed to make room. Work goes on by itself once space returns.

use crate::config::Config;
use crate::fault::{Code, Fault};
use crate::sys::clock::Clock;
use crate::sys::machine::Space;
use crate::telemetry::{Metrics, Place, Watermark};
use crossbeam::channel::{Receiver, Sender, bounded, select};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How soon those who wait for space ask again.
pub const AGAIN: Duration = Duration::from_secs(5);
/// The disks are looked at this often.
const LOOK: Duration = Duration::from_secs(2);

/// Tells what the file system of a path has.
pub type SpaceOf = Arc<dyn Fn(&Path) -> Result<Space, Fault> + Send + Sync>;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// For everything.
    Enough,
    /// For what has to be.
    Low,
    /// For nothing new.
    Full,
}

/// The disks that the daemon writes to. They are looked at on a thread of its own: a network file system that answers no more holds up nobody
/// else. It ends when the last handle is dropped.
pub struct Disks {
    eyes: Arc<Eyes>,
    _stop: Sender<Infallible>,
}

struct Eyes {
    places: Vec<(Place, PathBuf)>,
    low: u64,
    full: u64,
    space: SpaceOf,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    last: Mutex<(Room, Instant)>,
}

impl Disks {
    /// Those of a configuration; they have been looked at once when this returns.
    pub fn watch(config: &Config, space: SpaceOf, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Disks, Fault> {
        let mut places = vec![(Place::State, config.state.clone()), (Place::Output, config.output.path.clone())];
        if config.receives() {
            places.push((Place::Spool, config.spool.path.clone()));
        }
        let (low, full) = (config.spool.low_free.0, config.spool.min_free.0);
        metrics.watermark(Watermark::Low, low);
        metrics.watermark(Watermark::Full, full);
        let last = Mutex::new((Room::Enough, clock.monotonic()));
        let eyes = Arc::new(Eyes { places, low, full, space, clock, metrics, last });
        eyes.look();
        let (stop, stopped) = bounded(0);
        let looking = eyes.clone();
        std::thread::Builder::new()
            .name("disks".into())
            .spawn(move || looking.keep_looking(&stopped))
            .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for the disks: {e}")).caused_by(e))?;
        Ok(Disks { eyes, _stop: stop })
    }

    /// How much room there was a moment ago.
    pub fn room(&self) -> Room {
        self.eyes.last.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Whether anything new is taken.
    pub fn take(&self) -> bool {
        self.room() < Room::Full
    }
}

impl Eyes {
    fn keep_looking(&self, stopped: &Receiver<Infallible>) {
        loop {
            let timer = self.clock.after(LOOK);
            select! {
                recv(timer) -> _ => self.look(),
                recv(stopped) -> _ => return,
            }
        }
    }

    /// Looks, and tells log and metrics.
    fn look(&self) {
        let (mut room, mut least) = (Room::Enough, None);
        for (place, path) in &self.places {
            // A folder that is still to be made counts as what it will lie on.
            let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
            let free = match (self.space)(there) {
                Ok(Space { free, used }) => {
                    self.metrics.disk(*place, free, used);
                    free
                }
                // Whoever can not be asked has no room.
                Err(_) => 0,
            };
            let here = match free {
                free if free < self.full => Room::Full,
                free if free < self.low => Room::Low,
                _ => Room::Enough,
            };
            if here > room {
                (room, least) = (here, Some((*place, free)));
            }
        }
        self.note(room, least);
    }

    fn note(&self, room: Room, least: Option<(Place, u64)>) {
        let now = self.clock.monotonic();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, since) = std::mem::replace(&mut *last, (room, now));
        drop(last);
        let passed = now.saturating_duration_since(since);
        if before >= Room::Low {
            self.metrics.disk_low(Watermark::Low, passed);
        }
        if before == Room::Full {
            self.metrics.disk_low(Watermark::Full, passed);
        }
        if room == before {
            return;
        }
        let (disk, free) = least.map_or(("", 0), |(place, free)| (place.name(), free));
        match room {
            Room::Enough => tracing::info!("there is room on the disks again"),
            Room::Low => tracing::warn!(disk, free, "little space: pictures and NIfTI files are not written"),
            Room::Full => {
                self.metrics.fault(Code::DiskFull);
                tracing::error!(disk, free, code = %Code::DiskFull, "no space: nothing is taken until there is some. {}", Code::DiskFull.action());
            }
        }
    }
}
