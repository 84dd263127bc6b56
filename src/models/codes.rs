//! The dictionary of structures: SNOMED CT codes and colours by name, and the label orders of published models.
//!
//! `codes.csv` holds the 104 and 117 structures of TotalSegmentator v1 and v2 with their label values, the structures of
//! its other tasks, and the merged ones (`kidney`, `lung`, `vertebra` …) without laterality. Codes are those of DICOM
//! PS3.16 CID 7150 (categories) and 7151 (types), colours those of TotalSegmentator's code mapping.

use super::labels::{Code, Label};
use std::collections::HashMap;
use std::sync::LazyLock;

/// One line of the table.
struct Row {
    name: &'static str,
    v1: Option<u16>,
    v2: Option<u16>,
    coded: Coded,
}

/// What the dictionary knows of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coded {
    /// Segmented Property Category.
    pub category: Code,
    /// Segmented Property Type.
    pub property_type: Code,
    /// Laterality, or another modifier of the type.
    pub modifier: Option<Code>,
    /// Anatomic region.
    pub region: Option<Code>,
    /// Modifier of the region.
    pub region_modifier: Option<Code>,
    /// Display colour, sRGB.
    pub rgb: [u8; 3],
}

impl Coded {
    /// As a label of a model.
    pub fn label(self, value: u16, name: &str) -> Label {
        let Coded { category, property_type, modifier, region, region_modifier, rgb } = self;
        Label { value, name: name.to_string(), category, property_type, modifier, region, region_modifier, rgb }
    }
}

/// A label order that goes by a name (`--labels NAME`): the names of the values 1, 2, …
pub struct Order {
    /// Its name.
    pub name: &'static str,
    /// What it is, for help texts.
    pub about: &'static str,
    /// Foreground names, value 1 first.
    pub names: Vec<&'static str>,
}

/// The label order of the official STU-Net weights.
pub const STUNET_ORDER: &str = "stunet-totalsegmentator";

/// The label orders that go by a name.
pub fn orders() -> Vec<Order> {
    let by_value = |value: fn(&Row) -> Option<u16>| {
        let mut rows: Vec<_> = TABLE.rows.iter().filter_map(|r| Some((value(r)?, r.name))).collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    let (v1, v2) = (by_value(|r| r.v1), by_value(|r| r.v2));
    // The official weights were trained with the same 104 structures in ASCII order, not in TotalSegmentator's.
    let mut ascii = v1.clone();
    ascii.sort_unstable();
    vec![
        Order { name: STUNET_ORDER, about: "the official STU-Net weights: 104 structures in ASCII order", names: ascii },
        Order { name: "totalsegmentator-v1", about: "TotalSegmentator's own order of the same 104 structures", names: v1 },
        Order { name: "totalsegmentator-v2", about: "TotalSegmentator v2, 117 structures", names: v2 },
    ]
}

/// Codes and colour of a structure by its name, in any of the usual spellings: `kidney_left`, `Left Kidney`, `kidneys`.
pub fn look_up(name: &str) -> Option<Coded> {
    let plain: String = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let find = |name: &str| TABLE.by_name.get(name).map(|&i| TABLE.rows[i].coded.clone());
    if let Some(coded) = find(&plain) {
        return Some(coded);
    }
    let (side, value, meaning) = [("left", "7771000", "Left"), ("right", "24028007", "Right")].into_iter().find(|s| {
        let mut words = plain.split('_');
        words.any(|w| w == s.0)
    })?;
    let base = plain.split('_').filter(|w| !w.is_empty() && *w != side).collect::<Vec<_>>().join("_");
    if let Some(coded) = find(&format!("{base}_{side}")) {
        return Some(coded);
    }
    let mut coded = find(&base).filter(|c| c.modifier.is_none() && c.region_modifier.is_none())?;
    coded.modifier = Some(snomed(value, meaning));
    Some(coded)
}

/// For a structure that nobody knows: (85756007, SCT, "Tissue"), in a colour that differs from its neighbours'.
pub fn tissue(value: u16) -> Coded {
    let tissue = snomed("85756007", "Tissue");
    // Hues a golden angle apart, in three lightnesses.
    let hue = (value as f64 * 137.507_764).rem_euclid(360.0) / 60.0;
    let high = [230.0, 190.0, 150.0][value as usize % 3];
    let channel = |shift: f64| {
        let k = (shift + hue).rem_euclid(6.0);
        (high - high * 0.75 * k.min(4.0 - k).clamp(0.0, 1.0)).round() as u8
    };
    Coded {
        category: tissue.clone(),
        property_type: tissue,
        modifier: None,
        region: None,
        region_modifier: None,
        rgb: [channel(5.0), channel(3.0), channel(1.0)],
    }
}

fn snomed(value: &str, meaning: &str) -> Code {
    Code { value: value.into(), scheme: "SCT".into(), meaning: meaning.into() }
}

struct Table {
    rows: Vec<Row>,
    /// Names and aliases in lower case.
    by_name: HashMap<String, usize>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { rows: Vec::new(), by_name: HashMap::new() };
    for line in include_str!("codes.csv").lines().skip(1) {
        // The file is compiled in, and the test below reads every line of it.
        let (row, aliases) = row(line).expect("a line of codes.csv");
        for name in std::iter::once(row.name).chain(aliases) {
            table.by_name.insert(name.to_ascii_lowercase(), table.rows.len());
        }
        table.rows.push(row);
    }
    table
});

/// A line of the file, and the aliases of its name.
fn row(line: &'static str) -> Option<(Row, Vec<&'static str>)> {
    let columns: Vec<&'static str> = line.split(',').collect();
    let [name, aliases, v1, v2, category, kind, kind_meaning, side, side_meaning, region, region_meaning, place, place_meaning, rgb] =
        columns[..]
    else {
        return None;
    };
    let category_meaning = match category {
        "123037004" => "Anatomical Structure",
        "49755003" => "Morphologically Altered Structure",
        "85756007" => "Tissue",
        "260787004" => "Physical object",
        _ => return None,
    };
    let code = |value: &str, meaning: &str| (!value.is_empty()).then(|| snomed(value, meaning));
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
    let channel = |i: usize| u8::from_str_radix(rgb.get(i..i + 2)?, 16).ok();
    let coded = Coded {
        category: snomed(category, category_meaning),
        property_type: code(kind, kind_meaning)?,
        modifier: code(side, side_meaning),
        region: code(region, region_meaning),
        region_modifier: code(place, place_meaning),
        rgb: [channel(0)?, channel(2)?, channel(4)?],
    };
    Some((Row { name, v1: number(v1)?, v2: number(v2)?, coded }, aliases.split_terminator(' ').collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_line_is_read_and_every_name_is_there_once() {
        let lines: Vec<&'static str> = include_str!("codes.csv").lines().skip(1).collect();
        assert_eq!(TABLE.rows.len(), lines.len());
        let mut names = HashSet::new();
        for line in lines {
            let (row, aliases) = row(line).expect(line);
            for name in std::iter::once(row.name).chain(aliases) {
                assert!(names.insert(name), "{name} twice");
                assert_eq!(look_up(name).as_ref(), Some(&row.coded), "{name}");
            }
            let codes = [Some(&row.coded.property_type), row.coded.modifier.as_ref(), row.coded.region.as_ref()];
            for code in codes.into_iter().flatten() {
                assert!(code.value.len() <= 16 && code.value.bytes().all(|b| b.is_ascii_digit()) && code.meaning.len() <= 64, "{line}");
            }
        }
    }

    #[test]
    fn the_orders_are_complete() {
        let orders = orders();
        assert_eq!(orders.iter().map(|o| o.names.len()).collect::<Vec<_>>(), [104, 104, 117]);
        for row in &TABLE.rows {
            for (order, value) in [(&orders[1], row.v1), (&orders[2], row.v2)] {
                if let Some(value) = value {
                    assert_eq!(order.names[value as usize - 1], row.name);
                }
            }
        }
        // The traps of the ASCII order: 10 before 2, L before T.
        let at = |name: &str| orders[0].names.iter().position(|n| *n == name).expect(name) + 1;
        assert_eq!((at("adrenal_gland_left"), at("rib_left_1"), at("rib_left_10"), at("rib_left_2")), (1, 49, 50, 53));
        assert_eq!((at("urinary_bladder"), at("vertebrae_C1"), at("vertebrae_L5"), at("vertebrae_T9")), (80, 81, 92, 104));
    }

    #[test]
    fn spellings_and_sides() {
        let same = |a: &str, b: &str| assert_eq!(look_up(a).expect(a), look_up(b).expect(b));
        same("Left Kidney", "kidney_left");
        same("kidney right", "kidney_right");
        same("Kidneys", "kidney");
        same("gall bladder", "gallbladder");
        same("right adrenal gland", "adrenal_gland_right");
        let tibia = look_up("tibia_left").expect("a side that the table does not list");
        assert_eq!(tibia.modifier.expect("left").value, "7771000");
        let kidneys = look_up("kidneys").expect("merged");
        assert_eq!((kidneys.property_type.value.as_str(), kidneys.modifier), ("64033007", None));
        assert_eq!(look_up("vertebrae").expect("merged").property_type.meaning, "Vertebra");
        for unknown in ["organ_a", "left", "kidney_left_right", "", "kidney_cyst_left_left_x"] {
            assert_eq!(look_up(unknown), None, "{unknown}");
        }
        assert_ne!(tissue(1).rgb, tissue(2).rgb);
    }
}
