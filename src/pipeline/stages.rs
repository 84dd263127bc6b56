//! What each stage does with a case: plain functions from one type of the street to the next. `serve` and `segment` both
//! go through them, by way of [`super::Street`].

use super::street::EngineFacts;
use crate::config::{Format, Irregular};
use crate::delivery::{self, Receipt};
use crate::fault::{Code, Fault};
use crate::models::Generation;
use crate::results::{self, Identity, JobDates, Replaced, ResultManifest, ResultRequest, Results, Settings, Wanted};
use crate::segment::{Engine, Progress, SegmentOptions};
use crate::series::{Case, Series};
use crate::sys::durable::StagingDir;
use crate::volume::decode::Decoder;
use crate::volume::{self, LabelMap, Limits, Prepared, ReadLimits, Source, Volume};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// Results of one volume by different headers.
const MOST_CORRECTIONS: u32 = 1000;

/// Distances in headers are decimal strings, rounded to a hundredth of a millimetre.
const SPACING_ROUNDING: f64 = 0.01;

/// How a case is treated.
#[derive(Clone)]
pub struct Order {
    /// The model.
    pub model: Arc<Generation>,
    /// How windows are laid and averaged.
    pub options: SegmentOptions,
    /// What is allowed for uneven slice distances.
    pub irregular: Irregular,
    /// Whether a dose below 10 kBq is taken as MBq.
    pub assume_mbq: bool,
    /// What is written.
    pub formats: Vec<Format>,
    /// What destinations get beside, or in place of, whole objects.
    pub wanted: Arc<Wanted>,
    /// Where results go.
    pub output: PathBuf,
    /// What to do when the volume has a result there already.
    pub published: WhenPublished,
    /// Runs the codecs.
    pub decoder: Arc<Decoder>,
    /// Bytes that cases in work may hold together; no single array may be larger.
    pub host_memory: u64,
}

/// What to do with a volume that has a result already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenPublished {
    /// It is done, whichever model made that result: the daemon does not redo work.
    Done,
    /// It is done if the result is the very same (model, settings, formats); another one is a conflict.
    Compare,
}

/// What goes in.
pub enum Input {
    /// DICOM series, one for each channel of the model.
    Series(Vec<Series>),
    /// A NIfTI file.
    Nifti(PathBuf),
}

/// What reading gives.
pub enum Read {
    /// Voxels.
    Volume(Box<Volume>),
    /// The volume has its result already, in this folder.
    AlreadyPublished(PathBuf),
    /// The volume has a result that repeats another header: its labels are right, its objects are written anew.
    Corrected(Box<Labelled>),
}

/// Ready for the device.
pub struct Ready {
    volume: Volume,
    prepared: Prepared,
}

/// Labels with the voxels they belong to.
pub struct Labelled {
    volume: Volume,
    /// The labels.
    pub labels: LabelMap,
    /// Name of the result folder, if not the volume's own.
    folder: Option<String>,
}

/// Files in a staging folder.
pub struct Finished {
    results: Results,
    staging: StagingDir,
}

/// `memory.volume_too_large` with the numbers.
pub fn too_large(need: u64, limit: u64) -> Fault {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    Fault::new(Code::MemoryTooLarge, format!("It needs about {:.1} GiB; `host_memory` is {:.1} GiB.", gib(need), gib(limit)))
}

/// Decodes the pixels, unless the volume has its result already.
pub fn read(input: Input, order: &Order, facts: &EngineFacts) -> Result<Read, Fault> {
    let volume = match input {
        Input::Series(channels) => volume::read(
            Case { channels, grid: order.model.manifest.preprocessing.grid_channel, volume_key: [0; 32] },
            &ReadLimits { memory: order.host_memory, assume_mbq: order.assume_mbq, ..ReadLimits::default() },
            &order.decoder,
        )?,
        Input::Nifti(path) => volume::nifti::read(&path, &limits(order))?,
    };
    if let Some(why) = held(&volume).or_else(|| covers_too_little(&volume, order)) {
        return Err(why);
    }
    let (key, copied) = results::key_of(&volume.source);
    let own = results::folder_of(key);
    let Some(manifest) = delivery::published(&order.output.join(&own))? else { return Ok(Read::Volume(Box::new(volume))) };
    let settings = settings(order, facts, &volume.source);
    let identity = Identity::new(key, &order.model.digest, &settings, copied, &results::warnings_of(&volume.source)).hex();
    let wanted = results::possible_formats(&order.formats, &volume.source);
    let complete = |manifest: &ResultManifest| wanted.iter().all(|f| manifest.outputs.iter().any(|o| o.file == results::file_name(*f)));
    if manifest.identity != identity && manifest.differs_only_in_header(&order.model.digest, &settings) {
        return corrected(volume, &manifest, order, &own, &identity);
    }
    let folder = order.output.join(own);
    match order.published {
        WhenPublished::Done => Ok(Read::AlreadyPublished(folder)),
        WhenPublished::Compare if manifest.identity != identity => Err(delivery::conflict(&folder)),
        WhenPublished::Compare if complete(&manifest) => Ok(Read::AlreadyPublished(folder)),
        WhenPublished::Compare => Ok(Read::Volume(Box::new(volume))),
    }
}

/// For a volume whose result repeats another header than its source has now. The corrected result lies in a folder of its own, `…-2`,
/// `…-3`; what was published stays.
fn corrected(volume: Volume, first: &ResultManifest, order: &Order, own: &str, identity: &str) -> Result<Read, Fault> {
    for n in 2..=MOST_CORRECTIONS {
        let name = format!("{own}-{n}");
        let folder = order.output.join(&name);
        match delivery::published(&folder)? {
            Some(other) if other.identity == identity => return Ok(Read::AlreadyPublished(folder)),
            Some(_) => {}
            // Pictures and NIfTI files repeat nothing of the header.
            None if first.outputs.iter().all(|o| o.dicom.is_none()) => return Ok(Read::AlreadyPublished(order.output.join(own))),
            None => {
                let Some(labels) = results::restore(&order.output.join(own), first, &volume, &order.model.manifest.labels) else {
                    return Err(Fault::new(Code::ResultsDamaged, format!("{own}: its labels can not be read back.")));
                };
                return Ok(Read::Corrected(Box::new(Labelled { volume, labels, folder: Some(name) })));
            }
        }
    }
    Err(Fault::new(Code::DeliveryConflict, format!("{own}: its header was corrected more than {MOST_CORRECTIONS} times.")))
}

/// Why a volume may be looked at but not segmented.
fn held(volume: &Volume) -> Option<Fault> {
    let Source::Case(case) = &volume.source else { return None };
    let hold = case.channels.iter().find_map(|series| series.hold.as_ref())?;
    Some(Fault::new(hold.code, hold.detail.clone()))
}

/// What the headers said of coverage, confirmed from the image: slices of air cover nothing.
fn covers_too_little(volume: &Volume, order: &Order) -> Option<Fault> {
    let manifest = &order.model.manifest;
    let least = manifest.scope.min_coverage.filter(|_| matches!(volume.source, Source::Case(_)))?;
    let extent = volume.body_extent().filter(|extent| *extent < least - SPACING_ROUNDING)?;
    let detail = format!("The slices that hold a body cover {extent:.1} mm, at least {least} mm are needed (model `{}`)", manifest.name);
    Some(Fault::new(Code::ScopeCoverage, detail))
}

fn limits(order: &Order) -> Limits {
    Limits { max_voxels: (order.host_memory / 4).min(Limits::default().max_voxels) }
}

/// Brings the voxels onto the network's grid.
pub fn prepare(volume: Volume, order: &Order) -> Result<Ready, Fault> {
    let prepared = volume::prepare(&volume, &order.model.manifest, &limits(order))?;
    Ok(Ready { volume, prepared })
}

/// Labels the voxels.
pub fn segment(
    engine: &mut dyn Engine,
    ready: Ready,
    order: &Order,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Labelled, Fault> {
    let Ready { volume, prepared } = ready;
    let labels = engine.segment(prepared, order.options, progress)?;
    Ok(Labelled { volume, labels, folder: None })
}

/// Writes the files of these formats into a staging folder beside their place.
pub fn finish(
    labelled: Labelled,
    order: &Order,
    formats: &[Format],
    facts: &EngineFacts,
    now: SystemTime,
    replaces: Option<Replaced>,
) -> Result<Finished, Fault> {
    let staging = StagingDir::new_in(&order.output)?;
    let request = ResultRequest {
        model: &order.model,
        settings: settings(order, facts, &labelled.volume.source),
        formats,
        dates: JobDates::utc(now),
        device: facts.device.clone(),
        replaces,
        wanted: &order.wanted,
    };
    let mut results = results::build(&labelled.labels, &labelled.volume, &request, staging.path())?;
    results.folder = labelled.folder.unwrap_or(results.folder);
    Ok(Finished { results, staging })
}

/// Publishes the files under their name.
pub fn deliver(finished: Finished, order: &Order) -> Result<Receipt, Fault> {
    delivery::publish(finished.staging, &order.output.join(&finished.results.folder))
}

fn settings(order: &Order, facts: &EngineFacts, source: &Source) -> Settings {
    let SegmentOptions { step, mirror, skip_air } = order.options;
    // Only where it made a difference: allowing it changes no other result.
    let assume_mbq = matches!(source, Source::Case(case) if case.channels.iter().any(Series::dose_was_assumed));
    Settings { step, mirror, skip_air, precision: facts.precision.clone(), irregular: order.irregular, assume_mbq }
}
