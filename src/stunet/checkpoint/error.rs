//! Why a checkpoint can not be read.

use crate::fault::{Code, Fault};

/// A checkpoint that is refused, and why. Names that come from the file are shortened and made printable.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file can not be opened or mapped.
    #[error("the file can not be read: {0}")]
    Io(#[from] std::io::Error),
    /// It begins like a web page.
    #[error("the file begins like a web page")]
    Html,
    /// It begins like something else.
    #[error("{0}")]
    NotOne(String),
    /// It ends before its own structure does.
    #[error("{0}")]
    Truncated(String),
    /// It names code outside the allow-list.
    #[error("the pickle names {0}")]
    Forbidden(String),
    /// Its structure contradicts itself or is not one that PyTorch writes.
    #[error("{0}")]
    Malformed(String),
    /// Bytes are not those that were written.
    #[error("{0}")]
    Corrupt(String),
    /// A safety limit.
    #[error("{0}")]
    Limit(String),
    /// A feature that is refused on purpose.
    #[error("{0}")]
    Unsupported(String),
    /// Neither `state_dict` nor `network_weights` is in it.
    #[error("{0}")]
    NoWeights(String),
    /// A weight that is not a number.
    #[error("{0}")]
    NotFinite(String),
}

impl From<CheckpointError> for Fault {
    fn from(error: CheckpointError) -> Fault {
        let code = match &error {
            CheckpointError::Io(_) => Code::DiskUnreadable,
            CheckpointError::Html => Code::CheckpointHtml,
            CheckpointError::NotOne(_) => Code::CheckpointNotOne,
            CheckpointError::Truncated(_) => Code::CheckpointTruncated,
            CheckpointError::Forbidden(_) => Code::CheckpointForbidden,
            CheckpointError::Malformed(_) => Code::CheckpointMalformed,
            CheckpointError::Corrupt(_) => Code::CheckpointCorrupt,
            CheckpointError::Limit(_) => Code::CheckpointLimit,
            CheckpointError::Unsupported(_) => Code::CheckpointUnsupported,
            CheckpointError::NoWeights(_) => Code::CheckpointNoWeights,
            CheckpointError::NotFinite(_) => Code::CheckpointNotFinite,
        };
        Fault::new(code, error.to_string()).caused_by(error)
    }
}

pub(super) fn malformed(what: impl Into<String>) -> CheckpointError {
    CheckpointError::Malformed(what.into())
}

/// At most 80 characters of a name that comes from outside, printable.
pub(super) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.chars().nth(80).is_some() {
        text.push('…');
    }
    format!("`{text}`")
}
