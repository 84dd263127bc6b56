//! The tables and how they came to be: one step a version, forwards only.

use super::rows::sql;
use crate::ledger::error::LedgerError;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Step `n` leads from version `n` to `n + 1` (`PRAGMA user_version`).
pub const STEPS: &[&str] = &[
    include_str!("schema.sql"),
    // The state in which a series was closed last.
    "ALTER TABLE series ADD COLUMN print TEXT;",
    // The rule that chose a job's volume.
    "ALTER TABLE jobs ADD COLUMN rule TEXT;",
    // How often a destination said no, and how often something was sent again without knowing.
    "ALTER TABLE outbox ADD COLUMN refusals INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE outbox ADD COLUMN resends INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX outbox_open ON outbox (destination) WHERE state IN ('pending', 'sending', 'waiting', 'parked');",
    include_str!("training.sql"),
    // Storage commitment: in which transaction a destination was asked, and what it said.
    "ALTER TABLE outbox ADD COLUMN transaction_uid TEXT;
     ALTER TABLE outbox ADD COLUMN committed INTEGER;
     CREATE INDEX outbox_transaction ON outbox (transaction_uid) WHERE transaction_uid IS NOT NULL;",
    // Files that can not be used.
    "CREATE TABLE refused_files (id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL UNIQUE, origin TEXT NOT NULL, bytes INTEGER NOT NULL,
     modified INTEGER NOT NULL, code TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT;",
    // Volumes whose results were removed: they are not done again.
    "CREATE TABLE expired (series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE, input TEXT NOT NULL, PRIMARY KEY (series_id, input))
     STRICT, WITHOUT ROWID;
     CREATE INDEX jobs_changed ON jobs (changed) WHERE state IN ('done', 'cancelled', 'superseded');",
    // The rule that took a job's volume as the best of its study.
    "ALTER TABLE jobs ADD COLUMN contest TEXT;",
    // Since when a series waits for the rest of its study.
    "ALTER TABLE series ADD COLUMN waiting INTEGER;",
    // Files that are leaving a watched folder.
    "CREATE TABLE leaving (series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE, file TEXT NOT NULL, PRIMARY KEY (series_id, file))
     STRICT, WITHOUT ROWID;",
];

/// Brings the tables to the latest version. Before the tables of an older version are touched, a copy of the file is made beside it;
/// its path is returned. A version that this program does not know is [`LedgerError::TooNew`].
pub fn migrate(connection: &mut Connection, path: &Path, steps: &[&str]) -> Result<Option<PathBuf>, LedgerError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql(path))?;
    let known = steps.len() as i64;
    let Some(todo) = usize::try_from(version).ok().and_then(|done| steps.get(done..)) else {
        return Err(LedgerError::TooNew { path: path.into(), found: version, known });
    };
    if todo.is_empty() {
        return Ok(None);
    }
    let mut copy = None;
    if version > 0 {
        let backup = path.with_extension(format!("v{version}.sqlite"));
        // A copy that an interrupted attempt left may be half written; VACUUM INTO refuses a file that is there.
        if backup.exists() {
            std::fs::remove_file(&backup).map_err(crate::sys::durable::StorageError::at(crate::sys::durable::Step::Remove, &backup))?;
        }
        connection.execute("VACUUM INTO ?1", [backup.to_string_lossy()]).map_err(sql(path))?;
        copy = Some(backup);
    }
    let transaction = connection.transaction().map_err(sql(path))?;
    for step in todo {
        transaction.execute_batch(step).map_err(sql(path))?;
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {known}")).map_err(sql(path))?;
    transaction.commit().map_err(sql(path))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE a (x INTEGER) STRICT; INSERT INTO a VALUES (7);";
    const SECOND: &str = "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 3;";
    const BROKEN: &str = "CREATE TABLE b (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);";

    #[test]
    fn steps_run_once_a_copy_is_kept_and_a_broken_step_changes_nothing() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("l.sqlite");
        let open = || Connection::open(&path).expect("database");
        let number = |c: &Connection, text: &str| c.query_row(text, [], |r| r.get::<_, i64>(0));
        assert_eq!(migrate(&mut open(), &path, &[FIRST]), Ok(None));
        assert_eq!(migrate(&mut open(), &path, &[FIRST]), Ok(None));
        assert!(migrate(&mut open(), &path, &[FIRST, BROKEN]).is_err());
        assert_eq!(number(&open(), "SELECT count(*) FROM sqlite_master WHERE name = 'b'"), Ok(0));
        let copy = migrate(&mut open(), &path, &[FIRST, SECOND]).expect("migrated").expect("a copy");
        assert_eq!(number(&open(), "SELECT x + y FROM a"), Ok(10));
        assert!(number(&Connection::open(copy).expect("copy"), "SELECT y FROM a").is_err());
        let too_new = migrate(&mut open(), &path, &[FIRST]);
        assert_eq!(too_new, Err(LedgerError::TooNew { path: path.clone(), found: 2, known: 1 }));
    }
}
