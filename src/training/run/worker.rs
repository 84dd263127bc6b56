//! The loop of the child process: load, learn, listen, save.

use super::commands::may_go_on;
use super::{Command, RunSettings, StepReport, Trainer, checkpoint};
use crate::stunet::learning::{read_tensors, write_tensors};
use crate::stunet::{Device, Network, Precision};
use crate::sys::clock::Stopwatch;
use crate::sys::durable::{self, Step, StorageError};
use crate::training::Error;
use crate::training::data::{CaseFile, Loader, TrainingSet};
use crossbeam::channel::Receiver;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// No more work than this is lost when the process is killed.
const SAVE_AFTER: Duration = Duration::from_secs(600);

/// What the parent is told.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Learning begins, or goes on after `step` steps of `of`.
    Started {
        /// Steps that are done.
        step: u64,
        /// Steps of the whole run.
        of: u64,
        /// Cases with people's labels, and of the rehearsal.
        cases: [usize; 2],
    },
    /// A step is done.
    Step {
        /// What it did.
        #[serde(flatten)]
        report: StepReport,
        /// How long it took, waiting for its batch included.
        seconds: f64,
        /// How long it waited for its batch.
        waited: f64,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Steps that it holds.
        step: u64,
    },
    /// Nothing runs any more.
    Paused {
        /// Steps that are done.
        step: u64,
    },
    /// It goes on.
    Resumed {
        /// Steps that are done.
        step: u64,
    },
    /// It was asked to go, and the checkpoint is there.
    Evicted {
        /// Steps that are done.
        step: u64,
    },
    /// The result is there.
    Finished {
        /// Steps that are done.
        step: u64,
    },
}

/// Where a run works; nothing of it changes the result but the device and its number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Runs the network.
    pub device: Device,
    /// Threads of the network on the CPU.
    pub threads: usize,
    /// Threads that make batches.
    pub loaders: usize,
}

/// Runs what is in `folder` until it is finished or evicted, from the checkpoint on if there is one.
///
/// When the sender of `commands` is gone the parent is: the run saves and ends as if evicted.
///
/// # Errors
/// Settings, cases or weights that do not fit; a loss that is not finite; the disk. What was saved before stays.
pub fn work(
    folder: &Path,
    machine: Machine,
    commands: &Receiver<Command>,
    tell: &mut dyn FnMut(&Event) -> Result<(), Error>,
) -> Result<(), Error> {
    tch::set_num_threads(i32::try_from(machine.threads.clamp(1, 1024)).unwrap_or(1));
    let (settings, text) = RunSettings::read(&folder.join("run.toml"))?;
    let (result, saved) = (folder.join("result.safetensors"), folder.join("checkpoint.safetensors"));
    if result.is_file() {
        return tell(&Event::Finished { step: settings.steps() });
    }
    durable::remove_leftovers(folder)?;
    let (curated, rehearsal) = (case_files(&folder.join("curated"))?, case_files(&folder.join("rehearsal"))?);
    let (start, teacher) = (folder.join("start.safetensors"), folder.join("teacher.safetensors"));
    let distils = settings.against_forgetting.distillation > 0.0;
    let mut weights_files = vec![start.clone()];
    weights_files.extend(distils.then(|| teacher.clone()));
    let identity = identity(&text, &[&weights_files, &curated, &rehearsal])?;
    let open = |paths: &[PathBuf]| paths.iter().map(|path| CaseFile::open(path)).collect::<Result<Vec<_>, _>>();
    let set = TrainingSet {
        curated: open(&curated)?,
        rehearsal: open(&rehearsal)?,
        rehearsal_share: settings.against_forgetting.rehearsal_share,
    };
    set.check(settings.architecture.in_channels)?;
    let classes = settings.architecture.num_classes;
    if set.curated.iter().chain(&set.rehearsal).any(|case| case.allowed().last().is_some_and(|&last| usize::from(last) >= classes)) {
        return Err(Error::Settings(format!("a case has labels beyond the network's {classes} classes")));
    }
    // A teacher is only looked at: what the student rounds it may round too.
    let teaching = if settings.precision()? == Precision::Bf16 { Precision::Bf16 } else { Precision::F32 };
    let teacher = match distils {
        true => Some(Network::open(&teacher, &settings.architecture, machine.device, teaching)?),
        false => None,
    };
    let weights = read_tensors(&start, |found| settings.architecture.check_tensors(found).map_err(|e| e.to_string()))?;
    let (steps, every, plan) = (settings.steps(), settings.checkpoint_steps, settings.batch_plan());
    let mut trainer = Trainer::new(settings, weights, teacher, machine.device)?;
    checkpoint::restore(&mut trainer, &saved, &identity)?;
    tell(&Event::Started { step: trainer.step(), of: steps, cases: [set.curated.len(), set.rehearsal.len()] })?;

    let save = |trainer: &Trainer, tell: &mut dyn FnMut(&Event) -> Result<(), Error>| {
        checkpoint::save(trainer, &saved, &identity)?;
        tell(&Event::Saved { step: trainer.step() })
    };
    let mut saved_at = Stopwatch::start();
    let mut loader = Loader::start(Arc::new(set), plan, trainer.step(), machine.loaders)?;
    while trainer.step() < steps {
        if !may_go_on(commands, trainer.step(), tell)? {
            save(&trainer, tell)?;
            return tell(&Event::Evicted { step: trainer.step() });
        }
        let watch = Stopwatch::start();
        let batch = loader.next_batch()?;
        let waited = watch.seconds();
        let report = trainer.learn(&batch)?;
        tell(&Event::Step { report, seconds: watch.seconds(), waited })?;
        // When a checkpoint is written changes nothing of what comes out.
        if (trainer.step() % every == 0 || saved_at.elapsed() >= SAVE_AFTER) && trainer.step() < steps {
            save(&trainer, tell)?;
            saved_at = Stopwatch::start();
        }
    }
    drop(loader);
    write_tensors(&result, &trainer.result()?, HashMap::from([("run".to_string(), identity)]))?;
    tell(&Event::Finished { step: steps })
}

/// The case files of a folder by name; none if there is no folder.
fn case_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let unreadable = |source| Error::Storage(StorageError { step: Step::Read, path: folder.into(), source });
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.extension().is_some_and(|end| end == "safetensors") && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a checkpoint has to belong to: the settings, and the name and content of each set of files.
fn identity(settings: &str, sets: &[&[PathBuf]]) -> Result<String, Error> {
    let mut hash = Sha256::new();
    hash.update((settings.len() as u64).to_le_bytes());
    hash.update(settings);
    for files in sets {
        hash.update((files.len() as u64).to_le_bytes());
        for path in *files {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(content(path)?);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// SHA-256 of a file.
fn content(path: &Path) -> Result<[u8; 32], Error> {
    let unreadable = |source| Error::Storage(StorageError { step: Step::Read, path: path.into(), source });
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(hash.finalize().into()),
            read => hash.update(&buffer[..read]),
        }
    }
}
