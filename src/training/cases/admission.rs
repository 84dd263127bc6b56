//! What labels have to be like before a person is asked to sign for them.

use super::{CaseError, ImageGrid, Likeness, Mapped};
use std::collections::BTreeMap;

/// Plausible volumes of the model's labels, ml: smallest and largest.
pub type Plausible = BTreeMap<u16, [f64; 2]>;

/// What was found of labels that may be signed for.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Volume of each label that occurs, ml.
    pub millilitres: BTreeMap<u16, f64>,
    /// Voxels that two labels claim, and that no loss will look at.
    pub contested: u64,
}

/// Checks volumes and looks for the same image among `known` cases (their names and likenesses). Labels in `confirmed` are taken
/// whatever their volume: a person has said that it is right.
///
/// # Errors
/// `cases.implausible_volume`, `cases.duplicate`.
pub fn admit(
    mapped: &Mapped,
    grid: &ImageGrid,
    plausible: &Plausible,
    confirmed: &[u16],
    likeness: &Likeness,
    known: &[(String, Likeness)],
) -> Result<Admission, CaseError> {
    if let Some((name, _)) = known.iter().find(|(_, other)| likeness.is_like(other)) {
        return Err(CaseError::Duplicate(name.clone()));
    }
    let millilitres = millilitres(mapped, grid);
    for (&label, &millilitres) in &millilitres {
        let Some(&[low, high]) = plausible.get(&label).filter(|_| !confirmed.contains(&label)) else { continue };
        if !(low..=high).contains(&millilitres) {
            return Err(CaseError::Implausible { label, millilitres, low, high });
        }
    }
    Ok(Admission { millilitres, contested: mapped.contested })
}

/// Volume of each label that occurs, ml.
pub fn millilitres(mapped: &Mapped, grid: &ImageGrid) -> BTreeMap<u16, f64> {
    let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
    mapped.labels.iter().filter(|label| mapped.found.contains(label)).for_each(|&label| *counts.entry(label).or_default() += 1);
    let volume = grid.voxel_volume() / 1000.0;
    counts.into_iter().map(|(label, count)| (label, count as f64 * volume)).collect()
}
