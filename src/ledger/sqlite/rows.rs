//! Rows to records and back.

use crate::dicom::SeriesKey;
use crate::fault::Code;
use crate::ledger::error::LedgerError;
use crate::ledger::names::{AuditEvent, CaseKind, CaseState, DeliveryState, Event, Origin, PatientRole, Priority, RunState, State};
use crate::ledger::records::{Delivery, DeliveryId, Entry, Held, Job, JobId, Moment, Problem, Progress, Published, Seq, Token};
use crate::ledger::training::RunId;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{ErrorCode, Row};
use std::path::Path;

/// For `map_err`: what an error of SQLite means for the ledger in this file.
pub fn sql(path: &Path) -> impl Fn(rusqlite::Error) -> LedgerError + '_ {
    move |error| {
        let detail = format!("{}: {error}", path.display());
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => LedgerError::Storage { code: Code::DiskFull, detail },
            Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                LedgerError::Storage { code: Code::DiskUnwritable, detail }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                LedgerError::Corrupt { path: path.into(), detail: error.to_string() }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LedgerError::InUse { path: path.into(), by: None },
            _ => LedgerError::Bug(detail),
        }
    }
}

macro_rules! numbers {
    ($($name:ident),*) => { $(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> { signed(self.0) }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<$name> { unsigned(value).map($name) }
        }
    )* };
}

numbers!(JobId, DeliveryId, Token, Seq, RunId);

/// SQLite knows signed numbers only.
pub fn signed(number: u64) -> rusqlite::Result<ToSqlOutput<'static>> {
    i64::try_from(number).map(ToSqlOutput::from).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn unsigned(value: ValueRef<'_>) -> FromSqlResult<u64> {
    let number = value.as_i64()?;
    u64::try_from(number).map_err(|_| FromSqlError::OutOfRange(number))
}

/// A number that is never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u64);

impl ToSql for Count {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        signed(self.0)
    }
}

impl FromSql for Count {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Count> {
        unsigned(value).map(Count)
    }
}

impl ToSql for Moment {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0))
    }
}

impl FromSql for Moment {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Moment> {
        value.as_i64().map(Moment)
    }
}

macro_rules! words {
    ($($name:ident),*) => { $(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> { Ok(ToSqlOutput::from(self.name())) }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<$name> {
                $name::from_name(value.as_str()?).ok_or(FromSqlError::InvalidType)
            }
        }
    )* };
}

words!(State, DeliveryState, Event, Origin, Priority, CaseKind, CaseState, PatientRole, RunState, AuditEvent);

/// The columns that [`job`] reads, and where from.
pub const JOB: &str = "SELECT j.id, s.study_uid, s.series_uid, j.input, j.priority, j.created, j.changed, j.model, j.folder, j.identity, \
    j.state, j.attempts, j.failures, j.crashes, j.crashes_alone, j.suspect, j.not_before, j.owner, j.token, j.until, j.alone, j.code, \
    j.detail, j.rank, j.line, j.rule, j.contest FROM jobs j JOIN series s ON s.id = j.series_id";

/// A job; its result is without the files.
pub fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let (folder, identity): (Option<String>, Option<String>) = (row.get(8)?, row.get(9)?);
    Ok(Job {
        id: row.get(0)?,
        series: SeriesKey { study: row.get(1)?, series: row.get(2)? },
        input: row.get(3)?,
        priority: row.get(4)?,
        rule: row.get(25)?,
        contest: row.get(26)?,
        created: row.get(5)?,
        changed: row.get(6)?,
        model: row.get(7)?,
        result: folder.zip(identity).map(|(folder, identity)| Published { folder, identity, objects: Vec::new() }),
        progress: Progress {
            state: row.get(10)?,
            attempts: row.get(11)?,
            failures: row.get(12)?,
            crashes: row.get(13)?,
            crashes_alone: row.get(14)?,
            suspect: row.get(15)?,
            not_before: row.get(16)?,
            held: held(row.get(17)?, row.get(18)?, row.get(19)?, row.get(20)?),
            problem: problem(row.get(21)?, row.get(22)?),
            rank: *Priority::ALL.get(usize::from(row.get::<_, u8>(23)?)).ok_or(rusqlite::Error::IntegralValueOutOfRange(23, 0))?,
            line: row.get::<_, Count>(24)?.0,
        },
    })
}

/// The columns that [`delivery`] reads, and where from.
pub const DELIVERY: &str = "SELECT id, job_id, destination, state, attempts, doubtful, not_before, owner, token, until, code, detail, created, \
    changed, refusals, resends, transaction_uid, committed FROM outbox";

/// A delivery.
pub fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        job: row.get(1)?,
        destination: row.get(2)?,
        state: row.get(3)?,
        attempts: row.get(4)?,
        doubtful: row.get(5)?,
        not_before: row.get(6)?,
        held: held(row.get(7)?, row.get(8)?, row.get(9)?, Some(false)),
        problem: problem(row.get(10)?, row.get(11)?),
        created: row.get(12)?,
        changed: row.get(13)?,
        refusals: row.get(14)?,
        resends: row.get(15)?,
        transaction: row.get(16)?,
        committed: row.get(17)?,
    })
}

/// The columns that [`entry`] reads, and where from.
pub const ENTRY: &str = "SELECT seq, at, job_id, destination, event, state_before, state_after, who, code, detail FROM journal";

/// A line of the journal.
pub fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get(0)?,
        at: row.get(1)?,
        job: row.get(2)?,
        destination: row.get(3)?,
        event: row.get(4)?,
        from: row.get(5)?,
        to: row.get(6)?,
        who: row.get(7)?,
        problem: problem(row.get(8)?, row.get(9)?),
    })
}

fn held(owner: Option<String>, token: Option<Token>, until: Option<Moment>, alone: Option<bool>) -> Option<Held> {
    Some(Held { owner: owner?, token: token?, until: until?, alone: alone? })
}

/// A problem, when there is one.
pub fn problem(code: Option<String>, detail: Option<String>) -> Option<Problem> {
    Some(Problem { code: code?, detail: detail.unwrap_or_default() })
}
