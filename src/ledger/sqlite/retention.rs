//! What may go, inside the writer's transaction.

use super::apply::{Desk, Note, check, wrong};
use crate::dicom::SeriesKey;
use crate::ledger::error::LedgerError;
use crate::ledger::names::{Event, State};
use crate::ledger::records::JobId;
use rusqlite::params;

impl Desk<'_> {
    /// A job's files are gone: its row goes, and its series is to be closed again.
    pub fn forget(&self, id: JobId) -> Result<(), LedgerError> {
        let job = self.job(id)?;
        if !job.progress.state.is_final() || self.open_deliveries(id)? > 0 {
            return Err(wrong(&job, "forgetting it"));
        }
        let series: i64 = self.one("SELECT series_id FROM jobs WHERE id = ?1", [id], |row| row.get(0))?;
        self.run("DELETE FROM jobs WHERE id = ?1", [id])?;
        self.doubt(series)?;
        self.run("DELETE FROM series WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE series_id = ?1)", [series])?;
        let state = job.progress.state.name();
        self.note(Note { job: Some(id), before: Some(state), ..Note::of(Event::Forgotten, "retention") }).map(|_| ())
    }

    /// A job's result is removed: its row goes, and its volume is remembered as one that was done. One that was superseded was not.
    pub fn expire(&self, id: JobId) -> Result<(), LedgerError> {
        let job = self.job(id)?;
        let state = job.progress.state;
        let unsettled: i64 =
            self.one("SELECT count(*) FROM outbox WHERE job_id = ?1 AND state NOT IN ('delivered', 'cancelled')", [id], |row| row.get(0))?;
        if !matches!(state, State::Done | State::Cancelled | State::Superseded) || unsettled > 0 {
            return Err(wrong(&job, "removing its result"));
        }
        if state != State::Superseded {
            self.run("INSERT INTO expired (series_id, input) SELECT series_id, input FROM jobs WHERE id = ?1", [id])?;
        }
        self.run("DELETE FROM jobs WHERE id = ?1", [id])?;
        self.note(Note { job: Some(id), before: Some(state.name()), ..Note::of(Event::Forgotten, "retention") }).map(|_| ())
    }

    /// Whether a volume of a series was done and its result removed.
    pub fn is_expired(&self, series: i64, input: &str) -> Result<bool, LedgerError> {
        Ok(self.maybe("SELECT 1 FROM expired WHERE series_id = ?1 AND input = ?2", params![series, input], |_| Ok(()))?.is_some())
    }

    /// Instances are gone.
    pub fn discard(&self, key: &SeriesKey, paths: &[String]) -> Result<(), LedgerError> {
        let series = self.series(key)?;
        for path in paths {
            self.run("DELETE FROM instances WHERE series_id = ?1 AND path = ?2", params![series, path])?;
        }
        for job in self.list("SELECT id FROM jobs WHERE series_id = ?1 ORDER BY id", [series], |row| row.get::<_, JobId>(0))? {
            self.note(Note { job: Some(job), ..Note::of(Event::Discarded, "retention") })?;
        }
        let done_before = self.maybe("SELECT 1 FROM expired WHERE series_id = ?1", [series], |_| Ok(()))?.is_some();
        if done_before { Ok(()) } else { self.forget_series(key) }
    }

    /// From now on these files of a series are leaving, and no others.
    pub fn leave(&self, key: &SeriesKey, files: &[String]) -> Result<(), LedgerError> {
        let series = self.series(key)?;
        self.run("DELETE FROM leaving WHERE series_id = ?1", [series])?;
        for file in files {
            check("file", file, 256)?;
            self.run("INSERT INTO leaving (series_id, file) VALUES (?1, ?2) ON CONFLICT DO NOTHING", params![series, file])?;
        }
        Ok(())
    }

    /// What is known of a series goes, unless it has jobs or instances.
    pub fn forget_series(&self, key: &SeriesKey) -> Result<(), LedgerError> {
        let nothing_left = "DELETE FROM series WHERE series_uid = ?2 AND study_uid = ?1 \
                            AND NOT EXISTS (SELECT 1 FROM jobs WHERE series_id = series.id) \
                            AND NOT EXISTS (SELECT 1 FROM instances WHERE series_id = series.id)";
        self.run(nothing_left, [&key.study, &key.series]).map(|_| ())
    }
}
