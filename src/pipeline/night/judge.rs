//! From an evaluation to a signed report: what the gates are told beside scores is gathered here, by the daemon and not by the trainer.

use crate::fault::{Code, Fault};
use crate::ledger::{AuditEvent, CaseState, Ledger, Moment, RunRow, first_broken};
use crate::models::{Generation, Status};
use crate::sys::access;
use crate::sys::clock::Clock;
use crate::sys::durable::{Step, StorageError};
use crate::training::campaign::{Assignment, PLAN};
use crate::training::data::CaseFile;
use crate::training::gates::{ChangePlan, Evaluation, Facts, Picture, Verdict, judge, report, write_signed};
use crate::training::store::Store;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Largest plan and largest file of an evaluation.
const MAX_PLAN: u64 = 1 << 20;
const MAX_FILE: u64 = 256 << 20;
/// Openings are counted over this.
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// A plan that may be used for a model.
pub struct PlanInForce {
    /// The plan.
    pub plan: ChangePlan,
    /// Its text.
    pub text: String,
    /// The daemon's user could change it.
    pub writable: bool,
}

/// Reads the configured plan for a model.
///
/// # Errors
/// `training.plan_refused` for a plan that can not be read, that this process' user could change (unless it is one for demonstrations), that does
/// not cover the model, or one for demonstrations with an approved model.
pub fn plan_in_force(path: &Path, base: &Generation) -> Result<PlanInForce, Fault> {
    let refuse = |why: String| Err(Fault::new(Code::TrainingPlanRefused, format!("{}: {why}", path.display())));
    let mut text = String::new();
    if let Err(e) = File::open(path).and_then(|file| file.take(MAX_PLAN).read_to_string(&mut text)) {
        return refuse(e.to_string());
    }
    let plan = match ChangePlan::parse(&text) {
        Ok(plan) => plan,
        Err(error) => return refuse(error.to_string()),
    };
    let writable = match access::could_change(path) {
        Ok(writable) => writable,
        Err(e) => return refuse(e.to_string()),
    };
    if writable && !plan.demonstration {
        return refuse("the daemon's user could change it; it has to belong to another user, in folders of others".into());
    }
    if !plan.covers(&[&base.manifest.name, &base.digest]) {
        return refuse(format!("it does not name the model {}", base.manifest.name));
    }
    if plan.demonstration && base.manifest.status == Status::Clinical {
        return refuse("a plan for demonstrations changes no approved model".into());
    }
    if let Some(class) = plan.classes.iter().find(|class| base.manifest.labels.get(class.value).is_none()) {
        return refuse(format!("the model has no label {}", class.value));
    }
    Ok(PlanInForce { plan, text, writable })
}

/// Openings of the locked cases in the last year.
fn openings(ledger: &dyn Ledger, clock: &dyn Clock) -> Result<usize, Fault> {
    let since = Moment::from(clock.wall().checked_sub(YEAR).unwrap_or(std::time::UNIX_EPOCH));
    Ok(ledger.audit()?.iter().filter(|entry| entry.event == AuditEvent::GatesOpened && entry.at >= since).count())
}

/// That one more opening is left.
///
/// # Errors
/// `training.not_now`.
pub(super) fn opening_left(ledger: &dyn Ledger, plan: &ChangePlan, clock: &dyn Clock) -> Result<(), Fault> {
    let (used, limit) = (openings(ledger, clock)?, plan.conditions.openings);
    match used < limit {
        true => Ok(()),
        false => Err(Fault::new(
            Code::TrainingNotNow,
            format!("Candidates were measured on the locked cases {used} times within a year; the plan allows {limit}."),
        )),
    }
}

/// Judges an evaluated run and writes its signed report.
///
/// # Errors
/// Files of the run that can not be read; the disk; the ledger.
pub fn judge_run(
    folder: &Path,
    run: &RunRow,
    plan_file: &Path,
    base: &Generation,
    state: &Path,
    ledger: &dyn Ledger,
    clock: &dyn Clock,
) -> Result<Verdict, Fault> {
    let store = Store::open(state)?;
    let mut evaluation: Evaluation = read(&folder.join("evaluation.json"))?;
    let pictures: Vec<Picture> = read(&folder.join("pictures.json"))?;
    let plan = ChangePlan::read(&folder.join(PLAN))?;
    let now = plan_in_force(plan_file, base);
    let assignment = Assignment::read(folder)?;
    let candidate = Generation::open(&folder.join("candidate"))?;
    evaluation.facts = Some(Facts {
        plan: plan.digest(),
        plan_unchanged: plan.digest() == run.plan && now.as_ref().is_ok_and(|now| now.plan.digest() == run.plan),
        plan_writable: now.as_ref().map_or(true, |now| now.writable),
        plan_covers: plan.covers(&[&base.manifest.name, &base.digest]),
        cases: [assignment.training.len(), assignment.locked.len()],
        unsigned: unsigned(&assignment, &store, base, ledger)?,
        on_both_sides: on_both_sides(&assignment, &store, ledger)?,
        locked: locked_digest(&assignment, &store)?,
        openings: openings(ledger, clock)?,
        teaching_targets: teaching_targets(folder, &assignment, &plan)?,
        from_base: same_file(&folder.join("start.safetensors"), &base.manifest.weights.sha256)?,
        rehearsal: (assignment.rehearsal.len(), plan.recipe.rehearsal_share),
        research: candidate.manifest.status == Status::Research,
        audit_whole: first_broken(&ledger.audit()?).is_none(),
    });
    let labels: Vec<u16> = base.manifest.labels.iter().map(|label| label.value).collect();
    let names: BTreeMap<u16, String> = base.manifest.labels.iter().map(|label| (label.value, label.name.clone())).collect();
    let verdict = judge(&evaluation, &labels, &plan);
    let [json, html] = report(&verdict, &evaluation, &plan, &names, &pictures).map_err(|e| Fault::new(Code::InternalBug, e.to_string()))?;
    write_signed(folder, store.secret(), &json, &html)?;
    Ok(verdict)
}

/// Cases whose reader's word does not hold any more.
fn unsigned(assignment: &Assignment, store: &Store, base: &Generation, ledger: &dyn Ledger) -> Result<Vec<String>, Fault> {
    let accepted: BTreeSet<String> = ledger.cases()?.into_iter().filter(|row| row.state == CaseState::Accepted).map(|row| row.id).collect();
    let names = assignment.training.iter().chain(&assignment.locked);
    Ok(names.filter(|name| !accepted.contains(*name) || store.case(name).and_then(|case| case.reviewed(base)).is_err()).cloned().collect())
}

/// Persons with cases among those learned from and among the locked ones; by the ledger and by what the cases themselves say.
fn on_both_sides(assignment: &Assignment, store: &Store, ledger: &dyn Ledger) -> Result<Vec<String>, Fault> {
    let persons: BTreeMap<String, String> = ledger.patients()?.into_iter().map(|patient| (patient.key, patient.person)).collect();
    let of = |names: &[String]| -> Result<BTreeSet<String>, Fault> {
        let person = |name: &String| store.case(name).map(|case| persons.get(&case.record.patient).cloned().unwrap_or(case.record.patient));
        names.iter().map(person).collect()
    };
    let learned: BTreeSet<String> = &of(&assignment.training)? | &of(&assignment.rehearsal)?;
    Ok(learned.intersection(&of(&assignment.locked)?).cloned().collect())
}

fn locked_digest(assignment: &Assignment, store: &Store) -> Result<String, Fault> {
    let mut hash = Sha256::new();
    for name in &assignment.locked {
        let case = store.case(name)?;
        let labels = case.record.labels.as_ref().map_or("", |labels| labels.digest.as_str());
        for part in [name.as_str(), labels] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Rehearsal cases whose classes include one that is to get better.
fn teaching_targets(folder: &Path, assignment: &Assignment, plan: &ChangePlan) -> Result<Vec<String>, Fault> {
    let targets = plan.targets();
    let mut teaching = Vec::new();
    for name in &assignment.rehearsal {
        let case = CaseFile::open(&folder.join("rehearsal").join(format!("{name}.safetensors")))?;
        if case.allowed().iter().any(|class| targets.contains(class)) {
            teaching.push(name.clone());
        }
    }
    Ok(teaching)
}

fn same_file(path: &Path, sha256: &str) -> Result<bool, Fault> {
    let mut file = File::open(path).map_err(StorageError::at(Step::Read, path))?;
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block).map_err(StorageError::at(Step::Read, path))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>() == sha256),
            read => hash.update(&block[..read]),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Fault> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(StorageError::at(Step::Read, path))?;
    serde_json::from_str(&text).map_err(|_| Fault::new(Code::TrainingCase, format!("{} can not be read.", path.display())))
}
