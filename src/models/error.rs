//! Why a model can not be used or imported.

use crate::fault::{Code, Fault};
use crate::stunet::ArchitectureError;
use crate::stunet::checkpoint::CheckpointError;
use crate::sys::durable::StorageError;
use std::path::PathBuf;

/// Why a model folder can not be used, or a checkpoint not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The folder or a file in it is not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The manifest can not be parsed, or contradicts itself.
    #[error("{}: {detail}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        detail: String,
    },
    /// The weights file is not the one that the manifest names.
    #[error("{}: {detail}", path.display())]
    Digest {
        /// The weights file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The weights file's tensors are not those of the architecture.
    #[error("{}: {detail}", path.display())]
    Mismatch {
        /// The weights file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// Reading or writing failed.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// What is to be imported is not there.
    #[error("{} does not exist", .0.display())]
    Source(PathBuf),
    /// The output folder exists.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// An option that does not fit.
    #[error("{0}")]
    Usage(String),
    /// A checkpoint that is refused.
    #[error("{}: {error}", path.display())]
    Checkpoint {
        /// The checkpoint or pickle.
        path: PathBuf,
        /// Why.
        error: CheckpointError,
    },
    /// The plans are missing, or not understood.
    #[error("{}: {detail}", path.display())]
    Plans {
        /// The file with the plans.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Something that is refused on purpose: cascades, two dimensions, unknown resampling …
    #[error("{}: {detail}", path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What it asks for.
        detail: String,
    },
    /// The weights are not those of a STU-Net.
    #[error("{}: {error}", path.display())]
    NotStunet {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        error: ArchitectureError,
    },
    /// The caller wants no more of it.
    #[error("stopped on request; nothing was written")]
    Stopped,
    /// The list of labels does not fit.
    #[error("{0}")]
    Labels(String),
}

impl From<ModelError> for Fault {
    fn from(error: ModelError) -> Fault {
        let code = match error {
            // These rooms choose the code themselves.
            ModelError::Storage(inner) => return inner.into(),
            ModelError::Checkpoint { path, error } => {
                let mut fault = Fault::from(error);
                fault.detail = format!("{}: {}", path.display(), fault.detail);
                return fault;
            }
            ModelError::Missing(_) => Code::ModelMissing,
            ModelError::Manifest { .. } => Code::ModelManifest,
            ModelError::Digest { .. } => Code::ModelDigest,
            ModelError::Mismatch { .. } => Code::ModelMismatch,
            ModelError::Source(_) => Code::ConfigInputMissing,
            ModelError::Exists(_) => Code::ModelExists,
            ModelError::Usage(_) => Code::ConfigUsage,
            ModelError::Plans { .. } => Code::CheckpointPlans,
            ModelError::Unsupported { .. } => Code::CheckpointUnsupported,
            ModelError::NotStunet { .. } => Code::CheckpointNotStunet,
            ModelError::Stopped => Code::InternalShutdown,
            ModelError::Labels(_) => Code::ModelLabels,
        };
        Fault::new(code, error.to_string()).caused_by(error)
    }
}
