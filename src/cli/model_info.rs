//! `stunetd model info`: what a model is and expects.

use super::report::{print_json, print_line};
use crate::fault::Fault;
use crate::models::{Aggregation, Generation, Normalization, Orientation, Status};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Shows what a model is, what it expects and which labels it writes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model folder
    pub model: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Opens the model and shows it.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let generation = Generation::open(&args.model)?;
    let shown = if args.json {
        print_json(&json(&generation, None))
    } else {
        let mut out = text(&generation);
        out += "labels\n";
        for label in generation.manifest.labels.iter() {
            let side = label.modifier.as_ref().map(|m| format!(", {}", m.meaning)).unwrap_or_default();
            let _ = writeln!(
                out,
                "  {:>4}  {:<32} {} {}{side}",
                label.value, label.name, label.property_type.value, label.property_type.meaning
            );
        }
        print_line(out.trim_end())
    };
    super::stdout_failed(shown)?;
    Ok(ExitCode::SUCCESS)
}

/// The manifest with the folder, the model's digest and what follows from the architecture.
pub(super) fn json(generation: &Generation, warnings: Option<&[String]>) -> serde_json::Value {
    let manifest = &generation.manifest;
    let mut value = serde_json::json!({
        "dir": generation.dir,
        "digest": generation.digest,
        "size": manifest.architecture.size().map(|s| s.to_string()),
        "divisor": manifest.architecture.divisor(),
        "manifest": manifest,
    });
    if let Some(warnings) = warnings {
        value["warnings"] = warnings.into();
    }
    value
}

/// The same for people, without the labels.
pub(super) fn text(generation: &Generation) -> String {
    let m = &generation.manifest;
    let (a, p, i) = (&m.architecture, &m.preprocessing, &m.inference);
    let by = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let status = match m.status {
        Status::Research => "research: not for diagnosis",
        Status::Clinical => "clinical",
    };
    let size = a.size().map_or_else(|| format!("widths {:?}, depths {:?}", a.dims, a.depth), |s| format!("STU-Net-{s}"));
    let channels: Vec<String> = p
        .channels
        .iter()
        .map(|c| {
            let how = match c.normalization {
                Normalization::Ct { lower, upper, mean, sd } => format!("clipped to {lower} … {upper}, minus {mean}, over {sd}"),
                Normalization::Ct2 { lower, upper } => format!("clipped to {lower} … {upper}, then mean and sd of the image"),
                Normalization::ZScore => "mean and sd of the image".into(),
                Normalization::Rescale01 => "range of the image to 0 … 1".into(),
                Normalization::None => "as it is".into(),
            };
            format!("{} ({how}{})", c.name, if c.use_mask { ", inside the non-zero mask" } else { "" })
        })
        .collect();
    let orientation = match p.orientation {
        Orientation::AsStored => "as stored",
        Orientation::Ras => "right, anterior, superior",
    };
    let averaged = match i.aggregation {
        Aggregation::Softmax => "probabilities",
        Aggregation::Logits => "logits",
    };
    let strides = a.strides.map(|s| by(&s)).join(" ");
    let lines = [
        ("name", format!("{} version {}", m.name, m.version)),
        ("status", status.into()),
        ("folder", generation.dir.display().to_string()),
        ("digest", generation.digest.clone()),
        ("network", format!("{size}, {} parameters, strides {strides}", m.weights.parameters)),
        ("input", channels.join("; ")),
        ("grid", format!("{:?} mm, axes {:?}, orientation {orientation}", p.spacing, p.transpose)),
        ("windows", format!("{} voxels, {averaged} averaged, mirror axes {:?}", by(&i.patch), i.mirror_axes)),
        ("output", format!("{} labels{}", m.labels.len(), if i.regions.is_empty() { "" } else { " from regions" })),
        (
            "origin",
            format!(
                "{}, trainer {}, epoch {}",
                m.provenance.format,
                m.provenance.trainer,
                m.provenance.epoch.map_or("?".into(), |e| e.to_string())
            ),
        ),
    ];
    lines.iter().map(|(key, value)| format!("{key:<13} {value}\n")).collect()
}
