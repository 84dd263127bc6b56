//! What is told of jobs: to the audit repository which study was read, and what was added to it; to the metrics what is in a result.

use super::Service;
use crate::audit::{Event, Study};
use crate::delivery;
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

    /// What is in a result, for the metrics.
    pub(super) fn count_outputs(&self, folder: &Path) {
        // It was there a moment ago; when it can not be read, its delivery says so.
        let Ok(Some(manifest)) = delivery::published(folder) else { return };
        for label in &manifest.labels {
            match label.volume_ml {
                _ if label.voxels == 0 => self.metrics.outputs.empty(&label.name),
                Some(volume) => self.metrics.outputs.volume(&label.name, volume),
                // A part of it may be missing.
                None => {}
            }
        }
    }
}
