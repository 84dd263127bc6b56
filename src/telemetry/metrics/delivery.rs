//! Metrics of what goes to destinations; labels are names of the configuration.

use super::register::{counters, gauges, numbers};
use crate::telemetry::names;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};
use std::time::Duration;

/// How an attempt to deliver something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The destination took it.
    Delivered,
    /// It was there already.
    AlreadyThere,
    /// The destination was not reached.
    Unreachable,
    /// It failed for now.
    Postponed,
    /// The destination said no, and is asked again.
    Refused,
    /// It is given up until a person says otherwise.
    Parked,
}

impl Attempt {
    const ALL: [(Attempt, &'static str); 6] = [
        (Attempt::Delivered, "delivered"),
        (Attempt::AlreadyThere, "already_there"),
        (Attempt::Unreachable, "unreachable"),
        (Attempt::Postponed, "postponed"),
        (Attempt::Refused, "refused"),
        (Attempt::Parked, "parked"),
    ];

    fn name(self) -> &'static str {
        Attempt::ALL.iter().find(|(attempt, _)| *attempt == self).map_or("", |(_, name)| name)
    }
}

/// What goes to destinations.
pub struct DeliveryMetrics {
    attempts: IntCounterVec,
    verified: IntCounterVec,
    objects: IntGaugeVec,
    oldest_age: GaugeVec,
    up: IntGaugeVec,
}

impl DeliveryMetrics {
    pub(super) fn new(r: &Registry) -> Result<DeliveryMetrics, prometheus::Error> {
        Ok(DeliveryMetrics {
            attempts: counters(r, &names::DELIVERY_ATTEMPTS_TOTAL)?,
            verified: counters(r, &names::DELIVERY_VERIFIED_TOTAL)?,
            objects: gauges(r, &names::OUTBOX_OBJECTS)?,
            oldest_age: numbers(r, &names::OUTBOX_OLDEST_AGE_SECONDS)?,
            up: gauges(r, &names::DESTINATION_UP)?,
        })
    }

    /// There is a destination of this configured name; `methods` are the ways to know that it has something.
    pub fn destination(&self, name: &str, methods: &[&str]) {
        for (_, result) in Attempt::ALL {
            self.attempts.with_label_values(&[name, result]);
        }
        methods.iter().for_each(|method| drop(self.verified.with_label_values(&[name, *method])));
        self.outbox(name, 0, 0, Duration::ZERO);
        self.is_up(name, true);
    }

    /// An attempt to deliver something ended.
    pub fn attempt(&self, destination: &str, how: Attempt) {
        self.attempts.with_label_values(&[destination, how.name()]).inc();
    }

    /// A destination is known to have something.
    pub fn verified(&self, destination: &str, method: &str) {
        self.verified.with_label_values(&[destination, method]).inc();
    }

    /// What a destination is still to get, and what it refuses.
    pub fn outbox(&self, destination: &str, open: u64, parked: u64, oldest: Duration) {
        for (state, count) in [("waiting", open), ("parked", parked)] {
            self.objects.with_label_values(&[destination, state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.oldest_age.with_label_values(&[destination]).set(oldest.as_secs_f64());
    }

    /// Whether a destination works.
    pub fn is_up(&self, destination: &str, up: bool) {
        self.up.with_label_values(&[destination]).set(i64::from(up));
    }
}
