//! Models on disk: immutable generations of `weights.safetensors` + `manifest.toml`, and where they came from.

pub mod codes;
mod error;
mod generation;
pub mod import;
mod labels;
mod manifest;
mod manifest_check;
mod weights_file;

pub use error::ModelError;
pub use generation::{Generation, Listed, MANIFEST, list};
pub use labels::{Code, Label, LabelTable, LabelTableError};
pub use manifest::{
    Aggregation, Channel, Inference, Manifest, Normalization, NormalizationOrder, OnUnknown, Orientation, Postprocessing, Preprocessing,
    Provenance, Region, Resampling, Scope, Status, Weights,
};
