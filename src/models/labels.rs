//! The labels of a model: value, name, codes and colour of each class.

use serde::{Deserialize, Serialize};

/// A coded concept (DICOM code sequence item).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Code Value (0008,0100).
    pub value: String,
    /// Coding Scheme Designator (0008,0102), `SCT` or `DCM`.
    pub scheme: String,
    /// Code Meaning (0008,0104).
    pub meaning: String,
}

/// One foreground class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The voxel value; also the segment number in a SEG of all labels.
    pub value: u16,
    /// Short name, `[a-z0-9_]` by custom; becomes the segment label.
    pub name: String,
    /// Segmented Property Category.
    pub category: Code,
    /// Segmented Property Type.
    #[serde(rename = "type")]
    pub property_type: Code,
    /// Segmented Property Type Modifier (laterality), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modifier: Option<Code>,
    /// Anatomic Region, where the type alone does not say the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Code>,
    /// Anatomic Region Modifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_modifier: Option<Code>,
    /// Display colour, sRGB.
    pub rgb: [u8; 3],
}

/// The foreground labels of a model, ascending by value; 0 is the background and not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Label>", into = "Vec<Label>")]
pub struct LabelTable {
    labels: Vec<Label>,
}

/// Why labels are not a table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LabelTableError {
    /// Value 0 is the background.
    #[error("label {0:?} has value 0, which is the background")]
    Zero(String),
    /// Two labels with one value.
    #[error("label value {0} is used twice")]
    Twice(u16),
    /// No labels.
    #[error("a model needs at least one foreground label")]
    Empty,
}

impl LabelTable {
    /// Sorts by value and checks that values are unique and not 0.
    pub fn new(mut labels: Vec<Label>) -> Result<LabelTable, LabelTableError> {
        labels.sort_by_key(|l| l.value);
        if labels.is_empty() {
            return Err(LabelTableError::Empty);
        }
        if labels[0].value == 0 {
            return Err(LabelTableError::Zero(labels[0].name.clone()));
        }
        if let Some(pair) = labels.windows(2).find(|p| p[0].value == p[1].value) {
            return Err(LabelTableError::Twice(pair[0].value));
        }
        Ok(LabelTable { labels })
    }

    /// The label with this value.
    pub fn get(&self, value: u16) -> Option<&Label> {
        self.labels.binary_search_by_key(&value, |l| l.value).ok().map(|i| &self.labels[i])
    }

    /// All labels, ascending by value.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.labels.iter()
    }

    /// Number of foreground labels.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: a table holds at least one label.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The largest value.
    pub fn max_value(&self) -> u16 {
        self.labels.last().map_or(0, |l| l.value)
    }
}

impl TryFrom<Vec<Label>> for LabelTable {
    type Error = LabelTableError;
    fn try_from(labels: Vec<Label>) -> Result<Self, Self::Error> {
        LabelTable::new(labels)
    }
}

impl From<LabelTable> for Vec<Label> {
    fn from(table: LabelTable) -> Self {
        table.labels
    }
}
