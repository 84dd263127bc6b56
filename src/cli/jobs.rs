//! `stunetd jobs …`: what the ledger says of every study, and what a person may change.
//!
//! The reading verbs open the ledger for reading, whether or not a daemon runs. The others go through the daemon's control socket; with no
//! daemon they open the ledger themselves.

use super::jobs_report;
use super::model_slots::Slots;
use super::report::{print_json, print_line};
use crate::audit::Audit;
use crate::config::{self, Config};
use crate::fault::{Code, Fault};
use crate::ledger::{JobId, Limits, Options, Reader, SqliteLedger, SqliteReader, State, Which};
use crate::pipeline::control::{self, Command};
use crate::sys::clock::SystemClock;
use crate::sys::person;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Shows and changes the jobs of the daemon.
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
    /// Lists jobs, those that are not done or not delivered unless others are asked for
    List {
        /// Only these states: queued, running, waiting, parked, done, cancelled, superseded
        #[arg(long, value_delimiter = ',', value_parser = parse_state)]
        state: Vec<State>,
        /// All states
        #[arg(long, conflicts_with = "state")]
        all: bool,
        /// At most so many
        #[arg(long, default_value_t = 200)]
        limit: u64,
        /// Only after this number
        #[arg(long)]
        after: Option<u64>,
    },
    /// Shows one job with its files, deliveries and history
    Show {
        /// The job's number
        id: u64,
    },
    /// Says why a study was or was not processed, and what to do
    Explain {
        /// A job's number, or the UID of a study, a series, or an instance that was received
        what: String,
    },
    /// Tries a job, or its refused deliveries, again
    Retry {
        /// The job's number
        id: u64,
    },
    /// Ends a job, or its deliveries that are still open
    Cancel {
        /// The job's number
        id: u64,
    },
}

fn parse_state(text: &str) -> Result<State, String> {
    State::from_name(text).ok_or_else(|| {
        let names: Vec<_> = State::ALL.iter().map(|s| s.name()).collect();
        format!("one of: {}", names.join(", "))
    })
}

/// Runs the verb.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let config = config::load(&args.config)?;
    match args.verb {
        Verb::List { state, all, limit, after } => {
            let ledger = read(&config)?;
            let undelivered = !all && state.is_empty();
            let states = if all {
                Vec::new()
            } else if undelivered {
                State::ALL.iter().copied().filter(|s| !s.is_final() || *s == State::Parked).collect()
            } else {
                state
            };
            let jobs = ledger.jobs(&Which { states, undelivered, after: after.map(JobId), limit: Some(limit), uid: None })?;
            let jobs = jobs_report::with_deliveries(&ledger, jobs)?;
            let counts = ledger.counts()?;
            tell(args.json, || jobs_report::list_json(&jobs, &counts), || jobs_report::list(&jobs, &counts, ledger.now()))?;
        }
        Verb::Show { id } => {
            let ledger = read(&config)?;
            let whole = jobs_report::Whole::read(&ledger, JobId(id))?;
            tell(args.json, || whole.json(), || whole.page(&models(&config)))?;
        }
        Verb::Explain { what } => {
            let ledger = read(&config)?;
            let explained = jobs_report::explain(&ledger, &what)?;
            tell(args.json, || explained.json(), || explained.page(&models(&config)))?;
        }
        Verb::Retry { id } => change(&config, args.json, Command::Retry { job: id }, id)?,
        Verb::Cancel { id } => change(&config, args.json, Command::Cancel { job: id }, id)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what a model is by its digest; nothing when the configured models can not be read.
fn models(config: &Config) -> impl Fn(&str) -> Option<String> {
    let slots = Slots::of(config.clone()).ok();
    move |digest| slots.as_ref()?.describe(digest)
}

fn tell(json: bool, document: impl FnOnce() -> serde_json::Value, page: impl FnOnce() -> String) -> Result<(), Fault> {
    super::stdout_failed(if json { print_json(&document()) } else { print_line(&page()) })
}

/// The ledger for reading; `ledger.missing` before the daemon's first start.
fn read(config: &Config) -> Result<SqliteReader, Fault> {
    let reader = SqliteReader::open(&config.state, Arc::new(SystemClock))?;
    reader.ok_or_else(|| Fault::new(Code::LedgerMissing, format!("No daemon has worked with {} yet.", config.state.display())))
}

fn change(config: &Config, json: bool, command: Command, id: u64) -> Result<(), Fault> {
    let state = match control::ask(&config.state, command)? {
        Some(state) => state,
        None => {
            read(config)?;
            let limits = Limits { suspect_after: config.jobs.suspect_after, park_after: config.jobs.park_after };
            let who = person::own();
            let options = Options { state: config.state.clone(), limits, clock: Arc::new(SystemClock), who: who.clone() };
            let (ledger, _) = SqliteLedger::open(&options)?;
            // The next daemon sends what is told of it.
            let audit = Audit::open(config, Arc::new(SystemClock), super::metrics()?)?;
            control::carry_out(&ledger, &audit, command, who)?.name().to_string()
        }
    };
    tell(json, || serde_json::json!({ "job": id, "state": state }), || format!("job {id} is {state}"))
}
