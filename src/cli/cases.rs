//! `stunetd cases …`: curated cases, and what readers say of them.
//!
//! A reader's record goes into the case's folder first, then into the ledger: through the daemon's control socket, or straight where no daemon
//! runs.

use super::cases_report as report;
use super::report::{print_json, print_line};
use crate::config::{self, Config};
use crate::fault::{Code, Fault};
use crate::ledger::{CaseState, Limits, Options, Reader, SqliteLedger, SqliteReader};
use crate::models::Generation;
use crate::pipeline::control::{self, CaseCommand};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::person;
use crate::training::cases::{CaseError, Decision, Origin};
use crate::training::store::{Store, Word, rfc3339};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Shows curated cases, and takes what readers say of them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// The daemon's configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = super::doctor::USUAL_CONFIG)]
    config: PathBuf,
    /// One JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Lists cases, and folders that gave none, with how many patients show each class
    List {
        /// Only these states: pending, accepted, refused, withdrawn, rejected
        #[arg(long, value_delimiter = ',', value_parser = parse_state)]
        state: Vec<CaseState>,
    },
    /// Shows one case with its labels and what readers said
    Show {
        /// The case's name
        id: String,
    },
    /// Says that the labels are right
    Accept {
        /// The case's name
        id: String,
        #[command(flatten)]
        word: Spoken,
        /// The classes that were looked at, in the model's names. One that is listed and has no voxel is known to be absent
        #[arg(long, value_delimiter = ',', required = true, value_name = "NAMES")]
        classes: Vec<String>,
        /// Where the labels came from: manual, ai_corrected, ai_unchanged
        #[arg(long, value_parser = parse_origin)]
        origin: Origin,
        /// Classes whose volume is right although it is out of the plausible range
        #[arg(long, value_delimiter = ',', value_name = "NAMES")]
        confirm: Vec<String>,
    },
    /// Says that the labels are wrong
    Refuse {
        /// The case's name
        id: String,
        #[command(flatten)]
        word: Spoken,
    },
    /// Takes a case out again, for good
    Withdraw {
        /// The case's name
        id: String,
        #[command(flatten)]
        word: Spoken,
    },
    /// Says that the patients of two cases are one person
    Link {
        /// A case's name
        first: String,
        /// Another's
        second: String,
    },
}

#[derive(Debug, clap::Args)]
struct Spoken {
    /// Who says so
    #[arg(long, value_name = "NAME")]
    reader: String,
}

fn parse_state(text: &str) -> Result<CaseState, String> {
    CaseState::from_name(text).ok_or_else(|| {
        let names: Vec<_> = CaseState::ALL.iter().map(|s| s.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    match text {
        "manual" => Ok(Origin::Manual),
        "ai_corrected" => Ok(Origin::AiCorrected),
        "ai_unchanged" => Ok(Origin::AiUnchanged),
        _ => Err("one of: manual, ai_corrected, ai_unchanged".into()),
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let config = config::load(&args.config)?;
    // Opening the store makes it; that is the daemon's business, under its own user.
    let store = || config.state.join("training/secret").exists().then(|| Store::open(&config.state)).transpose();
    match args.verb {
        Verb::List { state } => {
            let ledger = read(&config)?;
            let list = report::List::of(store()?.as_ref(), &ledger, &state)?;
            tell(args.json, || list.json(), || list.page(ledger.now()))?;
        }
        Verb::Show { id } => {
            let ledger = read(&config)?;
            let whole = report::Whole::of(store()?.as_ref(), &ledger, &id)?;
            tell(args.json, || whole.json(), || whole.page())?;
        }
        Verb::Accept { id, word, classes, origin, confirm } => {
            let word = spoken(word.reader, Decision::Accepted, classes, origin, confirm);
            decide(&config, store()?.as_ref(), &id, word, args.json)?;
        }
        Verb::Refuse { id, word } => {
            decide(&config, store()?.as_ref(), &id, spoken(word.reader, Decision::Refused, vec![], Origin::Manual, vec![]), args.json)?;
        }
        Verb::Withdraw { id, word } => {
            decide(&config, store()?.as_ref(), &id, spoken(word.reader, Decision::Withdrawn, vec![], Origin::Manual, vec![]), args.json)?;
        }
        Verb::Link { first, second } => {
            let Some(store) = store()? else { return Err(CaseError::Unknown(first).into()) };
            let keys = [store.case(&first)?.record.patient, store.case(&second)?.record.patient];
            change(&config, &CaseCommand::LinkPatients { keys })?;
            let document = serde_json::json!({ "linked": [first, second] });
            tell(args.json, || document, || format!("the patients of {first} and {second} are one person"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn spoken(reader: String, decision: Decision, classes: Vec<String>, origin: Origin, confirmed: Vec<String>) -> Word {
    Word { reader, time: rfc3339(SystemClock.wall()), classes, origin, decision, confirmed }
}

/// The record first: what the ledger calls accepted has one.
fn decide(config: &Config, store: Option<&Store>, id: &str, word: Word, json: bool) -> Result<(), Fault> {
    let stored = store.ok_or_else(|| CaseError::Unknown(id.into()))?.case(id)?;
    let known = read(config)?.cases()?.into_iter().find(|row| row.id == id);
    let Some(known) = known else { return Err(CaseError::Unknown(id.into()).into()) };
    let state = match word.decision {
        Decision::Accepted => CaseState::Accepted,
        Decision::Refused => CaseState::Refused,
        Decision::Withdrawn => CaseState::Withdrawn,
    };
    if known.state != state && !known.state.may_become(state) {
        return Err(CaseError::SignOff(format!("case {id} is {} and can not become {state}", known.state)).into());
    }
    let record = stored.sign(word, &Generation::open(&config.model.path)?)?;
    if known.state != state {
        change(config, &CaseCommand::DecideCase { id: id.into(), state: state.name().into(), labels: record.labels.clone() })?;
    }
    let biased = state == CaseState::Accepted && stored.is_biased();
    let document = serde_json::json!({ "case": id, "state": state.name(), "reader": record.reader, "automation_bias": biased });
    let text = match biased {
        true => format!("case {id} is {state}; less than 5 % of it differs from what a model said: was it looked at closely?"),
        false => format!("case {id} is {state}"),
    };
    tell(json, || document, || text)
}

fn tell(json: bool, document: impl FnOnce() -> serde_json::Value, page: impl FnOnce() -> String) -> Result<(), Fault> {
    super::stdout_failed(if json { print_json(&document()) } else { print_line(&page()) })
}

/// The ledger for reading; `ledger.missing` before the daemon's first start.
fn read(config: &Config) -> Result<SqliteReader, Fault> {
    let reader = SqliteReader::open(&config.state, Arc::new(SystemClock))?;
    reader.ok_or_else(|| Fault::new(Code::LedgerMissing, format!("No daemon has worked with {} yet.", config.state.display())))
}

fn change(config: &Config, command: &CaseCommand) -> Result<(), Fault> {
    if control::ask_cases(&config.state, command)? {
        return Ok(());
    }
    let limits = Limits { suspect_after: config.jobs.suspect_after, park_after: config.jobs.park_after };
    let who = person::own();
    let options = Options { state: config.state.clone(), limits, clock: Arc::new(SystemClock), who: who.clone() };
    let (ledger, _) = SqliteLedger::open(&options)?;
    control::carry_out_cases(&ledger, command, &who)
}
