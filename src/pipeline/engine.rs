//! The network as the street's engine.

use super::street::{EngineFactory, EngineFacts, Opened};
use crate::models::Generation;
use crate::segment::TorchEngine;
use crate::stunet::{DeviceChoice, Precision};
use std::path::PathBuf;
use std::sync::Arc;

/// Opens the model of a folder on a device when the street asks for it; its weights have to be the ones that the manifest
/// names. `threads`: those of one libtorch operation.
pub fn network(model: PathBuf, device: DeviceChoice, precision: Precision, threads: usize) -> EngineFactory {
    Arc::new(move || {
        let model = Generation::open(&model)?;
        model.verify(&mut |_, _| {})?;
        let engine = TorchEngine::open(&model, device, precision, Some(threads))?;
        let facts = EngineFacts { device: engine.device_name(), precision: engine.precision().name().into() };
        Ok(Opened { engine: Box::new(engine), facts })
    })
}
