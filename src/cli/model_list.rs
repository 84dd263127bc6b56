//! `stunetd model list`: the models in a folder.

use super::report::{print_json, print_line};
use crate::fault::Fault;
use crate::models::{Generation, Listed, Status, list};
use std::path::PathBuf;
use std::process::ExitCode;

/// Lists the models in a folder; one that can not be used is listed with its reason.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that holds model folders
    #[arg(default_value = "models")]
    pub folder: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 1 when some model can not be used.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let found = list(&args.folder)?;
    let status = |g: &Generation| match g.manifest.status {
        Status::Research => "research",
        Status::Clinical => "clinical",
    };
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
