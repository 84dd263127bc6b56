//! A candidate against the serving model: whole segmentations of locked cases, interrupted and taken up again, and what the gates get of it.

use crate::support::made;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stunetd::models::{Aggregation, Generation};
use stunetd::segment::{Engine, TorchEngine};
use stunetd::stunet::learning::IGNORED;
use stunetd::stunet::{Architecture, DeviceChoice, Precision};
use stunetd::training::data::Random;
use stunetd::training::evaluation::{Request, Subject, measure};
use stunetd::training::gates::{Evaluation, Picture};
use stunetd::training::run::{Command, Event};
use stunetd::volume::nifti::{self, NiftiGeometry};
use stunetd::volume::{Affine, Quantity, Source, Volume};

const SHAPE: [usize; 3] = [18, 20, 36];

fn model(folder: &Path, seed: u64) -> Generation {
    let architecture = Architecture {
        in_channels: 1,
        num_classes: 4,
        dims: [4, 4, 8, 8, 8, 8],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: Architecture::OFFICIAL_STRIDES,
    };
    made::generation(folder, made::manifest(&architecture, [32, 16, 32], Aggregation::Logits), seed)
}

fn write(path: &Path, data: Vec<f32>) -> PathBuf {
    let affine = Affine::new([1.5, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 0.0, 1.5], [0.0; 3]).expect("affine");
    let source = Source::Nifti { path: path.into(), digest: [0; 32], geometry: Box::new(NiftiGeometry::from_affine(&affine)) };
    let volume = Volume { data, channels: 1, shape: SHAPE, affine, quantity: vec![Quantity::Unknown], source };
    nifti::write_volume(std::fs::File::create(path).expect("file"), &volume).expect("written");
    path.into()
}

/// A case of noise, with blocks of labels where it is labelled.
fn subject(folder: &Path, name: &str, patient: &str, seed: u64, labelled: bool) -> Subject {
    let mut random = Random::new(seed, 0);
    let voxels: usize = SHAPE.iter().product();
    let image = (0..voxels).map(|_| random.normal() as f32).collect();
    let label = |i: usize| match (i / (20 * 36), i % 36) {
        (0..8, 0..18) => 1.0,
        (8.., 0..18) => 2.0,
        (0, _) => f32::from(IGNORED),
        _ => 0.0,
    };
    Subject {
        name: name.into(),
        patient: patient.into(),
        subgroups: BTreeMap::from([("kernel".to_string(), "B30f".to_string())]),
        image: write(&folder.join(format!("{name}-image.nii.gz")), image),
        labels: labelled.then(|| write(&folder.join(format!("{name}-labels.nii.gz")), (0..voxels).map(label).collect())),
        reviewed: if labelled { vec![1, 3] } else { Vec::new() },
    }
}

struct World {
    folder: tempfile::TempDir,
    models: [Generation; 2],
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().expect("folder");
        let models = [model(&folder.path().join("serving"), 1), model(&folder.path().join("candidate"), 2)];
        World { folder, models }
    }

    /// A run's folder with a request.
    fn run(&self, name: &str) -> PathBuf {
        let run = self.folder.path().join(name);
        std::fs::create_dir_all(&run).expect("folder");
        let request = Request {
            serving: self.models[0].dir.clone(),
            candidate: self.models[1].dir.clone(),
            locked: vec![subject(&run, "aa", "p1", 1, true), subject(&run, "ab", "p1", 2, true), subject(&run, "ac", "p2", 3, true)],
            studies: vec![subject(&run, "ba", "p3", 4, false)],
            step: 0.5,
            mirror: false,
        };
        request.write(&run).expect("request");
        run
    }

    /// One process' life: `stop_after` so many scores it is asked to go. The last event, and how many engines were opened.
    fn live(&self, run: &Path, scores: &str, stop_after: Option<u64>) -> (Event, usize) {
        let (ask, commands): (Sender<Command>, Receiver<Command>) = unbounded();
        let (mut last, mut opened) = (None, 0);
        let mut open = |model: &Generation| {
            opened += 1;
            let engine: Box<dyn Engine> = Box::new(TorchEngine::open(model, DeviceChoice::Cpu, Precision::F32, Some(1))?);
            Ok(engine)
        };
        let mut tell = |event: &Event| {
            if matches!(event, Event::Saved { step } if Some(*step) == stop_after) {
                ask.send(Command::Evict).expect("asked");
            }
            last = Some(event.clone());
            Ok(())
        };
        measure(run, &self.folder.path().join(scores), &mut open, &commands, &mut tell).expect("measured");
        (last.expect("an event"), opened)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: PathBuf) -> T {
    serde_json::from_slice(&std::fs::read(path).expect("file")).expect("json")
}

#[test]
fn an_interrupted_comparison_comes_to_the_same() {
    let world = World::new();
    let calm = world.run("calm");
    let (last, opened) = world.live(&calm, "scores-a", None);
    assert!(matches!(last, Event::Finished { .. }), "{last:?}");
    assert_eq!(opened, 4, "each model for its cases and once more for the time");

    let rough = world.run("rough");
    for stop in [1, 5, 20, 33] {
        let (last, _) = world.live(&rough, "scores-b", Some(stop));
        assert!(matches!(last, Event::Evicted { step } if step >= stop), "{stop}: {last:?}");
        assert!(!rough.join("evaluation.json").exists());
    }
    assert!(matches!(world.live(&rough, "scores-b", None).0, Event::Finished { .. }));
    // What was measured is not measured again.
    let again = world.run("again");
    assert_eq!(world.live(&again, "scores-b", None).1, 2, "only the time is taken anew");

    let of = |run: &Path| -> Evaluation { read(run.join("evaluation.json")) };
    let (a, b) = (of(&calm), of(&rough));
    assert_eq!((&a.patients, &a.agreement, &a.perturbations, &a.empty), (&b.patients, &b.agreement, &b.perturbations, &b.empty));
    assert_eq!((a.serving.as_str(), a.candidate.as_str()), (world.models[0].digest.as_str(), world.models[1].digest.as_str()));
    assert!(a.technical.finite && a.technical.same_signature && a.technical.repeatable, "{:?}", a.technical);
    assert!(a.technical.seconds.iter().all(|s| *s > 0.0) && a.technical.bytes[0] == a.technical.bytes[1]);
    assert!(a.facts.is_none(), "the trainer's own process does not say where its cases came from");

    // Two patients; of the reviewed classes one is in nobody, and the one that was not reviewed is not scored.
    let ids: Vec<&str> = a.patients.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["p1", "p2"]);
    for patient in &a.patients {
        assert!(patient.scores.contains_key(&1) && !patient.scores.contains_key(&2), "{patient:?}");
        assert!(!patient.absent.contains(&1) && patient.scores.contains_key(&3) == patient.absent.contains(&3), "{patient:?}");
        assert!(patient.scores.values().flatten().all(|s| (0.0..=1.0).contains(&s.dice) && (0.0..=1.0).contains(&s.surface_dice)));
        assert_eq!(patient.subgroups["kernel"], "B30f");
    }
    assert_eq!(a.perturbations.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["noise", "shift", "orientation", "thick slices"]);
    assert!(a.perturbations.iter().all(|p| p.differences.len() >= 3));
    assert_eq!(a.empty.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["air", "noisy air"]);
    assert!(!a.agreement.is_empty() && a.agreement.values().all(|dice| dice.len() == 1));
    let pictures: Vec<Picture> = read(calm.join("pictures.json"));
    assert!(!pictures.is_empty() && pictures.iter().all(|p| p.png.starts_with("iVBORw0KGgo")), "PNG files");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let world = World::new();
    let run = world.run("run");
    let mut request = Request::read(&run).expect("request");
    for name in ["", "../x", "a/b", ".", "a.b"] {
        request.locked[0].name = name.into();
        request.write(&run).expect("written");
        assert_eq!(Request::read(&run).expect_err(name).code.name(), "training.bad_case");
    }
}
