//! What every way to a destination has in common: it is given a parcel, and says what became of it.

use super::copy::Copy;
use super::cstore::Cstore;
use super::parcel::Parcel;
use super::stow::Stow;
use crate::config::{Accepts, Destination, DestinationKind, Format};
use crate::dicom::commitment::Report;
use crate::fault::{Code, Fault};
use crate::intake::commitment::COMMITMENT;
use crate::models::Status;
use crate::results::{ResultManifest, Share, file_name};

/// After so many refusals a delivery is parked.
pub const REFUSALS: u32 = 3;

/// A way to one destination.
pub trait Transport: Send {
    /// Brings a parcel there. What may be there already is asked about before it is sent again; where nobody can tell, the clerk is told
    /// before it is sent once more.
    fn deliver(&mut self, parcel: &Parcel, clerk: &mut dyn Clerk) -> Verdict;

    /// Nothing more is to be sent for now: lets connections go.
    fn rest(&mut self) {}

    /// Reports of storage commitment that came meanwhile.
    fn reports(&mut self) -> Vec<Report> {
        Vec::new()
    }
}

/// Who writes down what a transport does.
pub trait Clerk {
    /// It is about to be sent again although nobody can tell whether it is there. Returns once that is durable.
    fn resend(&mut self) -> Result<(), Fault>;

    /// The destination is about to be asked to commit itself to keeping it, in this transaction. Returns once that is durable: the answer
    /// may come at any time.
    fn asks(&mut self, transaction: &str) -> Result<(), Fault>;

    /// Something moved.
    fn moved(&mut self);
}

/// What became of a parcel.
#[derive(Debug)]
pub enum Verdict {
    /// It is there.
    Delivered {
        /// How that is known.
        confirmed: Confirmed,
        /// What the destination said beside yes.
        warning: Option<Fault>,
    },
    /// It is there as far as is known, and was asked to commit itself to keeping it: the answer is on its way.
    Asked {
        /// What the destination said beside yes when it got it.
        warning: Option<Fault>,
    },
    /// It is not, as far as is known.
    Failed {
        /// What may be done.
        failure: Failure,
        /// Something of it may be there nevertheless.
        doubtful: bool,
        /// Why.
        fault: Fault,
    },
}

/// How it is known that a destination has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// It said so when it got it.
    Status,
    /// It was asked afterwards.
    Query,
    /// It committed itself to keeping it.
    Commitment,
}

impl Confirmed {
    /// Every way.
    pub const ALL: [Confirmed; 3] = [Confirmed::Status, Confirmed::Query, Confirmed::Commitment];

    /// As metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Confirmed::Status => "status",
            Confirmed::Query => "query",
            Confirmed::Commitment => COMMITMENT,
        }
    }
}

/// Of which kind a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The destination was not reached: tried again for ever.
    Unreachable,
    /// Not now: tried again for ever.
    Passing,
    /// Not now, and perhaps never: tried again some times.
    Doubted,
    /// No: parked after few tries.
    Refused,
    /// Nothing that trying again would change: parked.
    Final,
}

impl Verdict {
    /// A failure that leaves no doubt.
    pub fn failed(failure: Failure, fault: Fault) -> Verdict {
        Verdict::Failed { failure, doubtful: false, fault }
    }

    /// The same, when a part of the parcel is there for sure.
    pub fn after(self, any_stored: bool) -> Verdict {
        match self {
            Verdict::Failed { failure, fault, .. } if any_stored => Verdict::Failed { failure, doubtful: true, fault },
            other => other,
        }
    }

    /// A fault on our side: of a result that is not what it was, of the ledger or a disk.
    pub fn own(fault: Fault) -> Verdict {
        use crate::fault::Class;
        let failure = if fault.class == Class::Poison { Failure::Final } else { Failure::Passing };
        Verdict::failed(failure, fault)
    }
}

/// The way that the configuration names. A certificate that can not be used is `config.invalid`.
pub fn open(destination: &Destination) -> Result<Box<dyn Transport>, Fault> {
    Ok(match destination.kind {
        DestinationKind::Folder => Box::new(Copy::new(destination)),
        DestinationKind::Cstore => Box::new(Cstore::new(destination)?),
        DestinationKind::Stow => Box::new(Stow::new(destination)?),
    })
}

/// Names of the destinations that get a result.
pub fn recipients(destinations: &[Destination], result: &ResultManifest) -> Vec<String> {
    let accepts = |d: &&Destination| d.accepts == Accepts::Research || result.model.status == Status::Clinical;
    let has = |d: &&Destination| d.formats.iter().any(|format| has_for(d, *format, result));
    destinations.iter().filter(accepts).filter(has).map(|d| d.name.clone()).collect()
}

/// Whether a result has a file in this format for a destination, or something that stands for it.
fn has_for(destination: &Destination, format: Format, result: &ResultManifest) -> bool {
    let there = |name: &str| result.outputs.iter().any(|o| o.file == name);
    if !format.is_dicom() {
        return there(file_name(format));
    }
    let share = Share::of(destination, format);
    let smaller = || there(&share.as_label_map().file()) || result.outputs.iter().any(|o| share.part(&o.file).is_some());
    there(&share.file()) || (format == Format::Seg && smaller())
}

/// `delivery.unverified`: it may be there, and nobody can tell.
pub fn unverified(why: &str) -> Verdict {
    let fault = Fault::new(Code::DeliveryUnverified, why);
    Verdict::Failed { failure: Failure::Final, doubtful: true, fault }
}
