//! Whether there is clinical work: every study in the street is a visit.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the studies in work, and rings when the first comes or the last has gone.
#[derive(Clone)]
pub struct Clinic {
    visits: Arc<AtomicUsize>,
    ring: Sender<()>,
    rung: Receiver<()>,
}

/// A study in work; it ends when this is dropped.
pub struct Visit(Clinic);

impl Default for Clinic {
    fn default() -> Clinic {
        let (ring, rung) = bounded(1);
        Clinic { visits: Arc::default(), ring, rung }
    }
}

impl Clinic {
    /// A study begins.
    pub fn enter(&self) -> Visit {
        if self.visits.fetch_add(1, Ordering::AcqRel) == 0 {
            // Full: it has been rung, and nobody has looked yet.
            let _ = self.ring.try_send(());
        }
        Visit(self.clone())
    }

    /// Whether a study is in work.
    pub fn is_busy(&self) -> bool {
        self.visits.load(Ordering::Acquire) > 0
    }

    /// For `select!`: rings when that may have changed.
    pub fn rung(&self) -> &Receiver<()> {
        &self.rung
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.0.visits.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.0.ring.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_for_the_first_and_the_last() {
        let clinic = Clinic::default();
        let rung = || clinic.rung().try_recv().is_ok();
        assert!(!clinic.is_busy() && !rung());
        let first = clinic.enter();
        assert!(clinic.is_busy() && rung());
        let second = clinic.enter();
        drop(first);
        assert!(clinic.is_busy() && !rung());
        drop(second);
        assert!(!clinic.is_busy() && rung() && !rung());
    }
}
