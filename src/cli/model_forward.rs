//! `stunetd model forward`: the bare network on a tensor in a file.

use super::progress::Bar;
use super::report::{print_json, print_line};
use crate::fault::{Code, Fault};
use crate::models::Generation;
use crate::stunet::{DeviceChoice, Network, Precision, forward_file};
use crate::sys::libtorch;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the network on the tensor `input` [N, C, X, Y, Z] of a safetensors file and writes the raw logits to another.
///
/// X, Y and Z are the network's axes, in the order in which it was trained; nothing is normalised, resampled or transposed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The safetensors file with one tensor, `input`
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The safetensors file to write: `output.0` at full resolution
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// f32 or f64
    #[arg(long, default_value = "f32")]
    pub precision: Precision,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Also the heads at lower resolution: `output.1` …
    #[arg(long)]
    pub all_heads: bool,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the output was written.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    if !args.input.is_file() {
        return Err(Fault::new(Code::ConfigInputMissing, format!("{} is not a file.", args.input.display())));
    }
    libtorch::choose(None)?;
    let model = Generation::open(&args.model)?;
    let bar = Bar::wheel("verifying the weights");
    model.verify(&mut |_, _| {})?;
    bar.say("computing".into());
    let network = Network::open(&model.weights(), &model.manifest.architecture, args.device.resolve()?, args.precision)?;
    forward_file(&network, &args.input, &args.output, args.all_heads)?;
    bar.finish();
    super::stdout_failed(if args.json {
        print_json(&serde_json::json!({
            "output": args.output, "model": model.manifest.name, "digest": model.digest, "precision": network.precision().name(),
        }))
    } else {
        print_line(&args.output.display().to_string())
    })?;
    Ok(ExitCode::SUCCESS)
}
