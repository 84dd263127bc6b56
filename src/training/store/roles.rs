//! How many of the new patients are locked away.

use crate::training::cases::Role;
use std::collections::{BTreeMap, BTreeSet};

/// Positive patients among the locked that make a class assessable.
const ENOUGH: usize = 20;
/// Of new patients, until then and afterwards.
const AT_FIRST: f64 = 0.5;
const LATER: f64 = 0.2;

/// What a case shows of its patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Pseudonym of the patient.
    pub patient: String,
    /// The patient's role.
    pub role: Role,
    /// Names of classes that have voxels.
    pub classes: Vec<String>,
}

/// Patients by class: of the training side, of the locked side.
pub fn positives(cases: &[Shown]) -> BTreeMap<String, [usize; 2]> {
    let mut patients: BTreeMap<&str, [BTreeSet<&str>; 2]> = BTreeMap::new();
    for case in cases {
        for class in &case.classes {
            patients.entry(class).or_default()[usize::from(case.role == Role::Locked)].insert(&case.patient);
        }
    }
    patients.into_iter().map(|(class, sides)| (class.to_string(), sides.map(|side| side.len()))).collect()
}

/// The share of new patients that is locked away: half, until each class that any case shows has 20 locked patients; a fifth then.
pub fn locked_share(cases: &[Shown]) -> f64 {
    let positives = positives(cases);
    if !positives.is_empty() && positives.values().all(|[_, locked]| *locked >= ENOUGH) { LATER } else { AT_FIRST }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(patient: usize, role: Role, classes: &[&str]) -> Shown {
        Shown { patient: format!("p{patient}"), role, classes: classes.iter().map(|class| class.to_string()).collect() }
    }

    #[test]
    fn half_until_every_class_can_be_measured() {
        assert_eq!(locked_share(&[]), 0.5);
        let mut cases: Vec<Shown> = (0..19).map(|i| shown(i, Role::Locked, &["liver"])).collect();
        // Another case of a patient, or a patient who is trained on, adds nothing.
        cases.push(shown(3, Role::Locked, &["liver"]));
        cases.push(shown(40, Role::Training, &["liver"]));
        assert_eq!((locked_share(&cases), positives(&cases)["liver"]), (0.5, [1, 19]));
        cases.push(shown(50, Role::Locked, &["liver"]));
        assert_eq!(locked_share(&cases), 0.2);
        cases.push(shown(51, Role::Training, &["spleen"]));
        assert_eq!(locked_share(&cases), 0.5, "a new class has to be measured, too");
    }
}
