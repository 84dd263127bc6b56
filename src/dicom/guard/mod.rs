//! The guard: looks at a file before anything else does.
//!
//! It walks the data set element by element over a small window, keeps short values, and never reserves memory from a
//! declared length, never recurses, never follows a length past the bytes that are there. What comes out is an index
//! of the elements ([`DataSet`]) that header reading works on, and where the pixel data lies.

mod prelude;
mod source;
mod walk;

use super::elements::DataSet;
use super::error::DicomError;
pub(crate) use source::{Source, read_fully_at};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
pub(crate) use walk::{Encoding, vr_has_long_length};

/// What a file may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of a file in bytes.
    pub file_bytes: u64,
    /// Elements and items of one data set, nested ones included.
    pub elements: usize,
    /// Sequences within sequences.
    pub depth: usize,
    /// Length of one value other than pixel data, in bytes.
    pub value_bytes: u64,
    /// Sum of the values kept in memory per file, in bytes.
    pub kept_bytes: usize,
    /// What a deflated data set may inflate to, in bytes.
    pub inflated_bytes: u64,
    /// Fragments of encapsulated pixel data.
    pub fragments: usize,
    /// Rows, and columns, of an image.
    pub rows_columns: u16,
    /// Frames of one object.
    pub frames: u32,
    /// Decoded pixel data of one object, in bytes.
    pub decoded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            file_bytes: 8 << 30,
            elements: 1_000_000,
            depth: 32,
            value_bytes: 64 << 20,
            kept_bytes: 64 << 20,
            inflated_bytes: 2 << 30,
            fragments: 100_000,
            rows_columns: 4096,
            frames: 10_000,
            decoded_bytes: 8 << 30,
        }
    }
}

/// What the guard found: the elements up to the pixel data, or as far as it came, and what stopped it.
#[derive(Debug)]
pub struct Walked {
    /// The elements read.
    pub data: DataSet,
    /// Why the walk ended before its time.
    pub error: Option<DicomError>,
    /// Size of the file in bytes.
    pub size: u64,
}

/// Called with the SOP class of the data set as soon as it is read; an error ends the walk.
pub type ClassFilter<'f> = &'f dyn Fn(&str) -> Result<(), DicomError>;

/// Opens a regular file for reading. Links, pipes and devices are refused, and never waited for.
pub(crate) fn open_regular(path: &Path) -> Result<File, DicomError> {
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|e| if e.raw_os_error() == Some(libc::ELOOP) { DicomError::NotRegular } else { e.into() })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(DicomError::NotRegular) }
}

/// Walks a file up to and including its pixel data.
pub fn walk_file(path: &Path, limits: &Limits, accept: ClassFilter) -> Walked {
    let mut walked = Walked { data: DataSet::default(), error: None, size: 0 };
    walked.error = (|| {
        let file = open_regular(path)?;
        walked.size = file.metadata()?.len();
        if walked.size > limits.file_bytes {
            return Err(DicomError::TooLarge { size: walked.size, limit: limits.file_bytes });
        }
        walk_source(Source::file(&file, walked.size), limits, accept, &mut walked.data)
    })()
    .err();
    walked
}

/// Walks a file that lies in memory.
pub fn walk_bytes(bytes: &[u8], limits: &Limits, accept: ClassFilter) -> Walked {
    let mut data = DataSet::default();
    let error = walk_source(Source::memory(bytes), limits, accept, &mut data).err();
    Walked { data, error, size: bytes.len() as u64 }
}

fn walk_source(mut source: Source, limits: &Limits, accept: ClassFilter, data: &mut DataSet) -> Result<(), DicomError> {
    let prelude = prelude::read(&mut source, limits)?;
    data.transfer_syntax = prelude.transfer_syntax;
    data.encoding = prelude.encoding;
    if !prelude.deflated {
        let walked = walk::data_set(&mut source, prelude.data_offset, limits, accept, data);
        // Without a preamble only a SOP class shows that this was meant to be DICOM.
        return match walked {
            Err(_) if prelude.bare && data.sop_class().is_none() => Err(DicomError::NotDicom),
            other => other,
        };
    }
    data.deflated_at = Some(prelude.data_offset);
    let mut inflated = source.inflate_from(prelude.data_offset, limits.inflated_bytes);
    walk::data_set(&mut inflated, 0, limits, accept, data)?;
    if data.elements.is_empty() {
        return Err(DicomError::Truncated("the deflated data set is empty".into()));
    }
    inflated.expect_end_within(data.pixels.as_ref().map_or(0, |p| p.end()))
}
