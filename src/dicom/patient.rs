//! Whether an object is of a patient. What names the patient stays in here.

use super::charset;
use super::error::DicomError;
use super::guard::{self, Limits, Walked};
use dicom_dictionary_std::tags;
use std::path::Path;

/// Whether the Patient ID (0010,0020) of an object is this one, blanks around both left out.
pub fn is_of_patient(path: &Path, patient_id: &str, limits: &Limits) -> Result<bool, DicomError> {
    let Walked { data, error, .. } = guard::walk_file(path, limits, &|_| Ok(()));
    if let Some(error) = error {
        return Err(error);
    }
    let root = data.root();
    let character_set = root.text(tags::SPECIFIC_CHARACTER_SET);
    let found = root.get(tags::PATIENT_ID).and_then(|value| value.bytes());
    let found = found.map(|bytes| charset::decode(bytes, character_set.as_deref())).unwrap_or_default();
    let patient_id = patient_id.trim();
    Ok(!patient_id.is_empty() && found.trim_matches([' ', '\0']) == patient_id)
}
