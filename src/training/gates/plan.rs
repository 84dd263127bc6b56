//! `change-plan.toml`: what may change and what has to be shown before. Written by people before training; the trainer can
//! not write it.

use crate::training::Error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Largest plan.
const MAX_FILE: u64 = 1 << 20;
/// Longest name, and most of them.
const MAX_TEXT: usize = 200;
const MAX_NAMES: usize = 1000;

/// How a candidate that passed its gates comes into service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A person promotes it.
    #[default]
    Manual,
    /// It runs beside the serving model first, its results never leaving; then a person promotes it.
    Shadow,
    /// By itself; only research models that `models` names.
    Auto,
}

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
    /// How a candidate comes into service.
    #[serde(default)]
    pub mode: Mode,
    /// Names or digests of the models that may be changed; empty: every research model, but none by itself.
    #[serde(default)]
    pub models: Vec<String>,
    /// Names of the people who may promote; empty: whoever is not the reader of the cases.
    #[serde(default)]
    pub approvers: Vec<String>,
    /// What has to be there before anything is taught.
    #[serde(default)]
    pub conditions: Conditions,
    /// How it is taught.
    #[serde(default)]
    pub recipe: Recipe,
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

/// What has to be there before anything is taught, and before a candidate serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Patients to learn a target class from. As many locked ones as make it assessable are needed too.
    pub training_patients: usize,
    /// Local studies to rehearse.
    pub rehearsal_studies: usize,
    /// How often a year candidates may be measured on the locked cases.
    pub openings: usize,
    /// Live studies and days in shadow before a person may promote; asked for in that mode, and of approved models in any.
    pub shadow_studies: usize,
    /// See there.
    pub shadow_days: usize,
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions { training_patients: 20, rehearsal_studies: 50, openings: 4, shadow_studies: 200, shadow_days: 7 }
    }
}

/// The numbers that a network is taught in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numbers {
    /// IEEE single.
    #[default]
    F32,
    /// bfloat16 in wide stages.
    Bf16,
}

impl Numbers {
    /// As `run.toml` has it.
    pub fn name(self) -> &'static str {
        match self {
            Numbers::F32 => "f32",
            Numbers::Bf16 => "bf16",
        }
    }
}

/// What of the recipe people may choose; the rest is nnU-Net's and STU-Net's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Of `iterations` steps each.
    pub epochs: u64,
    /// Steps of an epoch.
    pub iterations: u64,
    /// Samples of a step.
    pub batch: usize,
    /// At the start.
    pub learning_rate: f64,
    /// Share of samples from rehearsal.
    pub rehearsal_share: f64,
    /// Pull towards the start.
    pub l2_sp: f64,
    /// Weight of distillation.
    pub distillation: f64,
    /// Decay of the moving average.
    pub average: f64,
    /// Of all random numbers.
    pub seed: u64,
    /// Faster or plainer.
    pub precision: Numbers,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            epochs: 1000,
            iterations: 250,
            batch: 2,
            learning_rate: 1e-3,
            rehearsal_share: 0.5,
            l2_sp: 1e-3,
            distillation: 1.0,
            average: 0.999,
            seed: 1,
            precision: Numbers::F32,
        }
    }
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
        ChangePlan::parse(&text).map_err(|e| Error::Settings(format!("{}: {e}", path.display())))
    }

    /// The plan in a text.
    pub fn parse(text: &str) -> Result<ChangePlan, Error> {
        let plan: ChangePlan = toml::from_str(text).map_err(|e| Error::Settings(e.to_string()))?;
        plan.check().map(|()| plan)
    }

    /// SHA-256 over what the plan says, hexadecimal.
    pub fn digest(&self) -> String {
        // Numbers and texts only: nothing that JSON could not hold.
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The classes that are to get better, ascending.
    pub fn targets(&self) -> Vec<u16> {
        let mut targets: Vec<u16> = self.classes.iter().filter(|class| class.target).map(|class| class.value).collect();
        targets.sort_unstable();
        targets
    }

    /// Whether the plan is for a model with these names ([`models`](ChangePlan::models)); by itself a candidate serves only where the model is
    /// named.
    pub fn covers(&self, names: &[&str]) -> bool {
        let named = self.models.iter().any(|model| names.contains(&model.as_str()));
        named || (self.models.is_empty() && self.mode != Mode::Auto)
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
        let (c, r) = (&self.conditions, &self.recipe);
        let positive = |value: f64| value > 0.0 && value <= 1.0;
        if c.training_patients == 0 || c.openings == 0 || r.epochs == 0 || r.iterations == 0 || r.batch == 0 {
            return refuse("training_patients, openings, epochs, iterations and batch have to be at least 1");
        }
        if !positive(r.learning_rate) || ![r.rehearsal_share, r.l2_sp, r.average].into_iter().all(share) {
            return refuse("learning_rate has to lie above 0 and up to 1, the shares of the recipe in 0..=1");
        }
        if !(0.0..=100.0).contains(&r.distillation) || (r.rehearsal_share > 0.0) != (c.rehearsal_studies > 0) {
            return refuse("distillation has to lie in 0..=100, and a rehearsal share needs studies to rehearse");
        }
        if self.mode == Mode::Auto && self.models.is_empty() {
            return refuse("mode \"auto\" needs the models by name");
        }
        let texts: Vec<&String> = self.models.iter().chain(&self.approvers).collect();
        if texts.len() > MAX_NAMES || texts.iter().any(|text| text.trim().is_empty() || text.len() > MAX_TEXT) {
            return refuse("names of models and approvers are texts of at most 200 characters, and at most 1000");
        }
        // Fewer than the defaults prove too little for anything but a demonstration.
        let (d, dc) = (Limits::default(), Conditions::default());
        let weak = l.min_patients < d.min_patients
            || l.agreement_studies < d.agreement_studies
            || l.dice < d.dice
            || l.surface_dice < d.surface_dice
            || c.training_patients < dc.training_patients
            || c.rehearsal_studies < dc.rehearsal_studies
            || c.openings > dc.openings
            || c.shadow_studies < dc.shadow_studies
            || c.shadow_days < dc.shadow_days;
        if weak && !self.demonstration {
            return refuse("limits below the defaults need `demonstration = true`");
        }
        Ok(())
    }
}
