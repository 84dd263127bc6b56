//! One signal for the end of the process, usable from a blocking thread and from async code.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Work goes on.
    Running,
    /// Nothing new is begun; work in flight is finished.
    Draining,
    /// Work in flight is given up too.
    Abandoning,
}

/// A handle to the one signal; clones share it. A phase is only ever left for a later one.
#[derive(Clone, Debug)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

/// A receiver that never yields a value; it disconnects when its phase begins, which `select!` reports as ready.
pub type Signal = Receiver<Infallible>;

#[derive(Debug)]
struct Inner {
    phase: tokio::sync::watch::Sender<Phase>,
    drain: Edge,
    abandon: Edge,
}

#[derive(Debug)]
struct Edge {
    held: Mutex<Option<Sender<Infallible>>>,
    signal: Signal,
}

impl Edge {
    fn new() -> Edge {
        let (held, signal) = bounded(0);
        Edge { held: Mutex::new(Some(held)), signal }
    }

    fn fire(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        let phase = tokio::sync::watch::Sender::new(Phase::Running);
        Shutdown { inner: Arc::new(Inner { phase, drain: Edge::new(), abandon: Edge::new() }) }
    }
}

impl Shutdown {
    /// Begin nothing new; finish what is in flight.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
        self.inner.drain.fire();
    }

    /// Give up what is in flight as well.
    pub fn abandon(&self) {
        self.drain();
        self.advance(Phase::Abandoning);
        self.inner.abandon.fire();
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        *self.inner.phase.borrow()
    }

    /// Whether nothing new is to be begun.
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Whether work in flight is to be given up.
    pub fn is_abandoning(&self) -> bool {
        self.phase() >= Phase::Abandoning
    }

    /// For `select!`: ready once draining has begun.
    pub fn draining(&self) -> &Signal {
        &self.inner.drain.signal
    }

    /// For `select!`: ready once abandoning has begun.
    pub fn abandoning(&self) -> &Signal {
        &self.inner.abandon.signal
    }

    /// For async code: returns once the phase has come.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives as long as `self`.
        let _ = self.inner.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, to: Phase) {
        self.inner.phase.send_if_modified(|now| {
            let later = to > *now;
            *now = to.max(*now);
            later
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::TryRecvError;

    #[test]
    fn both_worlds_see_each_phase_once_and_for_good() {
        let shutdown = Shutdown::default();
        let other = shutdown.clone();
        assert_eq!((other.phase(), other.draining().try_recv()), (Phase::Running, Err(TryRecvError::Empty)));
        shutdown.drain();
        assert_eq!(other.draining().try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(other.abandoning().try_recv(), Err(TryRecvError::Empty));
        assert!(other.is_draining() && !other.is_abandoning());
        shutdown.abandon();
        shutdown.drain();
        assert_eq!((other.phase(), other.abandoning().try_recv()), (Phase::Abandoning, Err(TryRecvError::Disconnected)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        runtime.block_on(other.reached(Phase::Draining));
    }
}
