//! Files that can not be used, inside the writer's transaction.

use super::apply::{Desk, check};
use super::rows::Count;
use crate::ledger::change::MOST_REFUSED;
use crate::ledger::error::LedgerError;
use crate::ledger::records::{Moment, RefusedFile};
use rusqlite::params;

impl Desk<'_> {
    /// Remembers files; of all, those that came last.
    pub fn refuse(&self, files: &[RefusedFile]) -> Result<(), LedgerError> {
        for file in files {
            check("place", &file.place, 256)?;
            check("words", &file.code, 256)?;
            let first: Option<Moment> =
                self.maybe("DELETE FROM refused_files WHERE place = ?1 RETURNING first", [&file.place], |row| row.get(0))?;
            let insert =
                "INSERT INTO refused_files (place, origin, bytes, modified, code, first, last) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let first = first.unwrap_or(self.date);
            self.run(insert, params![file.place, file.origin, Count(file.bytes), file.modified, file.code, first, self.date])?;
        }
        let keep = "DELETE FROM refused_files WHERE id <= (SELECT id FROM refused_files ORDER BY id DESC LIMIT 1 OFFSET ?1)";
        self.run(keep, [Count(MOST_REFUSED)]).map(|_| ())
    }
}
