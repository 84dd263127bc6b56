//! Whether a candidate may come into service, and at whose word.

use super::Assignment;
use crate::fault::{Code, Fault};
use crate::ledger::{RunRow, RunState};
use crate::models::{Generation, Status};
use crate::training::cases::Decision;
use crate::training::gates::{ChangePlan, Mode, read_signed};
use crate::training::store::Store;
use std::collections::BTreeSet;
use std::path::Path;

/// Longest name or reason.
const MAX_TEXT: usize = 200;

/// That a run's candidate may serve at the word of these people; opens it.
///
/// # Errors
/// `training.not_now` for a run that did not pass, or whose serving model is another by now; `training.gates_refused` for a report that does not say so;
/// `training.report_changed`; `training.plan_refused` for people whom the plan does not name or who are readers of the cases, and where an
/// approved model or a plan with shadow asks for more than there is.
pub fn promotable(
    folder: &Path,
    run: &RunRow,
    plan: &ChangePlan,
    serving: &Generation,
    base: &Generation,
    store: &Store,
    people: &[String],
) -> Result<Generation, Fault> {
    let not_now = |why: String| Err(Fault::new(Code::TrainingNotNow, format!("Run {}: {why}", run.id)));
    let refuse = |why: String| Err(Fault::new(Code::TrainingPlanRefused, why));
    if !matches!(run.state, RunState::Passed | RunState::Shadow) {
        return not_now(format!("it is {}, not passed.", run.state.name()));
    }
    if run.serving != serving.digest {
        return not_now("it was compared with another model than the one that serves now; compare again.".into());
    }
    let report = read_signed(folder, store.secret())?;
    let candidate = Generation::open(&folder.join("candidate"))?;
    let says = |pointer: &str, value: &str| report.pointer(pointer).and_then(|v| v.as_str()) == Some(value);
    let passed = report.pointer("/verdict/passed").and_then(|v| v.as_bool()) == Some(true);
    if !passed || !says("/evaluation/candidate", &candidate.digest) || !says("/evaluation/serving", &serving.digest) {
        return Err(Fault::new(
            Code::TrainingGatesRefused,
            "The report is not about this candidate and the model that serves, or did not pass it.",
        ));
    }
    if run.candidate.as_deref() != Some(candidate.digest.as_str()) || plan.digest() != run.plan {
        return not_now("candidate or plan are others than those of the run.".into());
    }
    let names: BTreeSet<&str> = people.iter().map(|name| name.trim()).collect();
    if names.is_empty() || names.iter().any(|name| name.is_empty() || name.len() > MAX_TEXT) {
        return refuse("A promotion needs the name of a person (--by).".into());
    }
    let readers = readers(folder, store)?;
    if let Some(name) = names.iter().find(|name| readers.contains(&name.to_lowercase())) {
        return refuse(format!("{name} is a reader of the run's cases; another person has to decide."));
    }
    if let Some(name) = names.iter().find(|name| !plan.approvers.is_empty() && !plan.approvers.iter().any(|known| known == *name)) {
        return refuse(format!("The plan does not name {name} among its approvers."));
    }
    let approved = base.manifest.status == Status::Clinical || serving.manifest.status == Status::Clinical;
    if approved && names.len() < 2 {
        return refuse("A model that is approved for clinical use changes at the word of two people (--by twice).".into());
    }
    if approved || plan.mode == Mode::Shadow {
        return not_now("it has to run in shadow first, which this version does not do.".into());
    }
    Ok(candidate)
}

/// Who signed for the cases that were learned from or measured on, in lower case.
fn readers(folder: &Path, store: &Store) -> Result<BTreeSet<String>, Fault> {
    let assignment = Assignment::read(folder)?;
    let mut readers = BTreeSet::new();
    for name in assignment.training.iter().chain(&assignment.locked) {
        let records = store.case(name)?.signoffs()?;
        readers.extend(records.into_iter().filter(|r| r.decision == Decision::Accepted).map(|r| r.reader.trim().to_lowercase()));
    }
    Ok(readers)
}
