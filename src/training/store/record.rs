//! `case.toml`: what is known of a case without any person's name in it.

use crate::series::Series;
use crate::training::cases::Likeness;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest technical text that is kept.
const MAX_TEXT: usize = 64;

/// A case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRecord {
    /// Version of this file's layout: 1.
    pub schema: u32,
    /// Pseudonym of the patient.
    pub patient: String,
    /// Pseudonym of the study.
    pub study: String,
    /// Pseudonym of the frame of reference, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_of_reference: Option<String>,
    /// Pseudonym of the volume.
    pub volume: String,
    /// Fingerprint of the image, if it is large enough for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub likeness: Option<Likeness>,
    /// `[nz, ny, nx]`.
    pub shape: [usize; 3],
    /// Between slices, rows and columns, mm.
    pub spacing: [f64; 3],
    /// Channels of the image.
    pub channels: usize,
    /// Of the labelled ones: what the labels are. None: an unlabelled study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelRecord>,
    /// The share of labelled voxels that differ from a model's own labels, by the model's digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changed: BTreeMap<String, f64>,
    /// About the scanner and the image.
    pub technical: Technical,
}

/// What the labels of a case are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRecord {
    /// Kinds of files that they came from: `segmentation`, `structure_set`, `nifti`.
    pub sources: Vec<String>,
    /// SHA-256 of each of those files.
    pub files: Vec<String>,
    /// Digest of the label values on the image's grid.
    pub digest: String,
    /// Names of the model's labels that the files have a structure for.
    pub found: Vec<String>,
    /// Structures that are no label of the model.
    pub left_out: usize,
    /// Voxels that two labels claim, and that no loss will look at.
    pub contested: u64,
    /// Labels whose volume is not one that such an organ has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implausible: Vec<String>,
    /// Volume of each label that has voxels, ml.
    pub millilitres: BTreeMap<String, f64>,
}

/// What is known of scanner and image: a closed list, none of which names a person.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Technical {
    /// `CT` or `PT`.
    pub modality: String,
    /// Manufacturer.
    pub manufacturer: String,
    /// Manufacturer's Model Name.
    pub model: String,
    /// Convolution Kernel.
    pub kernel: String,
    /// Whether a contrast agent is named.
    pub contrast: bool,
    /// Slice Thickness, mm; 0 where it is not given.
    pub thickness: f64,
    /// Patient's age in whole decades; none where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decade: Option<u32>,
}

impl Technical {
    /// Of the series whose grid the image has.
    pub fn of(series: &Series) -> Technical {
        let tags = &series.selection;
        // Free text of a fixed meaning, but free: short, and in plain characters.
        let text = |text: &str| text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_TEXT).collect::<String>();
        Technical {
            modality: series.modality.clone(),
            manufacturer: text(&tags.manufacturer),
            model: text(&tags.model_name),
            kernel: text(&tags.kernel),
            contrast: !tags.contrast_agent.trim().is_empty(),
            thickness: series.geometry.slice_thickness.unwrap_or(0.0),
            decade: tags.age_years.filter(|age| (0.0..150.0).contains(age)).map(|age| (age / 10.0) as u32 * 10),
        }
    }
}
