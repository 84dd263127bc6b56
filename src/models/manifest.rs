//! `manifest.toml`: everything about a model but its numbers.

use super::LabelTable;
use crate::stunet::Architecture;
use serde::{Deserialize, Serialize};

/// A model's manifest. Lengths are millimetres; axis order is the array's (z, y, x) unless said otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this file's layout: 1.
    pub schema: u32,
    /// Short name, `[a-z0-9._-]{1,40}`.
    pub name: String,
    /// Version of the model, printed in results.
    pub version: String,
    /// `research` until a named person approves it (`spec/clinical.md` section 3).
    pub status: Status,
    /// The weights file and its digest.
    pub weights: Weights,
    /// The network.
    pub architecture: Architecture,
    /// From a volume to the network's grid.
    pub preprocessing: Preprocessing,
    /// How windows become labels.
    pub inference: Inference,
    /// After labels are made.
    #[serde(default)]
    pub postprocessing: Postprocessing,
    /// What the model may be used on.
    #[serde(default)]
    pub scope: Scope,
    /// Where it came from.
    pub provenance: Provenance,
    /// Foreground labels.
    pub labels: LabelTable,
}

/// Whether results may be used clinically.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not for diagnosis; every result says so.
    Research,
    /// Approved by a named person with a document.
    Clinical,
}

/// The weights file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// File name beside the manifest.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Number of parameters.
    pub parameters: u64,
}

/// From a volume to the network's grid (nnU-Net's preprocessing).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Array orientation the model was trained in.
    pub orientation: Orientation,
    /// nnU-Net's `transpose_forward`: network axis `a` is array axis `transpose[a]` of (z, y, x).
    pub transpose: [usize; 3],
    /// Target spacing in network axis order, mm.
    pub spacing: [f64; 3],
    /// v1 resamples first and normalises after, v2 the other way round.
    pub order: NormalizationOrder,
    /// Interpolation of images and of probabilities.
    pub resampling: Resampling,
    /// The channel whose grid the images are brought to and the labels are given on; those of other channels are interpolated onto it.
    #[serde(default, skip_serializing_if = "is_first")]
    pub grid_channel: usize,
    /// One per input channel.
    pub channels: Vec<Channel>,
}

impl Preprocessing {
    /// What becomes of a number of HU in the first channel; none where that depends on the image.
    pub fn normalised(&self, hu: f64) -> Option<f64> {
        match self.channels.first()? {
            Channel { normalization: Normalization::Ct { lower, upper, mean, sd }, use_mask: false, .. } => {
                Some((hu.max(*lower).min(*upper) - mean) / sd.max(1e-8))
            }
            _ => None,
        }
    }
}

fn is_first(channel: &usize) -> bool {
    *channel == 0
}

/// Array orientation a model expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// As SimpleITK reads the file: no reorientation.
    AsStored,
    /// Axes flipped and permuted to grow towards Right, Anterior, Superior (nibabel's closest canonical).
    Ras,
}

/// Which comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalizationOrder {
    /// nnU-Net v1: resample, then normalise (z-score divides by sd + 1e-8, CT by sd).
    ResampleFirst,
    /// nnU-Net v2: normalise, then resample (both divide by max(sd, 1e-8)).
    NormalizeFirst,
}

/// Interpolation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// nnU-Net's default: image cubic B-spline, probabilities linear; along a strongly anisotropic axis nearest (`spec/nnunet_pipeline.md` section 4).
    Default,
    /// nnU-Net v2's `resample_torch_fornnunet`: trilinear for both, nearest-exact along a strongly anisotropic axis.
    Torch,
}

/// One input channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// `CT`, `PET`, …
    pub name: String,
    /// How its values are normalised.
    pub normalization: Normalization,
    /// Statistics and normalisation inside the non-zero mask only.
    #[serde(default)]
    pub use_mask: bool,
}

/// Intensity normalisation of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalization {
    /// Clip to the percentiles of the training foreground, subtract its mean, divide by its sd.
    Ct {
        /// 0.5 percentile.
        lower: f64,
        /// 99.5 percentile.
        upper: f64,
        /// Mean.
        mean: f64,
        /// Standard deviation.
        sd: f64,
    },
    /// nnU-Net v1's CT2: clip, then mean and sd of this image's voxels strictly inside the bounds.
    Ct2 {
        /// 0.5 percentile.
        lower: f64,
        /// 99.5 percentile.
        upper: f64,
    },
    /// Mean and population sd of this image.
    ZScore,
    /// To 0..1 by this image's range.
    Rescale01,
    /// Values as they are.
    None,
}

/// How windows become labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inference {
    /// Window size in network axis order.
    pub patch: [usize; 3],
    /// What is averaged over windows.
    pub aggregation: Aggregation,
    /// Axes (0, 1, 2 = network axes) that may be mirrored at test time; empty: none.
    pub mirror_axes: Vec<usize>,
    /// Regions instead of exclusive classes: output `r` is a sigmoid, and where it exceeds 0.5 the label is written, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
}

/// One output of a region-based model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Output channel.
    pub output: usize,
    /// Label value that is written where the sigmoid exceeds 0.5; a later region overwrites an earlier one.
    pub value: u16,
}

/// What is averaged over overlapping windows, mirrored copies and folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// nnU-Net v1: probabilities after softmax; Gaussian with maximum 1, only when there is more than one window.
    Softmax,
    /// nnU-Net v2: logits; Gaussian always.
    Logits,
}

/// Keep-largest-component steps, in order (nnU-Net's postprocessing file).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postprocessing {
    /// Each entry is a union of labels of which only the largest component(s) stay.
    pub keep_largest: Vec<Vec<u16>>,
    /// Whether diagonal neighbours connect: 26 (v2) or 6 (v1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connectivity: Option<u8>,
}

/// What a model may be used on (`spec/clinical.md` section 1). What is not given does not restrict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Modalities by channel, `CT` or `PT`; of a model with one channel, all that it takes.
    pub modality: Vec<String>,
    /// Youngest age in years.
    pub min_age: f64,
    /// Oldest age in years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<f64>,
    /// Least and largest distance of neighbouring slices, mm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice_distance: Option<[f64; 2]>,
    /// Least and largest distance of neighbouring pixels, mm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_spacing: Option<[f64; 2]>,
    /// Least extent along the slices' normal, mm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_coverage: Option<f64>,
    /// Values of Body Part Examined that the model is made for. A hint: any other value, or none, leaves the anatomy unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub body_part: Vec<String>,
    /// Names of labels of which at least one has to be found whole, or the image is not of the anatomy that the model is made for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expects: Vec<String>,
    /// Whether the images have a contrast agent. A hint: where none is named it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<bool>,
    /// Tracers of PET series, `scheme:value` of the Radiopharmaceutical Code Sequence; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub radiopharmaceutical: Vec<String>,
    /// Words in Manufacturer, Manufacturer's Model Name, Series Description or Protocol Name, in any case, that tell a kind of device
    /// which the model is not made for. Cone beam CTs, unless the manifest says otherwise: their values are no HU.
    #[serde(skip_serializing_if = "is_cone_beam")]
    pub exclude_device: Vec<String>,
    /// What happens where the header does not tell.
    #[serde(skip_serializing_if = "OnUnknown::is_flag")]
    pub on_unknown: OnUnknown,
}

/// What happens to an image of which nobody can say whether it is in the scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// It is refused.
    Refuse,
    /// It is segmented, and the result has a warning.
    #[default]
    Flag,
}

impl OnUnknown {
    fn is_flag(&self) -> bool {
        *self == OnUnknown::Flag
    }
}

/// How cone beam CTs are named.
const CONE_BEAM: [&str; 4] = ["cone beam", "cone-beam", "conebeam", "cbct"];

fn is_cone_beam(words: &[String]) -> bool {
    words == CONE_BEAM
}

impl Default for Scope {
    fn default() -> Self {
        Scope {
            modality: vec!["CT".into()],
            min_age: 18.0,
            max_age: None,
            slice_distance: None,
            pixel_spacing: None,
            min_coverage: None,
            body_part: Vec::new(),
            expects: Vec::new(),
            contrast: None,
            radiopharmaceutical: Vec::new(),
            exclude_device: CONE_BEAM.map(str::to_owned).to_vec(),
            on_unknown: OnUnknown::Flag,
        }
    }
}

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// `nnunet_v1`, `nnunet_v2` or `stunetd`.
    pub format: String,
    /// The trainer's name in the checkpoint.
    pub trainer: String,
    /// Epoch the weights were saved at, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// SHA-256 of each file that was imported, by file name. Of the checkpoint only the pickled index is hashed (`index:…`),
    /// which names every tensor: its optimizer is never read, and the weights have a digest of their own.
    pub files: std::collections::BTreeMap<String, String>,
    /// Version of stunetd that imported it.
    pub importer: String,
}
