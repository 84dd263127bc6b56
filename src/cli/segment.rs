//! `stunetd segment`: the street once through, for the series of folders or for NIfTI files. No ledger, no waiting.

use super::progress::Bar;
use super::report::{print_json, print_line};
use crate::config::{ByteSize, Format, Irregular, Share};
use crate::delivery;
use crate::dicom::{PixelFormat, SeriesKey};
use crate::fault::{Class, Code, Fault};
use crate::intake::scan::{Scan, ScanLimits, scan};
use crate::intake::select::{Rule, Verdict, select};
use crate::models::Generation;
use crate::pipeline::{Board, End, Input, JobId, Next, Order, Outcome, Plan, Street, Ticket, WhenPublished, network};
use crate::results::ResultManifest;
use crate::segment::SegmentOptions;
use crate::series::{self, Policy, Series};
use crate::stunet::{DeviceChoice, Precision};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::durable::StagingDir;
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use crate::sys::{libtorch, machine};
use crate::telemetry::{Post, Stage, Urgency, log};
use crate::volume::decode::{Decoder, DecoderConfig, plane_digest};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How often the progress line is made anew.
const TICK: Duration = Duration::from_millis(150);

/// Segments every series of a DICOM folder, or a NIfTI file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// DICOM folders or files (any number of series), or NIfTI files (.nii, .nii.gz)
    #[arg(required = true)]
    pub input: Vec<PathBuf>,
    /// The model: a folder that `stunetd model import` wrote
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Where results go: OUT/<8 hex digits of the volume>/
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// auto, f32, bf16 or f16
    #[arg(long, default_value = "auto")]
    pub precision: Precision,
    /// Average over mirrored copies: up to eight times the work
    #[arg(long)]
    pub mirror: bool,
    /// Lay windows only over the part of a CT that holds more than air: faster, with slightly other labels
    #[arg(long)]
    pub skip_air: bool,
    /// Distance of neighbouring windows as a share of the window
    #[arg(long, default_value = "0.5", value_name = "SHARE")]
    pub step: Share,
    /// What to write, separated by commas: seg, labelmap, nifti, preview
    #[arg(long, value_delimiter = ',', value_name = "FORMATS", default_value = "seg,preview")]
    pub format: Vec<String>,
    /// Missing slices or varying distances: refuse or resample
    #[arg(long, default_value = "refuse")]
    pub irregular: Irregular,
    /// Series with fewer slices are refused
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub min_slices: usize,
    /// Take an injected dose below 10 kBq for one in MBq; the result says so
    #[arg(long)]
    pub assume_mbq: bool,
    /// Host memory that cases in work may hold together [default: what is available]
    #[arg(long, value_name = "SIZE")]
    pub host_memory: Option<ByteSize>,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// What came of one input.
#[derive(Serialize)]
struct Done {
    /// The result folder.
    folder: PathBuf,
    /// `published`, or `already_published`.
    outcome: &'static str,
    /// Seconds by stage.
    seconds: BTreeMap<&'static str, f64>,
    /// Seconds of the steps within `segment`, and `windows`: how many the network saw.
    engine: BTreeMap<&'static str, f64>,
    /// `manifest.json` of that folder.
    manifest: ResultManifest,
}

/// An input that gave no result.
#[derive(Serialize)]
struct Refused {
    #[serde(skip_serializing_if = "Option::is_none")]
    study: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
    code: Code,
    message: &'static str,
    detail: String,
    action: &'static str,
}

impl Refused {
    fn new(subject: &Subject, code: Code, detail: String) -> Refused {
        let (study, series, path) = match subject {
            Subject::Series(key) => (Some(key.study.clone()), Some(key.series.clone()), None),
            Subject::File(path) => (None, None, Some(path.clone())),
        };
        Refused { study, series, path, code, message: code.meaning(), detail, action: code.action() }
    }
}

/// What an input is called.
#[derive(Clone)]
enum Subject {
    Series(SeriesKey),
    File(PathBuf),
}

/// All that is to be told in the end.
#[derive(Default, Serialize)]
struct Report {
    results: Vec<Done>,
    refused: Vec<Refused>,
    /// Files that belong to no series, by code.
    ignored: BTreeMap<&'static str, u64>,
    /// The exit code of the worst failure.
    #[serde(skip)]
    exit: u8,
}

/// Exit code 0 when everything that was found has its result, 1 when something was refused; a failure of the machine has
/// its own code.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    log::start(false, "warn");
    let formats = formats(&args.format)?;
    libtorch::choose(None)?;
    // Before anything starts threads: its workers can be forked, much faster than starting the program anew.
    let decoder = Arc::new(Decoder::new(DecoderConfig { fork: true, ..DecoderConfig::default() })?);
    let shutdown = Shutdown::default();
    signals::listen(shutdown.clone(), FirstSignal::Abandons, None).map_err(super::no_signals)?;
    let model = Arc::new(Generation::open(&args.model)?);
    if args.skip_air {
        model.tells_air()?;
    }
    // Told now, not after minutes of work.
    drop(StagingDir::new_in(&args.out)?);

    let cores = super::cores(args.device);
    cores.start_rayon();
    let mut report = Report::default();
    let mut waiting = find(&args, &model, &decoder, &mut report)?;
    if waiting.is_empty() {
        return report.tell(args.json);
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let host_memory = match args.host_memory {
        Some(size) => size.0,
        None => machine::memory().map_or(u64::MAX, |m| m.available),
    };
    let bar = Bar::wheel("loading the model");
    let order = Arc::new(Order {
        model: model.clone(),
        options: SegmentOptions { step: args.step.get(), mirror: args.mirror, skip_air: args.skip_air },
        irregular: args.irregular,
        assume_mbq: args.assume_mbq,
        formats,
        wanted: Arc::default(),
        output: args.out.clone(),
        published: WhenPublished::Compare,
        decoder,
        host_memory,
    });
    let mut street = Street::start(Plan {
        model,
        host_memory,
        ledger: None,
        disks: None,
        engine: network(args.device, args.precision, cores.torch, None),
        cores,
        clock: clock.clone(),
        metrics: super::metrics()?,
        shutdown: shutdown.clone(),
    })?;
    let total = waiting.len();
    let mut running: BTreeMap<JobId, Subject> = BTreeMap::new();
    loop {
        while let Some((subject, input)) = waiting.pop_front() {
            let job = JobId((total - waiting.len()) as u64);
            match street.submit(
                Ticket { job, since: clock.monotonic(), dated: clock.wall(), urgency: Urgency::Routine, token: None },
                input,
                &order,
                None,
            ) {
                Ok(()) => drop(running.insert(job, subject)),
                Err(input) => {
                    waiting.push_front((subject, input));
                    break;
                }
            }
        }
        if waiting.is_empty() {
            street.close();
        }
        match street.outcome(TICK) {
            Next::Outcome(outcome) => {
                if let Some(subject) = running.remove(&outcome.job) {
                    report.add(&subject, *outcome, &bar)?;
                }
            }
            Next::Nothing => bar.say(doing(street.board(), total - waiting.len() - running.len(), total)),
            Next::Over => break,
        }
    }
    bar.finish();
    street.join();
    if shutdown.is_draining() {
        return Err(Fault::new(Code::InternalShutdown, "Interrupted."));
    }
    report.tell(args.json)
}

/// The formats by name; one that does not exist in this version is `config.not_available`.
fn formats(names: &[String]) -> Result<Vec<Format>, Fault> {
    let one = |name: &String| name.trim().parse().map_err(|why| Fault::new(Code::ConfigNotAvailable, format!("--format {why}")));
    names.iter().map(one).collect()
}

/// Everything to segment among the inputs; what can not be is told to the report.
fn find(args: &Args, model: &Arc<Generation>, decoder: &Decoder, report: &mut Report) -> Result<VecDeque<(Subject, Input)>, Fault> {
    let (mut found, mut all) = (VecDeque::new(), Vec::new());
    let policy = Policy { irregular: args.irregular, min_slices: args.min_slices, ..Policy::default() };
    for path in &args.input {
        if is_nifti(path) && path.is_file() {
            found.push_back((Subject::File(path.clone()), Input::Nifti(path.clone())));
            continue;
        }
        let scan = scan(path, &ScanLimits::default()).map_err(|f| Fault { detail: format!("{}: {}", path.display(), f.detail), ..f })?;
        if let Some(code) = nothing_in(&scan) {
            report.refuse(&Subject::File(path.clone()), Fault::new(code, path.display().to_string()));
            continue;
        }
        let files = ScanLimits::default().file;
        let digest = |path: &Path, frame: u32, format: &PixelFormat| plane_digest(path, frame, format, &files, decoder);
        let grouped = series::group(scan.instances, scan.ignored, &policy, &digest);
        for rejected in grouped.rejected {
            report.refuse(&Subject::Series(rejected.key), Fault::new(rejected.refusal.code, rejected.refusal.detail));
        }
        for file in grouped.ignored {
            *report.ignored.entry(file.code.name()).or_default() += 1;
        }
        all.extend(grouped.series);
    }
    let rules = [Rule::all(model.clone())];
    let series: Vec<&Series> = all.iter().collect();
    for (one, verdict) in all.iter().zip(select(&rules, &series)) {
        let subject = Subject::Series(SeriesKey { study: one.study_uid.to_string(), series: one.series_uid.to_string() });
        if let Some(refusal) = verdict.refusal(&rules, &series) {
            report.refuse(&subject, Fault::new(refusal.code, refusal.detail));
        }
        if let Verdict::Selected { channels, flags, .. } = verdict {
            let mut channels: Vec<Series> = channels.into_iter().map(|i| all[i].clone()).collect();
            channels.iter_mut().for_each(|s| s.warnings.extend(flags.iter().map(|f| (*f).to_owned())));
            found.push_back((subject, Input::Series(channels)));
        }
    }
    Ok(found)
}

fn is_nifti(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.ends_with(".nii") || name.ends_with(".nii.gz")
}

/// Why there is nothing to look at: no file at all, or none that is DICOM.
fn nothing_in(scan: &Scan) -> Option<Code> {
    if scan.is_empty() {
        return Some(Code::InputEmpty);
    }
    let only_others = scan.instances.is_empty() && scan.ignored.iter().all(|f| f.code == Code::InputNotDicom);
    only_others.then_some(Code::InputNotDicom)
}

impl Report {
    /// How a job ended.
    fn add(&mut self, subject: &Subject, outcome: Outcome, bar: &Bar) -> Result<(), Fault> {
        let (folder, word) = match outcome.end {
            Ok(End::Published(receipt)) => (receipt.dir, "published"),
            Ok(End::AlreadyPublished(folder)) => (folder, "already_published"),
            // Nothing further can work either.
            Err(fault) if fault.class == Class::Fatal => return Err(fault),
            Err(fault) => {
                self.refuse(subject, fault);
                return Ok(());
            }
        };
        let seconds = outcome.times.iter().map(|(stage, time)| (stage.name(), time.as_secs_f64())).collect();
        let engine = outcome.times.engine.into_iter().collect();
        let Some(manifest) = delivery::published(&folder)? else {
            return Err(Fault::new(Code::DiskUnreadable, format!("{}: the result has gone", folder.display())));
        };
        let done = Done { folder, outcome: word, seconds, engine, manifest };
        bar.line(&done.line());
        self.results.push(done);
        Ok(())
    }

    fn refuse(&mut self, subject: &Subject, fault: Fault) {
        self.exit = self.exit.max(fault.exit_code());
        self.refused.push(Refused::new(subject, fault.code, fault.detail));
    }

    /// Prints what came of it; returns the exit code.
    fn tell(&self, json: bool) -> Result<ExitCode, Fault> {
        if json {
            super::stdout_failed(print_json(self))?;
            return Ok(self.exit.into());
        }
        for refused in &self.refused {
            super::report::refusal(&refused.subject(), refused.code, &refused.detail);
        }
        if !self.ignored.is_empty() {
            let counts: Vec<String> = self.ignored.iter().map(|(code, n)| format!("{code} {n}")).collect();
            super::report::note(&format!("files that belong to no series: {}", counts.join(", ")));
        }
        let lines: Vec<String> = self.results.iter().map(|d| d.folder.display().to_string()).collect();
        if !lines.is_empty() {
            super::stdout_failed(print_line(&lines.join("\n")))?;
        }
        Ok(self.exit.into())
    }
}

impl Refused {
    fn subject(&self) -> String {
        match (&self.series, &self.path) {
            (Some(series), _) => format!("series {series}"),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => String::new(),
        }
    }
}

impl Done {
    /// One line for a person: what was found and how long it took.
    fn line(&self) -> String {
        let total: f64 = self.seconds.values().sum();
        let found: Vec<&str> = self.manifest.labels.iter().filter(|l| l.voxels > 0).map(|l| l.name.as_str()).collect();
        let few = found.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        let more = if found.len() > 8 { format!(" and {} more", found.len() - 8) } else { String::new() };
        let folder = self.folder.file_name().unwrap_or_default().to_string_lossy();
        match self.outcome {
            "published" => format!("{folder}: {} labels in {total:.1} s: {few}{more}", found.len()),
            _ => format!("{folder}: has this result already"),
        }
    }
}

/// What the wheel says: how many are done and how far the others are.
fn doing(board: &Board, done: usize, total: usize) -> String {
    let beats = board.beats().into_iter().map(|beat| match beat.progress {
        Some(p) if beat.post == Post::Stage(Stage::Segment) => format!("{} {}/{} windows", beat.post.name(), p.done, p.of),
        _ => beat.post.name().to_string(),
    });
    let stages: Vec<String> = beats.collect();
    format!("{done} of {total} done; {}", stages.join(", "))
}
