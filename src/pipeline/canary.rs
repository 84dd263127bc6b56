//! The canary: a generation of the store segments a small phantom before it serves, and has to give the labels that it gave before on a
//! machine of this kind.
//!
//! The phantom is made of sums and products of whole numbers only, so it is the same everywhere. What a generation makes of it is remembered
//! by program, libtorch, processor, cores, device and precision: with any of these another result is right.

use super::street::{EngineFactory, EngineFacts};
use crate::fault::{Code, Fault};
use crate::models::{Generation, Store};
use crate::results::labels_digest;
use crate::segment::{Engine, SegmentOptions};
use crate::stunet::runtime::LIBTORCH_VERSION;
use crate::sys::cores::Cores;
use crate::sys::machine;
use crate::volume::nifti::NiftiGeometry;
use crate::volume::{Affine, Limits, Quantity, Source, Volume, prepare};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Opens engines as `factory` does. A generation of the store that can not be opened, or fails its canary when it is opened for the first
/// time, is `model.canary_failed`.
pub fn guarded(factory: EngineFactory, store: Store) -> EngineFactory {
    let passed: Mutex<BTreeSet<String>> = Mutex::default();
    Arc::new(move |model: &Generation| {
        if !store.holds(model) {
            return factory(model);
        }
        let mut opened = factory(model).map_err(unusable)?;
        let lock = || passed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().contains(&model.digest);
        if !known {
            sing(&mut *opened.engine, &opened.facts, model, &store).map_err(unusable)?;
            lock().insert(model.digest.clone());
        }
        Ok(opened)
    })
}

/// What lies in the model is the model's fault; what lies in the machine may pass.
fn unusable(fault: Fault) -> Fault {
    match fault.code {
        Code::ModelMissing | Code::ModelManifest | Code::ModelDigest | Code::ModelMismatch | Code::ModelNotFinite => {
            Fault::new(Code::ModelCanary, format!("{}: {}", fault.code, fault.detail))
        }
        _ => fault,
    }
}

/// Compares the labels with those of the first time; that first time they are made twice.
fn sing(engine: &mut dyn Engine, facts: &EngineFacts, model: &Generation, store: &Store) -> Result<(), Fault> {
    let device = kind_of_device(facts);
    let labels = labels(engine, model)?;
    let expected = match store.canary(&model.digest, &device) {
        Some(before) => before,
        None => self::labels(engine, model)?,
    };
    if labels != expected {
        let detail = format!("The generation {} gives the canary other labels ({labels}) than before ({expected}).", model.digest);
        return Err(Fault::new(Code::ModelCanary, detail));
    }
    store.record_canary(&model.digest, &device, &labels)
}

/// SHA-256 of the labels that an engine gives for its model's canary, hexadecimal. Numbers that are not finite are `model.not_finite`.
pub fn labels(engine: &mut dyn Engine, model: &Generation) -> Result<String, Fault> {
    let volume = phantom(model)?;
    let prepared = prepare(&volume, &model.manifest, &Limits::default())?;
    let labels = engine.segment(prepared, SegmentOptions::default(), &mut |_| true)?;
    Ok(labels_digest(&labels))
}

/// Names all that labels may depend on beside the generation; usable as the name of a file.
fn kind_of_device(facts: &EngineFacts) -> String {
    let processor = machine::processor().unwrap_or_default();
    let all =
        format!("{} {LIBTORCH_VERSION} {processor} {} {} {}", env!("CARGO_PKG_VERSION"), Cores::available(), facts.device, facts.precision);
    Sha256::digest(all).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// One window of the model, in its own spacing: a body with fat around it, two lungs, a spine and a dense organ.
fn phantom(model: &Generation) -> Result<Volume, Fault> {
    let (steps, patch) = (&model.manifest.preprocessing, model.manifest.inference.patch);
    let (mut shape, mut spacing) = ([1; 3], [1.0; 3]);
    for (network, &array) in steps.transpose.iter().enumerate() {
        (shape[array], spacing[array]) = (patch[network], steps.spacing[network]);
    }
    let affine = Affine::new([spacing[2], 0.0, 0.0], [0.0, spacing[1], 0.0], [0.0, 0.0, spacing[0]], [0.0; 3]);
    let affine = affine.ok_or_else(|| Fault::new(Code::ModelCanary, "The model's grid has no extent."))?;
    let is_pet = |channel: usize| model.manifest.scope.modality.get(channel).is_some_and(|modality| modality == "PT");
    let channels = steps.channels.len();
    let mut data = Vec::with_capacity(channels * shape.iter().product::<usize>());
    for channel in 0..channels {
        let mut state = 0x5eed_u64;
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    // Thousandths of the half extent, -1000..1000.
                    let place = |i: usize, n: usize| (2 * i as i64 + 1) * 1000 / n as i64 - 1000;
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let texture = (state >> 60) as f32 - 7.5;
                    let (hu, suv) = tissue([place(z, shape[0]), place(y, shape[1]), place(x, shape[2])]);
                    data.push(if is_pet(channel) { suv } else { hu + texture });
                }
            }
        }
    }
    let quantity = (0..channels).map(|channel| if is_pet(channel) { Quantity::SuvBw } else { Quantity::Hu }).collect();
    let geometry = Box::new(NiftiGeometry::from_affine(&affine));
    let source = Source::Nifti { path: PathBuf::from("canary"), digest: [0; 32], geometry };
    Ok(Volume { data, channels, shape, affine, quantity, source })
}

/// Hounsfield units and standardised uptake at a place `[z, y, x]`.
fn tissue(place: [i64; 3]) -> (f32, f32) {
    let within = |centre: [i64; 3], radii: [i64; 3]| {
        // Millionths; 1000 is the surface.
        let parts = (0..3).map(|a| ((place[a] - centre[a]) * 1000 / radii[a]).pow(2));
        parts.sum::<i64>() < 1_000_000
    };
    let tall = 100_000;
    match () {
        () if !within([0, 0, 0], [tall, 750, 920]) => (-1000.0, 0.0),
        () if !within([0, 0, 0], [tall, 650, 820]) => (-100.0, 0.5),
        () if within([0, 420, 0], [tall, 150, 150]) => (500.0, 1.5),
        () if within([550, -60, -400], [500, 380, 260]) || within([550, -60, 400], [500, 380, 260]) => (-820.0, 0.5),
        () if within([-400, -80, -380], [420, 380, 330]) => (110.0, 2.5),
        () if within([-300, 200, 420], [260, 180, 160]) => (180.0, 4.0),
        () => (45.0, 1.0),
    }
}
