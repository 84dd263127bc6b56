//! Why a file is refused.

use crate::fault::{Code, Fault};

/// Why a file is refused. The texts hold tags, sizes and UIDs of the standard, never values of patient attributes.
#[derive(Debug, thiserror::Error)]
pub enum DicomError {
    /// No bytes at all.
    #[error("the file has no bytes")]
    Empty,
    /// Neither a preamble nor a group that a data set starts with.
    #[error("neither `DICM` nor the start of a data set")]
    NotDicom,
    /// The file ends before its structure does.
    #[error("{0}")]
    Truncated(String),
    /// The structure is wrong.
    #[error("{0}")]
    Corrupt(String),
    /// A transfer syntax that is not in the table.
    #[error("transfer syntax {0}")]
    TransferSyntax(String),
    /// Beyond the limits on rows, columns, frames or decoded size.
    #[error("{0}")]
    Implausible(String),
    /// An identifying attribute is missing or empty.
    #[error("{0} is missing or empty")]
    MissingUid(&'static str),
    /// An identifying attribute is not a UID.
    #[error("{0} is not a valid UID")]
    InvalidUid(&'static str),
    /// Not a CT or PET image.
    #[error("SOP class {0}")]
    SopClass(String),
    /// A segmentation object.
    #[error("SOP class {0}")]
    Segmentation(String),
    /// A directory of a medium.
    #[error("media storage directory")]
    Dicomdir,
    /// Less pixel data than rows, columns, bits and frames ask for.
    #[error("{have} bytes of pixel data where {need} are needed")]
    PixelDataShort {
        /// Bytes (or frames) there are.
        have: u64,
        /// Bytes (or frames) that the header asks for.
        need: u64,
    },
    /// Bits Allocated, Bits Stored, High Bit or samples that are not supported.
    #[error("{0}")]
    PixelFormat(String),
    /// The compressed frame's own header contradicts the data set.
    #[error("{0}")]
    Codestream(String),
    /// A link, pipe, socket or device.
    #[error("not a regular file")]
    NotRegular,
    /// Larger than the limit on files.
    #[error("{size} bytes, the limit is {limit}")]
    TooLarge {
        /// Size of the file.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The operating system could not read it.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl DicomError {
    /// The stable code of this error.
    pub fn code(&self) -> Code {
        match self {
            DicomError::Empty => Code::InputEmptyFile,
            DicomError::NotDicom => Code::InputNotDicom,
            DicomError::Truncated(_) => Code::InputTruncated,
            DicomError::Corrupt(_) => Code::InputCorrupt,
            DicomError::TransferSyntax(_) => Code::CodecTransferSyntax,
            DicomError::Implausible(_) => Code::InputImplausible,
            DicomError::MissingUid(_) => Code::InputMissingUid,
            DicomError::InvalidUid(_) => Code::InputInvalidUid,
            DicomError::SopClass(_) => Code::InputSopClass,
            DicomError::Segmentation(_) => Code::InputSegmentation,
            DicomError::Dicomdir => Code::InputDicomdir,
            DicomError::PixelDataShort { .. } => Code::InputPixelDataShort,
            DicomError::PixelFormat(_) => Code::CodecPixelFormat,
            DicomError::Codestream(_) => Code::CodecDecode,
            DicomError::NotRegular => Code::InputSpecialFile,
            DicomError::TooLarge { .. } => Code::InputTooLarge,
            DicomError::Io(error) if is_of_the_disk(error) => Code::DiskUnreadable,
            DicomError::Io(_) => Code::InputUnreadableFile,
        }
    }
}

/// Whether it is the disk or its server that fails, which may pass, and not this file.
fn is_of_the_disk(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ESTALE | libc::ETIMEDOUT | libc::EREMOTEIO | libc::ENXIO | libc::ENODEV))
}

impl From<DicomError> for Fault {
    fn from(error: DicomError) -> Fault {
        Fault::new(error.code(), error.to_string())
    }
}

/// A UID from a file for a message: characters outside `0-9.` become `?`, at most 64 characters.
pub(crate) fn printable_uid(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_digit() || c == '.' { c } else { '?' }).collect()
}
