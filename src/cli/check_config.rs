//! `stunetd check-config`: every mistake of a configuration file at once.

use super::report::print_json;
use crate::config;
use crate::fault::Fault;
use std::path::PathBuf;
use std::process::ExitCode;

/// Checks a configuration file and tells every mistake with its line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file, e.g. /etc/stunetd/stunetd.toml
    pub file: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the file can be used; else a `config.*` fault.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let text = config::read(&args.file)?;
    let mistakes = config::parse(&text).err().unwrap_or_default();
    if args.json {
        super::stdout_failed(print_json(&serde_json::json!({ "file": args.file, "valid": mistakes.is_empty(), "mistakes": mistakes })))?;
        let fault = (!mistakes.is_empty()).then(|| config::fault(&args.file, &mistakes));
        return Ok(fault.map_or(ExitCode::SUCCESS, |f| super::report::fault(&f, false)));
    }
    if mistakes.is_empty() {
        super::stdout_failed(super::report::print_line(&format!("{}: valid", args.file.display())))?;
        Ok(ExitCode::SUCCESS)
    } else {
        Err(config::fault(&args.file, &mistakes))
    }
}
