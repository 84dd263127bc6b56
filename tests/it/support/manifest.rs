//! A manifest around the preprocessing that a test is about.

use std::collections::BTreeMap;
use stunetd::models::{
    Aggregation, Channel, Code, Inference, Label, LabelTable, Manifest, Normalization, NormalizationOrder, Orientation, Postprocessing,
    Preprocessing, Provenance, Resampling, Scope, Status, Weights,
};
use stunetd::stunet::{Architecture, Size};

/// Labels `1..=count`.
pub fn labels(count: u16) -> LabelTable {
    let concept = Code { value: "85756007".into(), scheme: "SCT".into(), meaning: "Tissue".into() };
    let label = |value| Label {
        value,
        name: format!("label_{value}"),
        category: concept.clone(),
        property_type: concept.clone(),
        modifier: None,
        region: None,
        region_modifier: None,
        rgb: [200, 100, 50],
    };
    LabelTable::new((1..=count).map(label).collect()).expect("table")
}

/// As stored, not transposed, cubic, one channel that is not normalised.
pub fn preprocessing(order: NormalizationOrder, spacing: [f64; 3]) -> Preprocessing {
    Preprocessing {
        orientation: Orientation::AsStored,
        transpose: [0, 1, 2],
        spacing,
        order,
        resampling: Resampling::Default,
        grid_channel: 0,
        channels: vec![channel(Normalization::None, false)],
    }
}

/// A channel with this normalisation.
pub fn channel(normalization: Normalization, use_mask: bool) -> Channel {
    Channel { name: "CT".into(), normalization, use_mask }
}

/// A whole manifest; only its preprocessing and labels mean something.
pub fn manifest(preprocessing: Preprocessing) -> Manifest {
    Manifest {
        schema: 1,
        name: "test".into(),
        version: "1".into(),
        status: Status::Research,
        weights: Weights { file: "weights.safetensors".into(), sha256: "0".repeat(64), parameters: 1 },
        architecture: Architecture::named(Size::S, preprocessing.channels.len(), 201, Architecture::OFFICIAL_STRIDES),
        inference: Inference { patch: [128; 3], aggregation: Aggregation::Logits, mirror_axes: vec![], regions: vec![] },
        preprocessing,
        postprocessing: Postprocessing::default(),
        scope: Scope::default(),
        provenance: Provenance {
            format: "stunetd".into(),
            trainer: "none".into(),
            epoch: None,
            files: BTreeMap::new(),
            importer: "0".into(),
        },
        labels: labels(200),
    }
}
