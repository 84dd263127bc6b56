//! `stunetd purge`: removes all that there is of a study or a patient. No daemon may run meanwhile: the verb needs the ledger for itself.

use super::report::{print_json, print_line};
use crate::audit::Audit;
use crate::config;
use crate::fault::{Code, Fault};
use crate::ledger::{Limits, Options, SqliteLedger, SqliteReader};
use crate::pipeline::purge::{Purged, PurgedCases, Whose, purge, purge_cases};
use crate::sys::clock::SystemClock;
use crate::sys::person;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Longest Patient ID that is read, in bytes; the standard allows 64 characters.
const LONGEST: u64 = 1024;

/// Removes what was received of a study or a patient, the results, their copies in folders of destinations, curated cases, and what the ledger
/// knows.
/// Watched folders are left alone: files that lie there are segmented again. The daemon has to be stopped.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub struct Args {
    /// A Study Instance UID
    #[arg(long, value_name = "UID", group = "which")]
    study: Option<String>,
    /// A file that holds a Patient ID, or `-` for standard input; in the command line all users of the machine would see it
    #[arg(long, value_name = "FILE", group = "which")]
    patient: Option<PathBuf>,
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", default_value = super::doctor::USUAL_CONFIG)]
    config: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when something was removed; `job.unknown` when there was nothing.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let config = config::load(&args.config)?;
    if SqliteReader::open(&config.state, Arc::new(SystemClock))?.is_none() {
        let detail = format!("No daemon has worked with {} yet.", config.state.display());
        return Err(Fault::new(Code::LedgerMissing, detail));
    }
    let patient = args.patient.as_deref().map(patient_id).transpose()?;
    let limits = Limits { suspect_after: config.jobs.suspect_after, park_after: config.jobs.park_after };
    let who = person::own();
    let options = Options { state: config.state.clone(), limits, clock: Arc::new(SystemClock), who: who.clone() };
    let (ledger, _) = SqliteLedger::open(&options)?;
    let whose = match (&args.study, &patient) {
        (Some(study), _) => Whose::Study(study),
        (None, Some(id)) => Whose::Patient(id),
        (None, None) => return Err(Fault::new(Code::ConfigUsage, "Whose?")),
    };
    // The next daemon sends what is told of it.
    let audit = Audit::open(&config, Arc::new(SystemClock), super::metrics()?)?;
    let learned = purge_cases(&ledger, &config, whose, &who)?;
    let all = purge(&ledger, &config, &audit, whose, &who)?;
    ledger.close()?;
    if all.studies == 0 && learned.cases.is_empty() {
        return Err(Fault::new(Code::JobUnknown, "There is nothing of it here."));
    }
    let Purged { studies, jobs, folders, instances } = all;
    let PurgedCases { cases, generations } = &learned;
    let mut text = format!(
        "removed: {studies} studies, {jobs} jobs, {folders} folders with results, {instances} received instances, {} cases",
        cases.len()
    );
    if !generations.is_empty() {
        text += &format!("\ngenerations that were taught with them, and stay as they are: {}", generations.join(", "));
    }
    let document = serde_json::json!({
        "studies": studies, "jobs": jobs, "folders": folders, "instances": instances, "cases": cases, "generations": generations
    });
    super::stdout_failed(if args.json { print_json(&document) } else { print_line(&text) })?;
    Ok(ExitCode::SUCCESS)
}

fn patient_id(path: &Path) -> Result<String, Fault> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(LONGEST).read_to_string(&mut text),
        false => std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)),
    };
    read.map_err(|e| Fault::new(Code::ConfigInputMissing, format!("{}: {e}", path.display())).caused_by(e))?;
    let id = text.trim();
    if id.is_empty() || id.contains('\n') {
        return Err(Fault::new(Code::ConfigUsage, format!("{} has to hold one Patient ID, in one line.", path.display())));
    }
    Ok(id.to_string())
}
