//! From a voxel's outputs to its label.

use super::SegmentError;
use crate::models::{Aggregation, Region};

/// How a voxel's outputs become a label. A *winner* is a small number that stands for the decision: convex combinations
/// of voxels with one winner have that winner too, which is what makes [`super::export`] fast.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The label is the index of the largest output, the lowest index on ties.
    Argmax,
    /// Regions that may overlap: each output stands for itself, and the last region whose output exceeds the threshold
    /// gives the label.
    Regions {
        /// 0 for logits (a sigmoid above 0.5), 0.5 for averaged sigmoids.
        threshold: f32,
        /// In the order in which they are written, later over earlier.
        order: Vec<Region>,
    },
}

impl Decision {
    /// The decision of a model with these regions (none: argmax) and this aggregation.
    pub fn new(regions: &[Region], outputs: usize, aggregation: Aggregation) -> Result<Decision, SegmentError> {
        if let Some(bad) = regions.iter().find(|r| r.output >= outputs) {
            return Err(SegmentError::Inconsistent(format!("a region reads output {}, the model has {outputs}", bad.output)));
        }
        if outputs == 0 || outputs > usize::from(u16::MAX) || regions.len() >= usize::from(u16::MAX) {
            return Err(SegmentError::Inconsistent(format!("{outputs} outputs and {} regions", regions.len())));
        }
        if regions.is_empty() {
            return Ok(Decision::Argmax);
        }
        let threshold = match aggregation {
            Aggregation::Logits => 0.0,
            Aggregation::Softmax => 0.5,
        };
        Ok(Decision::Regions { threshold, order: regions.to_vec() })
    }

    /// The winner among a voxel's outputs, which must be finite: below [`winners`](Self::winners).
    #[inline]
    pub fn winner(&self, values: &[f32]) -> u16 {
        match self {
            Decision::Argmax => argmax(values) as u16,
            Decision::Regions { threshold, order } => order.iter().rposition(|r| values[r.output] > *threshold).map_or(0, |i| i as u16 + 1),
        }
    }

    /// Outputs whose winner is the background, also between two such voxels.
    pub fn background(&self, outputs: usize) -> Vec<f32> {
        match self {
            Decision::Argmax => (0..outputs).map(|output| if output == 0 { 1.0 } else { 0.0 }).collect(),
            Decision::Regions { threshold, .. } => vec![threshold - 0.5; outputs],
        }
    }

    /// The label of each winner, in the order of winners.
    pub fn labels(&self, outputs: usize) -> Vec<u16> {
        match self {
            Decision::Argmax => (0..outputs as u16).collect(),
            Decision::Regions { order, .. } => std::iter::once(0).chain(order.iter().map(|r| r.value)).collect(),
        }
    }
}

/// Index of the largest value, the lowest on ties; values are finite and there is at least one.
#[inline]
fn argmax(values: &[f32]) -> usize {
    // Lanes let the compiler keep the running maxima in vector registers.
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    let before = chunks.iter().position(|chunk| chunk.iter().fold(false, |hit, &v| hit | (v == max))).unwrap_or(chunks.len()) * LANES;
    before + values[before..].iter().position(|&v| v == max).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn later_regions_overwrite() {
        let regions = [Region { output: 0, value: 1 }, Region { output: 2, value: 5 }, Region { output: 1, value: 3 }];
        let decision = Decision::new(&regions, 3, Aggregation::Logits).expect("regions");
        let label = |values: [f32; 3]| decision.labels(3)[usize::from(decision.winner(&values))];
        assert_eq!([label([1.0, 1.0, 1.0]), label([1.0, -1.0, 1.0]), label([1.0, 0.0, 0.0]), label([-1.0; 3])], [3, 5, 1, 0]);
        assert!(Decision::new(&regions, 2, Aggregation::Logits).is_err());
    }

    proptest! {
        #[test]
        fn argmax_is_the_first_largest(values in proptest::collection::vec(-4i8..4, 1..80)) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut best = 0;
            for (i, v) in values.iter().enumerate() {
                if *v > values[best] { best = i; }
            }
            prop_assert_eq!(argmax(&values), best);
        }
    }
}
