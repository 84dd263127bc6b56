//! `stunetd train …`: what the daemon teaches outside of working hours, and what a person decides about it.
//!
//! Reading verbs open the ledger for reading. The others go through the daemon's control socket; with no daemon they open the ledger themselves.

use super::model_slots::deliver;
use super::report::{print_json, print_line};
use crate::config::{self, Config, Windows};
use crate::fault::{Code, Fault};
use crate::ledger::{Reader, RunRow, SqliteReader};
use crate::models::Generation;
use crate::pipeline::night::{plan_in_force, publish, serving_generation};
use crate::pipeline::promotion::ModelCommand as Command;
use crate::sys::clock::{Clock, SystemClock};
use crate::training::campaign::{Census, promotable};
use crate::training::store::Store;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Shows and changes what the daemon teaches.
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
    /// Tells what there is to learn from, what is missing, and where the present run is
    Status,
    /// Begins a run; it computes in the configured windows
    Start,
    /// Ends the open run, or takes a candidate that passed out of the line
    Stop {
        /// The run's number; without it the one that is open
        id: Option<u64>,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lists all runs
    History,
    /// Lets a candidate that passed its gates serve
    Promote {
        /// The run's number
        id: u64,
        /// Who decides; a model that is approved for clinical use needs two people
        #[arg(long, value_name = "NAME", required = true)]
        by: Vec<String>,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let config = config::load(&args.config)?;
    let json = args.json;
    match args.verb {
        Verb::Status => {
            let status = status(&config)?;
            tell(json, &status, || status_page(&status))?;
        }
        Verb::History => {
            let runs: Vec<Value> = read(&config)?.runs()?.iter().map(|run| run_json(run, &config.state)).collect();
            let page = || runs.iter().map(run_line).collect::<Vec<_>>().join("\n");
            tell(json, &json!({ "runs": runs }), page)?;
        }
        Verb::Start => {
            let command = begin(&config)?;
            changed(&config, json, command)?;
        }
        Verb::Stop { id, reason } => {
            let open = || read(&config)?.runs().map(|runs| runs.into_iter().find(|run| run.state.is_open())).map_err(Fault::from);
            let id = match id {
                Some(id) => id,
                None => open()?.map(|run| run.id.0).ok_or_else(|| Fault::new(Code::TrainingUnknownRun, "No run is open."))?,
            };
            changed(&config, json, Command::TrainStop { run: id, reason })?;
        }
        Verb::Promote { id, by, reason } => {
            let command = promotion(&config, id, &by, reason)?;
            changed(&config, json, command)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(json: bool, document: &Value, page: impl FnOnce() -> String) -> Result<(), Fault> {
    super::stdout_failed(if json { print_json(document) } else { print_line(&page()) })
}

/// The ledger for reading; `ledger.missing` before the daemon's first start.
fn read(config: &Config) -> Result<SqliteReader, Fault> {
    let reader = SqliteReader::open(&config.state, Arc::new(SystemClock))?;
    reader.ok_or_else(|| Fault::new(Code::LedgerMissing, format!("No daemon has worked with {} yet.", config.state.display())))
}

fn status(config: &Config) -> Result<Value, Fault> {
    let ledger = read(config)?;
    let base = Generation::open(&config.model.path)?;
    let windows = Windows::parse(&config.training.windows, &config.training.zone).map_err(|why| Fault::new(Code::ConfigInvalid, why))?;
    let now = SystemClock.wall();
    let (plan, refused) = match plan_in_force(&config.training.plan, &base) {
        Ok(plan) => (Some(plan.plan), None),
        Err(fault) => (None, Some(fault)),
    };
    let mut census = Value::Null;
    let mut waits = refused;
    if let Some(plan) = &plan {
        // Opening the store makes it; that is the daemon's business, under its own user.
        let there = config.state.join("training/secret").is_file();
        let stored = if there { Store::open(&config.state)?.cases()? } else { Vec::new() };
        let counted = Census::take(&ledger.cases()?, &ledger.patients()?, &stored, &base.manifest.labels, plan);
        waits = counted.suffices(plan).err();
        census = json!({
            "training": counted.training.len(), "locked": counted.locked.len(), "rehearsal": counted.rehearsal.len(),
            "studies": counted.studies.len(), "classes": counted.classes,
        });
    }
    let run = ledger.runs()?.into_iter().rev().find(|run| !run.state.is_final());
    Ok(json!({
        "enabled": config.training.enabled,
        "window_open": windows.is_open(now),
        "model": { "name": base.manifest.name, "digest": base.digest },
        "plan": plan.as_ref().map(|plan| json!({ "name": plan.name, "mode": plan.mode, "demonstration": plan.demonstration })),
        "cases": census,
        "waits_for": waits.map(|fault| json!({ "code": fault.code, "detail": fault.detail })),
        "run": run.map(|run| run_json(&run, &config.state)),
    }))
}

fn run_json(run: &RunRow, state: &Path) -> Value {
    let report = state.join("training/runs").join(run.id.0.to_string()).join("report.html");
    json!({
        "run": run.id.0, "state": run.state.name(), "step": run.step, "steps": run.steps,
        "serving": run.serving, "candidate": run.candidate,
        "problem": run.problem.as_ref().map(|problem| json!({ "code": problem.code, "detail": problem.detail })),
        "report": report.is_file().then_some(report),
    })
}

fn run_line(run: &Value) -> String {
    let text = |key: &str| run[key].as_str().unwrap_or_default().to_string();
    let mut line = format!("run {}: {}, {} of {} steps", run["run"], text("state"), run["step"], run["steps"]);
    if let Some(code) = run["problem"]["code"].as_str() {
        line += &format!(", {code}: {}", run["problem"]["detail"].as_str().unwrap_or_default());
    }
    if let Some(report) = run["report"].as_str() {
        line += &format!(", {report}");
    }
    line
}

fn status_page(status: &Value) -> String {
    let mut lines = vec![format!(
        "training is {}, the window is {}",
        if status["enabled"] == true { "enabled" } else { "off" },
        if status["window_open"] == true { "open" } else { "closed" }
    )];
    if let Some(cases) = status["cases"].as_object() {
        lines.push(format!(
            "{} cases to learn from, {} locked; {} studies to rehearse, {} to compare models on",
            cases["training"], cases["locked"], cases["rehearsal"], cases["studies"]
        ));
        lines.push("patients that show a class (to learn from, locked):".into());
        for class in cases["classes"].as_array().into_iter().flatten() {
            let target = if class["target"] == true { "  target" } else { "" };
            lines.push(format!(
                "  {:>3}  {:>3}  {}{target}",
                class["training"],
                class["locked"],
                class["name"].as_str().unwrap_or_default()
            ));
        }
    }
    if let Some(code) = status["waits_for"]["code"].as_str() {
        lines.push(format!("nothing is taught: {code}: {}", status["waits_for"]["detail"].as_str().unwrap_or_default()));
    }
    if status["run"].is_object() {
        lines.push(run_line(&status["run"]));
    }
    lines.join("\n")
}

/// The wish for a run, if there is enough for one.
fn begin(config: &Config) -> Result<Command, Fault> {
    let ledger = read(config)?;
    let base = Generation::open(&config.model.path)?;
    let plan = plan_in_force(&config.training.plan, &base)?.plan;
    let stored = Store::open(&config.state)?.cases()?;
    Census::take(&ledger.cases()?, &ledger.patients()?, &stored, &base.manifest.labels, &plan).suffices(&plan)?;
    let serving = serving_generation(&config.state, &Arc::new(base.clone()), &ledger.active()?)?;
    Ok(Command::TrainStart {
        slot: base.digest.clone(),
        serving: serving.digest.clone(),
        plan: plan.digest(),
        steps: plan.recipe.epochs.saturating_mul(plan.recipe.iterations),
    })
}

fn promotion(config: &Config, id: u64, by: &[String], reason: String) -> Result<Command, Fault> {
    let ledger = read(config)?;
    let unknown = || Fault::new(Code::TrainingUnknownRun, format!("{id}"));
    let run = ledger.runs()?.into_iter().find(|run| run.id.0 == id).ok_or_else(unknown)?;
    let base = Arc::new(Generation::open(&config.model.path)?);
    let plan = plan_in_force(&config.training.plan, &base)?.plan;
    let serving = serving_generation(&config.state, &base, &ledger.active()?)?;
    let store = Store::open(&config.state)?;
    let folder = config.state.join("training/runs").join(id.to_string());
    let candidate = promotable(&folder, &run, &plan, &serving, &base, &store, by)?;
    // Its own place for good, before anything names it.
    let published = publish(&config.state, &folder, &run, &candidate)?;
    Ok(Command::TrainPromote { run: id, generation: published.digest, by: by.join(", "), reason })
}

fn changed(config: &Config, json: bool, command: Command) -> Result<(), Fault> {
    let id = command.run();
    deliver(config, command)?;
    let runs = read(config)?.runs()?;
    let run = runs.into_iter().rev().find(|run| id.is_none_or(|id| run.id.0 == id));
    let run = run.ok_or_else(|| Fault::new(Code::TrainingUnknownRun, "The ledger does not know the run."))?;
    let run = run_json(&run, &config.state);
    tell(json, &run, || run_line(&run))
}
