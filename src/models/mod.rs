//! Models on disk: immutable generations of `weights.safetensors` + `manifest.toml`, and where they came from.

mod generation;
mod labels;
mod manifest;

pub use generation::Generation;
pub use labels::{Code, Label, LabelTable, LabelTableError};
pub use manifest::{
    Aggregation, Channel, Inference, Manifest, Normalization, NormalizationOrder, Orientation, Postprocessing, Preprocessing, Provenance,
    Region, Resampling, Scope, Status, Weights,
};
