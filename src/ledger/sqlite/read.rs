//! Looking things up, on a connection of its own that can not write.

use super::open::{Time, check};
use super::rows::{self, Count, sql};
use super::{schema, training};
use crate::dicom::SeriesKey;
use crate::ledger::contract::{Reader, Which};
use crate::ledger::error::LedgerError;
use crate::ledger::names::State;
use crate::ledger::records::{
    Delivery, Entry, Job, JobId, Moment, Object, Outbox, Problem, Received, RefusedFile, Seq, SeriesRecord, Transition,
};
use crate::ledger::training::{Active, AuditEntry, CaseRow, Patient, RunRow};
use crate::sys::clock::Clock;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Params, Row, ToSql, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Reads a ledger, whether or not a daemon is writing it.
pub struct SqliteReader {
    connection: Mutex<Connection>,
    path: PathBuf,
    time: Time,
}

impl SqliteReader {
    /// Opens the ledger in a state folder for reading; none when there is none.
    pub fn open(state: &Path, clock: Arc<dyn Clock>) -> Result<Option<SqliteReader>, LedgerError> {
        let path = state.join(super::FILE);
        if !path.exists() {
            return Ok(None);
        }
        let reader = SqliteReader::connect(&path, Time::start(clock))?;
        let version: i64 = reader.one("PRAGMA user_version", [], |row| row.get(0))?;
        let known = schema::STEPS.len() as i64;
        match version {
            _ if version > known => Err(LedgerError::TooNew { path, found: version, known }),
            // Begun this moment, or older: the next opening for writing brings it up to date.
            _ if version < known => Ok(None),
            _ => Ok(Some(reader)),
        }
    }

    pub(super) fn connect(path: &Path, time: Time) -> Result<SqliteReader, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(sql(path))?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(sql(path))?;
        Ok(SqliteReader { connection: Mutex::new(connection), path: path.into(), time })
    }

    /// Fails when the file is not sound: reads all of it.
    pub fn check(&self) -> Result<(), LedgerError> {
        check(&self.lock(), &self.path)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one<T>(&self, query: &str, p: impl Params, read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        self.lock().query_row(query, p, read).map_err(sql(&self.path))
    }

    fn list<T>(&self, query: &str, p: impl Params, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, LedgerError> {
        let connection = self.lock();
        let rows = connection.prepare_cached(query).and_then(|mut s| s.query_map(p, read)?.collect());
        rows.map_err(sql(&self.path))
    }
}

impl Reader for SqliteReader {
    fn now(&self) -> Moment {
        self.time.date()
    }

    fn instance(&self) -> Result<String, LedgerError> {
        self.one("SELECT value FROM facts WHERE name = 'instance'", [], |row| row.get(0))
    }

    fn job(&self, id: JobId) -> Result<Option<Job>, LedgerError> {
        let found = self.lock().query_row(&format!("{} WHERE j.id = ?1", rows::JOB), [id], rows::job).optional();
        found.map_err(sql(&self.path))
    }

    fn jobs(&self, which: &Which) -> Result<Vec<Job>, LedgerError> {
        let mut query = format!("{} WHERE j.id > ?1", rows::JOB);
        let (after, limit) = (which.after.unwrap_or(JobId(0)), which.limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)));
        let mut values: Vec<&dyn ToSql> = vec![&after, &limit];
        if !which.states.is_empty() {
            // The names are our own words.
            let names: Vec<String> = which.states.iter().map(|s| format!("'{s}'")).collect();
            let undelivered =
                "OR EXISTS (SELECT 1 FROM outbox o WHERE o.job_id = j.id AND o.state IN ('pending', 'sending', 'waiting', 'parked'))";
            query += &format!(" AND (j.state IN ({}) {})", names.join(", "), if which.undelivered { undelivered } else { "" });
        }
        if let Some(uid) = &which.uid {
            query += " AND (s.series_uid = ?3 OR s.study_uid = ?3)";
            values.push(uid);
        }
        self.list(&(query + " ORDER BY j.id LIMIT ?2"), &values[..], rows::job)
    }

    fn counts(&self) -> Result<Vec<(State, u64)>, LedgerError> {
        let found: Vec<(State, u64)> =
            self.list("SELECT state, count(*) FROM jobs GROUP BY state", [], |row| Ok((row.get(0)?, row.get::<_, Count>(1)?.0)))?;
        let count = |state: State| found.iter().find(|(s, _)| *s == state).map_or(0, |(_, n)| *n);
        Ok(State::ALL.iter().map(|s| (*s, count(*s))).collect())
    }

    fn next_due(&self) -> Result<Option<Duration>, LedgerError> {
        let at: Option<Moment> = self.one("SELECT min(not_before) FROM jobs WHERE state = 'waiting'", [], |row| row.get(0))?;
        Ok(at.map(|at| at.since(self.time.now())))
    }

    fn oldest(&self) -> Result<Vec<(State, Duration)>, LedgerError> {
        let query =
            "SELECT state, min(created) FROM jobs WHERE state IN ('queued', 'running', 'waiting', 'parked') GROUP BY state ORDER BY state";
        let found: Vec<(State, Moment)> = self.list(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(found.into_iter().map(|(state, created)| (state, self.now().since(created))).collect())
    }

    fn objects(&self, job: JobId) -> Result<Vec<Object>, LedgerError> {
        self.list("SELECT file, bytes, sha256 FROM objects WHERE job_id = ?1 ORDER BY file", [job], |row| {
            Ok(Object { file: row.get(0)?, bytes: row.get::<_, Count>(1)?.0, sha256: row.get(2)? })
        })
    }

    fn deliveries(&self, job: JobId) -> Result<Vec<Delivery>, LedgerError> {
        self.list(&format!("{} WHERE job_id = ?1 ORDER BY id", rows::DELIVERY), [job], rows::delivery)
    }

    fn transaction(&self, uid: &str) -> Result<Option<Delivery>, LedgerError> {
        Ok(self.list(&format!("{} WHERE transaction_uid = ?1 ORDER BY id LIMIT 1", rows::DELIVERY), [uid], rows::delivery)?.pop())
    }

    fn outbox(&self) -> Result<Vec<Outbox>, LedgerError> {
        let query = "SELECT destination, count(*) FILTER (WHERE state <> 'parked'), count(*) FILTER (WHERE state = 'parked'), \
                     min(created) FILTER (WHERE state <> 'parked'), min(coalesce(not_before, 0)) FILTER (WHERE state IN ('pending', 'waiting')) \
                     FROM outbox WHERE state IN ('pending', 'sending', 'waiting', 'parked') GROUP BY destination ORDER BY destination";
        let (date, now) = (self.now(), self.time.now());
        self.list(query, [], |row| {
            let (created, due): (Option<Moment>, Option<Moment>) = (row.get(3)?, row.get(4)?);
            Ok(Outbox {
                destination: row.get(0)?,
                open: row.get::<_, Count>(1)?.0,
                parked: row.get::<_, Count>(2)?.0,
                oldest: created.map_or(Duration::ZERO, |at| date.since(at)),
                due: due.map(|at| at.since(now)),
            })
        })
    }

    fn journal(&self, job: Option<JobId>) -> Result<Vec<Entry>, LedgerError> {
        self.list(&format!("{} WHERE job_id IS ?1 ORDER BY seq", rows::ENTRY), [job], rows::entry)
    }

    fn transitions(&self, after: Seq) -> Result<(Seq, Vec<Transition>), LedgerError> {
        let last: Option<Seq> = self.one("SELECT max(seq) FROM journal", [], |row| row.get(0))?;
        let last = last.unwrap_or(after).max(after);
        let query = "SELECT state_before, state_after, count(*) FROM journal WHERE seq > ?1 AND seq <= ?2 AND job_id IS NOT NULL \
                     AND destination IS NULL AND state_before IS NOT state_after GROUP BY state_before, state_after \
                     ORDER BY state_before, state_after";
        let found =
            self.list(query, [after, last], |row| Ok(Transition { from: row.get(0)?, to: row.get(1)?, count: row.get::<_, Count>(2)?.0 }))?;
        Ok((last, found))
    }

    fn unverified(&self) -> Result<Vec<JobId>, LedgerError> {
        let verified = "(SELECT value FROM counters WHERE name = 'verified')";
        self.list(&format!("SELECT id FROM jobs WHERE state = 'done' AND done > {verified} ORDER BY id"), [], |row| row.get(0))
    }

    fn series(&self, uid: &str) -> Result<Vec<SeriesRecord>, LedgerError> {
        let query = "SELECT id, study_uid, series_uid, closed, waiting, closings, (SELECT count(*) FROM instances i WHERE i.series_id = series.id) FROM series \
                     WHERE series_uid = ?1 OR study_uid = ?1 OR id IN (SELECT series_id FROM instances WHERE sop_instance_uid = ?1) ORDER BY id";
        let found: Vec<(i64, SeriesRecord)> = self.list(query, [uid], |row| {
            let series = SeriesKey { study: row.get(1)?, series: row.get(2)? };
            let (closed, waiting, closings, instances) = (row.get(3)?, row.get(4)?, row.get(5)?, row.get::<_, Count>(6)?.0);
            Ok((row.get(0)?, SeriesRecord { series, closed, waiting, closings, refusals: Vec::new(), instances }))
        })?;
        let whole = found.into_iter().map(|(id, mut record)| {
            record.refusals = self.list("SELECT code, detail FROM refusals WHERE series_id = ?1 ORDER BY place", [id], |row| {
                Ok(Problem { code: row.get(0)?, detail: row.get(1)? })
            })?;
            Ok(record)
        });
        whole.collect()
    }

    fn closed(&self, series: &SeriesKey) -> Result<Option<String>, LedgerError> {
        let query = "SELECT print FROM series WHERE series_uid = ?2 AND study_uid = ?1";
        let found = self.list(query, [&series.study, &series.series], |row| row.get::<_, Option<String>>(0))?;
        Ok(found.into_iter().next().flatten())
    }

    fn expired(&self, before: Moment, limit: u64) -> Result<Vec<Job>, LedgerError> {
        let query = format!(
            "{} WHERE j.state IN ('done', 'cancelled', 'superseded') AND j.changed < ?1 AND NOT EXISTS (SELECT 1 FROM outbox o \
             WHERE o.job_id = j.id AND (o.state NOT IN ('delivered', 'cancelled') OR o.changed >= ?1)) ORDER BY j.id LIMIT ?2",
            rows::JOB
        );
        self.list(&query, params![before, Count(limit)], rows::job)
    }

    fn idle(&self, before: Moment, skip: u64, limit: u64) -> Result<Vec<SeriesKey>, LedgerError> {
        let query = "SELECT study_uid, series_uid FROM series s WHERE closed < ?1 AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.series_id = s.id) \
                     AND NOT EXISTS (SELECT 1 FROM instances i WHERE i.series_id = s.id) ORDER BY id LIMIT ?3 OFFSET ?2";
        self.list(query, params![before, Count(skip), Count(limit)], |row| Ok(SeriesKey { study: row.get(0)?, series: row.get(1)? }))
    }

    fn leaving(&self) -> Result<BTreeMap<SeriesKey, BTreeSet<String>>, LedgerError> {
        let query = "SELECT s.study_uid, s.series_uid, l.file FROM leaving l JOIN series s ON s.id = l.series_id";
        let mut leaving: BTreeMap<SeriesKey, BTreeSet<String>> = BTreeMap::new();
        let files = self.list(query, [], |row| Ok((SeriesKey { study: row.get(0)?, series: row.get(1)? }, row.get(2)?)))?;
        for (series, file) in files {
            leaving.entry(series).or_default().insert(file);
        }
        Ok(leaving)
    }

    fn settled(&self, before: Moment, parked_before: Moment, limit: u64) -> Result<Vec<SeriesKey>, LedgerError> {
        let query = "SELECT s.study_uid, s.series_uid FROM series s WHERE EXISTS (SELECT 1 FROM instances i WHERE i.series_id = s.id) \
                     AND NOT EXISTS (SELECT 1 FROM series x WHERE x.study_uid = s.study_uid AND ( \
                       coalesce(x.closed, ?1) >= ?1 \
                       OR EXISTS (SELECT 1 FROM instances i WHERE i.series_id = x.id AND i.received >= ?1) \
                       OR EXISTS (SELECT 1 FROM jobs j WHERE j.series_id = x.id AND ( \
                         j.state IN ('queued', 'running', 'waiting') OR j.changed >= CASE j.state WHEN 'parked' THEN ?2 ELSE ?1 END \
                         OR EXISTS (SELECT 1 FROM outbox o WHERE o.job_id = j.id AND (o.state NOT IN ('delivered', 'cancelled') OR o.changed >= ?1)))))) \
                     ORDER BY s.id LIMIT ?3";
        self.list(query, params![before, parked_before, Count(limit)], |row| Ok(SeriesKey { study: row.get(0)?, series: row.get(1)? }))
    }

    fn received_of(&self, series: &SeriesKey) -> Result<Vec<Received>, LedgerError> {
        let query = "SELECT i.sop_instance_uid, i.path, i.bytes FROM instances i JOIN series s ON s.id = i.series_id \
                     WHERE s.series_uid = ?2 AND s.study_uid = ?1 ORDER BY i.id";
        self.list(query, [&series.study, &series.series], |row| {
            Ok(Received { series: series.clone(), sop_instance: row.get(0)?, path: row.get(1)?, bytes: row.get::<_, Count>(2)?.0 })
        })
    }

    fn refused(&self, limit: u64) -> Result<Vec<RefusedFile>, LedgerError> {
        let query = "SELECT origin, place, bytes, modified, code, first, last FROM refused_files ORDER BY id DESC LIMIT ?1";
        self.list(query, [Count(limit)], |row| {
            let (bytes, modified, code) = (row.get::<_, Count>(2)?.0, row.get(3)?, row.get(4)?);
            Ok(RefusedFile { origin: row.get(0)?, place: row.get(1)?, bytes, modified, code, first: row.get(5)?, last: row.get(6)? })
        })
    }

    fn unknown(&self, paths: Vec<String>) -> Result<Vec<String>, LedgerError> {
        let mut unknown = Vec::new();
        for path in paths {
            if self.list("SELECT 1 FROM instances WHERE path = ?1", [&path], |_| Ok(()))?.is_empty() {
                unknown.push(path);
            }
        }
        Ok(unknown)
    }

    fn received(&self, skip: u64, limit: u64) -> Result<Vec<Received>, LedgerError> {
        let query = "SELECT s.study_uid, s.series_uid, i.sop_instance_uid, i.path, i.bytes FROM instances i JOIN series s ON s.id = i.series_id \
                     ORDER BY i.id LIMIT ?2 OFFSET ?1";
        self.list(query, params![Count(skip), Count(limit)], |row| {
            let series = SeriesKey { study: row.get(0)?, series: row.get(1)? };
            Ok(Received { series, sop_instance: row.get(2)?, path: row.get(3)?, bytes: row.get::<_, Count>(4)?.0 })
        })
    }

    fn active(&self) -> Result<Vec<Active>, LedgerError> {
        self.list(&format!("{} ORDER BY slot", training::ACTIVE), [], training::active)
    }

    fn cases(&self) -> Result<Vec<CaseRow>, LedgerError> {
        self.list(&format!("{} ORDER BY id", training::CASE), [], training::case)
    }

    fn patients(&self) -> Result<Vec<Patient>, LedgerError> {
        self.list("SELECT key, role, person FROM patients ORDER BY key", [], |row| {
            Ok(Patient { key: row.get(0)?, role: row.get(1)?, person: row.get(2)? })
        })
    }

    fn runs(&self) -> Result<Vec<RunRow>, LedgerError> {
        self.list(&format!("{} ORDER BY id", training::RUN), [], training::run)
    }

    fn audit(&self) -> Result<Vec<AuditEntry>, LedgerError> {
        self.list(&format!("{} ORDER BY seq", training::AUDIT), [], training::audit)
    }
}
