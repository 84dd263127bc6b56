//! nnU-Net's loss of one head: cross-entropy plus soft Dice, over classes or over regions, with labels that are missing.

use super::Error;
use crate::stunet::learning::{Slopes, Sums, Truth, region_gradient, region_sums, softmax_gradient, softmax_sums};
use tch::Tensor;

/// Keeps Dice of classes that are absent finite.
const SMOOTH: f64 = 1e-5;

/// Which nnU-Net's Dice and deep supervision: they differ by rounding, and in whether the lowest head decays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// `(2 tp + s) / (2 tp + fp + fn + s + 1e-8)`; heads of weight 0 are never touched.
    V1,
    /// `(2 tp + s) / max(2 tp + fp + fn + s, 1e-8)`; heads of weight 0 have gradient 0, so weight decay shrinks them.
    V2,
}

/// Over what Dice sums before it divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counting {
    /// Each sample by itself; the loss is the mean over samples and classes.
    Sample,
    /// The whole batch; the loss is the mean over classes (`batch_dice`).
    Batch,
}

/// What the outputs of a network stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// Classes that exclude each other, 0 the background, which Dice leaves out.
    Classes,
    /// Regions that may overlap, each made up of labels; Dice takes all.
    Regions(Vec<Vec<u16>>),
}

/// The settings of a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Dice over samples or batches.
    pub counting: Counting,
    /// Rounding as in nnU-Net 1 or 2.
    pub flavour: Flavour,
    /// Classes or regions.
    pub outputs: Outputs,
}

/// The parts of a loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossValue {
    /// Mean cross-entropy of the voxels that count; with regions, of their outputs.
    pub entropy: f64,
    /// Minus the mean soft Dice.
    pub dice: f64,
}

impl LossValue {
    /// What is minimised. Can be negative.
    pub fn total(&self) -> f64 {
        self.entropy + self.dice
    }
}

/// The loss of logits `[N, K, X, Y, Z]` and its gradient, times `weight`, by them.
///
/// Where only some classes of a sample are `allowed`, softmax and Dice run over those alone, and the gradient of all other
/// logits is exactly 0. Ignored voxels count nowhere.
pub fn loss(settings: &Loss, logits: &Tensor, truth: &Truth, weight: f64) -> Result<(LossValue, Tensor), Error> {
    let (sums, first, outputs) = match &settings.outputs {
        Outputs::Classes => (softmax_sums(logits, truth)?, 1, 1.0),
        Outputs::Regions(regions) => (region_sums(logits, &truth.labels, regions)?, 0, regions.len() as f64),
    };
    let classes = sums.first().map_or(0, |s| s.hit.len());
    let takes_part = |sample: usize, class: usize| match settings.outputs {
        Outputs::Classes => class >= first && truth.allowed[sample].binary_search(&(class as u16)).is_ok(),
        Outputs::Regions(_) => true,
    };
    let mut value = LossValue { entropy: 0.0, dice: 0.0 };
    let voxels: u64 = sums.iter().map(|s| s.voxels).sum();
    let per_voxel = if voxels == 0 { 0.0 } else { 1.0 / (voxels as f64 * outputs) };
    value.entropy = sums.iter().map(|s| s.entropy).sum::<f64>() * per_voxel;
    let none = Slopes { entropy: weight * per_voxel, hit: vec![0.0; classes], predicted: vec![0.0; classes] };
    let mut slopes = vec![none; sums.len()];

    // Groups of samples that share one quotient, per class.
    let groups: Vec<(usize, Vec<usize>)> = match settings.counting {
        Counting::Sample => {
            let single = |n: usize| (0..classes).filter(move |&c| takes_part(n, c)).map(move |c| (c, vec![n]));
            (0..sums.len()).flat_map(single).collect()
        }
        Counting::Batch => {
            let all = |c: usize| (c, (0..sums.len()).filter(|&n| takes_part(n, c)).collect::<Vec<_>>());
            (0..classes).map(all).filter(|(_, samples)| !samples.is_empty()).collect()
        }
    };
    let share = 1.0 / (groups.len().max(1)) as f64;
    for (class, samples) in &groups {
        let (dice, by_hit, by_predicted) = soft_dice(settings.flavour, samples.iter().map(|&n| &sums[n]), *class);
        value.dice -= dice * share;
        for &n in samples {
            slopes[n].hit[*class] = -weight * share * by_hit;
            slopes[n].predicted[*class] = -weight * share * by_predicted;
        }
    }
    let gradient = match &settings.outputs {
        Outputs::Classes => softmax_gradient(logits, truth, &slopes)?,
        Outputs::Regions(regions) => region_gradient(logits, &truth.labels, regions, &slopes)?,
    };
    Ok((value, gradient))
}

/// Soft Dice of one class and its derivatives by the sums `hit` and `predicted`.
fn soft_dice<'a>(flavour: Flavour, sums: impl Iterator<Item = &'a Sums>, class: usize) -> (f64, f64, f64) {
    let (mut hit, mut both) = (0.0, 0.0);
    for s in sums {
        hit += s.hit[class];
        both += s.predicted[class] + s.truth[class];
    }
    let (top, bottom) = (2.0 * hit + SMOOTH, both + SMOOTH);
    let bottom = match flavour {
        Flavour::V1 => bottom + 1e-8,
        Flavour::V2 => bottom.max(1e-8),
    };
    (top / bottom, 2.0 / bottom, -top / (bottom * bottom))
}
