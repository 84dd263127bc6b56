//! Metrics of audit messages.

use super::register::{counter, counters, gauge};
use crate::telemetry::names;
use crate::telemetry::{AuditFate, AuditKind};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

/// Audit messages.
pub struct AuditMetrics {
    events: IntCounterVec,
    sent: IntCounter,
    messages: IntGauge,
    bytes: IntGauge,
    limit: IntGauge,
    up: IntGauge,
}

impl AuditMetrics {
    pub(super) fn new(r: &Registry) -> Result<AuditMetrics, prometheus::Error> {
        let events = counters(r, &names::AUDIT_EVENTS_TOTAL)?;
        for (kind, fate) in AuditKind::ALL.iter().flat_map(|kind| AuditFate::ALL.iter().map(move |fate| (kind, fate))) {
            events.with_label_values(&[kind.name(), fate.name()]);
        }
        let metrics = AuditMetrics {
            events,
            sent: counter(r, &names::AUDIT_MESSAGES_SENT_TOTAL)?,
            messages: gauge(r, &names::AUDIT_SPOOLED_MESSAGES)?,
            bytes: gauge(r, &names::AUDIT_SPOOL_BYTES)?,
            limit: gauge(r, &names::AUDIT_SPOOL_LIMIT_BYTES)?,
            up: gauge(r, &names::AUDIT_REPOSITORY_UP)?,
        };
        metrics.up(true);
        Ok(metrics)
    }

    /// Something happened that is to be told.
    pub fn event(&self, kind: AuditKind, fate: AuditFate) {
        self.events.with_label_values(&[kind.name(), fate.name()]).inc();
    }

    /// The repository has read messages.
    pub fn sent(&self, messages: u64) {
        self.sent.inc_by(messages);
    }

    /// What waits for it.
    pub fn spooled(&self, messages: u64, bytes: u64) {
        self.messages.set(messages.try_into().unwrap_or(i64::MAX));
        self.bytes.set(bytes.try_into().unwrap_or(i64::MAX));
    }

    /// The most that may wait.
    pub fn limit(&self, bytes: u64) {
        self.limit.set(bytes.try_into().unwrap_or(i64::MAX));
    }

    /// Whether the repository was reached when it was last called.
    pub fn up(&self, up: bool) {
        self.up.set(i64::from(up));
    }
}
