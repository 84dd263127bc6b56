//! The command line: one file per verb (`stunetd help`).
//!
//! A verb is a module with a clap `Args` and `run(args) -> Result<ExitCode, Fault>`: 0 when everything was done, 1 when
//! some input was refused and each refusal has been told. A fault ends the verb; it is told here, once, for people on
//! stderr and with `--json` for scripts on stdout.

mod case_worker;
mod cases;
mod cases_report;
mod check_config;
mod demo;
mod doctor;
mod doctor_ledger;
mod inspect;
mod jobs;
mod jobs_report;
mod model;
mod model_activate;
mod model_approve;
mod model_forward;
mod model_import;
mod model_info;
mod model_list;
mod model_slots;
mod model_verify;
mod progress;
mod purge;
mod report;
mod segment;
mod selection;
pub mod serve;
mod top;
mod train;
mod train_evaluate;
mod train_prepare;
mod train_worker;

pub use report::{print_json, print_line};

use crate::fault::{Code, Fault};
use crate::stunet::DeviceChoice;
use crate::stunet::runtime::runtime;
use crate::sys::cores::Cores;
use crate::telemetry::Metrics;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::sync::Arc;

/// Segments incoming CT and PET studies with STU-Net and answers with DICOM Segmentation objects.
///
/// Not a medical device. Exit codes: 0 done, 1 some input was refused (each with its code), 2 usage, 70 internal,
/// 74 storage, 78 configuration.
#[derive(Debug, Parser)]
#[command(name = "stunetd", version, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Serve(serve::Args),
    Segment(segment::Args),
    Inspect(inspect::Args),
    Model(model::Args),
    Jobs(jobs::Args),
    Train(train::Args),
    Cases(cases::Args),
    Purge(purge::Args),
    CheckConfig(check_config::Args),
    Doctor(doctor::Args),
    Top(top::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    TrainWorker(train_worker::Args),
    #[command(hide = true)]
    CaseWorker(case_worker::Args),
    #[command(hide = true)]
    TrainPrepare(train_prepare::Args),
    #[command(hide = true)]
    TrainEvaluate(train_evaluate::Args),
}

impl Verb {
    /// Whether the verb was asked for one JSON document on stdout.
    fn json(&self) -> bool {
        match self {
            Verb::Serve(_) | Verb::TrainWorker(_) | Verb::TrainPrepare(_) | Verb::TrainEvaluate(_) | Verb::CaseWorker(_) => false,
            Verb::Train(args) => args.json,
            Verb::Segment(args) => args.json,
            Verb::Inspect(args) => args.json,
            Verb::Model(args) => args.json(),
            Verb::Jobs(args) => args.json,
            Verb::Cases(args) => args.json,
            Verb::Purge(args) => args.json,
            Verb::CheckConfig(args) => args.json,
            Verb::Doctor(args) => args.json,
            Verb::Top(args) => args.json,
            Verb::Demo(args) => args.json,
        }
    }

    fn run(self) -> Result<ExitCode, Fault> {
        match self {
            Verb::Serve(args) => serve::run(args),
            Verb::Segment(args) => segment::run(args),
            Verb::Inspect(args) => inspect::run(args),
            Verb::Model(args) => model::run(args),
            Verb::Jobs(args) => jobs::run(args),
            Verb::Train(args) => train::run(args),
            Verb::Cases(args) => cases::run(args),
            Verb::Purge(args) => purge::run(args),
            Verb::CheckConfig(args) => check_config::run(args),
            Verb::Doctor(args) => doctor::run(args),
            Verb::Top(args) => top::run(args),
            Verb::Demo(args) => demo::run(args),
            Verb::TrainWorker(args) => train_worker::run(args),
            Verb::CaseWorker(args) => case_worker::run(args),
            Verb::TrainPrepare(args) => train_prepare::run(args),
            Verb::TrainEvaluate(args) => train_evaluate::run(args),
        }
    }
}

/// Runs the verb that the arguments name and returns its exit code.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let (json, result) = match Cli::try_parse_from(&arguments) {
        Ok(cli) => (cli.verb.json(), cli.verb.run()),
        Err(error) if !error.use_stderr() => {
            // `help` and `--version` are answers, not errors.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => (arguments.iter().any(|a| a == "--json"), Err(usage(&error))),
    };
    result.unwrap_or_else(|fault| report::fault(&fault, json))
}

/// A verb or value that is not there is `config.not_available`; everything else that does not fit is `config.usage`.
fn usage(error: &clap::Error) -> Fault {
    use clap::error::ErrorKind as Kind;
    let code = match error.kind() {
        Kind::InvalidSubcommand => Code::ConfigNotAvailable,
        _ => Code::ConfigUsage,
    };
    let detail = match error.kind() {
        Kind::DisplayHelpOnMissingArgumentOrSubcommand => "No verb was given.".to_string(),
        _ => error.to_string().trim_start_matches("error: ").trim_end().to_string(),
    };
    Fault::new(code, detail)
}

/// What a verb does when its answer can not be written to stdout: `disk.unwritable`.
fn stdout_failed(result: std::io::Result<()>) -> Result<(), Fault> {
    result.map_err(|e| Fault::new(Code::DiskUnwritable, format!("stdout: {e}")).caused_by(e))
}

/// The exit code of a failure in something that a configuration names: a model that can not be used is then a mistake of
/// the configuration, not a refused input.
fn exit_code_as_configured(fault: &Fault) -> u8 {
    match fault.exit_code() {
        1 => 78,
        other => other,
    }
}

/// Without signals the process could not be ended cleanly.
fn no_signals(e: std::io::Error) -> Fault {
    Fault::new(Code::InternalBug, format!("signals: {e}")).caused_by(e)
}

/// Metrics of a verb that nobody scrapes.
fn metrics() -> Result<Arc<Metrics>, Fault> {
    Ok(Arc::new(Metrics::new().map_err(|e| Fault::new(Code::InternalBug, e.to_string()))?))
}

/// Who gets which cores when the network runs on this device. Asks libtorch, whose choice has to have been made.
fn cores(device: DeviceChoice) -> Cores {
    Cores::plan(Cores::available(), device != DeviceChoice::Cpu && runtime().cuda_devices > 0)
}
