//! From structures of a file to the labels of the model.

use super::{CaseError, ImageGrid, Structure};
use crate::models::{Label, LabelTable};
use crate::stunet::learning::IGNORED;
use std::collections::{BTreeMap, BTreeSet};

/// The largest part of the smaller of two labels that both may claim.
const MAX_OVERLAP: f64 = 0.05;

/// Labels of the model on the image's grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// `[z, y, x]`: label values, 0, or [`IGNORED`] where two labels claim a voxel.
    pub labels: Vec<u16>,
    /// The label values that the file has a structure for, whether it has voxels or not.
    pub found: BTreeSet<u16>,
    /// Numbers of structures that are no label of the model.
    pub left_out: Vec<i64>,
    /// Voxels that two labels claim.
    pub contested: u64,
}

/// Finds for each structure the model's label: by `explicit` (number in the file → label value), else by its code and modifier, else by its
/// name. Two structures may be one label.
///
/// # Errors
/// `cases.no_known_label`, `cases.overlap` where two labels share too much, `cases.geometry` when `explicit` names an unknown value.
pub fn map_structures(
    structures: &[Structure],
    table: &LabelTable,
    explicit: &BTreeMap<i64, u16>,
    grid: &ImageGrid,
) -> Result<Mapped, CaseError> {
    if let Some(unknown) = explicit.values().find(|&&value| table.get(value).is_none()) {
        return Err(CaseError::Geometry(format!("label value {unknown} is not one of the model's")));
    }
    let mut mapped = Mapped { labels: vec![0; grid.voxels()], found: BTreeSet::new(), left_out: Vec::new(), contested: 0 };
    let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
    let mut shared: BTreeMap<[u16; 2], u64> = BTreeMap::new();
    // Who came first, where a voxel has become contested.
    let mut first: BTreeMap<u32, u16> = BTreeMap::new();
    for structure in structures {
        let label = explicit.get(&structure.number).copied().or_else(|| find(structure, table));
        let Some(label) = label else {
            mapped.left_out.push(structure.number);
            continue;
        };
        mapped.found.insert(label);
        for &voxel in &structure.voxels {
            let Some(there) = mapped.labels.get_mut(voxel as usize) else {
                return Err(CaseError::Geometry("a structure reaches beyond the image".into()));
            };
            match *there {
                0 => *there = label,
                same if same == label => continue,
                other => {
                    let owner = if other == IGNORED { first.get(&voxel).copied().unwrap_or(other) } else { other };
                    if owner == label {
                        continue;
                    }
                    first.entry(voxel).or_insert(owner);
                    *there = IGNORED;
                    mapped.contested += 1;
                    *shared.entry([owner.min(label), owner.max(label)]).or_default() += 1;
                }
            }
            *counts.entry(label).or_default() += 1;
        }
    }
    if mapped.found.is_empty() {
        return Err(CaseError::NoKnownLabel(structures.len()));
    }
    for ([first, second], voxels) in shared {
        let smaller = counts.get(&first).min(counts.get(&second)).copied().unwrap_or(1).max(1);
        let part = voxels as f64 / smaller as f64;
        if part > MAX_OVERLAP {
            return Err(CaseError::Overlap { first, second, percent: part * 100.0 });
        }
    }
    Ok(mapped)
}

fn find(structure: &Structure, table: &LabelTable) -> Option<u16> {
    let coded = |label: &&Label| {
        structure.concept.as_ref().is_some_and(|concept| {
            let modifier = label.modifier.as_ref().map(|m| m.value.as_str());
            label.property_type.value == concept.value
                && label.property_type.scheme == concept.scheme
                && modifier == concept.modifier.as_deref()
        })
    };
    let mut by_code = table.iter().filter(coded);
    // A code that several labels share, like `tissue`, says nothing.
    let by_code = match (by_code.next(), by_code.next()) {
        (Some(label), None) => Some(label.value),
        _ => None,
    };
    let plain = |name: &str| name.trim().to_ascii_lowercase().replace([' ', '-'], "_");
    let name = plain(&structure.name);
    by_code.or_else(|| table.iter().find(|label| !name.is_empty() && plain(&label.name) == name).map(|label| label.value))
}
