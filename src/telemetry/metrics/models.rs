//! Metrics of the models that serve.

use super::register::{counter, gauges, zeroed};
use crate::telemetry::names;
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Registry};

/// What a model does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelRole {
    /// Its results go out.
    Production,
    /// It runs beside; its results never leave.
    Shadow,
}

impl ModelRole {
    /// As metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            ModelRole::Production => "production",
            ModelRole::Shadow => "shadow",
        }
    }
}

/// The models that serve, and how they changed.
pub struct ModelMetrics {
    info: IntGaugeVec,
    promotions: IntCounter,
    rollbacks: IntCounterVec,
}

impl ModelMetrics {
    pub(super) fn new(r: &Registry) -> Result<ModelMetrics, prometheus::Error> {
        Ok(ModelMetrics {
            info: gauges(r, &names::MODEL_INFO)?,
            promotions: counter(r, &names::MODEL_PROMOTIONS_TOTAL)?,
            rollbacks: zeroed(r, &names::MODEL_ROLLBACKS_TOTAL, ["person", "daemon"].into_iter())?,
        })
    }

    /// The models: role, and name, version, hexadecimal digest of each.
    pub fn serve<'a>(&self, models: impl Iterator<Item = (ModelRole, (&'a str, &'a str, &'a str))>) {
        self.info.reset();
        for (role, (name, version, digest)) in models {
            self.info.with_label_values(&[role.name(), name, version, digest.get(..12).unwrap_or(digest)]).set(1);
        }
    }

    /// A generation began to serve.
    pub fn promoted(&self) {
        self.promotions.inc();
    }

    /// A generation was taken out of service; `by_daemon`: not by a person.
    pub fn rolled_back(&self, by_daemon: bool) {
        self.rollbacks.with_label_values(&[if by_daemon { "daemon" } else { "person" }]).inc();
    }
}
