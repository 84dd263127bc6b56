//! The first child of a run: its folder.

use super::{Assignment, PLAN};
use crate::fault::Fault;
use crate::models::Generation;
use crate::segment::SegmentOptions;
use crate::sys::durable::{self, Step, StorageError};
use crate::training::Error;
use crate::training::evaluation::{OpenEngine, Request, Subject};
use crate::training::gates::ChangePlan;
use crate::training::run::{AgainstForgetting, Command, Event, RunSettings, may_go_on};
use crate::training::store::{Store, Stored};
use crate::volume::{Limits, prepare};
use crossbeam::channel::Receiver;
use std::fs;
use std::path::Path;

/// Makes the folder of a run ready for its trainer, or goes on with it. Cases that the base model was not asked about are asked about first.
///
/// # Errors
/// Cases that may not be learned from (`cases.*`), a plan that is not one, models that can not be opened, the disk.
pub fn prepare_run(
    run: &Path,
    open: &mut OpenEngine<'_>,
    commands: &Receiver<Command>,
    tell: &mut dyn FnMut(&Event) -> Result<(), Error>,
) -> Result<(), Fault> {
    let assignment = Assignment::read(run)?;
    let plan = ChangePlan::read(&run.join(PLAN))?;
    let store = Store::open(&assignment.state)?;
    let (base, serving) = (Generation::open(&assignment.base)?, Generation::open(&assignment.serving)?);
    let of = (assignment.training.len() + assignment.rehearsal.len()) as u64;
    tell(&Event::Started { step: 0, of, cases: [assignment.training.len(), assignment.rehearsal.len()] })?;
    let options = SegmentOptions { step: assignment.step, mirror: assignment.mirror, skip_air: false };
    let mut engine = None;
    let (mut step, targets) = (0, plan.targets());
    let all: Vec<u16> = std::iter::once(0).chain(base.manifest.labels.iter().map(|label| label.value)).collect();
    // What the base model knows badly it may not teach: that would be the class that is to get better.
    let mut rehearsed: Vec<u16> = all.iter().copied().filter(|value| !targets.contains(value)).collect();
    rehearsed.sort_unstable();
    for (kind, names) in [("curated", &assignment.training), ("rehearsal", &assignment.rehearsal)] {
        let folder = run.join(kind);
        durable::create_dir_all(&folder)?;
        durable::remove_leftovers(&folder)?;
        for name in names {
            let mut case = store.case(name)?;
            let to = folder.join(format!("{name}.safetensors"));
            if !to.is_file() {
                if !may_go_on(commands, step, tell)? {
                    return Ok(tell(&Event::Evicted { step })?);
                }
                if case.model_labels(&base.digest)?.is_none() {
                    let engine = match &mut engine {
                        Some(engine) => engine,
                        None => engine.insert(open(&base)?),
                    };
                    let prepared = prepare(&case.image()?, &base.manifest, &Limits::default())?;
                    let mut heard = Ok(true);
                    let labels = engine.segment(prepared, options, &mut |_| {
                        heard = may_go_on(commands, step, tell);
                        matches!(heard, Ok(true))
                    });
                    if !heard? {
                        return Ok(tell(&Event::Evicted { step })?);
                    }
                    let map = labels?;
                    let values: Vec<u16> = (0..map.labels().len()).map(|i| map.labels().get(i)).collect();
                    case.keep_model_labels(&base, &values)?;
                }
                let allowed = if kind == "curated" { case.reviewed(&base)? } else { rehearsed.clone() };
                link(&case.prepared(&base, &allowed)?, &to)?;
            }
            step += 1;
            tell(&Event::Saved { step })?;
        }
    }
    link(&base.weights(), &run.join("start.safetensors"))?;
    link(&serving.weights(), &run.join("teacher.safetensors"))?;
    request(run, &assignment, &store, &base)?.write(run)?;
    settings(&base, &plan, targets).write(&run.join("run.toml"))?;
    Ok(tell(&Event::Finished { step })?)
}

/// The recipe of a plan.
fn settings(base: &Generation, plan: &ChangePlan, targets: Vec<u16>) -> RunSettings {
    let recipe = plan.recipe;
    RunSettings {
        epochs: recipe.epochs,
        iterations: recipe.iterations,
        batch: recipe.batch,
        learning_rate: recipe.learning_rate,
        checkpoint_steps: recipe.iterations,
        precision: recipe.precision.name().into(),
        against_forgetting: AgainstForgetting {
            rehearsal_share: recipe.rehearsal_share,
            l2_sp: recipe.l2_sp,
            distillation: recipe.distillation,
            targets,
            average: recipe.average,
        },
        ..RunSettings::fine_tuning(&base.manifest, recipe.seed)
    }
}

fn request(run: &Path, assignment: &Assignment, store: &Store, base: &Generation) -> Result<Request, Fault> {
    let subjects = |names: &[String]| names.iter().map(|name| subject(&store.case(name)?, base)).collect::<Result<Vec<_>, Fault>>();
    Ok(Request {
        serving: assignment.serving.clone(),
        candidate: run.join("candidate"),
        locked: subjects(&assignment.locked)?,
        studies: subjects(&assignment.studies)?,
        step: assignment.step,
        mirror: assignment.mirror,
    })
}

fn subject(case: &Stored, base: &Generation) -> Result<Subject, Fault> {
    let labelled = case.is_labelled();
    let reviewed = if labelled { case.reviewed(base)?.into_iter().filter(|label| *label != 0).collect() } else { Vec::new() };
    Ok(Subject {
        name: case.name.clone(),
        patient: case.record.patient.clone(),
        subgroups: case.subgroups(),
        image: case.image_file(),
        labels: case.labels_file(),
        reviewed,
    })
}

/// The same file under another name; a copy where the two are not on one disk.
fn link(from: &Path, to: &Path) -> Result<(), Fault> {
    match fs::hard_link(from, to) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        Ok(()) => {}
        Err(_) => {
            let bytes = fs::File::open(from).map_err(StorageError::at(Step::Read, from))?;
            let mut bytes = std::io::BufReader::new(bytes);
            durable::write_file_with(to, |file| std::io::copy(&mut bytes, file).map(|_| ()).map_err(StorageError::at(Step::Write, to)))?;
        }
    }
    durable::sync_dir(durable::parent(to)).map_err(Fault::from)?;
    Ok(())
}
