//! One model's labels of one case against a person's.

use crate::segment::postprocess::{Connectivity, components};
use crate::stunet::learning::IGNORED;
use crate::training::data::OUTSIDE;
use crate::training::gates::{Score, dice, surface_dice};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Surfaces that are this near count as one, mm.
const TOLERANCE: f64 = 3.0;

/// What a model did on a case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseScore {
    /// By label that the person or the model sees.
    pub scores: BTreeMap<u16, Score>,
    /// By label that the model sees: connected components.
    pub components: BTreeMap<u16, u32>,
    /// Labels that the person sees.
    pub present: BTreeSet<u16>,
    /// Foreground voxels of the model.
    pub voxels: u64,
}

/// Scores every label that occurs. `truth` none: only counts. `shape` is `[z, y, x]`, `spacing` its mm. Voxels that nobody can judge take no part.
pub fn score(labels: &[u16], truth: Option<&[u16]>, shape: [usize; 3], spacing: [f64; 3]) -> CaseScore {
    let voxels = labels.iter().filter(|label| **label != 0).count() as u64;
    let Some(truth) = truth else { return CaseScore { voxels, ..CaseScore::default() } };
    let judged = |truth: u16| truth != IGNORED && truth != OUTSIDE;
    let ours: Vec<u16> = labels.iter().zip(truth).map(|(label, truth)| if judged(*truth) { *label } else { 0 }).collect();
    let theirs: Vec<u16> = truth.iter().map(|truth| if judged(*truth) { *truth } else { 0 }).collect();
    let seen = |labels: &[u16]| -> BTreeSet<u16> {
        // Most neighbours are alike.
        let mut seen: Vec<u16> =
            labels.chunk_by(|a, b| a == b).filter_map(|run| run.first().copied()).filter(|label| *label != 0).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.into_iter().collect()
    };
    let (present, found) = (seen(&theirs), seen(&ours));
    let mut scores = BTreeMap::new();
    for &label in present.union(&found) {
        let surface = surface_dice(&ours, &theirs, shape, spacing, label, TOLERANCE);
        if let (Some(dice), Some(surface_dice)) = (dice(&ours, &theirs, label), surface) {
            scores.insert(label, Score { dice, surface_dice });
        }
    }
    let count = |label: &u16| (*label, u32::try_from(components(&ours, shape, *label, Connectivity::Corners)).unwrap_or(u32::MAX));
    CaseScore { scores, components: found.iter().map(count).collect(), present, voxels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_judge_takes_no_part() {
        let shape = [1, 2, 6];
        let truth = [1, 1, 0, 0, IGNORED, IGNORED, 0, 0, 0, 0, 0, OUTSIDE];
        let labels = [1, 0, 0, 2, 2, 2, 0, 0, 0, 0, 2, 2];
        let found = score(&labels, Some(&truth), shape, [1.0; 3]);
        assert_eq!(found.scores[&1].dice, 2.0 / 3.0);
        // The two voxels of 2 that are left touch by a corner.
        assert_eq!((found.scores[&2].dice, found.components[&2], found.components[&1]), (0.0, 1, 1));
        assert_eq!((found.present, found.voxels), (BTreeSet::from([1]), 6));
        assert_eq!(score(&labels, None, shape, [1.0; 3]).voxels, 6);
    }
}
