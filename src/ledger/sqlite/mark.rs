//! A small file beside the ledger that says how far it was. A ledger that is behind its mark is an older copy.

use crate::ledger::error::LedgerError;
use crate::sys::durable;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How far a ledger was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which ledger: a number made when it was begun.
    pub instance: String,
    /// How often it had been opened.
    pub opening: u64,
    /// The end of its journal.
    pub seq: u64,
}

impl Mark {
    /// Where the mark of a ledger lies.
    pub fn path(ledger: &Path) -> PathBuf {
        ledger.with_extension("mark")
    }

    /// The mark beside a ledger, if it is there and can be read.
    pub fn read(ledger: &Path) -> Option<Mark> {
        serde_json::from_slice(&std::fs::read(Mark::path(ledger)).ok()?).ok()
    }

    /// Writes it, durably.
    pub fn write(&self, ledger: &Path) -> Result<(), LedgerError> {
        let bytes = serde_json::to_vec(self).map_err(|e| LedgerError::Bug(e.to_string()))?;
        Ok(durable::write_file(&Mark::path(ledger), &bytes)?)
    }

    /// Whether a ledger that is as far as `self` is another, or an older copy of the one that left `mark`.
    pub fn is_behind(&self, mark: &Mark) -> bool {
        self.instance != mark.instance || self.opening < mark.opening || self.seq < mark.seq
    }
}
