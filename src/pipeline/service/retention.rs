//! What nobody waits for any more is removed, a little at a time.

use super::super::purge::take_away;
use super::super::reconcile;
use super::Service;
use crate::fault::Fault;
use crate::ledger::{Change, Moment, Which};
use crate::telemetry::log::keyed_hash;
use std::time::Duration;

/// Between two looks for what may go.
const PAUSE: Duration = Duration::from_secs(600);
/// Between two when there is more.
const SOON: Duration = Duration::from_secs(1);
/// Series that are removed at a time: the intake thread has other things to do.
const AT_A_TIME: u64 = 8;

impl Service {
    /// Removes what was received of studies, and results, that came to their end long enough ago, and old lines of the journal. When to look
    /// again.
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
            self.forget_idle(before)?;
        }
        if retention.parked.0.is_some() {
            reconcile::remove_damaged(&self.config.output.path, before(retention.parked.0))?;
            if let Some(reception) = &self.reception {
                reception.remove_refused(before(retention.parked.0))?;
            }
        }
        let more_results = retention.results.0.is_some() && self.remove_results(before(retention.results.0))?;
        let (Some(reception), Some(_)) = (&self.reception, retention.received.0) else { return Ok(more_results) };
        let settled = ledger.settled(before(retention.received.0), before(retention.parked.0), AT_A_TIME)?;
        let mut removed = 0;
        for series in &settled {
            if reception.discard(series)? {
                removed += 1;
                self.metrics.series_discarded();
                tracing::info!(series = keyed_hash(&series.series), "what was received of it is removed: its time is over");
            }
        }
        Ok(more_results || removed == AT_A_TIME)
    }

    /// Removes results that were published and delivered before then, with their rows; whether there may be more.
    fn remove_results(&self, before: Moment) -> Result<bool, Fault> {
        let ledger = self.jobs.ledger();
        let over = ledger.expired(before, AT_A_TIME)?;
        for job in &over {
            let folder = job.result.as_ref().map(|result| &result.folder);
            let of_series = ledger.jobs(&Which { uid: Some(job.series.series.clone()), ..Which::default() })?;
            // One result may be that of several jobs: the same pixels came twice.
            let shared = |folder: &&String| {
                of_series.iter().any(|other| other.id != job.id && other.result.as_ref().is_some_and(|r| r.folder == **folder))
            };
            let gone = folder.filter(|folder| !shared(folder)).map(|folder| take_away(&self.config.output.path, folder)).transpose()?;
            ledger.commit(vec![Change::Expire { job: job.id }])?;
            drop(gone);
            tracing::info!(job = %job.id, series = keyed_hash(&job.series.series), "its result is removed: its time is over");
        }
        Ok(over.len() as u64 == AT_A_TIME)
    }

    /// Forgets series of which there is neither a job nor a file any more.
    fn forget_idle(&self, before: Moment) -> Result<(), Fault> {
        const PAGE: u64 = 1000;
        // Files that could not be looked for may be there.
        if self.looked.is_none() || !self.unreadable.is_empty() {
            return Ok(());
        }
        let ledger = self.jobs.ledger();
        let (mut there, mut kept) = (None, 0);
        loop {
            let page = ledger.idle(before, kept, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            let there = there.get_or_insert_with(|| self.tree.series());
            let full = page.len() as u64 == PAGE;
            let (stay, go): (Vec<_>, Vec<_>) = page.into_iter().partition(|key| there.contains_key(key));
            kept += stay.len() as u64;
            if !go.is_empty() {
                ledger.commit(go.into_iter().map(|series| Change::ForgetSeries { series }).collect())?;
            }
            if !full {
                return Ok(());
            }
        }
    }
}
