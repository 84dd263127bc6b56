//! The network as the street's engine.

use super::street::{EngineFactory, EngineFacts, Opened};
use crate::models::Generation;
use crate::segment::{MemoryLimits, TorchEngine};
use crate::stunet::{DeviceChoice, Precision};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Opens a model on a device when the street asks for it; its weights have to be the ones that its manifest names, which is
/// seen to the first time. `threads`: those of one libtorch operation; `device_memory`: bytes that a CUDA device's model and study may take
/// together, what is free where none is given.
pub fn network(device: DeviceChoice, precision: Precision, threads: usize, device_memory: Option<u64>) -> EngineFactory {
    // What the host has is shared out before a case reaches the engine.
    let limits = MemoryLimits { host: None, device: device_memory };
    let verified: Mutex<BTreeSet<String>> = Mutex::default();
    Arc::new(move |model: &Generation| {
        let mut verified = verified.lock().unwrap_or_else(PoisonError::into_inner);
        if !verified.contains(&model.digest) {
            model.verify(&mut |_, _| {})?;
            verified.insert(model.digest.clone());
        }
        drop(verified);
        let engine = TorchEngine::open(model, device, precision, Some(threads))?.with_limits(limits);
        let facts = EngineFacts { device: engine.device_name(), precision: engine.precision().name().into() };
        Ok(Opened { engine: Box::new(engine), facts })
    })
}
