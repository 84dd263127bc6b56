//! `stunetd model …`: the verbs for models, one file each.

use super::{model_activate, model_approve, model_forward, model_import, model_info, model_list, model_verify};
use crate::fault::Fault;
use std::process::ExitCode;

/// Imports, lists, shows, checks and tries models, and says which of them serve.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Import(model_import::Args),
    List(model_list::Args),
    Info(model_info::Args),
    Verify(model_verify::Args),
    Forward(model_forward::Args),
    Activate(model_activate::Args),
    Rollback(model_activate::RollbackArgs),
    Approve(model_approve::Args),
}

impl Args {
    /// Whether the verb was asked for one JSON document on stdout.
    pub fn json(&self) -> bool {
        match &self.verb {
            Verb::Import(args) => args.json,
            Verb::List(args) => args.json,
            Verb::Info(args) => args.json,
            Verb::Verify(args) => args.json,
            Verb::Forward(args) => args.json,
            Verb::Activate(args) => args.json,
            Verb::Rollback(args) => args.json,
            Verb::Approve(args) => args.json,
        }
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    match args.verb {
        Verb::Import(args) => model_import::run(args),
        Verb::List(args) => model_list::run(args),
        Verb::Info(args) => model_info::run(args),
        Verb::Verify(args) => model_verify::run(args),
        Verb::Forward(args) => model_forward::run(args),
        Verb::Activate(args) => model_activate::run(args),
        Verb::Rollback(args) => model_activate::roll_back(args),
        Verb::Approve(args) => model_approve::run(args),
    }
}
