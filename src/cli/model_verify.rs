//! `stunetd model verify`: are the weights those that the manifest names?

use super::progress::Bytes;
use super::report::{print_json, print_line};
use crate::fault::Fault;
use crate::models::Generation;
use std::path::PathBuf;
use std::process::ExitCode;

/// Reads a model's weights whole and compares digest, tensor names and shapes with its manifest.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model folder
    pub model: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when everything fits; else a `model.*` fault.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let generation = Generation::open(&args.model)?;
    let bar = Bytes::new("verifying");
    let verified = generation.verify(&mut |done, total| bar.at(done, total));
    bar.clear();
    verified?;
    let (name, sha256) = (&generation.manifest.name, &generation.manifest.weights.sha256);
    super::stdout_failed(if args.json {
        print_json(
            &serde_json::json!({ "dir": generation.dir, "name": name, "digest": generation.digest, "sha256": sha256, "valid": true }),
        )
    } else {
        print_line(&format!("{}: valid, model digest {}", generation.dir.display(), generation.digest))
    })?;
    Ok(ExitCode::SUCCESS)
}
