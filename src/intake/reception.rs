//! What C-STORE and STOW-RS have in common: which objects are accepted, where they go, and with which status one is refused.

use super::account::Account;
use super::arrivals::{Arrivals, Delivery};
use super::dimse::Status;
use super::disks::{Disks, Room};
use super::spool::{Incoming, Spool, Stored};
use crate::audit::{Audit, Event, Node, Study};
use crate::config;
use crate::dicom::encode::file_meta;
use crate::dicom::guard::Limits;
use crate::dicom::{DicomError, Identity, SeriesKey, Uid, read_identity, syntax};
use crate::fault::{Code, Fault};
use crate::ledger::{self, Change, Ledger, Moment};
use crate::sys::crash::{self, Point};
use crate::sys::durable::{Step, StorageError};
use crate::telemetry::{Metrics, Received, Transport};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Storage SOP classes that are accepted: what can be segmented, and what usually comes in the same study. Only CT and PET images are
/// ever processed.
pub const STORAGE_SOP_CLASSES: &[(&str, &str)] = &[
    ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.2.2", "Legacy Converted Enhanced CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.128", "Positron Emission Tomography Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.130", "Enhanced PET Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.128.1", "Legacy Converted Enhanced PET Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage"),
    ("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage"),
];

/// The door for all objects of the network.
pub struct Reception {
    spool: Spool,
    ledger: Arc<dyn Ledger>,
    arrivals: Arc<Arrivals>,
    metrics: Arc<Metrics>,
    limits: Limits,
    disks: Arc<Disks>,
    audit: Audit,
}

/// An object that was not kept: why, and which one it was, if that could be told.
pub struct Refused {
    /// What its sender is told.
    pub status: Status,
    /// Its UIDs.
    pub identity: Option<Box<Identity>>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        Refused { status, identity: None }
    }
}

impl Reception {
    /// Opens the spool. What is kept is written into the ledger before anybody is told so.
    pub fn open(
        config: &config::Spool,
        ledger: Arc<dyn Ledger>,
        disks: Arc<Disks>,
        metrics: Arc<Metrics>,
        audit: Audit,
    ) -> Result<Reception, Fault> {
        let spool = Spool::open(&config.path, config.max_instance.0)?;
        let limits = Limits { file_bytes: config.max_instance.0, ..Limits::default() };
        Ok(Reception { spool, ledger, arrivals: Arrivals::new(), metrics, limits, disks, audit })
    }

    /// The folder that holds what has been received, for scans.
    pub fn root(&self) -> PathBuf {
        self.spool.series_root()
    }

    /// The folder that holds a series.
    pub fn folder_of(&self, series: &SeriesKey) -> PathBuf {
        self.spool.folder_of(&series.study, &series.series)
    }

    /// What is on its way.
    pub fn arrivals(&self) -> &Arc<Arrivals> {
        &self.arrivals
    }

    /// A delivery from this system begins.
    pub fn deliver_from(&self, node: Node) -> Delivery {
        self.arrivals.open(Account::new(self.audit.clone(), node))
    }

    /// Who hears of who did what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Removes all that was received of a series whose time is over. False when more of it is coming in this moment.
    pub fn discard(&self, series: &SeriesKey) -> Result<bool, Fault> {
        let paths: Vec<String> = self.ledger.received_of(series)?.into_iter().map(|r| r.path).collect();
        let known: BTreeSet<PathBuf> = paths.iter().map(PathBuf::from).collect();
        let change = Change::Discard { series: series.clone(), paths: paths.clone() };
        // Nobody can tell whose it was once it is gone.
        let patient = paths.first().and_then(|path| self.audit.patient(&self.spool.root().join(path)));
        let gone = || Ok(self.ledger.commit(vec![change]).map(|_| ())?);
        let removed = self.spool.remove(&series.study, &series.series, Some(&known), gone)?;
        if removed && !paths.is_empty() {
            self.audit.record(&Event::Removed(&Study { patient, ..Study::named(&series.study) }));
        }
        Ok(removed)
    }

    /// Whether the disks have room for more.
    pub fn has_room(&self) -> bool {
        self.disks.take()
    }

    /// The place for a file (PS3.10) that comes as it stands.
    pub fn begin_file(&self) -> Result<Incoming<'_>, Status> {
        if !self.has_room() {
            return Err(Status::OutOfResources);
        }
        self.spool.begin().map_err(|fault| status_of(&fault))
    }

    /// The place for a bare data set whose file meta information is ours to write.
    pub fn begin_data_set(&self, sop_class: &str, sop_instance: &str, transfer_syntax: &str) -> Result<Incoming<'_>, Status> {
        if !accepts(sop_class) {
            return Err(Status::SopClassNotSupported);
        }
        let instance = Uid::parse(sop_instance).map_err(|_| Status::InvalidInstance)?;
        let mut incoming = self.begin_file()?;
        incoming.write(&file_meta(sop_class, &instance, transfer_syntax)).map_err(|fault| status_of(&fault))?;
        Ok(incoming)
    }

    /// All bytes of an object are here: it is looked at, checked by `fits`, and kept. When this returns Ok, file and folder are on disk
    /// and the sender may be told so.
    pub fn keep(
        &self,
        mut incoming: Incoming<'_>,
        delivery: &Delivery,
        transport: Transport,
        fits: impl FnOnce(&Identity) -> Result<(), Status>,
    ) -> Result<Identity, Refused> {
        let (begun, bytes) = (incoming.begun(), incoming.bytes());
        let path = incoming.finish().map_err(|fault| status_of(&fault))?;
        let identity = match read_identity(path, &self.limits) {
            Ok(identity) => identity,
            Err(error) => {
                self.set_aside(incoming, error.code());
                return Err(refusal(&error).into());
            }
        };
        if let Err((status, code)) = self.checked(&identity, fits) {
            self.set_aside(incoming, code);
            return Err(Refused { status, identity: Some(Box::new(identity)) });
        }
        let stored = incoming.commit(&identity).and_then(|stored| self.note(&identity, &stored).map(|()| stored));
        let stored = stored.map_err(|fault| status_of(&fault));
        match stored {
            Ok(Stored { path, duplicate }) => {
                crash::point(Point::Acknowledging);
                delivery.stored(&identity, &path);
                self.metrics.stored(transport, begun.elapsed());
                self.metrics.arrived(transport, 1, bytes);
                self.metrics.received(transport, if duplicate { Received::Duplicate } else { Received::Stored });
                Ok(identity)
            }
            Err(status) => Err(Refused { status, identity: Some(Box::new(identity)) }),
        }
    }

    /// Writes an instance that is on disk into the ledger; one that is there already is left as it is.
    fn note(&self, identity: &Identity, stored: &Stored) -> Result<(), Fault> {
        let path = stored.path.strip_prefix(self.spool.root()).unwrap_or(&stored.path).to_string_lossy().into_owned();
        let bytes = std::fs::metadata(&stored.path).map_err(StorageError::at(Step::Read, &stored.path))?.len();
        let received = ledger::Received { series: series_of(identity), sop_instance: identity.sop_instance_uid.to_string(), path, bytes };
        self.ledger.commit(vec![Change::Receive(received)])?;
        Ok(())
    }

    /// Keeps an object that was refused for people to look at, as far as there is room; what its sender is told does not depend on it.
    fn set_aside(&self, incoming: Incoming<'_>, code: Code) {
        // Not being able to read back what was just written says nothing of the object.
        if code == Code::InputUnreadableFile || self.disks.room() != Room::Enough {
            return;
        }
        let (bytes, now) = (incoming.bytes(), self.ledger.now());
        let kept = self.spool.set_aside(incoming, now).and_then(|place| {
            let Some(place) = place else { return Ok(()) };
            let (origin, code) = (ledger::Origin::Network, code.name().into());
            let file = ledger::RefusedFile { origin, place, bytes, modified: now, code, first: now, last: now };
            Ok(self.ledger.commit(vec![Change::Refuse(vec![file])]).map(|_| ())?)
        });
        if let Err(fault) = kept {
            tracing::warn!(code = %fault.code, "a refused object is not kept: {}", fault.detail);
        }
    }

    /// Removes what was refused before this.
    pub fn remove_refused(&self, before: Moment) -> Result<(), Fault> {
        self.spool.remove_refused(before)
    }

    fn checked(&self, identity: &Identity, fits: impl FnOnce(&Identity) -> Result<(), Status>) -> Result<(), (Status, Code)> {
        if !accepts(identity.sop_class_uid.as_str()) {
            return Err((Status::SopClassNotSupported, Code::InputSopClass));
        }
        if !syntax::is_readable(&identity.transfer_syntax) {
            return Err((Status::TransferSyntaxNotSupported, Code::CodecTransferSyntax));
        }
        fits(identity).map_err(|status| (status, Code::InputOther))
    }

    /// An object was refused: counted and told, here alone.
    pub fn refused(&self, transport: Transport, status: Status) {
        self.metrics.received(transport, Received::Refused);
        tracing::warn!(transport = transport.name(), status = %format_args!("{:04X}", status.code()), "an object was refused: {status}");
    }
}

pub(super) fn series_of(identity: &Identity) -> SeriesKey {
    SeriesKey { study: identity.study_uid.to_string(), series: identity.series_uid.to_string() }
}

fn accepts(sop_class: &str) -> bool {
    STORAGE_SOP_CLASSES.iter().any(|(uid, _)| *uid == sop_class)
}

/// What a sender is told of a fault on the way to the disk.
pub fn status_of(fault: &Fault) -> Status {
    if fault.code == Code::InputTooLarge { Status::TooLarge } else { Status::OutOfResources }
}

fn refusal(error: &DicomError) -> Status {
    match error {
        DicomError::MissingUid(_) | DicomError::InvalidUid(_) => Status::BadUid,
        DicomError::TransferSyntax(_) => Status::TransferSyntaxNotSupported,
        DicomError::TooLarge { .. } => Status::TooLarge,
        // The bytes were just written: not being able to read them back is no fault of the sender.
        DicomError::Io(_) => Status::OutOfResources,
        _ => Status::CannotUnderstand,
    }
}
