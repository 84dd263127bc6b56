//! What can go wrong while a network is taught.

use crate::fault::{Code, Fault};
use crate::stunet;
use crate::sys::durable::StorageError;
use std::path::PathBuf;

/// Why training can not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The network, libtorch or the device.
    #[error("{0}")]
    Network(#[from] stunet::Error),
    /// A file or folder.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A case file that is damaged, or can not be written.
    #[error("case {}: {detail}", path.display())]
    Case {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A checkpoint that the run can not go on from.
    #[error("checkpoint {}: {detail}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Why not.
        detail: String,
    },
    /// Settings or weights that do not fit each other.
    #[error("{0}")]
    Settings(String),
    /// A loss, gradient or weight became infinite or not a number.
    #[error("{0} is not a finite number")]
    NotFinite(String),
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Error {
        Error::Network(error.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Network(error) => error.into(),
            Error::Storage(error) => error.into(),
            Error::Case { .. } => Fault::new(Code::TrainingCase, error.to_string()).caused_by(error),
            Error::Checkpoint { .. } => Fault::new(Code::TrainingCheckpoint, error.to_string()).caused_by(error),
            Error::Settings(_) => Fault::new(Code::TrainingSettings, error.to_string()).caused_by(error),
            Error::NotFinite(_) => Fault::new(Code::TrainingNotFinite, error.to_string()).caused_by(error),
        }
    }
}
