//! The label objects of a folder, and which image each of them was drawn on.

use crate::dicom::rtstruct::{self, StructureSet};
use crate::dicom::seg::{self, SegObject};
use crate::dicom::{Uid, guard, read_identity};
use crate::fault::Fault;
use crate::series::Series;
use crate::sys::durable::{Step, StorageError};
use crate::training::cases::{CaseError, ImageGrid, Structure, from_contours, from_label_volume, from_segmentation};
use crate::volume::{Limits, Volume, nifti};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most label objects of one case.
const MAX_OBJECTS: usize = 256;

/// A label object.
pub(super) struct Source {
    object: Object,
    /// SHA-256 of the file, hexadecimal.
    pub(super) digest: String,
}

enum Object {
    Segmentation(Box<SegObject>),
    StructureSet(Box<StructureSet>),
    Nifti(Box<Volume>),
}

impl Source {
    /// Reads a file, if it is a label object.
    ///
    /// # Errors
    /// What is wrong with one that is.
    pub(super) fn read(path: &Path) -> Result<Option<Source>, Fault> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let object = if name.ends_with(".nii") || name.ends_with(".nii.gz") {
            Object::Nifti(Box::new(nifti::read(path, &Limits::default())?))
        } else {
            let Some(class) = class_of(path) else { return Ok(None) };
            match class.as_str() {
                "1.2.840.10008.5.1.4.1.1.66.4" | "1.2.840.10008.5.1.4.1.1.66.7" => Object::Segmentation(Box::new(seg::read(path)?)),
                "1.2.840.10008.5.1.4.1.1.481.3" => Object::StructureSet(Box::new(rtstruct::read(path)?)),
                _ => return Ok(None),
            }
        };
        Ok(Some(Source { object, digest: file_digest(path)? }))
    }

    /// What kind of file it is, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match &self.object {
            Object::Segmentation(_) => "segmentation",
            Object::StructureSet(_) => "structure_set",
            Object::Nifti(_) => "nifti",
        }
    }

    /// Whether it may have been drawn on this series: it names the series or its instances, or, where it names nothing, study and frame of
    /// reference are the same. A NIfTI file names nothing; it has to lie on the grid.
    pub(super) fn may_be_of(&self, series: &Series) -> bool {
        let frame = |frame: &Uid| series.frame_of_reference_uid.as_ref() == Some(frame);
        match &self.object {
            Object::Segmentation(object) => {
                let named: BTreeSet<&str> =
                    object.frames.iter().flat_map(|f| &f.sources).map(|source| source.sop_instance.as_str()).collect();
                match named.is_empty() {
                    false => series.planes.iter().any(|plane| named.contains(plane.sop_instance_uid.as_str())),
                    true => object.study == series.study_uid && object.frame_of_reference.as_ref().is_some_and(frame),
                }
            }
            Object::StructureSet(set) => match set.series.is_empty() {
                false => set.series.contains(&series.series_uid),
                true => set.study == series.study_uid && set.frames_of_reference.iter().any(frame),
            },
            Object::Nifti(_) => true,
        }
    }

    /// The study that it says it is of; none for NIfTI.
    pub(super) fn study(&self) -> Option<&Uid> {
        match &self.object {
            Object::Segmentation(object) => Some(&object.study),
            Object::StructureSet(set) => Some(&set.study),
            Object::Nifti(_) => None,
        }
    }

    /// Its structures on the grid of the image.
    ///
    /// # Errors
    /// `cases.geometry`, `codec.*`.
    pub(super) fn structures(&self, grid: &ImageGrid) -> Result<Vec<Structure>, Fault> {
        match &self.object {
            Object::Segmentation(object) => from_segmentation(object, grid),
            Object::StructureSet(set) => Ok(from_contours(set, grid)?),
            Object::Nifti(volume) => Ok(from_label_volume(volume, grid)?),
        }
    }
}

/// SOP Class UID of a DICOM file; none for what is not DICOM.
fn class_of(path: &Path) -> Option<String> {
    let limits = guard::Limits { file_bytes: 8 << 30, elements: 8_000_000, frames: 200_000, ..guard::Limits::default() };
    read_identity(path, &limits).ok().map(|identity| identity.sop_class_uid.to_string())
}

/// The label objects among these files of a case folder.
///
/// # Errors
/// `cases.no_labels` when there is none, or too many; what is wrong with one.
pub(super) fn read_all(files: &[PathBuf]) -> Result<Vec<Source>, Fault> {
    let mut sources = Vec::new();
    for file in files {
        sources.extend(Source::read(file)?);
        if sources.len() > MAX_OBJECTS {
            return Err(CaseError::NoLabels(format!("more than {MAX_OBJECTS} label objects in one folder")).into());
        }
    }
    match sources.is_empty() {
        true => Err(CaseError::NoLabels(format!("none of {} files is a label object", files.len())).into()),
        false => Ok(sources),
    }
}

fn file_digest(path: &Path) -> Result<String, Fault> {
    let unreadable = |e| Fault::from(StorageError::at(Step::Read, path)(e));
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&buffer[..n]),
        }
    }
}
