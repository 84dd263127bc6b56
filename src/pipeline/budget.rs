//! Host memory for studies in work, counted in bytes. A permit rides in the work and is given back when it is dropped, on
//! every path.
//!
//! Only the dispatcher waits for bytes, and it holds nothing else while it waits: whoever holds a permit never waits for
//! another, so permits always come back.

use crate::sys::shutdown::Signal;
use crate::telemetry::Metrics;
use crossbeam::channel::{Receiver, Sender, bounded, select};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A number of bytes to be shared out.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    limit: u64,
    used: Mutex<u64>,
    bell: Sender<()>,
    rung: Receiver<()>,
    metrics: Arc<Metrics>,
}

/// Some of a budget's bytes, until dropped.
pub struct Permit {
    inner: Arc<Inner>,
    bytes: u64,
}

/// Why there is no permit.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// More than the whole budget.
    TooLarge {
        /// Bytes asked for.
        need: u64,
        /// Bytes there are in all.
        limit: u64,
    },
    /// The signal came first.
    Stopped,
}

impl Budget {
    /// A budget of `limit` bytes, told to the metrics.
    pub fn new(limit: u64, metrics: Arc<Metrics>) -> Budget {
        let (bell, rung) = bounded(1);
        metrics.host_bytes(0, limit);
        Budget { inner: Arc::new(Inner { limit, used: Mutex::new(0), bell, rung, metrics }) }
    }

    /// Waits until `bytes` are free, or `stop` comes. For one waiting thread.
    pub fn acquire(&self, bytes: u64, stop: &Signal) -> Result<Permit, Denied> {
        let inner = &self.inner;
        if bytes > inner.limit {
            return Err(Denied::TooLarge { need: bytes, limit: inner.limit });
        }
        loop {
            if inner.try_add(bytes) {
                return Ok(Permit { inner: inner.clone(), bytes });
            }
            select! {
                recv(inner.rung) -> _ => {}
                recv(stop) -> _ => return Err(Denied::Stopped),
            }
        }
    }

    /// Bytes that permits hold.
    pub fn used(&self) -> u64 {
        *self.inner.lock()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_add(&self, bytes: u64) -> bool {
        let mut used = self.lock();
        let fits = bytes <= self.limit - *used;
        if fits {
            *used += bytes;
            self.metrics.host_bytes(*used, self.limit);
        }
        fits
    }

    fn give_back(&self, bytes: u64) {
        let mut used = self.lock();
        *used -= bytes;
        self.metrics.host_bytes(*used, self.limit);
        drop(used);
        // Full: the waiter will look anyway.
        let _ = self.bell.try_send(());
    }
}

impl Permit {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.inner.give_back(surplus);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::shutdown::Shutdown;
    use proptest::prelude::*;

    fn budget(limit: u64) -> Budget {
        Budget::new(limit, Arc::new(Metrics::new().expect("metrics")))
    }

    proptest! {
        #[test]
        fn permits_never_exceed_the_limit_and_all_come_back(asks in prop::collection::vec((1u64..150, 0u64..150, any::<bool>()), 1..50)) {
            let (budget, shutdown) = (budget(100), Shutdown::default());
            // Nobody else gives back here, so what does not fit is to be stopped at once.
            shutdown.drain();
            let mut held: Vec<Permit> = Vec::new();
            for (bytes, keep, drop_one) in asks {
                let used: u64 = held.iter().map(Permit::bytes).sum();
                match budget.acquire(bytes, shutdown.draining()) {
                    Ok(mut permit) => {
                        prop_assert!(used + bytes <= 100);
                        permit.shrink(keep);
                        prop_assert_eq!(permit.bytes(), keep.min(bytes));
                        held.push(permit);
                    }
                    Err(Denied::TooLarge { need, limit }) => prop_assert!(need == bytes && limit == 100 && bytes > 100),
                    Err(Denied::Stopped) => prop_assert!(used + bytes > 100),
                }
                if drop_one {
                    held.pop();
                }
                prop_assert_eq!(budget.used(), held.iter().map(Permit::bytes).sum::<u64>());
            }
            drop(held);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn a_waiter_goes_on_when_bytes_come_back() {
        let (budget, shutdown) = (budget(10), Shutdown::default());
        let first = budget.acquire(8, shutdown.draining()).expect("free");
        let waiter = {
            let (budget, shutdown) = (budget.clone(), shutdown.clone());
            std::thread::spawn(move || budget.acquire(5, shutdown.draining()).map(|p| p.bytes()))
        };
        drop(first);
        assert_eq!(waiter.join().expect("no panic"), Ok(5));
        assert_eq!(budget.used(), 0);
    }
}
