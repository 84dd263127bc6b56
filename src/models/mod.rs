//! Models on disk: immutable generations of `weights.safetensors` + `manifest.toml`, where they came from, and the store of those that may
//! serve in place of a configured model.

pub mod codes;
mod error;
mod generation;
pub mod import;
mod labels;
mod manifest;
mod manifest_check;
mod store;
mod weights_file;

pub use error::ModelError;
pub use generation::{Generation, Listed, MANIFEST, list};
pub use labels::{Code, Label, LabelTable, LabelTableError};
pub use manifest::{
    Aggregation, Channel, Inference, Manifest, Normalization, NormalizationOrder, OnUnknown, Orientation, Postprocessing, Preprocessing,
    Provenance, Region, Resampling, Scope, Status, Weights,
};
pub use store::{Approval, Lineage, Store, Stored};
