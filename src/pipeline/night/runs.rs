//! Runs in the ledger and their folders.

use super::judge::{judge_run, plan_in_force};
use super::{Shift, child::Task};
use crate::fault::{Code, Fault};
use crate::ledger::{AuditEvent, Change, Problem, RunId, RunRow, RunState, TrainingChange};
use crate::models::{Generation, Lineage, Status};
use crate::pipeline::promotion::{Wish, activate};
use crate::sys::durable::{self, Step, StorageError};
use crate::training::campaign::{Assignment, Census, PLAN, make_candidate};
use crate::training::gates::{ChangePlan, Mode};
use crate::training::store::Store;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;

/// Steps are written into the ledger this often.
const TELL: u64 = 25;

impl Shift {
    pub(super) fn folder_of(&self, run: RunId) -> PathBuf {
        self.plan.state.join("training/runs").join(run.0.to_string())
    }

    /// The run that is open now.
    pub(super) fn open_run(&self) -> Result<Option<RunRow>, Fault> {
        Ok(self.plan.ledger.runs()?.into_iter().find(|run| run.state.is_open()))
    }

    /// The generation that serves in the configured model's place.
    fn serving(&self) -> Result<Arc<Generation>, Fault> {
        serving_generation(&self.plan.state, &self.plan.base, &self.plan.ledger.active()?)
    }

    /// What there is, by the ledger and the store.
    fn census(&self, plan: &ChangePlan) -> Result<Census, Fault> {
        let store = Store::open(&self.plan.state)?;
        let (rows, patients) = (self.plan.ledger.cases()?, self.plan.ledger.patients()?);
        Ok(Census::take(&rows, &patients, &store.cases()?, &self.plan.base.manifest.labels, plan))
    }

    /// Begins a run if there is enough that no run has learned from, and nobody has to decide about an earlier one.
    pub(super) fn begin(&mut self) {
        match self.try_begin() {
            Ok(true) => {
                self.waits_for = None;
                self.next_begin = self.plan.clock.monotonic();
            }
            Ok(false) => {}
            Err(fault) => {
                let why = format!("{} {}", fault.code, fault.detail);
                if self.waits_for.as_ref() != Some(&why) {
                    tracing::info!(code = %fault.code, "no training yet: {}", fault.detail);
                    self.waits_for = Some(why);
                }
            }
        }
    }

    fn try_begin(&mut self) -> Result<bool, Fault> {
        let plan = plan_in_force(&self.plan.training.plan, &self.plan.base)?;
        let census = self.census(&plan.plan)?;
        census.suffices(&plan.plan)?;
        let runs = self.plan.ledger.runs()?;
        if let Some(waiting) = runs.iter().rev().find(|run| matches!(run.state, RunState::Passed | RunState::Shadow)) {
            return Err(Fault::new(Code::TrainingNotNow, format!("Run {} waits for a person to promote or stop it.", waiting.id)));
        }
        super::judge::opening_left(&*self.plan.ledger, &plan.plan, &*self.plan.clock)?;
        // What a run has learned from is not learned from again until something is added, whatever came of it.
        let learned = runs.last().and_then(|run| Assignment::read(&self.folder_of(run.id)).ok());
        if learned.is_some_and(|learned| learned.training == census.training && learned.locked == census.locked) {
            return Ok(false);
        }
        let serving = self.serving()?;
        let begin = TrainingChange::BeginRun {
            slot: self.plan.base.digest.clone(),
            base: self.plan.base.digest.clone(),
            serving: serving.digest.clone(),
            plan: plan.plan.digest(),
            steps: plan.plan.recipe.epochs.saturating_mul(plan.plan.recipe.iterations),
            who: self.plan.owner.clone(),
        };
        self.plan.ledger.commit(vec![Change::Training(begin)])?;
        tracing::info!(cases = census.training.len(), locked = census.locked.len(), "a training run begins");
        Ok(true)
    }

    /// Writes down what a run is made of, once.
    pub(super) fn assign(&mut self, run: RunId) -> Result<(), Fault> {
        let folder = self.folder_of(run);
        if folder.join(PLAN).is_file() {
            return Ok(());
        }
        let plan = plan_in_force(&self.plan.training.plan, &self.plan.base)?;
        let census = self.census(&plan.plan)?;
        census.suffices(&plan.plan)?;
        durable::create_dir_all(&folder)?;
        let assignment = Assignment {
            state: self.plan.state.clone(),
            base: self.plan.base.dir.clone(),
            serving: self.serving()?.dir.clone(),
            training: census.training,
            rehearsal: if plan.plan.recipe.rehearsal_share > 0.0 { census.rehearsal } else { Vec::new() },
            locked: census.locked,
            studies: census.studies,
            step: self.plan.options.step,
            mirror: self.plan.options.mirror,
        };
        assignment.write(&folder)?;
        // Last: a folder with a plan is a whole one.
        Ok(durable::write_file(&folder.join(PLAN), plan.text.as_bytes())?)
    }

    /// Steps that are done, for `train status`.
    pub(super) fn ahead(&mut self, step: u64, of: u64) {
        let Some(child) = &mut self.child else { return };
        child.of = of;
        let trains = child.task == Task::Train;
        let Some(run) = &mut self.run else { return };
        if trains && (step >= run.step + TELL || step == of) {
            run.step = step;
            let change = TrainingChange::MoveRun {
                id: run.id,
                state: run.state,
                step,
                candidate: None,
                problem: None,
                who: self.plan.owner.clone(),
            };
            if let Err(error) = self.plan.ledger.commit(vec![Change::Training(change)]) {
                tracing::debug!("steps were not written down: {error}");
            }
        }
    }

    /// The child's work is done: the run goes on to the next.
    pub(super) fn finished(&mut self) {
        let Some(run) = self.run.clone() else { return };
        if let Err(fault) = self.next_state(&run) {
            self.fail(fault);
        }
        // The machine counts finished work as none: what comes next is told anew.
        self.told.2 = None;
    }

    fn next_state(&mut self, run: &RunRow) -> Result<(), Fault> {
        match run.state {
            RunState::Queued | RunState::Preparing => self.move_run(RunState::Training, None, None),
            RunState::Training => {
                let plan = plan_in_force(&self.plan.training.plan, &self.plan.base)?;
                super::judge::opening_left(&*self.plan.ledger, &plan.plan, &*self.plan.clock)?;
                let assignment = Assignment::read(&self.folder_of(run.id))?;
                let opened = TrainingChange::Note {
                    who: self.plan.owner.clone(),
                    event: AuditEvent::GatesOpened,
                    subject: run.id.to_string(),
                    detail: format!("{} locked cases", assignment.locked.len()),
                };
                self.plan.ledger.commit(vec![Change::Training(opened)])?;
                self.move_run(RunState::Evaluating, None, None)
            }
            RunState::Evaluating => {
                let folder = self.folder_of(run.id);
                let candidate = make_candidate(&folder, &self.plan.base, run.id.0)?;
                let judged = judge_run(
                    &folder,
                    run,
                    &self.plan.training.plan,
                    &self.plan.base,
                    &self.plan.state,
                    &*self.plan.ledger,
                    &*self.plan.clock,
                )?;
                for gate in &judged.gates {
                    self.plan.metrics.training.gate(&format!("{:?}", gate.gate), gate.passed);
                }
                if judged.passed {
                    tracing::info!(run = run.id.0, candidate = candidate.digest, "a candidate has passed its gates");
                    self.plan.metrics.training.run_ended("passed");
                    self.move_run(RunState::Passed, Some(candidate.digest.clone()), None)?;
                    return self.promote_by_itself(run, &candidate);
                }
                let refused: Vec<String> = judged.gates.iter().filter(|gate| !gate.passed).map(|gate| format!("{:?}", gate.gate)).collect();
                let fault = Fault::new(Code::TrainingGatesRefused, format!("refused by {}", refused.join(", ")));
                tracing::warn!(run = run.id.0, code = %fault.code, "{}: {}", fault.detail, fault.code.action());
                self.plan.metrics.training.run_ended("refused");
                let problem = Problem { code: fault.code.name().into(), detail: fault.detail };
                self.move_run(RunState::Refused, Some(candidate.digest), Some(problem))
            }
            _ => Ok(()),
        }
    }

    /// In mode `auto` a candidate of a research model that the plan names comes into service without a person.
    fn promote_by_itself(&mut self, run: &RunRow, candidate: &Generation) -> Result<(), Fault> {
        let (plan, base) = (plan_in_force(&self.plan.training.plan, &self.plan.base)?.plan, &self.plan.base);
        let serving = self.serving()?;
        let research = [base.as_ref(), &serving, candidate].iter().all(|model| model.manifest.status == Status::Research);
        if plan.mode != Mode::Auto || plan.digest() != run.plan || !research || serving.digest != run.serving {
            return Ok(());
        }
        let published = publish(&self.plan.state, &self.folder_of(run.id), run, candidate)?;
        let store = crate::models::Store::of(&self.plan.state);
        let wish = Wish { slot: &base.digest, generation: &published.digest, who: &self.plan.owner, reason: "passed its gates, mode auto" };
        activate(&*self.plan.ledger, &store, wish)?;
        self.move_run(RunState::Promoted, Some(published.digest.clone()), None)?;
        // Full: it has been rung already.
        let _ = self.plan.bell.try_send(());
        tracing::info!(run = run.id.0, generation = published.digest, "serves from now on");
        Ok(())
    }
}

/// Puts a run's candidate into the store of generations.
///
/// # Errors
/// A candidate that is not whole, the disk.
pub fn publish(state: &std::path::Path, folder: &std::path::Path, run: &RunRow, candidate: &Generation) -> Result<Generation, Fault> {
    let report = folder.join("report.json");
    let report = std::fs::read(&report).map_err(StorageError::at(Step::Read, &report))?;
    let report: String = Sha256::digest(report).iter().map(|byte| format!("{byte:02x}")).collect();
    let lineage = Lineage { slot: run.slot.clone(), run: Some(run.id.0), report: Some(report), ..Lineage::default() };
    let published = crate::models::Store::of(state).publish(candidate.manifest.clone(), &candidate.weights(), &lineage)?;
    match published.digest == candidate.digest {
        true => Ok(published),
        false => Err(Fault::new(Code::TrainingGatesRefused, "The candidate is not the one that was compared.")),
    }
}

/// The generation that serves in a model's place.
///
/// # Errors
/// A generation that is not in the store of the state folder.
pub fn serving_generation(
    state: &std::path::Path,
    base: &Arc<Generation>,
    active: &[crate::ledger::Active],
) -> Result<Arc<Generation>, Fault> {
    match active.iter().find(|active| active.slot == base.digest).map(|active| active.generation.as_str()) {
        Some(digest) if digest != base.digest => Ok(Arc::new(Generation::open(&state.join("training/generations").join(digest))?)),
        _ => Ok(base.clone()),
    }
}
