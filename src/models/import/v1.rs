//! nnU-Net v1: `X.model` with `X.model.pkl` beside it.

use super::files::{self, Which};
use super::plan::{self, Document, Plan, at, whole};
use crate::models::error::ModelError;
use crate::models::{Aggregation, Channel, Normalization, NormalizationOrder, Orientation, Postprocessing, Resampling};
use crate::stunet::checkpoint::{Checkpoint, read_pickle};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most parts of a plan: one of 1204 cases with the statistics of each has about 50,000.
const MAX_NODES: usize = 2_000_000;

/// The `.model` that is meant by a folder that holds it, or that holds folds.
pub(super) fn find(folder: &Path, fold: Option<&str>, which: Which) -> Result<PathBuf, ModelError> {
    let models = |folder: &Path| -> Result<Vec<PathBuf>, ModelError> {
        Ok(files::entries(folder)?.into_iter().filter(|p| p.extension().is_some_and(|e| e == "model")).collect())
    };
    let mut found = models(folder)?;
    if found.is_empty()
        && let Some(inside) = files::fold(folder, fold)?
    {
        found = models(&inside)?;
    }
    let named = match which {
        Which::Final => "model_final_checkpoint.model",
        Which::Best => "model_best.model",
        Which::Latest => "model_latest.model",
    };
    match (&found[..], found.iter().find(|p| p.ends_with(named))) {
        (_, Some(path)) => Ok(path.clone()),
        ([one], None) => Ok(one.clone()),
        ([], None) => {
            Err(ModelError::Plans { path: folder.into(), detail: "holds neither plans.json (nnU-Net v2) nor a .model file (v1)".into() })
        }
        (many, None) => {
            Err(ModelError::Usage(format!("{} holds {} .model files and no {named}; name one of them", folder.display(), many.len())))
        }
    }
}

/// Reads the plan of a v1 checkpoint.
pub(super) fn read(path: &Path, checkpoint: &Checkpoint) -> Result<Plan, ModelError> {
    let mut pickle = path.to_path_buf().into_os_string();
    pickle.push(".pkl");
    let pickle = PathBuf::from(pickle);
    let document = Document { path: &pickle };
    let mut digests = BTreeMap::new();
    let bytes = files::read_small(&pickle, &mut digests)?;
    let graph = read_pickle(&bytes).map_err(|error| ModelError::Checkpoint { path: pickle.clone(), error })?;
    let saved = graph.root().to_json(MAX_NODES).ok_or_else(|| document.bad("the plans are too large or have no end"))?;
    let plans = document.get(&saved, "plans")?;
    let trainer = saved.get("name").and_then(Json::as_str).unwrap_or_default().to_string();
    for (word, what) in [("Cascade", "a cascade"), ("Region", "region-based training, whose regions are not in the plans")] {
        if trainer.contains(word) {
            return Err(document.unsupported(format!("the trainer {trainer} is {what}")));
        }
    }

    let stages = document.get(plans, "plans_per_stage")?;
    let number = saved.get("init").and_then(|init| at(init, 5)).and_then(whole).unwrap_or(0);
    let stage = at(stages, number).ok_or_else(|| document.bad(format!("`plans_per_stage` has no stage {number}")))?;
    let grid = document.grid(plans, stage, "current_spacing")?;
    let strides = plan::five(document.read(stage, "pool_op_kernel_sizes", plan::triples)?);
    let warnings = Vec::new();
    Ok(Plan {
        format: "nnunet_v1",
        epoch: checkpoint.root().get("epoch").and_then(|v| v.as_i64()),
        strides,
        grid,
        // SimpleITK reads the array as it is stored; the official weights are told apart by their labels.
        orientation: Orientation::AsStored,
        order: NormalizationOrder::ResampleFirst,
        resampling: resampling(document, plans)?,
        channels: channels(document, plans)?,
        mirror_axes: if trainer.to_ascii_lowercase().contains("nomirror") { Vec::new() } else { vec![0, 1, 2] },
        aggregation: Aggregation::Softmax,
        // v1 counts without the background.
        outputs: 1 + document.read(plans, "num_classes", whole)?,
        names: Vec::new(),
        regions: Vec::new(),
        postprocessing: postprocessing(path, &mut digests)?,
        trainer,
        files: digests,
        warnings,
    })
}

/// v1 knows one way; the plan may ask for another for probabilities, and a preprocessor may for images.
fn resampling(document: Document, plans: &Json) -> Result<Resampling, ModelError> {
    if let Some(name) = plans.get("preprocessor_name").and_then(Json::as_str)
        && name != "GenericPreprocessor"
    {
        return Err(document.unsupported(format!("the preprocessor {name}")));
    }
    if let Some(export) = plans.get("segmentation_export_params").filter(|e| !e.is_null()) {
        let usual = [("force_separate_z", Json::Null), ("interpolation_order", 1.into()), ("interpolation_order_z", 0.into())];
        if let Some((key, _)) = usual.iter().find(|(key, value)| export.get(*key).is_some_and(|v| v != value)) {
            return Err(document.unsupported(format!("`segmentation_export_params` asks for an unusual `{key}`")));
        }
    }
    Ok(Resampling::Default)
}

fn channels(document: Document, plans: &Json) -> Result<Vec<Channel>, ModelError> {
    let count = document.read(plans, "num_modalities", whole)?;
    if count == 0 || count > 64 {
        return Err(document.bad(format!("`num_modalities` is {count}")));
    }
    let schemes = document.get(plans, "normalization_schemes")?;
    let statistics = plans.get("dataset_properties").and_then(|d| d.get("intensityproperties")).filter(|p| !p.is_null());
    (0..count)
        .map(|c| {
            let scheme = at(schemes, c).and_then(Json::as_str);
            let scheme = scheme.ok_or_else(|| document.bad(format!("`normalization_schemes` has no channel {c}")))?;
            let normalization = match scheme {
                "CT" => plan::ct(document.statistics(statistics, c, "sd")?),
                "CT2" => {
                    let [lower, upper, ..] = document.statistics(statistics, c, "sd")?;
                    Normalization::Ct2 { lower, upper }
                }
                "noNorm" => Normalization::None,
                // Whatever else stands there is treated as an image of arbitrary units.
                _ => Normalization::ZScore,
            };
            let name = plans.get("modalities").and_then(|m| at(m, c)).and_then(Json::as_str).unwrap_or(scheme);
            let use_mask = plans.get("use_mask_for_norm").and_then(|m| at(m, c)).and_then(Json::as_bool).unwrap_or(false);
            Ok(Channel { name: name.to_string(), normalization, use_mask })
        })
        .collect()
}

/// `postprocessing.json` of the folder above the fold, or beside the checkpoint.
fn postprocessing(checkpoint: &Path, digests: &mut BTreeMap<String, String>) -> Result<Postprocessing, ModelError> {
    let folder = checkpoint.parent().unwrap_or(Path::new(""));
    let above = folder.parent().filter(|_| folder.file_name().is_some_and(|n| n == "all" || n.to_string_lossy().starts_with("fold_")));
    let Some(path) = [Some(folder), above].into_iter().flatten().map(|f| f.join("postprocessing.json")).find(|p| p.is_file()) else {
        return Ok(Postprocessing::default());
    };
    let document = Document { path: &path };
    let json = files::read_json(&path, digests)?;
    if json.get("min_valid_object_sizes").is_some_and(|m| m.as_object().is_none_or(|m| !m.is_empty()) && !m.is_null()) {
        return Err(document.unsupported("`min_valid_object_sizes`"));
    }
    let steps: Vec<Vec<u16>> = document.read(&json, "for_which_classes", |v| v.as_array()?.iter().map(plan::union).collect())?;
    Ok(Postprocessing { connectivity: (!steps.is_empty()).then_some(6), keep_largest: steps })
}
