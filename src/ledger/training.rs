//! Which generation of each model serves, what models learn from, and the audit of both: records and changes.

use super::names::{AuditEvent, CaseKind, CaseState, PatientRole, RunState};
use super::records::{Moment, Problem, Seq, number};
use serde::Serialize;
use sha2::{Digest, Sha256};

number! {
    /// A training run, for good.
    RunId
}

/// What serves in place of a configured model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Active {
    /// Digest of the configured model.
    pub slot: String,
    /// Digest of the generation that serves in its place; the slot's own after a rollback to the beginning.
    pub generation: String,
    /// What a rollback goes back to.
    pub previous: Option<String>,
    /// The generation that runs beside it, its results never leaving.
    pub shadow: Option<String>,
    /// What was rolled back last: nothing begins with it.
    pub withdrawn: Option<String>,
    /// Since when.
    pub since: Moment,
    /// Who brought it there.
    pub who: String,
}

/// A patient of the curated cases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Patient {
    /// Keyed hash of the patient.
    pub key: String,
    /// The side of the split; never changes.
    pub role: PatientRole,
    /// One of the keys of the same person.
    pub person: String,
}

/// A curated case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseRow {
    /// Its name, which tells nothing of the patient.
    pub id: String,
    /// Keyed hash of the patient.
    pub patient: String,
    /// What it is good for.
    pub kind: CaseKind,
    /// Where it is.
    pub state: CaseState,
    /// Digest of its labels.
    pub labels: Option<String>,
    /// Why it is not used.
    pub problem: Option<Problem>,
    /// When it came.
    pub added: Moment,
    /// When its state or its labels changed last.
    pub changed: Moment,
}

/// A case that comes into the store, or comes again with other labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCaseRow {
    /// Its name.
    pub id: String,
    /// Keyed hash of the patient.
    pub patient: String,
    /// What it is good for.
    pub kind: CaseKind,
    /// Where it is.
    pub state: CaseState,
    /// Digest of its labels.
    pub labels: Option<String>,
    /// Why it is not used.
    pub problem: Option<Problem>,
}

/// A training run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// Its number.
    pub id: RunId,
    /// The configured model whose place the candidate is for, by its digest.
    pub slot: String,
    /// What it starts from, by its digest.
    pub base: String,
    /// What it is compared with, by its digest.
    pub serving: String,
    /// What came of it, by its digest.
    pub candidate: Option<String>,
    /// Name or digest of the change plan.
    pub plan: String,
    /// Where it is.
    pub state: RunState,
    /// Optimiser steps so far.
    pub step: u64,
    /// Of so many.
    pub steps: u64,
    /// Why it ended, or waits.
    pub problem: Option<Problem>,
    /// When it was wished for.
    pub created: Moment,
    /// When anything of it changed last.
    pub changed: Moment,
}

/// A line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its place.
    pub seq: Seq,
    /// When.
    pub at: Moment,
    /// Who did it: a process, or a person.
    pub who: String,
    /// What happened.
    pub event: AuditEvent,
    /// To which generation, case, patient or run.
    pub subject: String,
    /// In which way.
    pub detail: String,
    /// [`chain`] of this line and the one before.
    pub chain: String,
}

/// A step of models or of what they learn from. Each has one line in the audit, in the same commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrainingChange {
    /// A case comes into the store. One of the same name, patient and kind gets these labels and this state, unless it was withdrawn; with
    /// nothing new it changes nothing.
    AddCase {
        /// The case.
        case: NewCaseRow,
        /// Who brought it.
        who: String,
    },
    /// A case goes to another state ([`CaseState::may_become`]).
    DecideCase {
        /// Which.
        id: String,
        /// The state.
        state: CaseState,
        /// Digest of the labels that the decision is about; refused when the case has others. None: whichever.
        labels: Option<String>,
        /// Why it is not used.
        problem: Option<Problem>,
        /// Who decided.
        who: String,
    },
    /// A case is gone from the store.
    RemoveCase {
        /// Which.
        id: String,
        /// Who removed it.
        who: String,
    },
    /// Patients get their side of the split. Refused, all of it, when one has the other side already.
    AssignRoles {
        /// Keys and sides.
        roles: Vec<(String, PatientRole)>,
        /// Who drew them.
        who: String,
    },
    /// These keys, and those linked with any of them before, are of one person. Their sides stay: two sides are found when a run begins.
    LinkPatients {
        /// Keys.
        keys: Vec<String>,
        /// Who knows.
        who: String,
    },
    /// A run is wished for. Refused while another is open.
    BeginRun {
        /// Digest of the configured model.
        slot: String,
        /// What it starts from.
        base: String,
        /// What it is compared with.
        serving: String,
        /// The change plan.
        plan: String,
        /// Optimiser steps.
        steps: u64,
        /// Who wishes.
        who: String,
    },
    /// A run goes on. Only another state has a line in the audit.
    MoveRun {
        /// Which.
        id: RunId,
        /// The state ([`RunState::may_become`]).
        state: RunState,
        /// Optimiser steps so far.
        step: u64,
        /// What came of it, once known.
        candidate: Option<String>,
        /// Why.
        problem: Option<Problem>,
        /// Who moved it.
        who: String,
    },
    /// A generation serves in a slot from now on. Jobs in work end with the model that they have.
    Activate {
        /// Digest of the configured model.
        slot: String,
        /// Digest of the generation.
        generation: String,
        /// Who wants it.
        who: String,
        /// Why.
        reason: String,
    },
    /// What served before serves again, or the configured model itself when nothing did. Jobs in work with the generation that goes are put
    /// back into the line in the same commit: nothing of it is published any more.
    Rollback {
        /// Digest of the configured model.
        slot: String,
        /// Who wants it.
        who: String,
        /// Why.
        reason: String,
    },
    /// A generation runs beside the serving one, or none.
    SetShadow {
        /// Digest of the configured model.
        slot: String,
        /// Digest of the generation.
        generation: Option<String>,
        /// Who wants it.
        who: String,
    },
    /// Something else that is to be remembered.
    Note {
        /// Who did it.
        who: String,
        /// What happened.
        event: AuditEvent,
        /// To what.
        subject: String,
        /// In which way.
        detail: String,
    },
}

/// The digest that ties a line of the audit to the one before: SHA-256 over that one's chain (empty before the first) and the line's fields,
/// each with its length in front; hexadecimal.
pub fn chain(before: &str, entry: &AuditEntry) -> String {
    let (seq, at) = (entry.seq.0.to_string(), entry.at.0.to_string());
    let mut hash = Sha256::new();
    for field in [before, &seq, &at, &entry.who, entry.event.name(), &entry.subject, &entry.detail] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first line of an audit, whole from its beginning, that is not what was written there.
pub fn first_broken(audit: &[AuditEntry]) -> Option<Seq> {
    let mut before = "";
    for (expected, entry) in (1u64..).zip(audit) {
        if entry.seq.0 != expected || entry.chain != chain(before, entry) {
            return Some(entry.seq);
        }
        before = &entry.chain;
    }
    None
}
