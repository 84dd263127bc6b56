//! The child process that trains: killed, paused and evicted, it comes to the same weights.

use super::sampling::write_case;
use super::{params, shapes};
use crate::need;
use crate::support::{Tensors, golden};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use stunetd::stunet::Architecture;
use stunetd::stunet::learning::write_tensors;
use stunetd::training::data::Random;
use stunetd::training::run::{AgainstForgetting, RunSettings};
use stunetd::training::{Counting, Flavour, SgdSettings};
use tch::Kind;

/// Steps of the test's run.
const STEPS: u64 = 10;

fn settings(architecture: Architecture) -> RunSettings {
    RunSettings {
        schema: 1,
        seed: 42,
        epochs: 5,
        iterations: STEPS / 5,
        batch: 2,
        patch: [32; 3],
        learning_rate: 1e-2,
        precision: "f32".into(),
        checkpoint_steps: 3,
        mirror: [true; 3],
        masked: vec![false],
        counting: Counting::Sample,
        flavour: Flavour::V2,
        optimizer: SgdSettings::default(),
        against_forgetting: AgainstForgetting { rehearsal_share: 0.5, l2_sp: 1e-3, distillation: 1.0, targets: vec![1], average: 0.9 },
        architecture,
    }
}

/// A run's folder, ready to be started. The network knows three classes, of which cases review two.
fn prepare(folder: &Path) -> Option<PathBuf> {
    let file = Tensors::open(&golden("stunet/training_sample_dice.safetensors")?);
    let weights = params(&file, "init/");
    let architecture = Architecture::infer(&shapes(&weights), Architecture::OFFICIAL_STRIDES).expect("a STU-Net");
    for kind in ["curated", "rehearsal"] {
        std::fs::create_dir_all(folder.join(kind)).expect("folder");
    }
    let architecture = Architecture { num_classes: 4, ..architecture };
    let fresh = stunetd::training::initial_weights(&architecture, 5).expect("weights");
    let named = |weights: &std::collections::HashMap<String, tch::Tensor>| -> Vec<(String, tch::Tensor)> {
        architecture.state_dict().into_iter().map(|(name, _)| (name.clone(), weights[&name].to_kind(Kind::Float))).collect()
    };
    let start = stunetd::training::transfer(&weights, fresh, &architecture, false).expect("transfer");
    write_tensors(&folder.join("start.safetensors"), &named(&start), Default::default()).expect("start");
    write_tensors(&folder.join("teacher.safetensors"), &named(&start), Default::default()).expect("teacher");
    write_case(&folder.join("curated"), "a", [30, 28, 40], 1);
    write_case(&folder.join("curated"), "b", [24, 32, 36], 1);
    write_case(&folder.join("rehearsal"), "c", [28, 24, 44], 1);
    settings(architecture).write(&folder.join("run.toml")).expect("settings");
    Some(folder.to_path_buf())
}

/// The same folder, without what a run writes.
fn copy(from: &Path, to: &Path) -> PathBuf {
    for name in [
        "run.toml",
        "start.safetensors",
        "teacher.safetensors",
        "curated/a.safetensors",
        "curated/b.safetensors",
        "rehearsal/c.safetensors",
    ] {
        let to = to.join(name);
        std::fs::create_dir_all(to.parent().expect("parent")).expect("folder");
        std::fs::copy(from.join(name), to).expect("copy");
    }
    to.to_path_buf()
}

struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Worker {
    fn start(run: &Path) -> Worker {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stunetd"))
            .args(["train-worker", "--threads", "1", "--run"])
            .arg(run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        Worker { stdin: child.stdin.take(), child, lines }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.stdin.as_mut().expect("stdin"), "{command}").expect("told");
    }

    /// The next event of this kind.
    fn hear(&mut self, event: &str) -> serde_json::Value {
        self.events().find(|e| e["event"] == event).unwrap_or_else(|| panic!("no event {event}"))
    }

    fn events(&mut self) -> impl Iterator<Item = serde_json::Value> {
        self.lines.by_ref().map(|line| serde_json::from_str(&line.expect("line")).expect("one JSON object a line"))
    }

    fn code(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.child.wait().expect("its end").code()
    }
}

fn result(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("result.safetensors")).expect("a result")
}

#[test]
fn killed_at_random_it_comes_to_the_same_weights() {
    let folder = tempfile::tempdir().expect("folder");
    let calm = need!(prepare(&folder.path().join("calm")), "golden not here");
    let mut worker = Worker::start(&calm);
    let events: Vec<serde_json::Value> = worker.events().collect();
    assert_eq!(worker.code(), Some(0));
    let steps: Vec<&serde_json::Value> = events.iter().filter(|e| e["event"] == "step").collect();
    assert_eq!(steps.iter().filter_map(|e| e["step"].as_u64()).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    assert_eq!(events.iter().filter(|e| e["event"] == "saved").filter_map(|e| e["step"].as_u64()).collect::<Vec<_>>(), [3, 6, 9]);
    assert!(steps.iter().all(|e| e["loss"].is_f64() && e["norm"].as_f64() > Some(0.0)), "{steps:?}");
    assert!(steps.iter().all(|e| e["distillation"].as_f64() > Some(0.0)), "{steps:?}");
    assert_eq!(events.last().map(|e| e["event"].as_str()), Some(Some("finished")));

    let rough = copy(&calm, &folder.path().join("rough"));
    let mut random = Random::new(std::process::id().into(), 0);
    let mut kills = 0;
    // Each life does some steps, and is killed somewhere in or after the last of them.
    while !rough.join("result.safetensors").is_file() && kills < 6 {
        let mut worker = Worker::start(&rough);
        let alive = 1 + random.below(4);
        for _ in 0..alive {
            if worker.events().find(|e| e["event"] == "step").is_none() {
                break;
            }
        }
        (0..random.below(200_000)).for_each(|i| drop(std::hint::black_box(i.to_string())));
        worker.child.kill().expect("kill");
        kills += 1;
        assert_ne!(worker.code(), Some(70));
    }
    println!("{kills} kills");
    if !rough.join("result.safetensors").is_file() {
        assert_eq!(last_life(&rough), Some(0));
    }
    assert!(result(&calm) == result(&rough), "bit for bit");
    // A finished run is finished.
    assert_eq!(last_life(&rough), Some(0));
}

/// Runs to the end.
fn last_life(run: &Path) -> Option<i32> {
    let mut worker = Worker::start(run);
    worker.events().for_each(drop);
    worker.code()
}

#[test]
fn pauses_within_a_step_and_goes_when_asked() {
    let folder = tempfile::tempdir().expect("folder");
    let calm = need!(prepare(&folder.path().join("calm")), "golden not here");
    let run = copy(&calm, &folder.path().join("run"));
    let mut worker = Worker::start(&run);
    let before = worker.hear("step")["step"].as_u64().expect("step");
    worker.say("pause");
    let paused = worker.hear("paused")["step"].as_u64().expect("step");
    // Between the line that was read and the pause the child may have been a pipe's worth of lines ahead, not more than the run.
    assert!((before..STEPS).contains(&paused), "{before} {paused}");
    worker.say("resume");
    assert_eq!(worker.hear("resumed")["step"].as_u64(), Some(paused));
    worker.say("evict");
    let saved = worker.hear("evicted")["step"].as_u64().expect("step");
    assert!(saved >= paused && worker.events().next().is_none());
    assert_eq!(worker.code(), Some(0));
    assert!(!run.join("result.safetensors").exists() && run.join("checkpoint.safetensors").is_file());

    // SIGTERM and the parent's end do the same.
    let mut worker = Worker::start(&run);
    assert_eq!(worker.hear("started")["step"].as_u64(), Some(saved));
    // SAFETY: the child is ours and has not been waited for.
    unsafe { libc::kill(worker.child.id() as i32, libc::SIGTERM) };
    assert!(worker.events().last().is_some_and(|e| e["event"] == "evicted" || e["event"] == "finished"));
    assert_eq!(worker.code(), Some(0));
    let mut worker = Worker::start(&run);
    drop(worker.stdin.take());
    assert!(worker.events().last().is_some_and(|e| e["event"] == "evicted" || e["event"] == "finished"));
    assert_eq!(worker.code(), Some(0));

    assert_eq!((last_life(&calm), last_life(&run)), (Some(0), Some(0)));
    assert!(result(&calm) == result(&run), "bit for bit");
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let run = need!(prepare(&folder.path().join("run")), "golden not here");
    let mut worker = Worker::start(&run);
    worker.hear("step");
    worker.say("evict");
    worker.hear("evicted");
    assert_eq!(worker.code(), Some(0));
    let path = run.join("run.toml");
    let text = std::fs::read_to_string(&path).expect("settings");
    std::fs::write(&path, text.replace("seed = 42", "seed = 43")).expect("settings");
    assert_ne!(last_life(&run), Some(0), "training.bad_checkpoint");
    std::fs::write(&path, text.replace("momentum = 0.99", "momentum = 1.99")).expect("settings");
    assert_ne!(last_life(&run), Some(0), "training.bad_settings");
    std::fs::write(&path, &text).expect("settings");
    let saved = run.join("checkpoint.safetensors");
    let bytes = std::fs::read(&saved).expect("checkpoint");
    std::fs::write(&saved, &bytes[..bytes.len() / 2]).expect("checkpoint");
    assert_ne!(last_life(&run), Some(0), "half a checkpoint");
    std::fs::write(&saved, &bytes).expect("checkpoint");
    // Other weights to start from, another teacher, other pixels or labels of a case: the names and the lengths are the same.
    for name in ["start.safetensors", "teacher.safetensors", "curated/a.safetensors", "rehearsal/c.safetensors"] {
        let path = run.join(name);
        let sound = std::fs::read(&path).expect("file");
        let mut changed = sound.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        std::fs::write(&path, changed).expect("changed");
        assert_ne!(last_life(&run), Some(0), "{name}");
        std::fs::write(&path, sound).expect("as before");
    }
    assert_eq!(last_life(&run), Some(0));
}
