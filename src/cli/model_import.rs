//! `stunetd model import`: what nnU-Net saved becomes a model folder.

use super::model_info;
use super::progress::Bytes;
use super::report::{print_json, print_line};
use crate::fault::{Code, Fault};
use crate::models::Orientation;
use crate::models::codes;
use crate::models::import::{ImportOptions, Which, import};
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use clap::ValueEnum;
use std::path::PathBuf;
use std::process::ExitCode;

/// Imports a checkpoint of nnU-Net v1 (X.model beside X.model.pkl) or v2 (the folder with plans.json).
///
/// Nothing in the checkpoint is run. The folder given with --out must not exist; it is written whole or not at all.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The .model or .pth file, or the folder that holds it
    pub checkpoint: PathBuf,
    /// The model folder to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Labels: a published order, or a TOML or JSON file with names (and codes)
    #[arg(long, value_name = "NAME|FILE", long_help = labels_help())]
    pub labels: Option<String>,
    /// Name of the model [default: that of the folder]
    #[arg(long)]
    pub name: Option<String>,
    /// Version of the model that results carry [default: 1]
    #[arg(long, value_name = "TEXT")]
    pub model_version: Option<String>,
    /// Which fold of a model folder, e.g. 0 or all
    #[arg(long)]
    pub fold: Option<String>,
    /// Which checkpoint of the fold
    #[arg(long, value_enum, default_value_t = Choice::Final)]
    pub which: Choice,
    /// Array orientation the model expects, instead of what plans and labels say
    #[arg(long, value_enum)]
    pub orientation: Option<Storage>,
    /// DICOM modality of each channel, e.g. CT or PT,CT
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub modality: Vec<String>,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// A checkpoint of a fold.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Choice {
    /// After the last epoch
    Final,
    /// With the best validation
    Best,
    /// The last one saved
    Latest,
}

/// An array orientation.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Storage {
    /// Towards right, anterior, superior
    Ras,
    /// As SimpleITK reads the file
    AsStored,
}

fn labels_help() -> String {
    let orders: String = codes::orders().iter().map(|o| format!("  {}: {}\n", o.name, o.about)).collect();
    format!(
        "Labels of the model, if not those that the plans name. A published order:\n{orders}or a TOML or JSON file: a list of names in the \
         order of their values (from 1), a table of names and values, or a list of tables with `name` and, as needed, `value`, `category`, \
         `type`, `modifier`, `region`, `region_modifier` (each with value, scheme, meaning) and `rgb`"
    )
}

/// Imports and shows the new model.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let options = ImportOptions {
        name: args.name,
        version: args.model_version,
        labels: args.labels,
        fold: args.fold,
        checkpoint: match args.which {
            Choice::Final => Which::Final,
            Choice::Best => Which::Best,
            Choice::Latest => Which::Latest,
        },
        orientation: args.orientation.map(|o| match o {
            Storage::Ras => Orientation::Ras,
            Storage::AsStored => Orientation::AsStored,
        }),
        modality: args.modality,
    };
    let shutdown = Shutdown::default();
    signals::listen(shutdown.clone(), FirstSignal::Abandons, None)
        .map_err(|e| Fault::new(Code::InternalBug, format!("signals can not be listened to: {e}")).caused_by(e))?;
    let bar = Bytes::new("importing");
    let imported = import(&args.checkpoint, &args.out, &options, &mut |done, total| {
        bar.at(done, total);
        !shutdown.is_draining()
    });
    bar.clear();
    let imported = imported?;
    let shown = if args.json {
        print_json(&model_info::json(&imported.generation, Some(&imported.warnings)))
    } else {
        let mut text = model_info::text(&imported.generation);
        for warning in &imported.warnings {
            text += &format!("note          {warning}\n");
        }
        print_line(text.trim_end())
    };
    super::stdout_failed(shown)?;
    Ok(ExitCode::SUCCESS)
}
