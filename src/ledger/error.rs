//! What can go wrong with the ledger.

use super::names::State;
use super::records::{JobId, Token};
use crate::fault::{Code, Fault};
use crate::sys::durable::StorageError;
use std::path::PathBuf;

/// Cheap to clone: one failed commit is told to everybody who waited for it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LedgerError {
    /// Another process has the lock.
    #[error("{} is locked{}", path.display(), by.map(|pid| format!(" by process {pid}")).unwrap_or_default())]
    InUse {
        /// The lock.
        path: PathBuf,
        /// Its holder, as far as known.
        by: Option<u32>,
    },
    /// The file is not a sound database.
    #[error("{}: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The file was there, says the mark beside it.
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    /// A newer version made the tables.
    #[error("{} has tables of version {found}; this program knows versions up to {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Version found.
        found: i64,
        /// Latest version known.
        known: i64,
    },
    /// The disk is full, broken or read-only.
    #[error("{detail}")]
    Storage {
        /// `disk.…`.
        code: Code,
        /// What exactly.
        detail: String,
    },
    /// The claim holds no more.
    #[error("claim {0} holds no more")]
    Stale(Token),
    /// No row of this number.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// Not possible in this state.
    #[error("job {job} is {state}: {wish} is not possible")]
    WrongState {
        /// The job.
        job: JobId,
        /// Its state.
        state: State,
        /// What was wanted.
        wish: &'static str,
    },
    /// Nothing of this name.
    #[error("there is no {what} {name}")]
    Unknown {
        /// What it would be: `case`, `run`, `patient`, `generation`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Not possible as things are.
    #[error("{what} {name}: {why}")]
    NotAllowed {
        /// What it is about: `case`, `run`, `patient`, `generation`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A text is empty or longer than the tables take.
    #[error("`{0}` is empty or too long")]
    Invalid(&'static str),
    /// A step that can not fail has failed.
    #[error("{0}")]
    Bug(String),
}

impl From<LedgerError> for Fault {
    fn from(error: LedgerError) -> Fault {
        let code = match &error {
            LedgerError::InUse { .. } => Code::LedgerInUse,
            LedgerError::Corrupt { .. } => Code::LedgerCorrupt,
            LedgerError::Missing(_) => Code::LedgerMissing,
            LedgerError::TooNew { .. } => Code::LedgerTooNew,
            LedgerError::Storage { code, .. } => *code,
            LedgerError::Stale(_) => Code::LedgerStaleToken,
            LedgerError::UnknownJob(_) => Code::JobUnknown,
            LedgerError::WrongState { .. } => Code::JobWrongState,
            LedgerError::Unknown { .. } => Code::LedgerUnknown,
            LedgerError::NotAllowed { .. } => Code::LedgerNotAllowed,
            LedgerError::Invalid(_) => Code::LedgerInvalid,
            LedgerError::Bug(_) => Code::InternalBug,
        };
        Fault::new(code, format!("{error}."))
    }
}

impl From<StorageError> for LedgerError {
    fn from(error: StorageError) -> LedgerError {
        let fault = Fault::from(error);
        LedgerError::Storage { code: fault.code, detail: fault.detail }
    }
}
