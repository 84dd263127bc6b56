//! Which labels a model writes: from the plan, from a published order, or from a list that the user gives.

use super::plan::Plan;
use crate::models::codes::{self, STUNET_ORDER};
use crate::models::error::ModelError;
use crate::models::manifest_check::check_table;
use crate::models::{Code, Label, LabelTable};
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::Path;

/// Largest list of labels.
const MAX_BYTES: u64 = 1 << 20;

/// The labels, and whether they are those of a published TotalSegmentator order.
pub(super) struct Chosen {
    pub table: LabelTable,
    pub published: bool,
    pub warnings: Vec<String>,
}

/// One label as a list may give it; what is missing comes from the dictionary.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    value: Option<u16>,
    name: String,
    #[serde(default)]
    category: Option<Code>,
    #[serde(default, rename = "type")]
    property_type: Option<Code>,
    #[serde(default)]
    modifier: Option<Code>,
    #[serde(default)]
    region: Option<Code>,
    #[serde(default)]
    region_modifier: Option<Code>,
    #[serde(default)]
    rgb: Option<[u8; 3]>,
}

impl Entry {
    fn named(value: u16, name: &str) -> Entry {
        let (category, property_type, modifier, region, region_modifier) = (None, None, None, None, None);
        Entry { value: Some(value), name: name.to_string(), category, property_type, modifier, region, region_modifier, rgb: None }
    }
}

/// Chooses the labels: `given` (the name of an order, or a file) before the plan's own names, before the order of the
/// official weights if the plan has as many classes and no names, before numbered names.
pub(super) fn choose(given: Option<&str>, plan: &Plan) -> Result<Chosen, ModelError> {
    let mut warnings = Vec::new();
    let ordered = |name: &str| {
        let order = codes::orders().into_iter().find(|o| o.name == name)?;
        Some(order.names.iter().enumerate().map(|(i, n)| Entry::named(i as u16 + 1, n)).collect::<Vec<_>>())
    };
    let entries = match given {
        Some(given) => match ordered(given) {
            Some(entries) => entries,
            None => from_file(given)?,
        },
        None if !plan.names.is_empty() => plan.names.iter().map(|(value, name)| Entry::named(*value, name)).collect(),
        None => match ordered(STUNET_ORDER).filter(|e| e.len() + 1 == plan.outputs) {
            Some(entries) => {
                warnings.push(format!("the plan names no labels; it has as many as the official weights, so `{STUNET_ORDER}` is used"));
                entries
            }
            None => {
                warnings.push("the plan names no labels; they are numbered and coded as \"Tissue\" (give names with --labels)".into());
                (1..plan.outputs).filter_map(|v| u16::try_from(v).ok()).map(|v| Entry::named(v, &format!("class_{v}"))).collect()
            }
        },
    };
    if plan.regions.is_empty() && entries.len() + 1 != plan.outputs {
        return Err(ModelError::Labels(format!("{} labels for a model with {} classes", entries.len(), plan.outputs - 1)));
    }
    let published = {
        let names: BTreeSet<&str> = entries.iter().map(|e| e.name.as_str()).collect();
        codes::orders().into_iter().any(|o| o.names.into_iter().collect::<BTreeSet<_>>() == names)
    };
    // Numbered names have been warned of.
    let numbered = given.is_none() && plan.names.is_empty() && !published;
    let mut unknown = Vec::new();
    let labels = entries.into_iter().enumerate().map(|(i, e)| coded(i, e, &mut unknown)).collect();
    if !unknown.is_empty() && !numbered {
        warnings.push(format!(
            "no code is known for: {}; they are coded as \"Tissue\" (a list for --labels may hold codes)",
            unknown.join(", ")
        ));
    }
    let table = LabelTable::new(labels).map_err(|e| ModelError::Labels(e.to_string()))?;
    check_table(&table).map_err(ModelError::Labels)?;
    if plan.regions.is_empty() && table.max_value() as usize != table.len() {
        return Err(ModelError::Labels(format!("the values of the labels are not 1 to {}", table.len())));
    }
    Ok(Chosen { table, published, warnings })
}

/// The label with codes and colour of its own, or else those of the dictionary.
fn coded(index: usize, entry: Entry, unknown: &mut Vec<String>) -> Label {
    let value = entry.value.unwrap_or(u16::try_from(index + 1).unwrap_or(0));
    let known = codes::look_up(&entry.name);
    if known.is_none() && entry.property_type.is_none() {
        unknown.push(entry.name.clone());
    }
    let mut coded = known.unwrap_or_else(|| codes::tissue(value));
    // A type of its own takes the place of everything that the dictionary says about the name.
    if let Some(property_type) = entry.property_type {
        let rgb = coded.rgb;
        coded = codes::Coded { property_type, rgb, ..codes::tissue(value) };
        (coded.modifier, coded.region, coded.region_modifier) = (entry.modifier, entry.region, entry.region_modifier);
    }
    if let Some(category) = entry.category {
        coded.category = category;
    }
    if let Some(rgb) = entry.rgb {
        coded.rgb = rgb;
    }
    coded.label(value, &entry.name)
}

/// A TOML or JSON list: names in the order of their values, `{name: value}`, or full entries; at the top or under `labels`.
fn from_file(given: &str) -> Result<Vec<Entry>, ModelError> {
    let path = Path::new(given);
    let bad = |what: String| ModelError::Labels(format!("{given}: {what}"));
    let meta = std::fs::metadata(path).map_err(|e| {
        let names = codes::orders().iter().map(|o| o.name).collect::<Vec<_>>().join(", ");
        bad(format!("neither a file ({e}) nor one of: {names}"))
    })?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(bad(format!("not a file of at most {MAX_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let document: Json = if path.extension().is_some_and(|e| e == "toml") {
        toml::from_str(&text).map_err(|e| bad(e.message().to_string()))?
    } else {
        serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?
    };
    let list = document.get("labels").unwrap_or(&document);
    let entries: Option<Vec<Entry>> = match list {
        Json::Array(items) if items.iter().all(Json::is_string) => {
            let names: Vec<&str> = items.iter().filter_map(Json::as_str).collect();
            let first = if names.first() == Some(&"background") { 0 } else { 1 };
            names.iter().enumerate().map(|(i, n)| Some(Entry::named(u16::try_from(i + first).ok()?, n))).collect()
        }
        Json::Array(items) => {
            let full: Result<Vec<Entry>, _> = items.iter().map(Entry::deserialize).collect();
            Some(full.map_err(|e| bad(e.to_string()))?)
        }
        Json::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Json::String(name) => Some(Entry::named(key.parse().ok()?, name)),
                number => Some(Entry::named(u16::try_from(number.as_u64()?).ok()?, key)),
            })
            .collect(),
        _ => None,
    };
    let mut entries = entries.ok_or_else(|| bad("is neither a list of names nor a table of names and values".into()))?;
    entries.retain(|e| e.value != Some(0) || e.name != "background");
    Ok(entries)
}
