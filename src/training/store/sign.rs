//! What a reader says of a case, and whether it may be learned from then.

use super::Stored;
use super::record::CaseRecord;
use crate::fault::Fault;
use crate::models::{Generation, LabelTable};
use crate::training::cases::{CaseError, Decision, Origin, SignOff, changed_share};
use std::time::SystemTime;

/// Labels of which less than this share differs from a model's own are flagged: the reader may have trusted the model.
const BIAS: f64 = 0.05;

/// A time as records have it: `2026-01-31T17:05:00Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(0)).unwrap_or_default().to_string()
}

/// A reader's word, before it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Who.
    pub reader: String,
    /// When, RFC 3339.
    pub time: String,
    /// Names of the classes that were reviewed.
    pub classes: Vec<String>,
    /// Where the labels came from.
    pub origin: Origin,
    /// What was decided.
    pub decision: Decision,
    /// Names of the classes whose volume is right although it is out of range.
    pub confirmed: Vec<String>,
}

impl Stored {
    /// Appends a reader's record. An acceptance is looked at first, and not kept when it does not hold.
    ///
    /// # Errors
    /// `cases.bad_signoff`, `cases.unchanged`, `cases.implausible_volume`, `cases.no_labels`; the disk.
    pub fn sign(&self, word: Word, model: &Generation) -> Result<SignOff, Fault> {
        let Some(labels) = &self.record.labels else {
            return Err(CaseError::NoLabels(format!("case {} is an unlabelled study", self.name)).into());
        };
        let Word { reader, time, classes, origin, decision, confirmed } = word;
        let record = SignOff { reader, time, labels: labels.digest.clone(), classes, origin, decision, confirmed };
        self.keep_record(record, model)
    }

    /// Appends a record that was made elsewhere (`signoff.toml`). Beside the labels' own digest the SHA-256 of a file that they came from is
    /// taken: that is what a person without this program can tell.
    ///
    /// # Errors
    /// As [`sign`](Stored::sign).
    pub fn keep_record(&self, mut record: SignOff, model: &Generation) -> Result<SignOff, Fault> {
        if let Some(labels) = self.record.labels.as_ref().filter(|labels| labels.files == [record.labels.clone()]) {
            record.labels = labels.digest.clone();
        }
        match record.decision {
            Decision::Accepted => drop(check(self, &record, model)?),
            Decision::Refused | Decision::Withdrawn => named(&record)?,
        }
        if self.signoffs()?.last() != Some(&record) {
            self.append(&record)?;
        }
        Ok(record)
    }

    /// Whether hardly anything of what a reader accepted differs from what a model said.
    pub fn is_biased(&self) -> bool {
        self.record.changed.values().any(|share| *share < BIAS)
    }
}

/// The reviewed label values with the background, ascending, if the record lets the case be learned from.
pub(super) fn check(case: &Stored, record: &SignOff, model: &Generation) -> Result<Vec<u16>, Fault> {
    let Some(known) = &case.record.labels else {
        return Err(CaseError::NoLabels(format!("case {} is an unlabelled study", case.name)).into());
    };
    // The closest of the models that were asked: the labels may have been corrected from any of them.
    let changed = case.record.changed.values().copied().min_by(f64::total_cmp);
    let table = &model.manifest.labels;
    let reviewed = record.reviewed(&case.labels()?, table, changed)?;
    if let Some(name) = known.implausible.iter().find(|name| !record.confirmed.contains(name)) {
        let [low, high] = super::plausible::range(name).unwrap_or_default();
        let label = table.iter().find(|label| label.name == *name).map_or(0, |label| label.value);
        let millilitres = known.millilitres.get(name).copied().unwrap_or(0.0);
        return Err(CaseError::Implausible { label, millilitres, low, high }.into());
    }
    Ok(reviewed)
}

/// That the record names somebody and a time.
fn named(record: &SignOff) -> Result<(), CaseError> {
    let fits = !record.reader.trim().is_empty() && record.reader.len() <= 200 && record.time.parse::<jiff::Timestamp>().is_ok();
    if fits { Ok(()) } else { Err(CaseError::SignOff("the record needs a reader and a time like 2026-01-31T17:05:00Z".into())) }
}

/// The share of a case's labelled voxels that differ from a model's own, over the classes that the label files have.
pub(super) fn changed(labels: &[u16], model: &[u16], record: &CaseRecord, table: &LabelTable) -> f64 {
    let found = record.labels.iter().flat_map(|labels| &labels.found);
    let classes: Vec<u16> = found.filter_map(|name| table.iter().find(|label| label.name == *name)).map(|label| label.value).collect();
    changed_share(labels, model, &classes)
}
