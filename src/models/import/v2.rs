//! nnU-Net v2: a folder with `plans.json`, `dataset.json` and `fold_K/checkpoint_*.pth`.

use super::dataset::Dataset;
use super::files::{self, Which};
use super::plan::{self, Document, Plan, at};
use crate::models::error::ModelError;
use crate::models::{Aggregation, Channel, Normalization, NormalizationOrder, Orientation, Postprocessing, Resampling};
use crate::stunet::checkpoint::Checkpoint;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most parts of the plans inside a checkpoint.
const MAX_NODES: usize = 200_000;
/// Longest chain of `inherits_from`.
const MAX_PARENTS: usize = 16;

/// A checkpoint of a model folder.
pub(super) struct Found {
    pub folder: PathBuf,
    pub checkpoint: PathBuf,
}

/// The checkpoint that is meant by a model folder, a fold's folder or a `.pth` file; `None` if there is no `plans.json`.
pub(super) fn find(source: &Path, fold: Option<&str>, which: Which) -> Result<Option<Found>, ModelError> {
    let above = |p: &Path| crate::sys::durable::parent(p).to_path_buf();
    if source.is_file() {
        let folder = above(&above(source));
        let plans = folder.join("plans.json");
        return match source.extension() {
            _ if plans.is_file() => Ok(Some(Found { folder, checkpoint: source.into() })),
            Some(e) if e == "pth" => {
                Err(ModelError::Plans { path: plans, detail: "is missing; nnU-Net v2 keeps it above the fold's folder".into() })
            }
            _ => Ok(None),
        };
    }
    let file = match which {
        Which::Final => "checkpoint_final.pth",
        Which::Best => "checkpoint_best.pth",
        Which::Latest => "checkpoint_latest.pth",
    };
    if !source.join("plans.json").is_file() {
        // A relative `fold_0` has its model folder at `.`.
        let folder = above(source);
        let inside = source.join(file).is_file() && folder.join("plans.json").is_file();
        return Ok(inside.then(|| Found { folder, checkpoint: source.join(file) }));
    }
    let checkpoint = files::fold(source, fold)?.ok_or_else(|| ModelError::Source(source.join("fold_0")))?.join(file);
    if !checkpoint.is_file() {
        return Err(ModelError::Source(checkpoint));
    }
    Ok(Some(Found { folder: source.into(), checkpoint }))
}

/// Reads the plan of a v2 checkpoint.
pub(super) fn read(found: &Found, checkpoint: &Checkpoint) -> Result<Plan, ModelError> {
    let mut digests = BTreeMap::new();
    let plans_path = found.folder.join("plans.json");
    let document = Document { path: &plans_path };
    let plans = files::read_json(&plans_path, &mut digests)?;
    let dataset = Dataset::read(&found.folder.join("dataset.json"), &mut digests)?;

    let saved = checkpoint.root().get("init_args");
    let own = |key: &str| saved.and_then(|a| a.get(key)).and_then(|v| v.as_str());
    let from_folder = found.folder.file_name().and_then(|n| n.to_str()).and_then(|n| n.rsplit_once("__")).map(|(_, c)| c);
    let name = own("configuration").or(from_folder).unwrap_or("3d_fullres");
    let configuration = resolve(document, &plans, name)?;
    if configuration.get("previous_stage").is_some_and(|p| !p.is_null()) {
        return Err(document.unsupported(format!("the configuration {name} is the second stage of a cascade")));
    }
    let grid = document.grid(&plans, &configuration, "spacing")?;
    let strides = strides(document, &configuration)?;
    if let Some(inside) = saved.and_then(|a| a.get("plans")).and_then(|p| p.to_json(MAX_NODES))
        && let Ok(inside) = resolve(document, &inside, name)
        && self::strides(document, &inside)? != strides
    {
        return Err(document.bad("the strides are not those of the plans inside the checkpoint: plans.json belongs to another model"));
    }

    let trainer = checkpoint.root().get("trainer_name").and_then(|v| v.as_str()).unwrap_or_default().to_string();
    let axes = checkpoint.root().get("inference_allowed_mirroring_axes").and_then(|v| v.to_json(16)).filter(|v| !v.is_null());
    let mut mirror_axes = match axes {
        Some(axes) => {
            let axes: Option<Vec<usize>> = axes.as_array().and_then(|a| a.iter().map(plan::whole).collect());
            axes.ok_or_else(|| document.bad("the checkpoint's `inference_allowed_mirroring_axes` are not numbers"))?
        }
        None => Vec::new(),
    };
    mirror_axes.sort_unstable();

    let reader = dataset.reader.as_deref().or_else(|| plans.get("image_reader_writer").and_then(Json::as_str));
    let orientation = match reader.unwrap_or("SimpleITKIO") {
        "SimpleITKIO" | "NibabelIO" => Orientation::AsStored,
        "NibabelIOWithReorient" | "SimpleITKIOWithReorient" => Orientation::Ras,
        other => return Err(document.unsupported(format!("the image reader {other}"))),
    };
    Ok(Plan {
        format: "nnunet_v2",
        trainer,
        epoch: checkpoint.root().get("current_epoch").and_then(|v| v.as_i64()),
        strides,
        grid,
        orientation,
        order: NormalizationOrder::NormalizeFirst,
        resampling: resampling(document, &configuration)?,
        channels: channels(document, &plans, &configuration, &dataset.channels)?,
        mirror_axes,
        aggregation: Aggregation::Logits,
        outputs: dataset.outputs,
        names: dataset.names,
        regions: dataset.regions,
        postprocessing: postprocessing(&found.folder, &mut digests)?,
        files: digests,
        warnings: dataset.warnings,
    })
}

/// A configuration with what it inherits.
fn resolve(document: Document, plans: &Json, name: &str) -> Result<Json, ModelError> {
    let all = document.get(plans, "configurations")?.as_object().ok_or_else(|| document.bad("`configurations` is no table"))?;
    let mut merged = serde_json::Map::new();
    let mut next = name.to_string();
    for _ in 0..MAX_PARENTS {
        let known = || all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let one = all.get(&next).and_then(Json::as_object);
        let one = one.ok_or_else(|| document.bad(format!("has no configuration `{next}`; it has: {}", known())))?;
        for (key, value) in one {
            merged.entry(key).or_insert_with(|| value.clone());
        }
        match one.get("inherits_from").and_then(Json::as_str) {
            Some(parent) => next = parent.to_string(),
            None => return Ok(Json::Object(merged)),
        }
    }
    Err(document.bad(format!("the configuration `{name}` inherits from itself")))
}

/// The strides behind the stem. nnU-Net's lists begin with the stem's own stride, [1, 1, 1]; the argument of the STU-Net
/// class of the same name does not have it.
fn strides(document: Document, configuration: &Json) -> Result<[[usize; 3]; 5], ModelError> {
    let arguments = configuration.get("architecture").and_then(|a| a.get("arch_kwargs"));
    let listed = |parent: Option<&Json>, key: &str| {
        parent.and_then(|p| p.get(key)).map(|v| plan::triples(v).ok_or_else(|| document.bad(format!("`{key}` is no list of triples"))))
    };
    if let Some(own) = listed(arguments, "pool_op_kernel_sizes") {
        let own = own?;
        let stem = own.len() == 6 && own[0] == [1; 3];
        return Ok(plan::five(own[stem as usize..].to_vec()));
    }
    let all = listed(arguments, "strides").or_else(|| listed(Some(configuration), "pool_op_kernel_sizes"));
    match all.ok_or_else(|| document.bad("names no strides (`pool_op_kernel_sizes` or `architecture.arch_kwargs.strides`)"))??.split_first()
    {
        Some(([1, 1, 1], rest)) => Ok(plan::five(rest.to_vec())),
        _ => Err(document.bad("the list of strides does not begin with the stem's [1, 1, 1]")),
    }
}

/// Which resampling the configuration names; anything that is not reproduced exactly is refused.
fn resampling(document: Document, configuration: &Json) -> Result<Resampling, ModelError> {
    if let Some(name) = configuration.get("preprocessor_name").and_then(Json::as_str)
        && name != "DefaultPreprocessor"
    {
        return Err(document.unsupported(format!("the preprocessor {name}")));
    }
    let mut kinds = Vec::new();
    for (key, order) in [("resampling_fn_data", 3), ("resampling_fn_probabilities", 1)] {
        let kind = match configuration.get(key).and_then(Json::as_str).unwrap_or("resample_data_or_seg_to_shape") {
            "resample_data_or_seg_to_shape" => Resampling::Default,
            "resample_torch_fornnunet" => Resampling::Torch,
            other => return Err(document.unsupported(format!("`{key}` = {other}"))),
        };
        let arguments = configuration.get(format!("{key}_kwargs"));
        let usual: &[(&str, Json)] = &[
            ("is_seg", false.into()),
            ("order", order.into()),
            ("order_z", 0.into()),
            ("force_separate_z", Json::Null),
            ("mode", "linear".into()),
            ("aniso_axis_mode", "nearest-exact".into()),
        ];
        if let Some((name, value)) = usual.iter().find_map(|(n, v)| Some((n, arguments?.get(*n).filter(|w| *w != v)?))) {
            return Err(document.unsupported(format!("`{key}_kwargs` has `{name}` = {value}")));
        }
        kinds.push(kind);
    }
    match kinds[..] {
        [data, probabilities] if data == probabilities => Ok(data),
        _ => Err(document.unsupported("different resampling of images and probabilities")),
    }
}

fn channels(document: Document, plans: &Json, configuration: &Json, names: &[String]) -> Result<Vec<Channel>, ModelError> {
    let schemes = document.get(configuration, "normalization_schemes")?;
    let masks = configuration.get("use_mask_for_norm");
    let statistics =
        ["foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"].iter().find_map(|k| plans.get(k));
    let one = |(c, name): (usize, &String)| {
        let scheme = at(schemes, c).and_then(Json::as_str);
        let scheme = scheme.ok_or_else(|| document.bad(format!("`normalization_schemes` has no channel {c}")))?;
        let normalization = match scheme {
            "CTNormalization" => {
                let [lower, upper, mean, sd] = document.statistics(statistics, c, "std")?;
                plan::ct([lower, upper, mean, sd.max(1e-8)])
            }
            "ZScoreNormalization" => Normalization::ZScore,
            "NoNormalization" => Normalization::None,
            "RescaleTo01Normalization" => Normalization::Rescale01,
            other => return Err(document.unsupported(format!("the normalisation {other}"))),
        };
        let use_mask = masks.and_then(|m| at(m, c)).and_then(Json::as_bool).unwrap_or(false);
        Ok(Channel { name: name.clone(), normalization, use_mask })
    };
    names.iter().enumerate().map(one).collect()
}

/// `postprocessing.json` in the model folder.
fn postprocessing(folder: &Path, digests: &mut BTreeMap<String, String>) -> Result<Postprocessing, ModelError> {
    let path = folder.join("postprocessing.json");
    if !path.is_file() {
        return Ok(Postprocessing::default());
    }
    let document = Document { path: &path };
    let json = files::read_json(&path, digests)?;
    let names = document.read(&json, "postprocessing_fns", Json::as_array)?;
    let arguments = document.read(&json, "postprocessing_kwargs", Json::as_array)?;
    if names.len() != arguments.len() {
        return Err(document.bad("names more functions than arguments, or fewer"));
    }
    let mut steps = Vec::new();
    for (name, arguments) in names.iter().zip(arguments) {
        if name.as_str() != Some("remove_all_but_largest_component_from_segmentation") {
            return Err(document.unsupported(format!("the postprocessing {name}")));
        }
        if arguments.get("background_label").is_some_and(|b| plan::whole(b) != Some(0)) {
            return Err(document.unsupported("a background label that is not 0"));
        }
        steps.push(document.read(arguments, "labels_or_regions", plan::union)?);
    }
    Ok(Postprocessing { connectivity: (!steps.is_empty()).then_some(26), keep_largest: steps })
}
