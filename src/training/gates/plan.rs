//! `change-plan.toml`: what may change and what has to be shown before. Written by people before training; the trainer can
//! not write it.

use crate::training::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Largest plan.
const MAX_FILE: u64 = 1 << 20;

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePlan {
    /// Version of this file's layout: 1.
    pub schema: u32,
    /// Which plan, and which version of it; stands in every report.
    pub name: String,
    /// For phantoms and demonstrations: an approved model refuses it, and the report says so.
    #[serde(default)]
    pub demonstration: bool,
    /// Limits of the gates.
    pub limits: Limits,
    /// Classes that training may change or that are critical; all others only have to stay as they are.
    #[serde(default)]
    pub classes: Vec<PlanClass>,
}

/// A class of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanClass {
    /// Label value.
    pub value: u16,
    /// Training is to make it better.
    #[serde(default)]
    pub target: bool,
    /// Held to the tighter limit.
    #[serde(default)]
    pub critical: bool,
}

/// Limits of the gates. Losses and gains are differences candidate - serving.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Positive patients among the locked cases that make a class assessable.
    pub min_patients: usize,
    /// Bootstrap resamples.
    pub resamples: usize,
    /// One-sided error of each bound.
    pub error: f64,
    /// Lowest lower bound of the mean Dice difference of a class.
    pub dice: f64,
    /// The same for critical classes.
    pub critical_dice: f64,
    /// Lowest lower bound of the mean surface Dice difference of a class.
    pub surface_dice: f64,
    /// Largest loss of Dice of one patient in one class.
    pub patient_loss: f64,
    /// Studies without labels on which classes that are not assessable are compared.
    pub agreement_studies: usize,
    /// Least mean Dice against the serving model there.
    pub agreement_mean: f64,
    /// Least Dice of a single study there.
    pub agreement_least: f64,
    /// Patients that make a subgroup count.
    pub subgroup_patients: usize,
    /// Largest mean loss of Dice of a subgroup.
    pub subgroup_loss: f64,
    /// Lowest lower bound of the mean Dice difference under a change of the input.
    pub robustness: f64,
    /// Largest growth of the mean number of components of a class.
    pub components: f64,
    /// Largest growth of time, as a share.
    pub slower: f64,
    /// Largest growth of memory, as a share.
    pub larger: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            min_patients: 20,
            resamples: 10_000,
            error: 0.05,
            dice: -0.01,
            critical_dice: -0.005,
            surface_dice: -0.02,
            patient_loss: 0.10,
            agreement_studies: 20,
            agreement_mean: 0.99,
            agreement_least: 0.95,
            subgroup_patients: 20,
            subgroup_loss: 0.02,
            robustness: -0.02,
            components: 0.5,
            slower: 0.05,
            larger: 0.02,
        }
    }
}

impl ChangePlan {
    /// Reads and checks a plan.
    pub fn read(path: &Path) -> Result<ChangePlan, Error> {
        let unreadable = |source| {
            use crate::sys::durable::{Step, StorageError};
            Error::Storage(StorageError { step: Step::Read, path: path.into(), source })
        };
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
            return Err(Error::Settings(format!("{} is larger than {MAX_FILE} bytes", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let plan: ChangePlan = toml::from_str(&text).map_err(|e| Error::Settings(format!("{}: {e}", path.display())))?;
        plan.check().map(|()| plan)
    }

    /// Refuses limits that are no limits.
    pub fn check(&self) -> Result<(), Error> {
        let l = &self.limits;
        let refuse = |what: &str| Err(Error::Settings(format!("change plan {:?}: {what}", self.name)));
        let loss = |value: f64| (-1.0..=0.0).contains(&value);
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if self.schema != 1 {
            return refuse("this version reads schema 1");
        }
        if l.min_patients == 0 || l.agreement_studies == 0 || l.subgroup_patients == 0 || !(100..=1_000_000).contains(&l.resamples) {
            return refuse("numbers of patients and studies have to be at least 1, resamples in 100..=1000000");
        }
        if !(1e-4..=0.2).contains(&l.error) || ![l.dice, l.critical_dice, l.surface_dice, l.robustness].into_iter().all(loss) {
            return refuse("error has to lie in 0.0001..=0.2, lower bounds of differences in -1..=0");
        }
        let shares = [l.patient_loss, l.agreement_mean, l.agreement_least, l.subgroup_loss, l.slower, l.larger];
        if !shares.into_iter().all(share) || !(0.0..=1000.0).contains(&l.components) {
            return refuse("losses, agreements and growths have to lie in 0..=1");
        }
        let mut values: Vec<u16> = self.classes.iter().map(|class| class.value).collect();
        values.sort_unstable();
        if values.first() == Some(&0) || values.windows(2).any(|pair| pair[0] == pair[1]) {
            return refuse("a class is the background, or named twice");
        }
        // Fewer than the defaults prove too little for anything but a demonstration.
        let d = Limits::default();
        let weak = l.min_patients < d.min_patients
            || l.agreement_studies < d.agreement_studies
            || l.dice < d.dice
            || l.surface_dice < d.surface_dice;
        if weak && !self.demonstration {
            return refuse("limits below the defaults need `demonstration = true`");
        }
        Ok(())
    }
}
