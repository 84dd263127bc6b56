//! The child process that makes cases: `stunetd case-worker`. It reads one JSON object a line and answers each with one. Cases are made
//! in a child because libtorch gives memory back only when a process ends, and because nobody waits for them.

use super::{Admitted, Curator, Store};
use crate::fault::{Code, Fault};
use crate::intake::scan::{ScanLimits, scan};
use crate::models::Generation;
use crate::segment::{DeviceChoice, Engine, SegmentOptions, TorchEngine};
use crate::series::{self, Policy};
use crate::stunet::Precision;
use crate::training::cases::{CaseError, changed_nothing};
use crate::volume::decode::{Decoder, plane_digest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest line of a request.
const MAX_LINE: u64 = 16 << 20;

/// How cases are made; the first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The state folder.
    pub state: PathBuf,
    /// The folder of the model whose labels cases have.
    pub model: PathBuf,
    /// Where results are published.
    pub results: PathBuf,
    /// Distance of the model's windows as a share of the window.
    pub step: f64,
    /// Whether mirrored copies are averaged.
    pub mirror: bool,
    /// Fewest slices of a series.
    pub min_slices: usize,
    /// Threads of the network.
    pub threads: usize,
}

/// What the child is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Make a case of a folder with labels.
    Admit {
        /// The folder.
        folder: PathBuf,
        /// What it is like.
        print: String,
        /// Where its image may lie.
        places: Vec<PathBuf>,
        /// Cases that were given up.
        inactive: BTreeSet<String>,
        /// Whether labels that are a model's own are refused at once: a result that came back.
        received: bool,
    },
    /// Keep a series without labels.
    Keep {
        /// A folder that holds it.
        folder: PathBuf,
        /// Its Series Instance UID.
        series: String,
        /// Cases that were given up.
        inactive: BTreeSet<String>,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// The case is in the store.
    Made {
        /// Its name.
        case: String,
        /// Name of a [`Code`] and what exactly, when the record beside the labels does not hold.
        problem: Option<(String, String)>,
    },
    /// There is none.
    Refused {
        /// Name of a [`Code`].
        code: String,
        /// What exactly; no patient data.
        detail: String,
        /// The study whose image was not found.
        study: Option<String>,
    },
}

/// Reads requests until there are no more. A refusal is an answer; what makes the next case impossible, too, ends the loop.
///
/// # Errors
/// The model or the store can not be opened; the disk; the pipes.
pub fn serve(requests: impl BufRead, mut answers: impl Write, decoder: &Decoder) -> Result<(), Fault> {
    let mut lines = Lines(requests);
    let Some(setting) = lines.next_line::<Setting>()? else { return Ok(()) };
    let store = Store::open(&setting.state)?;
    let model = Arc::new(Generation::open(&setting.model)?);
    model.verify(&mut |_, _| {})?;
    let mut engine = TorchEngine::open(&model, DeviceChoice::Cpu, Precision::Auto, Some(setting.threads.max(1)))?;
    while let Some(request) = lines.next_line::<Request>()? {
        let places = match &request {
            Request::Admit { places, .. } => places.as_slice(),
            Request::Keep { .. } => &[],
        };
        let mut curator = Curator {
            store: &store,
            model: &model,
            engine: Some(&mut engine as &mut dyn Engine),
            options: SegmentOptions { step: setting.step, mirror: setting.mirror, ..SegmentOptions::default() },
            decoder,
            places,
            results: Some(&setting.results),
            policy: Policy { min_slices: setting.min_slices, ..Policy::default() },
        };
        let answer = match answer(&mut curator, &request) {
            Ok(Admitted { stored, problem }) => {
                Answer::Made { case: stored.name, problem: problem.map(|fault| (fault.code.name().into(), fault.detail)) }
            }
            // Disk and ledger: the same for the next one.
            Err(fault) if fault.exit_code() >= 70 => return Err(fault),
            Err(fault) => Answer::Refused { study: missing(&fault, &request), code: fault.code.name().into(), detail: fault.detail },
        };
        let told = serde_json::to_writer(&mut answers, &answer).map_err(std::io::Error::from);
        told.and_then(|()| answers.write_all(b"\n")).and_then(|()| answers.flush()).map_err(|e| broken(&e))?;
    }
    Ok(())
}

fn answer(curator: &mut Curator<'_>, request: &Request) -> Result<Admitted, Fault> {
    match request {
        Request::Admit { folder, print, inactive, received, .. } => {
            let admitted = curator.admit(folder, print, &|case| inactive.contains(case))?;
            let stored = &admitted.stored;
            match stored.record.changed.values().copied().find(|share| *received && changed_nothing(*share)) {
                None => Ok(admitted),
                Some(share) => {
                    curator.store.remove(&stored.name)?;
                    curator.store.unlink(&stored.name)?;
                    Err(CaseError::Unchanged { percent: share * 100.0 }.into())
                }
            }
        }
        Request::Keep { folder, series, inactive } => {
            let channels = channels(curator, folder, series)?;
            let stored = curator.keep_study(channels, &|case| inactive.contains(case))?;
            Ok(Admitted { stored, problem: None })
        }
    }
}

/// The series of that UID in a folder; a model of several channels needs more than one series knows of.
fn channels(curator: &Curator<'_>, folder: &Path, uid: &str) -> Result<Vec<series::Series>, Fault> {
    let found = scan(folder, &ScanLimits::default())?;
    let files = ScanLimits::default().file;
    let digest = |path: &Path, frame: u32, format: &crate::dicom::PixelFormat| plane_digest(path, frame, format, &files, curator.decoder);
    let instances = found.instances.into_iter().filter(|instance| instance.series_uid.as_str() == uid).collect();
    let grouped = series::group(instances, Vec::new(), &curator.policy, &digest);
    match grouped.series.into_iter().next() {
        Some(series) => Ok(vec![series]),
        None => Err(CaseError::NoImage("the series is not there any more".into()).into()),
    }
}

fn missing(fault: &Fault, request: &Request) -> Option<String> {
    match request {
        Request::Admit { folder, .. } if fault.code == Code::CasesNoImage => Curator::study_of(folder),
        _ => None,
    }
}

struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    fn next_line<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, Fault> {
        let mut line = String::new();
        let read = std::io::Read::take(&mut self.0, MAX_LINE).read_line(&mut line).map_err(|e| broken(&e))?;
        match read {
            0 => Ok(None),
            _ => serde_json::from_str(&line)
                .map(Some)
                .map_err(|_| Fault::new(Code::InternalBug, "A request to the case worker can not be read.")),
        }
    }
}

fn broken(error: &std::io::Error) -> Fault {
    Fault::new(Code::InternalBug, format!("The pipe of the case worker: {}.", error.kind()))
}
