//! `stunetd inspect`: every series of an input, accepted or why not, with its geometry and statistics.

mod report;
mod table;

use super::report::print_json;
use super::selection::Selection;
use crate::config::{self, Irregular};
use crate::dicom::{PixelFormat, SeriesKey};
use crate::fault::{Class, Code, Fault};
use crate::intake::scan::{Scan, ScanLimits, scan};
use crate::intake::select::{self, Rule};
use crate::series::{self, Case, Grouped, Policy, RejectedSeries, Series};
use crate::sys::durable;
use crate::volume::decode::{Decoder, DecoderConfig, plane_digest};
use crate::volume::{self, PetValues, ReadLimits, Volume, nifti};
use report::{Ignored, Rejected, Report, VolumeEntry};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Shows what is in a folder: every series, accepted or why not, with geometry and statistics.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A DICOM folder or file (any number of series), or a NIfTI file (.nii, .nii.gz)
    pub input: PathBuf,
    /// Missing slices or varying distances: refuse or resample [default: refuse, or what the configuration says]
    #[arg(long)]
    pub irregular: Option<Irregular>,
    /// Series with fewer slices are refused [default: 3, or what the configuration says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub min_slices: Option<u16>,
    /// Take an injected dose below 10 kBq for one in MBq [default: what the configuration says, else not]
    #[arg(long)]
    pub assume_mbq: bool,
    /// Tell what the rules of this configuration say of every series
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
    /// Write every volume as DIR/<8 hex digits of the volume>.nii.gz
    #[arg(long, value_name = "DIR")]
    pub nifti: Option<PathBuf>,
}

/// Exit code 0 when nothing was refused that a person would want, 1 otherwise. Localizers, reports and the like do not count.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    if let Some(folder) = &args.nifti {
        durable::create_dir_all(folder)?;
    }
    let is_file = args.input.is_file();
    let report = if is_file && is_nifti(&args.input) { nifti_file(&args)? } else { dicom(&args)? };
    super::stdout_failed(if args.json { print_json(&report) } else { table::print(&report) })?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

fn nifti_file(args: &Args) -> Result<Report, Fault> {
    let volume = nifti::read(&args.input, &volume::Limits::default())?;
    let mut report = Report::default();
    for channel in 0..volume.channels {
        report.volumes.push(VolumeEntry::of(&volume, channel));
    }
    Ok(report)
}

fn dicom(args: &Args) -> Result<Report, Fault> {
    // Before the scan starts threads: its workers can be forked.
    let decoder = Decoder::new(DecoderConfig { fork: true, ..DecoderConfig::default() })?;
    let limits = ScanLimits::default();
    let Scan { instances, ignored } = scan(&args.input, &limits)?;
    if instances.is_empty() && ignored.is_empty() {
        return Err(Fault::new(Code::InputEmpty, String::new()));
    }
    let Asked { rules, policy, assume_mbq } = asked(args)?;
    let digest = |path: &Path, frame: u32, format: &PixelFormat| plane_digest(path, frame, format, &limits.file, &decoder);
    let Grouped { series, rejected, ignored } = series::group(instances, ignored, &policy, &digest);

    let mut report = Report { ignored_files: ignored.iter().map(Ignored::of).collect(), ..Report::default() };
    for rejected in &rejected {
        report.ignored_files.extend(undecodable(rejected, &limits, &decoder));
        report.rejected.push(Rejected::of(rejected));
    }
    let read_limits = ReadLimits { pet: PetValues::Stored, assume_mbq, files: limits.file, ..ReadLimits::default() };
    let selections = rules.map(|rules| Selection::of_all(&rules, &series)).unwrap_or_default();
    let mut selections = selections.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    for series in series {
        let selection = selections.next().flatten();
        let (key, files) = (key_of(&series), series.planes.len());
        match volume::read(Case { channels: vec![series], grid: 0, volume_key: [0; 32] }, &read_limits, &decoder) {
            Ok(volume) => {
                let mut entry = VolumeEntry::of(&volume, 0);
                entry.selection = selection;
                if let Some(folder) = &args.nifti {
                    entry.nifti = Some(write_nifti(&volume, &entry.volume_key, folder)?);
                }
                report.volumes.push(entry);
            }
            Err(fault) if fault.class == Class::Fatal => return Err(fault),
            Err(fault) => report.rejected.push(Rejected::unread(&key, files, &fault)),
        }
    }
    Ok(report)
}

/// By what the series are judged.
struct Asked {
    /// The rules of the configuration, if one is named.
    rules: Option<Vec<Rule>>,
    policy: Policy,
    assume_mbq: bool,
}

/// What the command line says, then the configuration.
fn asked(args: &Args) -> Result<Asked, Fault> {
    let config = args.config.as_deref().map(config::load).transpose()?;
    let mut policy = config.as_ref().map(Policy::of).unwrap_or_default();
    policy.irregular = args.irregular.unwrap_or(policy.irregular);
    policy.min_slices = args.min_slices.map_or(policy.min_slices, usize::from);
    let assume_mbq = args.assume_mbq || config.as_ref().is_some_and(|config| config.intake.assume_mbq);
    Ok(Asked { rules: config.as_ref().map(select::rules).transpose()?, policy, assume_mbq })
}

fn key_of(series: &Series) -> SeriesKey {
    SeriesKey { study: series.study_uid.to_string(), series: series.series_uid.to_string() }
}

/// The files of a series with too few slices that can not be decoded: no volume will show it.
fn undecodable(rejected: &RejectedSeries, limits: &ScanLimits, decoder: &Decoder) -> Vec<Ignored> {
    let Some(series) = rejected.series.as_deref().filter(|_| rejected.refusal.code == Code::SeriesTooFew) else {
        return Vec::new();
    };
    let check = |(plane, file): (&series::Plane, &PathBuf)| {
        let fault = plane_digest(&plane.path, plane.frame.unwrap_or(1), &plane.pixels, &limits.file, decoder).err()?;
        Some(Ignored::because(file, &fault))
    };
    series.planes.iter().zip(file_of_planes(series, rejected)).filter_map(check).collect()
}

/// The relative path of each plane's file: `files` of a rejected series holds those of its planes.
fn file_of_planes<'a>(series: &'a Series, rejected: &'a RejectedSeries) -> impl Iterator<Item = &'a PathBuf> {
    let file_of = |plane: &'a series::Plane| {
        // `b/1` ends in `1`, too: the longest name is the right one.
        rejected.files.iter().filter(|file| plane.path.ends_with(file)).max_by_key(|file| file.components().count())
    };
    series.planes.iter().filter_map(file_of)
}

fn write_nifti(volume: &Volume, key: &str, folder: &Path) -> Result<PathBuf, Fault> {
    let path = folder.join(format!("{}.nii.gz", key.get(..8).unwrap_or(key)));
    durable::write_file_with(&path, |file| {
        nifti::write_volume(file, volume).map_err(durable::StorageError::at(durable::Step::Write, &path))
    })?;
    Ok(path)
}
