//! Reading no more of an object than which one it is.

use super::super::error::DicomError;
use super::super::guard::{self, Limits, Walked};
use super::super::uid::Uid;
use super::required_uid;
use dicom_dictionary_std::tags;
use std::path::Path;

/// The UIDs inside an object's data set, which decide where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Transfer Syntax UID of the file.
    pub transfer_syntax: String,
}

/// Reads the identity of a composite object of any class. The whole file is walked up to and including its pixel data: one that ends
/// too early, or is built so as to do harm, is an error.
pub fn read_identity(path: &Path, limits: &Limits) -> Result<Identity, DicomError> {
    let Walked { data, error, .. } = guard::walk_file(path, limits, &|_| Ok(()));
    if let Some(error) = error {
        return Err(error);
    }
    let root = data.root();
    Ok(Identity {
        study_uid: required_uid(root, tags::STUDY_INSTANCE_UID, "Study Instance UID")?,
        series_uid: required_uid(root, tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
        sop_class_uid: required_uid(root, tags::SOP_CLASS_UID, "SOP Class UID")?,
        sop_instance_uid: required_uid(root, tags::SOP_INSTANCE_UID, "SOP Instance UID")?,
        transfer_syntax: data.transfer_syntax.clone(),
    })
}
