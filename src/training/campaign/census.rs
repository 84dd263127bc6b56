//! What there is to learn from, to measure on and to rehearse, and whether it is enough.

use crate::fault::{Code, Fault};
use crate::ledger::{CaseKind, CaseRow, CaseState, Patient, PatientRole};
use crate::models::LabelTable;
use crate::training::gates::ChangePlan;
use crate::training::store::Stored;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Patients of a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Label value.
    pub value: u16,
    /// Its name.
    pub name: String,
    /// The plan wants it to get better.
    pub target: bool,
    /// Patients with voxels of it, by side.
    pub training: usize,
    /// See there.
    pub locked: usize,
}

/// The accepted cases, by what they are good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Census {
    /// Names of cases to learn from.
    pub training: Vec<String>,
    /// Names of locked cases.
    pub locked: Vec<String>,
    /// Names of studies to rehearse: those of patients who are not locked.
    pub rehearsal: Vec<String>,
    /// Names of studies to compare models on: those of patients who are not learned from, and where there are too few of them the others too.
    pub studies: Vec<String>,
    /// Each class.
    pub classes: Vec<ClassCount>,
    /// Persons with cases on both sides.
    pub on_both_sides: Vec<String>,
}

impl Census {
    /// Counts accepted cases that are in the store.
    pub fn take(rows: &[CaseRow], patients: &[Patient], stored: &[Stored], labels: &LabelTable, plan: &ChangePlan) -> Census {
        let patients: BTreeMap<&str, &Patient> = patients.iter().map(|patient| (patient.key.as_str(), patient)).collect();
        let stored: BTreeMap<&str, &Stored> = stored.iter().map(|case| (case.name.as_str(), case)).collect();
        let mut census = Census::default();
        let mut sides: BTreeMap<&str, BTreeSet<PatientRole>> = BTreeMap::new();
        let mut positive: BTreeMap<&str, [BTreeSet<&str>; 2]> = BTreeMap::new();
        let mut locked_studies = Vec::new();
        for row in rows.iter().filter(|row| row.state == CaseState::Accepted) {
            let Some(case) = stored.get(row.id.as_str()) else { continue };
            let patient = patients.get(row.patient.as_str());
            let role = patient.map(|patient| patient.role);
            if let Some(patient) = patient {
                sides.entry(&patient.person).or_default().insert(patient.role);
            }
            match (row.kind, role) {
                (CaseKind::Labelled, Some(role)) => {
                    let side = usize::from(role == PatientRole::Locked);
                    if side == 1 {
                        census.locked.push(row.id.clone())
                    } else {
                        census.training.push(row.id.clone())
                    }
                    let found = case.record.labels.iter().flat_map(|labels| &labels.millilitres).filter(|(_, ml)| **ml > 0.0);
                    for (class, _) in found {
                        positive.entry(class).or_default()[side].insert(&row.patient);
                    }
                }
                // Without a role nothing of the patient may be learned from.
                (CaseKind::Labelled, None) => {}
                (CaseKind::Unlabelled, Some(PatientRole::Locked)) => locked_studies.push(row.id.clone()),
                (CaseKind::Unlabelled, _) => census.rehearsal.push(row.id.clone()),
            }
        }
        // What was rehearsed agrees by itself; what was not comes first.
        let missing = plan.limits.agreement_studies.saturating_sub(locked_studies.len());
        census.studies = locked_studies;
        census.studies.extend(census.rehearsal.iter().take(missing).cloned());
        let targets = plan.targets();
        census.classes = labels
            .iter()
            .map(|label| {
                let [training, locked] = positive.get(label.name.as_str()).map_or([0, 0], |sides| sides.each_ref().map(BTreeSet::len));
                ClassCount { value: label.value, name: label.name.clone(), target: targets.contains(&label.value), training, locked }
            })
            .collect();
        census.on_both_sides = sides.into_iter().filter(|(_, roles)| roles.len() > 1).map(|(person, _)| person.to_string()).collect();
        census
    }

    /// Why nothing can be taught yet; none: it can.
    ///
    /// # Errors
    /// `training.too_few_cases`, `training.plan_refused`, `cases.leak`.
    pub fn suffices(&self, plan: &ChangePlan) -> Result<(), Fault> {
        let (conditions, limits) = (plan.conditions, plan.limits);
        if let Some(person) = self.on_both_sides.first() {
            return Err(Fault::new(Code::CasesLeak, format!("Person {person} has cases on both sides of the split.")));
        }
        let mut targets = self.classes.iter().filter(|class| class.target).peekable();
        if targets.peek().is_none() {
            return Err(Fault::new(Code::TrainingPlanRefused, "The plan names no class of the model as a target."));
        }
        let too_few = |what: String| Err(Fault::new(Code::TrainingTooFewCases, what));
        for class in targets {
            if class.training < conditions.training_patients || class.locked < limits.min_patients {
                return too_few(format!(
                    "{}: {} patients to learn from (at least {}) and {} locked ones (at least {}).",
                    class.name, class.training, conditions.training_patients, class.locked, limits.min_patients
                ));
            }
        }
        if self.rehearsal.len() < conditions.rehearsal_studies {
            let (there, least) = (self.rehearsal.len(), conditions.rehearsal_studies);
            return too_few(format!("{there} local studies to rehearse, at least {least} are needed."));
        }
        let unassessable = self.classes.iter().any(|class| class.locked < limits.min_patients);
        if unassessable && self.studies.len() < limits.agreement_studies {
            let (there, least) = (self.studies.len(), limits.agreement_studies);
            return too_few(format!("{there} local studies to compare models on, at least {least} are needed."));
        }
        Ok(())
    }
}
