//! What one association, or one request, has brought, by study: the audit repository is told when it ends.

use crate::audit::{Audit, Event, Node, Study};
use crate::dicom::Identity;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The instances of one delivery that are on disk. Told when it is dropped.
pub struct Account {
    audit: Audit,
    from: Node,
    studies: Mutex<BTreeMap<String, Study>>,
}

impl Account {
    /// Of what comes from this system.
    pub fn new(audit: Audit, from: Node) -> Account {
        Account { audit, from, studies: Mutex::default() }
    }

    /// An instance is on disk, in this file.
    pub fn add(&self, identity: &Identity, file: &Path) {
        if !self.audit.is_on() {
            return;
        }
        let mut studies = self.studies.lock().unwrap_or_else(PoisonError::into_inner);
        let study = studies
            .entry(identity.study_uid.to_string())
            .or_insert_with_key(|uid| Study { patient: self.audit.patient(file), ..Study::named(uid.as_str()) });
        *study.classes.entry(identity.sop_class_uid.to_string()).or_default() += 1;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let studies = self.studies.get_mut().unwrap_or_else(PoisonError::into_inner);
        for study in std::mem::take(studies).values() {
            self.audit.record(&Event::Received { study, from: &self.from });
        }
    }
}
