//! Why labels are not admitted.

use crate::fault::{Code, Fault};

/// Why labels can not become a case. The texts name structures by the model's own names or by number, never by what a file says:
/// free text may hold a patient's name.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum CaseError {
    /// The labels do not lie on the image's grid.
    #[error("{0}")]
    Geometry(String),
    /// No structure is one of the model's labels.
    #[error("none of the {0} structures is a label of the model")]
    NoKnownLabel(usize),
    /// Two labels claim the same voxels.
    #[error("labels {first} and {second} share {percent:.1} % of the smaller one")]
    Overlap {
        /// A label value.
        first: u16,
        /// Another.
        second: u16,
        /// Of the smaller one's voxels.
        percent: f64,
    },
    /// A volume that no such organ has.
    #[error("label {label} has {millilitres:.1} ml; {low:.1} to {high:.1} are plausible")]
    Implausible {
        /// The label's value.
        label: u16,
        /// Its volume.
        millilitres: f64,
        /// Smallest plausible volume.
        low: f64,
        /// Largest plausible volume.
        high: f64,
    },
    /// The same image, or nearly so, is a case already.
    #[error("the image is that of case {0}, or nearly so")]
    Duplicate(String),
    /// The record of the reader is missing something, or is not about these labels.
    #[error("{0}")]
    SignOff(String),
    /// Nobody changed what the model said.
    #[error("{percent:.2} % of the labelled voxels differ from the model's own labels")]
    Unchanged {
        /// Of the voxels that either labels.
        percent: f64,
    },
    /// There is no such case.
    #[error("{0}")]
    Unknown(String),
    /// The folder has no labels.
    #[error("{0}")]
    NoLabels(String),
    /// The image that the labels are of was not found.
    #[error("{0}")]
    NoImage(String),
    /// A patient is on both sides of the split.
    #[error("case {0} joins patients of the training and of the locked side")]
    Leak(String),
}

impl From<CaseError> for Fault {
    fn from(error: CaseError) -> Fault {
        let code = match &error {
            CaseError::Geometry(_) => Code::CasesGeometry,
            CaseError::NoKnownLabel(_) => Code::CasesNoKnownLabel,
            CaseError::Overlap { .. } => Code::CasesOverlap,
            CaseError::Implausible { .. } => Code::CasesImplausible,
            CaseError::Duplicate(_) => Code::CasesDuplicate,
            CaseError::SignOff(_) => Code::CasesSignOff,
            CaseError::Unchanged { .. } => Code::CasesUnchanged,
            CaseError::Unknown(_) => Code::CasesUnknown,
            CaseError::NoLabels(_) => Code::CasesNoLabels,
            CaseError::NoImage(_) => Code::CasesNoImage,
            CaseError::Leak(_) => Code::CasesLeak,
        };
        Fault::new(code, format!("{error}.")).caused_by(error)
    }
}
