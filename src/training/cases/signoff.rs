//! `signoff.toml`: a named person's word that labels are right, and for which classes.

use super::CaseError;
use crate::models::LabelTable;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest text of a record.
const MAX_TEXT: usize = 200;
/// Labels of which less than this share differs from the model's own count as unchanged.
const UNCHANGED: f64 = 1e-4;

/// Where labels came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person drew them.
    Manual,
    /// A person corrected the model's.
    AiCorrected,
    /// The model's own, as they were. Never learned from.
    AiUnchanged,
}

/// What the person decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// May be learned from.
    Accepted,
    /// Is not right.
    Refused,
    /// Was accepted once; not to be used any more.
    Withdrawn,
}

/// A reader's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignOff {
    /// Who.
    pub reader: String,
    /// When, as the reader's clock said: `2026-01-31T17:05:00Z`.
    pub time: String,
    /// Digest of the labels that were looked at ([`label_digest`]).
    pub labels: String,
    /// Names of the classes that were reviewed, in the model's words. A class that is absent from the image but listed here is known
    /// not to be there; one that is not listed is unlabelled.
    pub classes: Vec<String>,
    /// Where the labels came from.
    pub origin: Origin,
    /// What was decided.
    pub decision: Decision,
    /// Names of the classes whose volume is out of the plausible range and right all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confirmed: Vec<String>,
}

impl SignOff {
    /// Reads a record.
    pub fn parse(text: &str) -> Result<SignOff, CaseError> {
        // The parser's own message would quote the line.
        let place = |e: &toml::de::Error| e.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        toml::from_str(text).map_err(|e| CaseError::SignOff(format!("signoff.toml: line {} can not be read", place(&e))))
    }

    /// The reviewed label values with the background, ascending, if the record lets these labels be learned from.
    ///
    /// # Errors
    /// `cases.bad_signoff` for a record that names nobody, another digest, no or unknown classes, or labels of classes that were not
    /// reviewed; and for one that does not accept. `cases.unchanged` for what is the model's own.
    pub fn reviewed(&self, labels: &[u16], table: &LabelTable, changed: Option<f64>) -> Result<Vec<u16>, CaseError> {
        let refuse = |what: &str| Err(CaseError::SignOff(what.to_string()));
        let fits = |text: &str| !text.trim().is_empty() && text.len() <= MAX_TEXT;
        if !fits(&self.reader) || self.time.parse::<jiff::Timestamp>().is_err() {
            return refuse("the record needs a reader and a time like 2026-01-31T17:05:00Z");
        }
        if self.decision != Decision::Accepted {
            return refuse("the reader has not accepted the case, or has withdrawn it");
        }
        if self.labels != label_digest(labels) {
            return refuse("the record is about other labels: they were changed after it was signed");
        }
        let value = |name: &String| table.iter().find(|label| label.name == *name).map(|label| label.value);
        let Some(mut classes) = self.classes.iter().map(value).collect::<Option<Vec<u16>>>() else {
            return refuse("the record lists a class that the model does not have");
        };
        classes.push(0);
        classes.sort_unstable();
        classes.dedup();
        if classes.len() < 2 || classes.len() != self.classes.len() + 1 {
            return refuse("the record has to list reviewed classes, each once");
        }
        let outside = |label: &&u16| table.get(**label).is_some() && classes.binary_search(label).is_err();
        if let Some(label) = labels.iter().find(outside) {
            return refuse(&format!("label {label} has voxels, but was not reviewed"));
        }
        match (self.origin, changed) {
            (Origin::AiUnchanged, _) => Err(CaseError::Unchanged { percent: changed.unwrap_or(0.0) * 100.0 }),
            (Origin::AiCorrected, None) => refuse("corrected labels need the model's own beside them, to see what was corrected"),
            // Whatever the record says: what nobody changed was not corrected.
            (_, Some(share)) if changed_nothing(share) => Err(CaseError::Unchanged { percent: share * 100.0 }),
            _ => Ok(classes),
        }
    }
}

/// SHA-256 over label values on the image's grid, hexadecimal.
pub fn label_digest(labels: &[u16]) -> String {
    let mut hash = Sha256::new();
    labels.chunks(1 << 16).for_each(|part| hash.update(part.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The share of the voxels that either labels with one of `classes` on which the two differ; 0 where neither labels any.
pub fn changed_share(labels: &[u16], model: &[u16], classes: &[u16]) -> f64 {
    let of = |label: u16| if label != 0 && classes.contains(&label) { label } else { 0 };
    let (mut either, mut differ) = (0u64, 0u64);
    for (&a, &b) in labels.iter().zip(model) {
        let (a, b) = (of(a), of(b));
        either += u64::from(a != 0 || b != 0);
        differ += u64::from(a != b);
    }
    if either == 0 { 0.0 } else { differ as f64 / either as f64 }
}

/// Whether so little differs that nobody changed anything.
pub fn changed_nothing(share: f64) -> bool {
    share < UNCHANGED
}
