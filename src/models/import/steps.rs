//! The import, step by step: find, open, read the plan, compare, write aside, publish.

use super::files::Which;
use super::labels;
use super::plan::Plan;
use super::{v1, v2};
use crate::fault::Fault;
use crate::models::error::ModelError;
use crate::models::manifest_check::{SCHEMA, is_name};
use crate::models::weights_file::{self, hex};
use crate::models::{Generation, Inference, MANIFEST, Manifest, Orientation, Preprocessing, Provenance, Scope, Status, Weights};
use crate::stunet::checkpoint::{Checkpoint, CheckpointError, Tensor};
use crate::stunet::{Architecture, Size};
use crate::sys::durable::{StagingDir, parent, write_file, write_file_with};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// Name of the weights file in a generation.
const WEIGHTS: &str = "weights.safetensors";

/// What the caller may say about an import; everything else comes from checkpoint and plans.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the model; else the output folder's.
    pub name: Option<String>,
    /// Version that results carry; else `1`.
    pub version: Option<String>,
    /// A label order by name (see [`codes::orders`](crate::models::codes::orders)), or a file with labels.
    pub labels: Option<String>,
    /// Which fold of a model folder.
    pub fold: Option<String>,
    /// Which checkpoint of the fold.
    pub checkpoint: Which,
    /// Instead of what the plans and labels suggest.
    pub orientation: Option<Orientation>,
    /// Modality of each channel, instead of what its name suggests.
    pub modality: Vec<String>,
}

/// What an import made.
#[derive(Debug)]
pub struct Imported {
    /// The new generation.
    pub generation: Generation,
    /// What a person should know about it.
    pub warnings: Vec<String>,
}

/// Imports a checkpoint: a v1 `.model` with its `.pkl`, or a folder of nnU-Net v1 or v2. `out` must not exist; it is there
/// whole, or not at all. `progress` gets the bytes of weights written and their total; `false` stops the import.
pub fn import(source: &Path, out: &Path, options: &ImportOptions, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Imported, Fault> {
    let warnings = run(source, out, options, progress)?;
    Ok(Imported { generation: Generation::open(out)?, warnings })
}

fn run(source: &Path, out: &Path, options: &ImportOptions, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Vec<String>, ModelError> {
    if out.symlink_metadata().is_ok() {
        return Err(ModelError::Exists(out.into()));
    }
    let name = name(options, out)?;
    if !source.exists() {
        return Err(ModelError::Source(source.into()));
    }
    let found = v2::find(source, options.fold.as_deref(), options.checkpoint)?;
    let path = match &found {
        Some(found) => found.checkpoint.clone(),
        None if source.is_dir() => v1::find(source, options.fold.as_deref(), options.checkpoint)?,
        None => source.to_path_buf(),
    };
    let refused = |error| ModelError::Checkpoint { path: path.clone(), error };
    let checkpoint = Checkpoint::open(&path).map_err(refused)?;
    let tensors: HashMap<String, &Tensor> = checkpoint.weights().map_err(refused)?.into_iter().collect();
    let mut plan = match &found {
        Some(found) => v2::read(found, &checkpoint)?,
        None => v1::read(&path, &checkpoint)?,
    };
    let architecture = architecture(&path, &tensors, &plan)?;
    let chosen = labels::choose(options.labels.as_deref(), &plan)?;
    let mut warnings = std::mem::take(&mut plan.warnings);
    warnings.extend(chosen.warnings);
    warnings.extend(unlike_its_name(&plan.trainer, &architecture));
    if chosen.published {
        // TotalSegmentator's images, whatever reader the plan names, were stored towards right, anterior, superior.
        plan.orientation = Orientation::Ras;
        plan.channels.iter_mut().filter(|c| c.name == "nonCT").for_each(|c| c.name = "CT".into());
    }
    let modality = modality(options, &plan, &mut warnings)?;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    plan.files.insert(file_name, format!("index:{}", hex(&Sha256::digest(checkpoint.index()))));

    let mut manifest = Manifest {
        schema: SCHEMA,
        name,
        version: options.version.clone().unwrap_or_else(|| "1".into()),
        status: Status::Research,
        weights: Weights { file: WEIGHTS.into(), sha256: "0".repeat(64), parameters: architecture.parameters() },
        preprocessing: Preprocessing {
            orientation: options.orientation.unwrap_or(plan.orientation),
            transpose: plan.grid.transpose,
            spacing: plan.grid.spacing,
            order: plan.order,
            resampling: plan.resampling,
            grid_channel: 0,
            channels: plan.channels,
        },
        inference: Inference {
            patch: plan.grid.patch,
            aggregation: plan.aggregation,
            mirror_axes: plan.mirror_axes,
            regions: plan.regions,
        },
        postprocessing: plan.postprocessing,
        scope: Scope { modality, ..Scope::default() },
        provenance: Provenance {
            format: plan.format.into(),
            trainer: plan.trainer,
            epoch: plan.epoch,
            files: plan.files,
            importer: format!("stunetd {}", env!("CARGO_PKG_VERSION")),
        },
        labels: chosen.table,
        architecture,
    };
    // Contradictions are found before anything is written.
    manifest.check().map_err(|detail| ModelError::Plans { path: path.clone(), detail })?;

    let mut staging = StagingDir::new_in(parent(out))?;
    manifest.weights.sha256 = write_weights(&staging.path().join(WEIGHTS), &path, &checkpoint, &tensors, &manifest.architecture, progress)?;
    let text = toml::to_string(&manifest).map_err(|e| ModelError::Manifest { path: out.join(MANIFEST), detail: e.to_string() })?;
    write_file(&staging.path().join(MANIFEST), text.as_bytes())?;
    staging.publish(out)?;
    Ok(warnings)
}

/// The architecture that the tensors have, with the plan's strides; it must be what the plan describes.
fn architecture(path: &Path, tensors: &HashMap<String, &Tensor>, plan: &Plan) -> Result<Architecture, ModelError> {
    let shapes: Vec<(String, Vec<i64>)> =
        tensors.iter().map(|(name, t)| (name.clone(), t.shape().iter().map(|&n| n as i64).collect())).collect();
    let found = Architecture::infer(&shapes, plan.strides).map_err(|error| ModelError::NotStunet { path: path.into(), error })?;
    let differs = |what: &str, plan: usize, weights: usize| ModelError::Plans {
        path: path.into(),
        detail: format!("the plan has {plan} {what}, the weights have {weights}"),
    };
    if found.in_channels != plan.channels.len() {
        return Err(differs("input channels", plan.channels.len(), found.in_channels));
    }
    if found.num_classes != plan.outputs {
        return Err(differs("outputs", plan.outputs, found.num_classes));
    }
    Ok(found)
}

/// A word of warning if an official trainer's name promises another size than the weights have.
fn unlike_its_name(trainer: &str, architecture: &Architecture) -> Option<String> {
    let words = [("_small", Size::S), ("_base", Size::B), ("_large", Size::L), ("_huge", Size::H)];
    let (_, promised) = words.into_iter().find(|(word, _)| trainer.starts_with("STUNetTrainer") && trainer.contains(word))?;
    (architecture.size() != Some(promised))
        .then(|| format!("the trainer is called {trainer}, but the weights are not those of size {promised}"))
}

fn write_weights(
    target: &Path,
    source: &Path,
    checkpoint: &Checkpoint,
    tensors: &HashMap<String, &Tensor>,
    architecture: &Architecture,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<String, ModelError> {
    let total = 4 * architecture.parameters();
    let mut done = 0;
    write_file_with(target, |file| {
        weights_file::write(file, target, &architecture.state_dict(), |name| {
            if !progress(done, total) {
                return Err(ModelError::Stopped);
            }
            let missing = || CheckpointError::Malformed(format!("the weight {name} is missing"));
            let values = tensors.get(name).ok_or_else(missing).and_then(|t| checkpoint.read(t)).map_err(|error| {
                let error = match error {
                    CheckpointError::NotFinite(what) => CheckpointError::NotFinite(format!("{name}: {what}")),
                    other => other,
                };
                ModelError::Checkpoint { path: source.into(), error }
            })?;
            done += 4 * values.len() as u64;
            Ok(values)
        })
    })
}

/// The name asked for, or the output folder's in allowed characters.
fn name(options: &ImportOptions, out: &Path) -> Result<String, ModelError> {
    let name = options.name.clone().unwrap_or_else(|| {
        let folder = out.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        folder.chars().map(allowed).take(40).collect::<String>().trim_start_matches('.').to_string()
    });
    if is_name(&name) {
        Ok(name)
    } else {
        Err(ModelError::Usage(format!("the name {name:?} is not made of 1 to 40 characters a-z 0-9 . _ -")))
    }
}

/// DICOM's modality of each channel.
fn modality(options: &ImportOptions, plan: &Plan, warnings: &mut Vec<String>) -> Result<Vec<String>, ModelError> {
    if !options.modality.is_empty() {
        let fits = options.modality.len() == plan.channels.len();
        let count = plan.channels.len();
        return if fits {
            Ok(options.modality.clone())
        } else {
            Err(ModelError::Usage(format!("the model has {count} channels; give as many modalities")))
        };
    }
    let of = |name: &str| match name.to_ascii_uppercase().as_str() {
        "CT" | "CTNORMALIZATION" => Some("CT"),
        "PT" | "PET" | "SUV" => Some("PT"),
        "MR" | "MRI" => Some("MR"),
        _ => None,
    };
    Ok(plan
        .channels
        .iter()
        .map(|c| {
            of(&c.name).map(str::to_string).unwrap_or_else(|| {
                warnings
                    .push(format!("the channel {:?} names no modality; say which with --modality (until then it takes nothing)", c.name));
                "OT".into()
            })
        })
        .collect())
}
