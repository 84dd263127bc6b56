//! What the network knows of series on their way: which deliveries are open, and for which series the last one has ended
//! in good order. That is evidence for settling, never proof: a modality may open one association for every image.

use super::account::Account;
use crate::dicom::{Identity, SeriesKey};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open and ended deliveries.
pub struct Arrivals {
    state: Mutex<State>,
    bell: Sender<()>,
    rung: Receiver<()>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// The series that each open delivery has brought something of.
    open: BTreeMap<u64, BTreeSet<SeriesKey>>,
    delivered: BTreeSet<SeriesKey>,
}

/// One association, or one request, that brings instances. Dropped without [`Delivery::complete`], it broke off.
pub struct Delivery {
    arrivals: Arc<Arrivals>,
    number: u64,
    complete: bool,
    account: Account,
}

impl Arrivals {
    /// Nothing yet.
    pub fn new() -> Arc<Arrivals> {
        let (bell, rung) = bounded(1);
        Arc::new(Arrivals { state: Mutex::default(), bell, rung })
    }

    /// A delivery begins; what it brings is entered into this account.
    pub fn open(self: &Arc<Arrivals>, account: Account) -> Delivery {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.open.insert(number, BTreeSet::new());
        drop(state);
        Delivery { arrivals: self.clone(), number, complete: false, account }
    }

    /// For `select!`: ready when something came since the last [`Arrivals::take`].
    pub fn rung(&self) -> &Receiver<()> {
        &self.rung
    }

    /// The series whose last delivery was completed since the last call, while no other one that brings them is open.
    pub fn take(&self) -> BTreeSet<SeriesKey> {
        let _ = self.rung.try_recv();
        std::mem::take(&mut self.lock().delivered)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    /// An instance is on disk, in this file.
    pub fn stored(&self, identity: &Identity, file: &Path) {
        self.account.add(identity, file);
        self.brought(SeriesKey { study: identity.study_uid.to_string(), series: identity.series_uid.to_string() });
    }

    fn brought(&self, series: SeriesKey) {
        let mut state = self.arrivals.lock();
        state.delivered.remove(&series);
        if let Some(brought) = state.open.get_mut(&self.number) {
            brought.insert(series);
        }
    }

    /// The sender says that it is done.
    pub fn complete(mut self) {
        self.complete = true;
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut state = self.arrivals.lock();
        let brought = state.open.remove(&self.number).unwrap_or_default();
        if self.complete {
            let ended: Vec<SeriesKey> = brought.into_iter().filter(|key| !state.open.values().any(|open| open.contains(key))).collect();
            state.delivered.extend(ended);
        }
        drop(state);
        // Full: it is ringing already.
        let _ = self.arrivals.bell.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(series: &str) -> SeriesKey {
        SeriesKey { study: "1".into(), series: series.into() }
    }

    fn nobody() -> Account {
        Account::new(crate::audit::Audit::none(), crate::audit::Node::default())
    }

    #[test]
    fn a_series_is_delivered_when_its_last_delivery_ends_in_good_order() {
        let arrivals = Arrivals::new();
        let (a, b, c) = (arrivals.open(nobody()), arrivals.open(nobody()), arrivals.open(nobody()));
        a.brought(key("1"));
        a.brought(key("2"));
        b.brought(key("2"));
        c.brought(key("3"));
        a.complete();
        assert!(arrivals.rung().try_recv().is_ok());
        assert_eq!(arrivals.take(), BTreeSet::from([key("1")]));
        b.complete();
        drop(c);
        assert_eq!(arrivals.take(), BTreeSet::from([key("2")]));
        assert!(arrivals.rung().try_recv().is_err(), "taken");
        // More of it comes before anybody asked.
        let d = arrivals.open(nobody());
        d.brought(key("1"));
        d.complete();
        let e = arrivals.open(nobody());
        e.brought(key("1"));
        assert_eq!(arrivals.take(), BTreeSet::new());
    }
}
