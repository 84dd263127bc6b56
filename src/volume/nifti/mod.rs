//! NIfTI-1 files in and out: `.nii` and `.nii.gz`.
//!
//! A small strict reader: one file, 3-D (or 4-D, the fourth axis being channels), plain integers or floats, geometry by sform or qform. The
//! file's x index is fastest, as in our arrays; its RAS+ millimetres become LPS.

mod geometry;
mod header;
mod read;
mod write;

pub use geometry::NiftiGeometry;
pub use read::{peek, read};
pub use write::{write_labels, write_volume};

use crate::fault::{Code, Fault};

/// Why a NIfTI file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum NiftiError {
    /// It can not be opened or read.
    #[error("the file can not be read")]
    Io(#[source] std::io::Error),
    /// It ends before the header or the voxels do, or the compressed stream is broken.
    #[error("the file ends too early, or its compression is broken")]
    Truncated,
    /// There are bytes after the last voxel.
    #[error("the file holds more voxels than its header says")]
    Longer,
    /// The header is not one of NIfTI-1 in a single file.
    #[error("not a NIfTI-1 file of one part: {0}")]
    NotNifti(&'static str),
    /// A header field has a value that makes no sense or is not supported.
    #[error("header field {field}: {why}")]
    Field {
        /// The field's name in the standard.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Neither sform nor qform.
    #[error("neither sform nor qform says how the voxels lie in the patient")]
    NoGeometry,
    /// More voxels than the limit.
    #[error("{voxels} voxels; at most {limit} are allowed")]
    TooLarge {
        /// Voxels the header asks for.
        voxels: u128,
        /// The limit.
        limit: u64,
    },
}

impl From<NiftiError> for Fault {
    fn from(error: NiftiError) -> Fault {
        let code = match &error {
            NiftiError::Io(_) => Code::DiskUnreadable,
            NiftiError::TooLarge { .. } => Code::MemoryTooLarge,
            NiftiError::Truncated | NiftiError::Longer | NiftiError::NotNifti(_) | NiftiError::Field { .. } | NiftiError::NoGeometry => {
                Code::InputNifti
            }
        };
        Fault::new(code, format!("NIfTI: {error}.")).caused_by(error)
    }
}
