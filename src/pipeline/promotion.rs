//! What a person, or training, may change about which generation of a model serves.

use crate::fault::{Code, Fault};
use crate::ledger::{AuditEntry, AuditEvent, Change, Ledger, Problem, RunRow, RunState, TrainingChange};
use crate::models::{Status, Store};
use serde::{Deserialize, Serialize};

/// What a person can ask for about models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum ModelCommand {
    /// Let a generation of the store serve, or the configured model itself.
    Activate {
        /// Digest of the configured model.
        slot: String,
        /// Digest of the generation.
        generation: String,
        /// Who says that they want it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Let that serve again which served before.
    Rollback {
        /// Digest of the configured model.
        slot: String,
        /// Who says that they want it.
        by: String,
        /// Why.
        reason: String,
    },
    /// Remember that a person approved a generation.
    Approved {
        /// Digest of the approved generation.
        generation: String,
        /// Digest of what was approved.
        from: String,
        /// Who approved it.
        by: String,
        /// The document that says so.
        document: String,
    },
    /// Begin a training run.
    TrainStart {
        /// Digest of the configured model.
        slot: String,
        /// Digest of the generation that serves in its place.
        serving: String,
        /// Digest of the change plan.
        plan: String,
        /// Optimiser steps.
        steps: u64,
    },
    /// End a training run, or take its candidate out of the line.
    TrainStop {
        /// Its number.
        run: u64,
        /// Why.
        reason: String,
    },
    /// Let a run's candidate serve.
    TrainPromote {
        /// Its number.
        run: u64,
        /// Digest of the candidate, which is in the store.
        generation: String,
        /// Who decides.
        by: String,
        /// Why.
        reason: String,
    },
}

impl ModelCommand {
    /// The training run that it is about, if it is there already.
    pub fn run(&self) -> Option<u64> {
        match self {
            ModelCommand::TrainStop { run, .. } | ModelCommand::TrainPromote { run, .. } => Some(*run),
            _ => None,
        }
    }
}

/// Does what a person asks, in the ledger; the digest of what serves after it, or of what was approved. `who`: as the system names the person.
pub fn carry_out(ledger: &dyn Ledger, store: &Store, command: ModelCommand, who: &str) -> Result<String, Fault> {
    match command {
        ModelCommand::Activate { slot, generation, by, reason } => {
            let who = named(&by, who);
            activate(ledger, store, Wish { slot: &slot, generation: &generation, who: &who, reason: &reason })
        }
        ModelCommand::Rollback { slot, by, reason } => {
            let who = named(&by, who);
            ledger.commit(vec![Change::Training(TrainingChange::Rollback { slot: slot.clone(), who, reason })])?;
            serves(ledger, &slot)
        }
        ModelCommand::Approved { generation, from, by, document } => {
            store.get(&generation)?;
            let note = TrainingChange::Note {
                who: named(&by, who),
                event: AuditEvent::Approved,
                subject: generation.clone(),
                detail: format!("from {from}, document {document}"),
            };
            ledger.commit(vec![Change::Training(note)])?;
            Ok(generation)
        }
        ModelCommand::TrainStart { slot, serving, plan, steps } => {
            let begin = TrainingChange::BeginRun { base: slot.clone(), slot, serving, plan, steps, who: who.into() };
            ledger.commit(vec![Change::Training(begin)])?;
            Ok(RunState::Queued.name().into())
        }
        ModelCommand::TrainStop { run, reason } => {
            let row = run_of(ledger, run)?;
            let problem = Some(Problem { code: Code::TrainingNotNow.name().into(), detail: format!("Stopped by a person. {reason}") });
            ledger.commit(vec![moved(&row, RunState::Stopped, problem, who.into())])?;
            Ok(RunState::Stopped.name().into())
        }
        ModelCommand::TrainPromote { run, generation, by, reason } => {
            let row = run_of(ledger, run)?;
            let as_compared = row.candidate.as_ref() == Some(&generation) && serves(ledger, &row.slot)? == row.serving;
            if row.state != RunState::Passed || !as_compared {
                let why =
                    format!("Run {run} did not pass with this candidate, or was compared with another model than the one that serves now.");
                return Err(Fault::new(Code::TrainingNotNow, why));
            }
            let who = named(&by, who);
            activate(ledger, store, Wish { slot: &row.slot, generation: &generation, who: &who, reason: &reason })?;
            ledger.commit(vec![moved(&row, RunState::Promoted, None, who)])?;
            Ok(generation)
        }
    }
}

fn run_of(ledger: &dyn Ledger, id: u64) -> Result<RunRow, Fault> {
    let row = ledger.runs()?.into_iter().find(|run| run.id.0 == id);
    row.ok_or_else(|| Fault::new(Code::TrainingUnknownRun, format!("{id}")))
}

fn moved(row: &RunRow, state: RunState, problem: Option<Problem>, who: String) -> Change {
    let (id, step, candidate) = (row.id, row.step, row.candidate.clone());
    Change::Training(TrainingChange::MoveRun { id, state, step, candidate, problem, who })
}

/// The name that a person gave, and the one that the system vouches for.
fn named(by: &str, who: &str) -> String {
    if by.is_empty() { who.into() } else { format!("{by}, as {who}") }
}

/// That a generation is to serve.
pub struct Wish<'w> {
    /// Digest of the configured model.
    pub slot: &'w str,
    /// Digest of the generation.
    pub generation: &'w str,
    /// Who wants it.
    pub who: &'w str,
    /// Why.
    pub reason: &'w str,
}

/// Lets a generation serve from the next claim on; the digest of what serves then. What is approved for clinical use gives way to what is
/// approved only, and approval counts only with its line in the audit.
pub fn activate(ledger: &dyn Ledger, store: &Store, wish: Wish<'_>) -> Result<String, Fault> {
    let Wish { slot, generation, who, reason } = wish;
    let refused = |why: &str| Err(Fault::new(Code::ModelNotPromotable, format!("{generation}: {why}.")));
    let serving = serves(ledger, slot)?;
    let clinical = |digest: &str| digest != slot && store.get(digest).is_ok_and(|model| model.manifest.status == Status::Clinical);
    if generation != slot {
        store.get(generation)?;
        if store.lineage(generation)?.slot != slot {
            return refused("it was made for the place of another model");
        }
        let approved = |entry: &AuditEntry| entry.event == AuditEvent::Approved && entry.subject == generation;
        if clinical(generation) && !ledger.audit()?.iter().any(approved) {
            return refused("nobody approved it");
        }
    }
    if clinical(&serving) && !clinical(generation) {
        return refused(
            "the model that serves is approved for clinical use and this one is not; `stunetd model rollback` always goes back",
        );
    }
    let (slot, generation, who, reason) = (slot.to_owned(), generation.to_owned(), who.to_owned(), reason.to_owned());
    let change = TrainingChange::Activate { slot, generation: generation.clone(), who, reason };
    ledger.commit(vec![Change::Training(change)])?;
    Ok(generation)
}

/// Digest of what serves in a slot.
pub fn serves(ledger: &dyn Ledger, slot: &str) -> Result<String, Fault> {
    let row = ledger.active()?.into_iter().find(|row| row.slot == slot);
    Ok(row.map_or_else(|| slot.to_owned(), |row| row.generation))
}
