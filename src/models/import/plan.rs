//! What a plan says, whichever version of nnU-Net wrote it, and the reading of numbers from it.

use crate::models::error::ModelError;
use crate::models::{Aggregation, Channel, Normalization, NormalizationOrder, Orientation, Postprocessing, Region, Resampling};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::Path;

/// Everything that a manifest needs besides the weights.
pub(super) struct Plan {
    /// `nnunet_v1` or `nnunet_v2`.
    pub format: &'static str,
    pub trainer: String,
    pub epoch: Option<i64>,
    /// SHA-256 of the files read beside the checkpoint, by name.
    pub files: BTreeMap<String, String>,
    pub strides: [[usize; 3]; 5],
    pub grid: Grid,
    pub orientation: Orientation,
    pub order: NormalizationOrder,
    pub resampling: Resampling,
    pub channels: Vec<Channel>,
    pub mirror_axes: Vec<usize>,
    pub aggregation: Aggregation,
    /// Outputs that the network should have.
    pub outputs: usize,
    /// Foreground names by value; none where the plan has no names.
    pub names: Vec<(u16, String)>,
    pub regions: Vec<Region>,
    pub postprocessing: Postprocessing,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// The network's grid, in network axis order.
pub(super) struct Grid {
    pub patch: [usize; 3],
    /// mm
    pub spacing: [f64; 3],
    /// `transpose_forward`
    pub transpose: [usize; 3],
}

/// A file of a plan, for errors that name it.
#[derive(Clone, Copy)]
pub(super) struct Document<'p> {
    pub path: &'p Path,
}

impl Document<'_> {
    /// Something is missing or contradicts itself.
    pub fn bad(&self, detail: impl Into<String>) -> ModelError {
        ModelError::Plans { path: self.path.into(), detail: detail.into() }
    }

    /// Something is refused on purpose.
    pub fn unsupported(&self, detail: impl Into<String>) -> ModelError {
        ModelError::Unsupported { path: self.path.into(), detail: detail.into() }
    }

    /// The value of a key.
    pub fn get<'j>(&self, parent: &'j Json, key: &str) -> Result<&'j Json, ModelError> {
        parent.get(key).ok_or_else(|| self.bad(format!("has no `{key}`")))
    }

    /// The value of a key, read in some way.
    pub fn read<'j, T>(&self, parent: &'j Json, key: &str, read: impl FnOnce(&'j Json) -> Option<T>) -> Result<T, ModelError> {
        read(self.get(parent, key)?).ok_or_else(|| self.bad(format!("`{key}` is not what it should be")))
    }

    /// Patch, spacing and axis order: the same names in both versions. `spacing` is the key of the spacing.
    pub fn grid(&self, plans: &Json, stage: &Json, spacing: &str) -> Result<Grid, ModelError> {
        if self.get(stage, "patch_size")?.as_array().is_some_and(|p| p.len() == 2) {
            return Err(self.unsupported("this is a 2-D configuration"));
        }
        let patch = self.read(stage, "patch_size", whole_triple)?;
        let spacing = self.read(stage, spacing, triple)?;
        let transpose = self.read(plans, "transpose_forward", whole_triple)?;
        if let Some(backward) = plans.get("transpose_backward").and_then(whole_triple)
            && (0..3).any(|a| transpose.get(backward[a]).is_none_or(|&t| t != a))
        {
            return Err(self.bad("`transpose_backward` does not undo `transpose_forward`"));
        }
        Ok(Grid { patch, spacing, transpose })
    }

    /// Clipping bounds, mean and standard deviation of a channel's foreground; `sd` is the key of the last.
    pub fn statistics(&self, properties: Option<&Json>, channel: usize, sd: &str) -> Result<[f64; 4], ModelError> {
        let none = || self.bad(format!("has no intensity statistics of channel {channel}, which its normalisation needs"));
        let of = properties.and_then(|p| at(p, channel)).ok_or_else(none)?;
        let mut numbers = [0.0; 4];
        for (number, key) in numbers.iter_mut().zip(["percentile_00_5", "percentile_99_5", "mean", sd]) {
            *number = self.read(of, key, Json::as_f64)?;
        }
        Ok(numbers)
    }
}

/// Clip to percentiles, subtract the mean, divide by the standard deviation.
pub(super) fn ct([lower, upper, mean, sd]: [f64; 4]) -> Normalization {
    Normalization::Ct { lower, upper, mean, sd }
}

/// STU-Net takes five strides: a longer list is cut, a shorter one is padded with strides of 1, as its trainers do.
pub(super) fn five(mut strides: Vec<[usize; 3]>) -> [[usize; 3]; 5] {
    strides.resize(5, [1; 3]);
    std::array::from_fn(|d| strides[d])
}

/// A whole number, also where numpy made it a float.
pub(super) fn whole(value: &Json) -> Option<usize> {
    let number = value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e9).contains(n))?;
    Some(number as usize)
}

/// Three whole numbers.
pub(super) fn whole_triple(value: &Json) -> Option<[usize; 3]> {
    let list: Vec<usize> = value.as_array()?.iter().map(whole).collect::<Option<_>>()?;
    list.try_into().ok()
}

/// Three numbers.
fn triple(value: &Json) -> Option<[f64; 3]> {
    let list: Vec<f64> = value.as_array()?.iter().map(Json::as_f64).collect::<Option<_>>()?;
    list.try_into().ok()
}

/// A list of triples.
pub(super) fn triples(value: &Json) -> Option<Vec<[usize; 3]>> {
    value.as_array()?.iter().map(whole_triple).collect()
}

/// An element of a list, or of a dict whose keys are numbers.
pub(super) fn at(value: &Json, index: usize) -> Option<&Json> {
    match value {
        Json::Array(list) => list.get(index),
        Json::Object(map) => map.get(&index.to_string()),
        _ => None,
    }
}

/// Labels of a keep-largest step: a number, a list, or lists in a list, as one union.
pub(super) fn union(value: &Json) -> Option<Vec<u16>> {
    match value {
        Json::Array(list) => Some(list.iter().map(union).collect::<Option<Vec<_>>>()?.concat()),
        other => Some(vec![u16::try_from(whole(other)?).ok()?]),
    }
}
