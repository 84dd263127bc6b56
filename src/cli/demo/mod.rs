//! `stunetd demo`: writes a CT study of a phantom, so that there is something to segment without any patient's images.

mod anatomy;
mod compare;
mod image;
mod study;
mod variant;

use super::progress::Bar;
use super::report::{print_json, print_line};
use crate::fault::{Code, Fault};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use variant::Variant;

/// Writes a CT study of a generated phantom (no patient) into a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder; created if need be, and refused when it holds something else
    pub dir: PathBuf,
    /// Instead of writing: check the result folder of this study, and tell how much of each organ was found
    #[arg(long, value_name = "RESULT")]
    pub compare: Option<PathBuf>,
    /// Another phantom: anatomy, tissues and noise vary with the number, and each number is a patient
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// A smaller and coarser image
    #[arg(long)]
    pub small: bool,
    /// Write what the phantom shows, too: labels.dcm, a segmentation object
    #[arg(long, conflicts_with = "compare")]
    pub labels: bool,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Exit code 0 when the study was written.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let variant = Variant { seed: args.seed, small: args.small };
    let frame = variant.frame();
    if let Some(result) = &args.compare {
        return told(compare::compare(result, &variant)?, &variant, args.json);
    }
    refuse_foreign(&args.dir)?;
    let bar = Bar::new("writing the phantom", frame.slices as u64);
    study::write(&args.dir, &variant, args.labels, &|_| bar.step())?;
    bar.finish();
    let files = frame.slices + usize::from(args.labels);
    let told = if args.json {
        print_json(&serde_json::json!({ "folder": args.dir, "files": files, "generated": true }))
    } else {
        print_line(&format!("{}: {} slices of a generated phantom (no patient)", args.dir.display(), frame.slices))
    };
    super::stdout_failed(told)?;
    Ok(ExitCode::SUCCESS)
}

fn told(organs: BTreeMap<String, compare::Organ>, variant: &Variant, json: bool) -> Result<ExitCode, Fault> {
    let told = if json {
        print_json(&organs)
    } else {
        let frame = variant.frame();
        let ml = |voxels: u64| voxels as f64 * frame.pixel * frame.pixel * frame.step / 1000.0;
        let line = |(name, o): (&String, &compare::Organ)| {
            format!("{name:12} Dice {:4.2}   found {:6.0} ml of {:6.0} ml", o.dice(), ml(o.found), ml(o.phantom))
        };
        print_line(&organs.iter().map(line).collect::<Vec<_>>().join("\n"))
    };
    super::stdout_failed(told)?;
    Ok(ExitCode::SUCCESS)
}

/// Files of another origin are never mixed with the phantom's.
fn refuse_foreign(dir: &std::path::Path) -> Result<(), Fault> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Fault::new(Code::DiskUnwritable, format!("{}: {e}", dir.display())).caused_by(e)),
    };
    let ours = |name: &str| name.strip_prefix("IM").and_then(|n| n.strip_suffix(".dcm")).is_some_and(|n| n.parse::<usize>().is_ok());
    match entries.flatten().find(|e| !e.file_name().to_str().is_some_and(|name| ours(name) || name == study::LABELS)) {
        None => Ok(()),
        Some(_) => Err(Fault::new(Code::ConfigUsage, format!("{} holds other files; name a new or empty folder.", dir.display()))),
    }
}
