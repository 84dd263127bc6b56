//! `run.toml`: what a run does, to the bit.

use crate::models::Manifest;
use crate::stunet::{Architecture, Precision};
use crate::sys::durable::{self, Step, StorageError};
use crate::training::data::{Augmentation, BatchPlan, Geometry};
use crate::training::{Counting, Error, Flavour, Loss, Outputs, SgdSettings};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Largest `run.toml`.
const MAX_FILE: u64 = 1 << 20;
/// Largest batch.
const MAX_BATCH: usize = 64;

/// Settings of a run. With the cases and the start weights they determine the result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSettings {
    /// Version of this file's layout: 1.
    pub schema: u32,
    /// Of all random numbers.
    pub seed: u64,
    /// Over which the learning rate falls to 0.
    pub epochs: u64,
    /// Optimiser steps in an epoch.
    pub iterations: u64,
    /// Samples in a batch.
    pub batch: usize,
    /// Trained on, network axis order.
    pub patch: [usize; 3],
    /// At the start.
    pub learning_rate: f64,
    /// `f32`, `f64`, or `bf16`: activations and weights of wide stages in bf16, everything that is kept in f32.
    pub precision: String,
    /// Steps between checkpoints; there is one at least every 10 minutes anyway.
    pub checkpoint_steps: u64,
    /// Axes that may be mirrored.
    pub mirror: [bool; 3],
    /// Channels that are 0 outside the mask they were normalised in.
    pub masked: Vec<bool>,
    /// Dice over samples or batches.
    pub counting: Counting,
    /// Loss as in nnU-Net 1 or 2.
    pub flavour: Flavour,
    /// The optimiser.
    pub optimizer: SgdSettings,
    /// What keeps the old knowledge.
    pub against_forgetting: AgainstForgetting,
    /// The network.
    pub architecture: Architecture,
}

/// What keeps the old knowledge; 0 switches a part off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgainstForgetting {
    /// Share of samples from the rehearsal cases.
    pub rehearsal_share: f64,
    /// L2-SP: pull of all weights but the heads' towards the start.
    pub l2_sp: f64,
    /// Weight of distillation on the classes that were not reviewed.
    pub distillation: f64,
    /// Classes that are to get better: the teacher is not listened to about them, and no rehearsal case may teach them. It does not know
    /// them well, and would teach that they are background.
    #[serde(default)]
    pub targets: Vec<u16>,
    /// Decay of the exponential moving average of the weights, which is then the result.
    pub average: f64,
}

impl Default for AgainstForgetting {
    fn default() -> AgainstForgetting {
        AgainstForgetting { rehearsal_share: 0.5, l2_sp: 1e-3, distillation: 1.0, targets: Vec::new(), average: 0.999 }
    }
}

impl RunSettings {
    /// STU-Net's fine-tuning of a model: a tenth of nnU-Net's learning rate, everything else as nnU-Net trains.
    pub fn fine_tuning(manifest: &Manifest, seed: u64) -> RunSettings {
        RunSettings {
            schema: 1,
            seed,
            epochs: 1000,
            iterations: 250,
            batch: 2,
            patch: manifest.inference.patch,
            learning_rate: 1e-3,
            precision: Precision::F32.name().into(),
            checkpoint_steps: 250,
            mirror: std::array::from_fn(|axis| manifest.inference.mirror_axes.contains(&axis)),
            masked: manifest.preprocessing.channels.iter().map(|channel| channel.use_mask).collect(),
            counting: Counting::Sample,
            flavour: Flavour::V2,
            optimizer: SgdSettings::default(),
            against_forgetting: AgainstForgetting::default(),
            architecture: manifest.architecture.clone(),
        }
    }

    /// Reads and checks a `run.toml`; also returns its bytes.
    pub fn read(path: &Path) -> Result<(RunSettings, String), Error> {
        let unreadable = |e| Error::Storage(StorageError { step: Step::Read, path: path.into(), source: e });
        if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE {
            return Err(Error::Settings(format!("{} is larger than {MAX_FILE} bytes", path.display())));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let settings: RunSettings = toml::from_str(&text).map_err(|e| Error::Settings(format!("{}: {e}", path.display())))?;
        settings.check()?;
        Ok((settings, text))
    }

    /// Writes a `run.toml`.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        self.check()?;
        let text = toml::to_string(self).map_err(|e| Error::Settings(e.to_string()))?;
        Ok(durable::write_file(path, text.as_bytes())?)
    }

    /// Refuses settings out of range, or that do not fit each other.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Settings(what));
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let forget = &self.against_forgetting;
        if self.schema != 1 {
            return refuse(format!("schema {} of run.toml; this version reads 1", self.schema));
        }
        if self.epochs == 0 || self.iterations == 0 || self.checkpoint_steps == 0 || self.steps() > 1 << 40 {
            return refuse("epochs, iterations and checkpoint_steps have to be at least 1".into());
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return refuse(format!("batch is {}; it must lie in 1..={MAX_BATCH}", self.batch));
        }
        if !positive(self.learning_rate)
            || !share(self.optimizer.momentum)
            || !positive(self.optimizer.clip)
            || !share(self.optimizer.weight_decay)
        {
            return refuse("learning_rate and clip have to be above 0, momentum and weight_decay in 0..=1".into());
        }
        if !share(forget.rehearsal_share) || !share(forget.l2_sp) || !share(forget.average) || !(0.0..=100.0).contains(&forget.distillation)
        {
            return refuse("a setting of against_forgetting is out of range".into());
        }
        let classes = self.architecture.num_classes;
        if !forget.targets.is_sorted_by(|a, b| a < b) || forget.targets.iter().any(|&t| t == 0 || usize::from(t) >= classes) {
            return refuse(format!("targets have to ascend and lie in 1..{classes}"));
        }
        if self.masked.len() != self.architecture.in_channels {
            return refuse(format!("masked names {} channels, the network takes {}", self.masked.len(), self.architecture.in_channels));
        }
        self.precision()?;
        self.architecture.validate().map_err(crate::stunet::Error::from)?;
        self.architecture.check_patch(self.patch).map_err(crate::stunet::Error::from)?;
        Ok(())
    }

    /// Optimiser steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.epochs.saturating_mul(self.iterations)
    }

    /// What the network computes with.
    pub fn precision(&self) -> Result<Precision, Error> {
        match self.precision.parse() {
            Ok(precision @ (Precision::F32 | Precision::F64 | Precision::Bf16)) => Ok(precision),
            _ => Err(Error::Settings(format!("precision {:?}; networks are trained in f32, f64 or bf16", self.precision))),
        }
    }

    /// Heads with targets: as many as the plan has poolings, which is what nnU-Net 2 builds its weights from.
    pub fn heads(&self) -> usize {
        let poolings = self.architecture.strides.iter().rposition(|stride| *stride != [1; 3]).map_or(0, |last| last + 1);
        poolings.max(1)
    }

    /// The loss of each head.
    pub fn loss(&self) -> Loss {
        Loss { counting: self.counting, flavour: self.flavour, outputs: Outputs::Classes }
    }

    /// How batches are made.
    pub fn batch_plan(&self) -> BatchPlan {
        BatchPlan {
            seed: self.seed,
            batch: self.batch,
            augmentation: Augmentation { geometry: Geometry::new(self.patch), mirror: self.mirror, masked: self.masked.clone() },
            strides: self.architecture.strides[..self.heads() - 1].to_vec(),
        }
    }
}
