//! A destination that is a folder: results are copied into it, whole or not at all.

use super::folder::{self, Outcome};
use super::parcel::Parcel;
use super::transport::{Clerk, Confirmed, Failure, Transport, Verdict};
use crate::config::Destination;
use crate::fault::{Class, Code, Fault};
use crate::results::{MANIFEST_FILE, write_manifest};
use crate::sys::durable::{self, StagingDir, Step, StorageError};
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// Copies results into a folder of a disk or a mount.
pub struct Copy {
    to: PathBuf,
    /// What an earlier process left half copied is removed.
    swept: bool,
}

impl Copy {
    /// Into the folder that the configuration names.
    pub fn new(destination: &Destination) -> Copy {
        Copy { to: destination.path.clone(), swept: false }
    }

    fn copy(&mut self, parcel: &Parcel) -> Result<Outcome, Fault> {
        if !self.swept {
            durable::remove_leftovers(&self.to)?;
            self.swept = true;
        }
        let gone = || Fault::new(Code::ResultsChanged, format!("The manifest of {} is not there any more.", parcel.name));
        let mut manifest = folder::published(&parcel.folder)?.ok_or_else(gone)?;
        manifest.outputs.retain(|output| parcel.items.iter().any(|item| item.name == output.file));
        let staging = StagingDir::new_in(&self.to)?;
        for item in &parcel.items {
            let target = staging.path().join(&item.name);
            let mut source = File::open(&item.path).map_err(StorageError::at(Step::Read, &item.path))?;
            durable::write_file_with(&target, |file| {
                io::copy(&mut source, file).map(|_| ()).map_err(StorageError::at(Step::Write, &target))
            })?;
        }
        write_manifest(&staging.path().join(MANIFEST_FILE), &manifest)?;
        Ok(folder::publish(staging, &self.to.join(&parcel.name))?.outcome)
    }
}

impl Transport for Copy {
    fn deliver(&mut self, parcel: &Parcel, _: &mut dyn Clerk) -> Verdict {
        // Never created: below a mount point whose disk is away, results would go where nobody looks.
        if !self.to.is_dir() {
            let fault = Fault::new(Code::DeliveryUnreachable, format!("{} is not there.", self.to.display()));
            return Verdict::failed(Failure::Unreachable, fault);
        }
        match self.copy(parcel) {
            Ok(Outcome::AlreadyThere | Outcome::FirstKept(_)) => Verdict::Delivered { confirmed: Confirmed::Query, warning: None },
            Ok(Outcome::Published | Outcome::Added(_)) => Verdict::Delivered { confirmed: Confirmed::Status, warning: None },
            Err(fault) if fault.class == Class::Retryable => Verdict::failed(Failure::Passing, fault),
            Err(fault) => Verdict::failed(Failure::Refused, fault),
        }
    }
}
