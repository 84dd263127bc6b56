//! `stunetd check-config`: every mistake of a configuration file at once, and what its rules do with the series of a folder.

use super::report::{print_json, print_line};
use super::selection::Probe;
use crate::config::{self, Config};
use crate::fault::Fault;
use crate::intake::select;
use crate::series::Policy;
use crate::sys::durable;
use crate::volume::decode::{Decoder, DecoderConfig};
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks a configuration file and tells every mistake with its line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file, e.g. /etc/stunetd/stunetd.toml
    pub file: PathBuf,
    /// Open the models and tell what the rules would do with every series in these folders; without a folder, in the watched ones.
    /// Nothing is segmented
    #[arg(long, value_name = "FOLDER", num_args = 0..)]
    pub probe: Option<Vec<PathBuf>>,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the file can be used; else a `config.*` fault. With `--probe` also the models have to be there, or it is 78.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let text = config::read(&args.file)?;
    let parsed = config::parse(&text);
    let mistakes = parsed.as_ref().err().cloned().unwrap_or_default();
    let probe = match (&args.probe, parsed) {
        (Some(folders), Ok(config)) => match probe(config.relative_to(durable::parent(&args.file)), folders) {
            Ok(probe) => Some(probe),
            Err(fault) => {
                super::report::fault(&fault, args.json);
                return Ok(super::exit_code_as_configured(&fault).into());
            }
        },
        _ => None,
    };
    if args.json {
        let mut answer = serde_json::json!({ "file": args.file, "valid": mistakes.is_empty(), "mistakes": mistakes });
        if let Some(probe) = &probe {
            answer["probe"] = serde_json::json!(probe);
        }
        super::stdout_failed(print_json(&answer))?;
        let fault = (!mistakes.is_empty()).then(|| config::fault(&args.file, &mistakes));
        return Ok(fault.map_or(ExitCode::SUCCESS, |f| super::report::fault(&f, false)));
    }
    if !mistakes.is_empty() {
        return Err(config::fault(&args.file, &mistakes));
    }
    let page = probe.map(|probe| format!("\n{}", probe.page())).unwrap_or_default();
    super::stdout_failed(print_line(&format!("{}: valid{page}", args.file.display())))?;
    Ok(ExitCode::SUCCESS)
}

fn probe(config: Config, folders: &[PathBuf]) -> Result<Probe, Fault> {
    let rules = select::rules(&config)?;
    let watched: Vec<PathBuf> = config.watch.iter().map(|w| w.path.clone()).collect();
    // Before the scan starts threads: its workers can be forked.
    let decoder = Decoder::new(DecoderConfig { fork: true, ..DecoderConfig::default() })?;
    Probe::folders(if folders.is_empty() { &watched } else { folders }, &rules, &Policy::of(&config), &decoder)
}
