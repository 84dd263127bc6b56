//! `stunetd model approve`: a named person says that a model may be used clinically.

use super::model_slots::{Slots, deliver};
use super::report::{print_json, print_line};
use crate::fault::{Code, Fault};
use crate::models::{Approval, Generation};
use crate::pipeline::promotion::ModelCommand;
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes the generation that is like this model but approved for clinical use, and keeps in the audit who approved it by which document. It
/// serves only after `model activate`: its results are no longer marked RESEARCH, and go to clinical destinations.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Digest of a generation, or of a configured model: its first 8 digits or more
    #[arg(value_name = "DIGEST")]
    pub model: String,
    /// Who approves it
    #[arg(long, value_name = "NAME")]
    pub by: String,
    /// The document that says so
    #[arg(long, value_name = "REF")]
    pub document: String,
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", default_value = super::doctor::USUAL_CONFIG)]
    pub config: PathBuf,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the approved generation is in the store and the audit says so.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    if args.by.trim().is_empty() || args.document.trim().is_empty() {
        return Err(Fault::new(Code::ConfigUsage, "--by and --document have to say something."));
    }
    let slots = Slots::open(&args.config)?;
    let configured = slots.models.iter().find(|model| args.model.len() >= 8 && model.digest.starts_with(&args.model));
    let (model, slot): (Generation, String) = match configured {
        Some(model) => (Generation::clone(model), model.digest.clone()),
        None => {
            let model = slots.store.get(&args.model)?;
            let slot = slots.store.lineage(&model.digest)?.slot;
            (model, slot)
        }
    };
    let approval = Approval { by: args.by.clone(), document: args.document.clone() };
    let approved = slots.store.approve(&model, &slot, approval)?;
    let (generation, from) = (approved.digest.clone(), model.digest);
    deliver(&slots.config, ModelCommand::Approved { generation, from: from.clone(), by: args.by, document: args.document })?;
    super::stdout_failed(if args.json {
        print_json(&serde_json::json!({ "slot": slot, "from": from, "generation": approved.digest }))
    } else {
        print_line(&format!("{} is approved; `stunetd model activate {}` lets it serve", approved.digest, &approved.digest[..12]))
    })?;
    Ok(ExitCode::SUCCESS)
}
