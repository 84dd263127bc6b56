//! `stunetd model list`: the models in a folder, or those that may serve with a configuration.

use super::model_slots::{Member, Slots};
use super::report::{print_json, print_line};
use crate::fault::Fault;
use crate::models::{Generation, Listed, Status, list};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Lists the models in a folder, or with `--config` the configured models and the generations that may serve in their place, with what each
/// does now. One that can not be used is listed with its reason.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that holds model folders
    #[arg(default_value = "models")]
    pub folder: PathBuf,
    /// The daemon's configuration file: its models and their generations instead
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    pub config: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 1 when some model can not be used.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    if let Some(config) = &args.config {
        return generations(config, args.json);
    }
    let found = list(&args.folder)?;
    super::stdout_failed(if args.json {
        let rows: Vec<_> = found
            .iter()
            .map(|Listed { dir, opened }| match opened {
                Ok(g) => serde_json::json!({
                    "dir": dir, "name": g.manifest.name, "version": g.manifest.version, "status": status(g),
                    "digest": g.digest, "labels": g.manifest.labels.len(), "modality": g.manifest.scope.modality,
                }),
                Err(fault) => serde_json::json!({ "dir": dir, "error": { "code": fault.code, "detail": fault.detail } }),
            })
            .collect();
        print_json(&serde_json::json!({ "folder": args.folder, "models": rows }))
    } else if found.is_empty() {
        print_line(&format!("{}: no models; make one with `stunetd model import`", args.folder.display()))
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|Listed { dir, opened }| match opened {
                Ok(g) => {
                    let m = &g.manifest;
                    format!(
                        "{:<24} {:<8} {:<9} {:>4} labels  {}  {}",
                        m.name,
                        m.version,
                        status(g),
                        m.labels.len(),
                        &g.digest[..12],
                        dir.display()
                    )
                }
                Err(fault) => format!("{}: {}: {}", dir.display(), fault.code, fault.detail),
            })
            .collect();
        print_line(&rows.join("\n"))
    })?;
    Ok(if found.iter().all(|l| l.opened.is_ok()) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn status(model: &Generation) -> &'static str {
    match model.manifest.status {
        Status::Research => "research",
        Status::Clinical => "clinical",
    }
}

/// Exit code 1 when some generation can not be used.
fn generations(config: &Path, json: bool) -> Result<ExitCode, Fault> {
    let slots = Slots::open(config)?;
    let members = slots.members()?;
    let all_good = members.iter().all(Result::is_ok);
    super::stdout_failed(if json {
        let rows = members.iter().map(|member| match member {
            Ok(Member { model, slot, role, lineage }) => serde_json::json!({
                "dir": model.dir, "name": model.manifest.name, "version": model.manifest.version, "status": status(model),
                "digest": model.digest, "labels": model.manifest.labels.len(), "modality": model.manifest.scope.modality,
                "slot": slot, "role": role, "lineage": lineage,
            }),
            Err((digest, fault)) => serde_json::json!({ "dir": digest, "error": { "code": fault.code, "detail": fault.detail } }),
        });
        print_json(&serde_json::json!({ "folder": slots.config.state, "models": rows.collect::<Vec<_>>() }))
    } else {
        let rows = members.iter().map(|member| match member {
            Ok(Member { model, slot, role, lineage }) => {
                let (m, digest) = (&model.manifest, &model.digest[..12]);
                let place = if lineage.is_none() { "configured".into() } else { format!("for {}", slot.get(..12).unwrap_or(slot)) };
                let approved = lineage.as_ref().and_then(|l| l.approval.as_ref());
                let approved = approved.map_or(String::new(), |a| format!(", approved by {} ({})", a.by, a.document));
                format!("{role:<10} {:<24} {:<12} {:<9} {digest}  {place}{approved}", m.name, m.version, status(model))
            }
            Err((digest, fault)) => format!("{digest}: {}: {}", fault.code, fault.detail),
        });
        print_line(&rows.collect::<Vec<_>>().join("\n"))
    })?;
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
