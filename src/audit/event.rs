//! What is told, before it has a form.

use crate::dicom::Patient;
use crate::telemetry::AuditKind;
use std::collections::BTreeMap;

/// A study, as far as it is part of an event.
#[derive(Clone, Default)]
pub struct Study {
    /// Study Instance UID.
    pub uid: String,
    /// Whose, where that is known.
    pub patient: Option<Patient>,
    /// Instances by SOP Class UID.
    pub classes: BTreeMap<String, u64>,
}

impl Study {
    /// A study of which nothing else is known.
    pub fn named(uid: impl Into<String>) -> Study {
        Study { uid: uid.into(), ..Study::default() }
    }
}

/// Another system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it calls itself, or is called here: an AE title, or the name of a destination.
    pub name: String,
    /// Its address or host name, or the place of a web service; empty when it has none.
    pub address: String,
}

/// Something that the repository hears of.
pub enum Event<'a> {
    /// The daemon works.
    Started,
    /// The daemon ends.
    Stopped,
    /// Instances came from another system and are on disk.
    Received {
        /// Of which study.
        study: &'a Study,
        /// Who sent them.
        from: &'a Node,
    },
    /// Instances are about to be sent.
    Begun {
        /// Of which study.
        study: &'a Study,
        /// To whom.
        to: &'a Node,
    },
    /// Instances are at another system, or have been given up.
    Sent {
        /// Of which study.
        study: &'a Study,
        /// To whom.
        to: &'a Node,
        /// It had them already.
        already: bool,
        /// Why they did not get there; a stable code.
        failed: Option<&'static str>,
    },
    /// A study was read, to be segmented.
    Read(&'a Study),
    /// Instances were added to a study.
    Created(&'a Study),
    /// What was received of a study was removed: its time was over.
    Removed(&'a Study),
    /// A person removed a study.
    Deleted {
        /// Which one.
        study: &'a Study,
        /// Who.
        who: &'a str,
    },
    /// Somebody who is not known asked for something.
    Refused {
        /// Who, as far as that is known.
        node: &'a Node,
        /// What and why.
        why: &'a str,
    },
    /// A person changed what becomes of a job.
    Command {
        /// Who.
        who: &'a str,
        /// What, for example `retry job 7`.
        what: &'a str,
        /// The job's study.
        study: &'a Study,
    },
    /// Messages were lost.
    Gap {
        /// How many.
        lost: u64,
    },
}

impl Event<'_> {
    /// As metrics say it.
    pub fn kind(&self) -> AuditKind {
        match self {
            Event::Started => AuditKind::ApplicationStart,
            Event::Stopped => AuditKind::ApplicationStop,
            Event::Begun { .. } => AuditKind::TransferBegun,
            Event::Received { .. } | Event::Sent { .. } => AuditKind::Transferred,
            Event::Read(_) | Event::Created(_) | Event::Removed(_) => AuditKind::Accessed,
            Event::Deleted { .. } => AuditKind::StudyDeleted,
            Event::Refused { .. } | Event::Gap { .. } => AuditKind::SecurityAlert,
            Event::Command { .. } => AuditKind::UserAction,
        }
    }
}
