//! What nobody waits for any more is removed, a little at a time.

use super::super::reconcile;
use super::Service;
use crate::fault::Fault;
use crate::ledger::{Change, Moment};
use crate::telemetry::log::keyed_hash;
use std::time::Duration;

/// Between two looks for what may go.
const PAUSE: Duration = Duration::from_secs(600);
/// Between two when there is more.
const SOON: Duration = Duration::from_secs(1);
/// Series that are removed at a time: the intake thread has other things to do.
const AT_A_TIME: u64 = 8;

impl Service {
    /// Removes what was received of studies that came to their end long enough ago, and old lines of the journal. When to look again.
    pub(super) fn remove_expired(&mut self) -> Duration {
        match self.expired() {
            Ok(more) => {
                if more {
                    SOON
                } else {
                    PAUSE
                }
            }
            Err(fault) => {
                self.metrics.fault(fault.code);
                tracing::warn!(code = %fault.code, "what is to be removed stays for now: {}", fault.detail);
                PAUSE
            }
        }
    }

    fn expired(&self) -> Result<bool, Fault> {
        let retention = &self.config.retention;
        let ledger = self.jobs.ledger();
        // What is kept for ever came to its end before any time.
        let before = |keep: Option<Duration>| {
            let ms = keep.map_or(i64::MAX, |keep| i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
            Moment(ledger.now().0.saturating_sub(ms))
        };
        if let Some(keep) = retention.journal.0 {
            let before = before(Some(keep));
            ledger.commit(vec![Change::ForgetJournal { before }, Change::ForgetRefused { before }])?;
        }
        if retention.parked.0.is_some() {
            reconcile::remove_damaged(&self.config.output.path, before(retention.parked.0))?;
        }
        if let Some(reception) = self.reception.as_ref().filter(|_| retention.parked.0.is_some()) {
            reception.remove_refused(before(retention.parked.0))?;
        }
        let (Some(reception), Some(_)) = (&self.reception, retention.received.0) else { return Ok(false) };
        let settled = ledger.settled(before(retention.received.0), before(retention.parked.0), AT_A_TIME)?;
        let mut removed = 0;
        for series in &settled {
            if reception.discard(series)? {
                removed += 1;
                self.metrics.series_discarded();
                tracing::info!(series = keyed_hash(&series.series), "what was received of it is removed: its time is over");
            }
        }
        Ok(removed == AT_A_TIME)
    }
}
