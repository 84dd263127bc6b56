//! The loop of the child process: one model, case and change after the other.

use super::pictures::pictures;
use super::{CHANGES, CaseScore, Change, Request, Subject, empty_inputs, gather, score};
use crate::fault::{Code, Fault};
use crate::models::Generation;
use crate::segment::{Engine, SegmentOptions};
use crate::stunet::learning::read_tensors;
use crate::sys::clock::Stopwatch;
use crate::sys::durable::{self, Step, StorageError};
use crate::training::gates::Technical;
use crate::training::run::{Command, Event, may_go_on};
use crate::training::{Error, cases::label_digest};
use crate::volume::{LabelMap, Limits, Volume, nifti, prepare};
use crossbeam::channel::Receiver;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Cases that are also measured under every change of the input.
const CHANGED: usize = 8;
/// Largest file of scores.
const MAX_FILE: u64 = 64 << 20;
/// Hexadecimal digits of a model's digest in names of folders.
const SHORT: usize = 16;
/// How often each model segments the case that time is taken of; the fastest counts.
const TIMED: usize = 3;

/// Opens the engine of a model.
pub type OpenEngine<'a> = dyn FnMut(&Generation) -> Result<Box<dyn Engine>, Fault> + 'a;

/// What tells that the child was asked to go.
enum Stop {
    Asked,
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fault(error.into())
    }
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Stop {
        Stop::Fault(error.into())
    }
}

/// Compares what `run`'s request names, from where an earlier process came to, until it is done or asked to go. `scores` is the folder of scores.
/// At the end the run's folder holds `evaluation.json` and `pictures.json`.
///
/// # Errors
/// Models or cases that can not be read or segmented; the disk. What was scored before stays.
pub fn measure(
    run: &Path,
    scores: &Path,
    open: &mut OpenEngine<'_>,
    commands: &Receiver<Command>,
    tell: &mut dyn FnMut(&Event) -> Result<(), Error>,
) -> Result<(), Fault> {
    let request = Request::read(run)?;
    let models = [Generation::open(&request.serving)?, Generation::open(&request.candidate)?];
    let plain = request.locked.iter().chain(&request.studies).map(|subject| (subject, Change::Plain));
    let changed = CHANGES.into_iter().flat_map(|change| request.locked.iter().take(CHANGED).map(move |subject| (subject, change)));
    let tasks: Vec<(&Subject, Change)> = plain.chain(changed).collect();
    let of = (models.len() * (tasks.len() + empty_inputs(&models[0].manifest).len()) + 1) as u64;
    tell(&Event::Started { step: 0, of, cases: [request.locked.len(), request.studies.len()] })?;
    let options = SegmentOptions { step: request.step, mirror: request.mirror, skip_air: false };
    let mut work = Work { run, scores, options, open, commands, tell, done: 0 };
    match work.all(&request, &models, &tasks) {
        Ok(()) => Ok((work.tell)(&Event::Finished { step: of })?),
        Err(Stop::Asked) => {
            let step = work.done;
            Ok((work.tell)(&Event::Evicted { step })?)
        }
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

struct Work<'a, 'b> {
    run: &'a Path,
    scores: &'a Path,
    options: SegmentOptions,
    open: &'a mut OpenEngine<'b>,
    commands: &'a Receiver<Command>,
    tell: &'a mut dyn FnMut(&Event) -> Result<(), Error>,
    done: u64,
}

impl Work<'_, '_> {
    fn all(&mut self, request: &Request, models: &[Generation; 2], tasks: &[(&Subject, Change)]) -> Result<(), Stop> {
        for model in models {
            self.model(model, tasks)?;
        }
        let technical = self.technical(models, request.locked.first())?;
        let evaluation = gather(request, [&models[0].digest, &models[1].digest], self.scores, CHANGED, technical)?;
        write(&self.run.join("pictures.json"), &pictures(request, [&models[0].digest, &models[1].digest], self.scores, &evaluation)?)?;
        write(&self.run.join("evaluation.json"), &evaluation)?;
        Ok(())
    }

    /// Everything that one model has to segment and has not yet.
    fn model(&mut self, model: &Generation, tasks: &[(&Subject, Change)]) -> Result<(), Stop> {
        let folder = folder_of(self.scores, &model.digest);
        durable::create_dir_all(&folder)?;
        durable::remove_leftovers(&folder)?;
        // Opened when something is left to be done.
        let mut engine: Option<Box<dyn Engine>> = None;
        for (subject, change) in tasks {
            let path = score_file(&folder, &subject.name, change.name());
            if !path.is_file() {
                self.open_once(&mut engine, model)?;
                let volume = change.image(&read_image(&subject.image)?);
                let truth = subject.labels.as_deref().map(|path| read_labels(path, volume.shape)).transpose()?;
                let truth = truth.map(|truth| change.labels(&truth, volume.shape));
                let (shape, spacing) = (volume.shape, volume.spacing_zyx());
                let map = self.segment(&mut engine, model, &volume)?;
                if *change == Change::Plain {
                    let path = labels_file(&folder, &subject.name);
                    durable::write_file_with(&path, |file| nifti::write_labels(file, &map).map_err(StorageError::at(Step::Write, &path)))?;
                }
                write(&path, &score(&values(&map), truth.as_deref(), shape, spacing))?;
            }
            self.ahead()?;
        }
        for (name, volume) in empty_inputs(&model.manifest) {
            let path = score_file(&folder, "empty", name);
            if !path.is_file() {
                self.open_once(&mut engine, model)?;
                let (shape, spacing) = (volume.shape, volume.spacing_zyx());
                let map = self.segment(&mut engine, model, &volume)?;
                write(&path, &score(&values(&map), None, shape, spacing))?;
            }
            self.ahead()?;
        }
        Ok(())
    }

    fn open_once(&mut self, engine: &mut Option<Box<dyn Engine>>, model: &Generation) -> Result<(), Stop> {
        if !may_go_on(self.commands, self.done, self.tell)? {
            return Err(Stop::Asked);
        }
        if engine.is_none() {
            *engine = Some((self.open)(model)?);
        }
        Ok(())
    }

    fn segment(&mut self, engine: &mut Option<Box<dyn Engine>>, model: &Generation, volume: &Volume) -> Result<LabelMap, Stop> {
        let engine = engine.as_mut().ok_or_else(|| Fault::new(Code::InternalBug, "there is no engine"))?;
        let prepared = prepare(volume, &model.manifest, &Limits::default())?;
        let (mut failed, mut asked) = (None, false);
        let labels = engine.segment(prepared, self.options, &mut |_| match may_go_on(self.commands, self.done, self.tell) {
            Ok(go_on) => {
                asked |= !go_on;
                go_on
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        match failed {
            Some(error) => Err(error.into()),
            None if asked => Err(Stop::Asked),
            None => Ok(labels?),
        }
    }

    fn ahead(&mut self) -> Result<(), Stop> {
        self.done += 1;
        Ok((self.tell)(&Event::Saved { step: self.done })?)
    }

    /// Speed and soundness, both models in turn on one case, so that what else the machine does meets both.
    fn technical(&mut self, models: &[Generation; 2], subject: Option<&Subject>) -> Result<Technical, Stop> {
        let path = self.run.join("technical.json");
        if path.is_file() {
            return Ok(read(&path)?);
        }
        let subject = subject.ok_or_else(|| Fault::new(Code::TrainingTooFewCases, "There are no locked cases."))?;
        let volume = read_image(&subject.image)?;
        let [serving, candidate] = models;
        let mut engines = Vec::new();
        for model in models {
            engines.push(Some((self.open)(model)?));
        }
        let (mut seconds, mut bytes, mut digests) = ([f64::MAX; 2], [0u64; 2], Vec::new());
        for _ in 0..TIMED {
            for (i, model) in models.iter().enumerate() {
                let watch = Stopwatch::start();
                let map = self.segment(&mut engines[i], model, &volume)?;
                seconds[i] = seconds[i].min(watch.seconds());
                let device = engines[i].as_ref().and_then(|engine| engine.memory()).map_or(0, |memory| memory.used);
                bytes[i] = bytes[i].max(device + 4 * model.manifest.weights.parameters);
                if i == 1 {
                    digests.push(label_digest(&values(&map)));
                }
            }
        }
        let (old, new) = (&serving.manifest, &candidate.manifest);
        let same_signature = old.architecture == new.architecture
            && old.preprocessing == new.preprocessing
            && old.inference == new.inference
            && old.postprocessing == new.postprocessing
            && old.labels == new.labels;
        let repeatable = digests.windows(2).all(|pair| pair[0] == pair[1]);
        let technical = Technical { finite: finite(candidate)?, same_signature, repeatable, seconds, bytes };
        write(&path, &technical)?;
        Ok(technical)
    }
}

/// Whether every weight is a finite number.
fn finite(model: &Generation) -> Result<bool, Fault> {
    let architecture = &model.manifest.architecture;
    let weights = read_tensors(&model.weights(), |found| architecture.check_tensors(found).map_err(|e| e.to_string()))?;
    for tensor in weights.values() {
        let all = tensor.f_isfinite().and_then(|finite| finite.f_all()).and_then(|all| all.f_int64_value(&[]));
        if all.map_err(|e| Fault::from(Error::from(e)))? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn folder_of(scores: &Path, digest: &str) -> PathBuf {
    scores.join(digest.chars().filter(char::is_ascii_hexdigit).take(SHORT).collect::<String>())
}

pub(super) fn score_file(folder: &Path, subject: &str, change: &str) -> PathBuf {
    folder.join(format!("{subject}.{}.json", change.replace(' ', "_")))
}

pub(super) fn labels_file(folder: &Path, subject: &str) -> PathBuf {
    folder.join(format!("{subject}.nii.gz"))
}

pub(super) fn read_score(scores: &Path, digest: &str, subject: &str, change: &str) -> Result<CaseScore, Fault> {
    read(&score_file(&folder_of(scores, digest), subject, change))
}

pub(super) fn read_image(path: &Path) -> Result<Volume, Fault> {
    nifti::read(path, &Limits::default())
}

/// Label values of a NIfTI file on a grid of this shape.
pub(super) fn read_labels(path: &Path, shape: [usize; 3]) -> Result<Vec<u16>, Fault> {
    let volume = nifti::read(path, &Limits::default())?;
    let value = |v: &f32| Some(*v as u16).filter(|label| f32::from(*label) == *v);
    let labels: Option<Vec<u16>> = volume.data.iter().map(value).collect();
    let fits = volume.channels == 1 && volume.shape == shape;
    let bad = || Fault::new(Code::TrainingCase, format!("{} does not hold labels of its image.", path.display()));
    labels.filter(|_| fits).ok_or_else(bad)
}

pub(super) fn values(map: &LabelMap) -> Vec<u16> {
    (0..map.labels().len()).map(|i| map.labels().get(i)).collect()
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Fault> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map_err(StorageError::at(Step::Read, path))?;
    serde_json::from_str(&text).map_err(|_| Fault::new(Code::TrainingCase, format!("{} can not be read.", path.display())))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Fault> {
    let text = serde_json::to_vec(value).map_err(|e| Fault::new(Code::InternalBug, e.to_string()))?;
    Ok(durable::write_file(path, &text)?)
}
