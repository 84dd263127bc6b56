//! Whose object it is. What names a patient has no `Debug` and no `Display`: it goes into audit messages, and nowhere else.

use super::charset;
use super::copied::CopiedAttributes;
use super::error::DicomError;
use super::guard::{self, Limits, Walked};
use dicom_dictionary_std::tags;
use std::path::Path;

/// A patient, as an object names them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Patient {
    /// Patient ID (0010,0020).
    pub id: String,
    /// Patient's Name (0010,0010).
    pub name: String,
}

impl Patient {
    /// The patient that copied attributes name.
    pub fn of(copied: &CopiedAttributes) -> Patient {
        let value = |tag: dicom_core::Tag| copied.elements.iter().find(|e| e.tag == (tag.0, tag.1)).map(|e| e.value.as_slice());
        let set = value(tags::SPECIFIC_CHARACTER_SET).map(|bytes| charset::decode(bytes, None));
        let text = |tag| value(tag).map(|bytes| charset::decode(bytes, set.as_deref())).unwrap_or_default();
        Patient { id: text(tags::PATIENT_ID), name: text(tags::PATIENT_NAME) }
    }
}

/// Whose object it is, blanks around the values left out; empty values where it does not say.
pub fn patient_of(path: &Path, limits: &Limits) -> Result<Patient, DicomError> {
    let Walked { data, error, .. } = guard::walk_file(path, limits, &|_| Ok(()));
    if let Some(error) = error {
        return Err(error);
    }
    let root = data.root();
    let character_set = root.text(tags::SPECIFIC_CHARACTER_SET);
    let text = |tag| {
        let bytes = root.get(tag).and_then(|value| value.bytes());
        bytes.map(|bytes| charset::decode(bytes, character_set.as_deref())).unwrap_or_default()
    };
    Ok(Patient { id: text(tags::PATIENT_ID), name: text(tags::PATIENT_NAME) })
}

/// Whether the Patient ID (0010,0020) of an object is this one, blanks around both left out.
pub fn is_of_patient(path: &Path, patient_id: &str, limits: &Limits) -> Result<bool, DicomError> {
    let patient_id = patient_id.trim();
    Ok(!patient_id.is_empty() && patient_of(path, limits)?.id.trim_matches([' ', '\0']) == patient_id)
}
