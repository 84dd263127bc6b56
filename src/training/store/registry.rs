//! What the ledger knows of the store's cases: their states, and the sides of their patients.

use super::roles::{Shown, locked_share};
use super::{Store, Stored};
use crate::fault::Fault;
use crate::ledger::{CaseKind, CaseRow, CaseState, Change, Ledger, NewCaseRow, Patient, PatientRole, Problem, Reader, TrainingChange};
use crate::training::cases::{CaseError, CaseKeys, Role, Roles};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The side of the split, as the ledger calls it.
pub fn side(role: Role) -> PatientRole {
    match role {
        Role::Training => PatientRole::Training,
        Role::Locked => PatientRole::Locked,
    }
}

/// The side of the split, by the ledger's name.
pub fn role(side: PatientRole) -> Role {
    match side {
        PatientRole::Training => Role::Training,
        PatientRole::Locked => Role::Locked,
    }
}

/// Cases that were given up: their images may come again, and nothing is learned from them.
///
/// # Errors
/// The ledger.
pub fn inactive(ledger: &dyn Reader) -> Result<BTreeSet<String>, Fault> {
    let given_up = |case: &CaseRow| !matches!(case.state, CaseState::Pending | CaseState::Accepted);
    Ok(ledger.cases()?.into_iter().filter(given_up).map(|case| case.id).collect())
}

/// The side of each case's patient, for those that count: what the ledger lacks is drawn and comes back beside. Patients that were found
/// to be one person count as one.
///
/// # Errors
/// `cases.leak` when a person is on both sides: nothing may be trained then.
pub fn split(cases: &[Stored], patients: &[Patient], active: &dyn Fn(&str) -> bool) -> Result<(BTreeMap<String, Role>, Roles), Fault> {
    let person: BTreeMap<&str, &str> = patients.iter().map(|p| (p.key.as_str(), p.person.as_str())).collect();
    let mut sides: BTreeMap<&str, Role> = BTreeMap::new();
    for patient in patients {
        if *sides.entry(&patient.person).or_insert(role(patient.role)) != role(patient.role) {
            let of = cases.iter().find(|case| case.record.patient == patient.key).map_or("that was removed", |case| &case.name);
            return Err(CaseError::Leak(of.into()).into());
        }
    }
    let mut roles: Roles = sides.iter().map(|(person, role)| (person.to_string(), *role)).collect();
    let of_person =
        |keys: CaseKeys| CaseKeys { patient: person.get(keys.patient.as_str()).map_or(keys.patient.clone(), |p| p.to_string()), ..keys };
    let counting: Vec<&Stored> = cases.iter().filter(|case| active(&case.name)).collect();
    let keys: Vec<CaseKeys> = counting.iter().map(|case| of_person(case.keys())).collect();
    let shown: Vec<Shown> = counting
        .iter()
        .zip(&keys)
        .filter_map(|(case, keys)| {
            let labels = case.record.labels.as_ref()?;
            Some(Shown {
                patient: keys.patient.clone(),
                role: roles.of(&keys.patient)?,
                classes: labels.millilitres.keys().cloned().collect(),
            })
        })
        .collect();
    let drawn = roles.assign(&keys, locked_share(&shown))?;
    Ok((drawn, roles))
}

/// Brings a case of the store into the ledger, and its patient onto one side of the split. A case that waits for a reader is accepted when there
/// is a record by now; `problem` says why one does not hold. Again, it changes nothing.
///
/// # Errors
/// `cases.leak`; the ledger.
pub fn register(store: &Store, ledger: &dyn Ledger, stored: &Stored, problem: Option<Problem>, who: &str) -> Result<(), Fault> {
    let (cases, rows) = (store.cases()?, ledger.cases()?);
    let state_of: BTreeMap<&str, CaseState> = rows.iter().map(|row| (row.id.as_str(), row.state)).collect();
    let active = |case: &str| matches!(state_of.get(case), None | Some(CaseState::Pending | CaseState::Accepted));
    let (drawn, _) = split(&cases, &ledger.patients()?, &active)?;
    let roles = cases.iter().filter_map(|case| Some((case.record.patient.clone(), side(*drawn.get(&case.name)?)))).collect();
    let mut changes = vec![Change::Training(TrainingChange::AssignRoles { roles, who: who.into() })];
    let (id, who) = (stored.name.clone(), who.to_string());
    let labels = stored.record.labels.as_ref().map(|labels| labels.digest.clone());
    let accepted = !stored.is_labelled() || stored.is_accepted()?;
    let change = match state_of.get(id.as_str()) {
        Some(CaseState::Pending) if accepted => {
            Some(TrainingChange::DecideCase { id, state: CaseState::Accepted, labels, problem: None, who })
        }
        // What a reader decided stays, whatever lies in the folder.
        Some(CaseState::Accepted | CaseState::Refused | CaseState::Withdrawn) => None,
        None | Some(CaseState::Pending | CaseState::Rejected) => {
            let kind = if stored.is_labelled() { CaseKind::Labelled } else { CaseKind::Unlabelled };
            let state = if accepted { CaseState::Accepted } else { CaseState::Pending };
            let case = NewCaseRow { id, patient: stored.record.patient.clone(), kind, state, labels, problem };
            Some(TrainingChange::AddCase { case, who })
        }
    };
    changes.extend(change.map(Change::Training));
    ledger.commit(changes)?;
    Ok(())
}

/// What a folder that gives no case is called in the ledger: the same for the same folder in the same state.
pub fn name_of_folder(store: &Store, folder: &Path, print: &str) -> String {
    store.case_name(&format!("folder {}", folder.display()), print)
}

/// Remembers why a folder gives no case.
///
/// # Errors
/// The ledger.
pub fn reject(store: &Store, ledger: &dyn Ledger, folder: &Path, print: &str, problem: Problem, who: &str) -> Result<(), Fault> {
    let id = name_of_folder(store, folder, print);
    let patient = store.pseudonym("nobody", &id);
    let case = NewCaseRow { id, patient, kind: CaseKind::Labelled, state: CaseState::Rejected, labels: None, problem: Some(problem) };
    ledger.commit(vec![Change::Training(TrainingChange::AddCase { case, who: who.into() })])?;
    Ok(())
}

/// Says that two patients are one person.
///
/// # Errors
/// `cases.leak` when they are on different sides: nothing is changed then. The ledger, for patients that it does not know.
pub fn link(ledger: &dyn Ledger, keys: [String; 2], who: &str) -> Result<(), Fault> {
    let patients = ledger.patients()?;
    let sides = keys.each_ref().map(|key| {
        let person = patients.iter().find(|p| p.key == *key).map(|p| &p.person);
        patients.iter().filter(|p| Some(&p.person) == person).map(|p| p.role.name()).collect::<BTreeSet<_>>()
    });
    if sides[0].union(&sides[1]).count() > 1 {
        return Err(CaseError::Leak("named second".into()).into());
    }
    ledger.commit(vec![Change::Training(TrainingChange::LinkPatients { keys: keys.into(), who: who.into() })])?;
    Ok(())
}
