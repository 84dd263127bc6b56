//! `stunetd model activate` and `model rollback`: which generation serves in the place of a configured model.

use super::model_slots::{Slots, deliver};
use super::progress::Bar;
use super::report::{print_json, print_line};
use crate::fault::{Code, Fault};
use crate::models::{Generation, Lineage, MANIFEST, Status};
use crate::pipeline::promotion::ModelCommand;
use crate::pipeline::{canary, network};
use crate::sys::libtorch;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Lets a generation serve in the place of a configured model, after it has passed its canary here. It counts from the next job on; jobs in
/// work end with the model that they have. The daemon may run or not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Digest of a generation (its first 8 digits or more), of the configured model itself, or a model folder, which comes into the store
    #[arg(value_name = "DIGEST|DIR")]
    pub model: String,
    /// The configured model in whose place it serves: its name, its folder's name or its digest; may be left out with one model
    #[arg(long, value_name = "MODEL")]
    pub slot: Option<String>,
    /// Who wants it, for the audit
    #[arg(long, value_name = "NAME")]
    pub by: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    pub reason: String,
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", default_value = super::doctor::USUAL_CONFIG)]
    pub config: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Lets the generation serve again that served before, or else the configured model. Jobs in work with the one that goes are done again with
/// the other.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The configured model: its name, its folder's name or its digest; may be left out with one model
    #[arg(long, value_name = "MODEL")]
    pub slot: Option<String>,
    /// Who wants it, for the audit; the system's name for the person is noted in any case
    #[arg(long, value_name = "NAME", default_value = "")]
    pub by: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    pub reason: String,
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", default_value = super::doctor::USUAL_CONFIG)]
    pub config: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when it serves.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let slots = Slots::open(&args.config)?;
    let slot = slots.find(args.slot.as_deref())?;
    let generation = if slot.digest.starts_with(&args.model) && args.model.len() >= 8 {
        slot.digest.clone()
    } else {
        let generation = stored(&slots, slot, &args.model)?;
        generation.takes_the_place_of(slot)?;
        if slots.serving(&slot.digest) == slot.digest
            && slot.manifest.status == Status::Clinical
            && generation.manifest.status != Status::Clinical
        {
            let detail = "The configured model is approved for clinical use, and this generation is not.";
            return Err(Fault::new(Code::ModelNotPromotable, detail));
        }
        try_out(&slots, &generation)?;
        generation.digest
    };
    let slot = slot.digest.clone();
    let serves = deliver(&slots.config, ModelCommand::Activate { slot: slot.clone(), generation, by: args.by, reason: args.reason })?;
    tell(args.json, &slot, &serves)
}

/// Exit code 0 when the other one serves.
pub fn roll_back(args: RollbackArgs) -> Result<ExitCode, Fault> {
    let slots = Slots::open(&args.config)?;
    let slot = slots.find(args.slot.as_deref())?.digest.clone();
    let serves = deliver(&slots.config, ModelCommand::Rollback { slot: slot.clone(), by: args.by, reason: args.reason })?;
    tell(args.json, &slot, &serves)
}

fn tell(json: bool, slot: &str, serves: &str) -> Result<ExitCode, Fault> {
    super::stdout_failed(if json {
        print_json(&serde_json::json!({ "slot": slot, "generation": serves }))
    } else {
        print_line(&format!("from the next job on {serves} serves"))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The generation by its digest, or the model of a folder, brought into the store.
fn stored(slots: &Slots, slot: &Generation, named: &str) -> Result<Generation, Fault> {
    if !Path::new(named).join(MANIFEST).is_file() {
        return slots.store.get(named);
    }
    let model = Generation::open(Path::new(named))?;
    if slots.store.holds(&model) {
        return Ok(model);
    }
    model.verify(&mut |_, _| {})?;
    let lineage = Lineage { slot: slot.digest.clone(), from: Some(model.digest.clone()), ..Lineage::default() };
    slots.store.publish(model.manifest.clone(), &model.weights(), &lineage)
}

/// Opens it as the daemon would, which has it sing.
fn try_out(slots: &Slots, generation: &Generation) -> Result<(), Fault> {
    let config = &slots.config;
    libtorch::choose(Some(config.libtorch_dir.as_path()).filter(|dir| !dir.as_os_str().is_empty()))?;
    let cores = super::cores(config.model.device);
    cores.start_rayon();
    let bar = Bar::wheel("trying the generation out on its canary");
    let opened = canary::guarded(network(config.model.device, config.model.precision, cores.torch), slots.store.clone())(generation);
    bar.finish();
    opened.map(drop)
}
