//! What was measured of a candidate and of the model that serves, on the same locked cases.

use super::Facts;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How well a model did on one class of one patient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Dice.
    pub dice: f64,
    /// Surface Dice.
    pub surface_dice: f64,
}

/// One patient of the locked cases; the mean over the patient's studies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patient {
    /// Pseudonym.
    pub id: String,
    /// `vendor = "A"` and the like.
    #[serde(default)]
    pub subgroups: BTreeMap<String, String>,
    /// By label value: the serving model's score and the candidate's. Only reviewed classes that the person or a model sees.
    pub scores: BTreeMap<u16, [Score; 2]>,
    /// Reviewed classes that the person has not: a score there counts false finds, and makes no class assessable.
    #[serde(default)]
    pub absent: BTreeSet<u16>,
    /// By label value: connected components in the serving model's labels and in the candidate's.
    #[serde(default)]
    pub components: BTreeMap<u16, [u32; 2]>,
}

/// Mean Dice under one change of the input (noise, shift, another orientation, thick slices).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perturbation {
    /// Its name.
    pub name: String,
    /// Differences candidate - serving, one for each patient and class.
    pub differences: Vec<f64>,
}

/// An input in which nothing is to be found: air, a phantom, another modality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emptiness {
    /// Its name.
    pub name: String,
    /// Foreground voxels of the serving model and of the candidate.
    pub voxels: [u64; 2],
}

/// What has nothing to do with how well it segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Technical {
    /// Every weight is a finite number.
    pub finite: bool,
    /// Architecture, preprocessing and labels are the serving model's.
    pub same_signature: bool,
    /// A second run gave the same labels.
    pub repeatable: bool,
    /// Seconds for the locked cases, serving and candidate.
    pub seconds: [f64; 2],
    /// Most bytes on host and device together, serving and candidate.
    pub bytes: [u64; 2],
}

/// Everything that is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Digest of the model that serves.
    pub serving: String,
    /// Digest of the candidate.
    pub candidate: String,
    /// The locked cases.
    pub patients: Vec<Patient>,
    /// By label value: Dice of candidate against serving on local studies without labels.
    pub agreement: BTreeMap<u16, Vec<f64>>,
    /// Changed inputs.
    pub perturbations: Vec<Perturbation>,
    /// Inputs in which nothing is to be found.
    pub empty: Vec<Emptiness>,
    /// Speed, memory, soundness.
    pub technical: Technical,
    /// Where plan, cases and weights came from; none for scores without a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}
