//! Which volumes organs have: `config/plausible.toml`, part of the program.

use crate::models::LabelTable;
use crate::training::cases::{ImageGrid, Mapped};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Smallest and largest volume in ml by the name of the label.
fn table() -> &'static BTreeMap<String, [f64; 2]> {
    static TABLE: OnceLock<BTreeMap<String, [f64; 2]>> = OnceLock::new();
    // A test reads the file; were it wrong all the same, nothing would be implausible.
    TABLE.get_or_init(|| toml::from_str(include_str!("../../../config/plausible.toml")).unwrap_or_default())
}

/// Smallest and largest plausible volume of a label, ml; none for a label that the table does not have.
pub fn range(name: &str) -> Option<[f64; 2]> {
    table().get(name).copied()
}

/// Names of the labels whose volume is none that such an organ has. An organ that the image's first or last slice cuts may be as small as it is.
pub(super) fn implausible(mapped: &Mapped, millilitres: &BTreeMap<u16, f64>, grid: &ImageGrid, labels: &LabelTable) -> Vec<String> {
    let slice = grid.shape[1] * grid.shape[2];
    let ends = |label: u16| {
        let ends = [mapped.labels.get(..slice), mapped.labels.get(mapped.labels.len().saturating_sub(slice)..)];
        ends.into_iter().flatten().any(|slice| slice.contains(&label))
    };
    let odd = |(&value, &millilitres): (&u16, &f64)| {
        let name = &labels.get(value)?.name;
        let [low, high] = range(name)?;
        (millilitres > high || millilitres < low && !ends(value)).then(|| name.clone())
    };
    millilitres.iter().filter_map(odd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_ranges() {
        assert!(table().len() > 60);
        for (name, [low, high]) in table() {
            assert!(0.0 < *low && low < high && *high < 20_000.0, "{name}");
        }
    }
}
