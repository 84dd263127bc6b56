//! What the audit repository hears of jobs: which study was read, and what was added to it.

use super::Service;
use crate::audit::{Event, Study};
use crate::dicom::guard::Limits;
use crate::dicom::{Patient, read_identity};
use crate::ledger::Published;
use crate::series::Series;
use std::path::Path;

impl Service {
    /// A study is about to be read; its series have headers already.
    pub(super) fn tell_read(&self, series: &Series) {
        if self.audit.is_on() {
            let study = Study { patient: Some(Patient::of(&series.copied)), ..Study::named(series.study_uid.as_str()) };
            self.audit.record(&Event::Read(&study));
        }
    }

    /// A result is in its folder: its DICOM objects belong to the study from now on.
    pub(super) fn tell_created(&self, study: &str, folder: &Path, result: &Published) {
        if !self.audit.is_on() {
            return;
        }
        let mut study = Study::named(study);
        for object in result.objects.iter().filter(|o| o.file.ends_with(".dcm")) {
            let path = folder.join(&object.file);
            // It was written a moment ago; when it can not be read, whoever delivers it says so.
            let Ok(identity) = read_identity(&path, &Limits { file_bytes: object.bytes, ..Limits::default() }) else { continue };
            *study.classes.entry(identity.sop_class_uid.to_string()).or_default() += 1;
            study.patient = study.patient.or_else(|| self.audit.patient(&path));
        }
        if !study.classes.is_empty() {
            self.audit.record(&Event::Created(&study));
        }
    }
}
