//! What a user waits for: the release binary as a process, seconds by stage, windows/s, share of the machine's
//! matrix-multiply rate, peak memory.
//!
//! `make bench STUDY=M MODEL=S`, or `cargo bench --bench stages -- --help`
//!
//! Studies and models that do not exist are made once in `target/bench`. Generated weights are random, so labels are as
//! ragged as they can be: a trained network's are exported and written faster, its windows take the same time.

#[path = "../tests/it/support/made.rs"]
mod made;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../tests/it/support/manifest.rs"]
mod manifest;
#[path = "../tests/it/support/place.rs"]
mod place;

use clap::Parser;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stunetd::dicom::Uid;
use stunetd::dicom::ct_image::CtSeries;
use stunetd::models::{Aggregation, Generation, Manifest};
use stunetd::stunet::{Architecture, Device, Size};
use stunetd::sys::clock::Stopwatch;
use tch::{Kind, Tensor};

/// Rows and columns of the generated studies.
const EDGE: usize = 512;

#[derive(Parser)]
struct Options {
    /// `S`: 512×512×20, a real CT, where the shared data are at hand; `M`: 512×512×100 at 2 mm and `L`: 512×512×300 at
    /// 1.5 mm, generated; or a folder or file.
    #[arg(long, value_delimiter = ',', default_value = "S,M,L")]
    study: Vec<String>,
    /// `demo`; a size of STU-Net (S, B, L, H) with random weights, 128³ windows of 1.5 mm; or a model folder.
    #[arg(long, value_delimiter = ',', default_value = "demo,S,B")]
    model: Vec<String>,
    /// Outputs of the generated models.
    #[arg(long, default_value_t = 105)]
    classes: usize,
    /// How the generated models average windows: `logits` as nnU-Net v2, `softmax` as v1.
    #[arg(long, default_value = "logits")]
    average: String,
    /// As for `stunetd segment`.
    #[arg(long, default_value = "auto")]
    precision: String,
    /// As for `stunetd segment`.
    #[arg(long, default_value = "auto")]
    device: String,
    /// As for `stunetd segment`.
    #[arg(long, default_value = "seg,preview")]
    format: String,
    /// Also runs a command with so many more studies of the same kind (generated ones only), to tell what one costs in a process
    /// that is warm.
    #[arg(long, default_value_t = 0)]
    more: usize,
    /// Runs of each command; the fastest is told.
    #[arg(long, default_value_t = 1)]
    repeats: usize,
    /// One JSON document; the table goes to standard error.
    #[arg(long)]
    json: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

/// A failed step of a bench ends it.
fn must<T, E: std::fmt::Display>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|e| panic!("{what}: {e}"))
}

fn made_in(name: &str) -> PathBuf {
    place::root().join("target/bench").join(name)
}

/// The folder or file to segment; none where the real CT is not at hand.
fn study(name: &str) -> Option<PathBuf> {
    match name {
        "S" => Some(place::shared()?.join("data/ct_real/dicom")).filter(|path| path.exists()),
        path => Some(generated(path, 0).unwrap_or_else(|| path.into())),
    }
}

/// One of the generated studies; those with another number differ in their UIDs alone.
fn generated(name: &str, number: usize) -> Option<PathBuf> {
    let (slices, step) = match name {
        "M" => (100, 2.0),
        "L" => (300, 1.5),
        _ => return None,
    };
    let folder = if number == 0 { format!("study-{name}") } else { format!("study-{name}-{number}") };
    Some(phantom(&folder, slices, step))
}

/// Writes a CT series of the phantom, 0.8 mm pixels.
fn phantom(name: &str, slices: usize, step: f64) -> PathBuf {
    let folder = made_in(name);
    if folder.exists() {
        return folder;
    }
    let staging = made_in(&format!("{name}.partial"));
    must(std::fs::create_dir_all(&staging), "a folder for the study");
    let uid = |role: String| Uid::from_digest(&Sha256::digest(format!("stunetd bench {name} {role}")).into());
    let series = CtSeries {
        patient_name: "PHANTOM^BENCH",
        patient_id: "STUNETD-BENCH",
        patient_age: "042Y",
        study_uid: uid("study".into()),
        series_uid: uid("series".into()),
        frame_of_reference_uid: uid("frame of reference".into()),
        study_description: "Generated phantom, not a patient",
        series_description: name,
        body_part: "ABDOMEN",
        date: "20260101",
        time: "120000",
        size: [EDGE as u16; 2],
        pixel_spacing: [0.8; 2],
        slice_thickness: step,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    };
    // Normalised values become HU between air and bone.
    let hu: Vec<i16> = made::phantom([slices, EDGE, EDGE]).into_iter().map(|v| (v * 600.0 - 280.0).clamp(-1024.0, 3071.0) as i16).collect();
    for (slice, hu) in hu.chunks_exact(EDGE * EDGE).enumerate() {
        let file = series.image(&uid(format!("instance {slice}")), slice as u32 + 1, [-204.8, -204.8, slice as f64 * step], hu);
        must(std::fs::write(staging.join(format!("IM{slice:04}.dcm")), file), "a slice");
    }
    #[allow(clippy::disallowed_methods, reason = "nothing is lost when the bench's own study is")]
    must(std::fs::rename(&staging, &folder), "the study");
    folder
}

/// The model's folder.
fn model(name: &str, options: &Options) -> PathBuf {
    let Ok(size) = name.parse::<Size>() else {
        return if name == "demo" { place::root().join("models/demo") } else { name.into() };
    };
    let aggregation = match options.average.as_str() {
        "softmax" => Aggregation::Softmax,
        "logits" => Aggregation::Logits,
        other => panic!("--average {other:?}; there are logits and softmax"),
    };
    let folder = made_in(&format!("model-{size}-{}-{}", options.classes, options.average));
    if folder.join("manifest.toml").exists() {
        return folder;
    }
    must(std::fs::create_dir_all(&folder), "a folder for the model");
    let architecture = Architecture::named(size, 1, options.classes, Architecture::OFFICIAL_STRIDES);
    let file = folder.join("weights.safetensors");
    let tensors: Vec<_> = made::weights(&architecture, 7).into_iter().collect();
    must(Tensor::write_safetensors(&tensors, &file), "weights");
    let digest = Sha256::digest(must(std::fs::read(&file), "weights"));
    let mut manifest =
        Manifest { name: format!("bench-{}", size.to_string().to_lowercase()), ..made::manifest(&architecture, [128; 3], aggregation) };
    manifest.weights.sha256 = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    must(std::fs::write(folder.join("manifest.toml"), must(toml::to_string(&manifest), "manifest")), "manifest");
    folder
}

/// What a command printed, its wall seconds and the most memory that it held, in bytes.
fn run(command: &mut Command) -> (Value, f64, u64) {
    let watch = Stopwatch::start();
    #[allow(clippy::zombie_processes, reason = "wait4 below waits for it, and tells its memory")]
    let mut child = must(command.stdout(Stdio::piped()).spawn(), "stunetd; run `make build`");
    let mut text = String::new();
    must(child.stdout.take().expect("a pipe").read_to_string(&mut text), "its output");
    let mut status = 0;
    // SAFETY: an all-zero rusage is a value of that type, which the call overwrites.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the child is ours and was not waited for; both pointers are to live variables.
    let waited = unsafe { libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage) };
    let seconds = watch.seconds();
    assert!(waited == child.id() as i32 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "stunetd failed: {text}");
    (must(serde_json::from_str(&text), "its JSON"), seconds, usage.ru_maxrss as u64 * 1024)
}

/// Multiply-adds ×2 per second of square matrices, as the machine does them now: the best of three.
fn matmul_rate(kind: Kind, device: Device) -> f64 {
    let edge = if device == Device::Cpu { 3072 } else { 8192 };
    let matrix = Tensor::randn([edge, edge], (Kind::Float, device)).to_kind(kind);
    let once = || {
        let watch = Stopwatch::start();
        let _ = matrix.matmul(&matrix).get(0).get(0).to_kind(Kind::Float).double_value(&[]);
        watch.seconds()
    };
    once();
    2.0 * (edge as f64).powi(3) / (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
}

struct Row {
    study: String,
    model: String,
    average: &'static str,
    precision: String,
    device: String,
    wall: f64,
    /// Stages of the street, and the parts of `segment`.
    stages: BTreeMap<String, f64>,
    engine: BTreeMap<String, f64>,
    windows: f64,
    /// FLOP of a window, as published.
    flop: f64,
    matmul: f64,
    rss: u64,
    /// Wall seconds of one more study where others have been before it and follow.
    further: Option<f64>,
}

impl Row {
    fn rate(&self) -> f64 {
        self.windows * self.flop / self.engine.get("network").copied().unwrap_or(f64::NAN)
    }

    fn json(&self) -> Value {
        json!({
            "study": self.study, "model": self.model, "average": self.average, "precision": self.precision, "device": self.device,
            "wall_s": self.wall, "stages_s": self.stages, "segment_s": self.engine, "windows": self.windows,
            "windows_per_s": self.windows / self.stages["segment"], "network_flops": self.rate(), "matmul_flops": self.matmul,
            "share_of_matmul": self.rate() / self.matmul, "peak_rss_bytes": self.rss, "further_study_s": self.further,
        })
    }

    /// Seconds before the first and after the last stage, and between them: start, model, scan.
    fn rest(&self) -> f64 {
        self.wall - self.stages.values().sum::<f64>()
    }
}

fn seconds(value: &Value) -> BTreeMap<String, f64> {
    let entries = value.as_object().expect("seconds by name").iter();
    entries.map(|(name, seconds)| (name.clone(), seconds.as_f64().expect("seconds"))).collect()
}

fn measure(name: &str, input: &Path, model_name: &str, options: &Options) -> Row {
    let folder = model(model_name, options);
    let generation = Generation::open(&folder).unwrap_or_else(|fault| panic!("{}: {}", folder.display(), fault.detail));
    let out = made_in("out");
    let segment = |inputs: &[PathBuf]| {
        let _ = std::fs::remove_dir_all(&out);
        let mut command = Command::new(place::stunetd());
        command.arg("segment").args(inputs).arg("--model").arg(&folder).arg("--out").arg(&out).arg("--json");
        command.args(["--precision", &options.precision, "--device", &options.device, "--format", &options.format]);
        run(&mut command)
    };
    let mut best: Option<Row> = None;
    for _ in 0..options.repeats.max(1) {
        let (report, wall, rss) = segment(&[input.to_path_buf()]);
        let done = &report["results"][0];
        let text = |value: &Value| value.as_str().expect("text").to_string();
        let (precision, device) = (text(&done["manifest"]["settings"]["precision"]), text(&done["manifest"]["device"]));
        let kind = match precision.as_str() {
            "bf16" => Kind::BFloat16,
            "f16" => Kind::Half,
            _ => Kind::Float,
        };
        let on = device.strip_prefix("cuda:").and_then(|n| n.parse().ok()).map_or(Device::Cpu, Device::Cuda);
        let mut engine = seconds(&done["engine"]);
        let windows = engine.remove("windows").expect("windows");
        let inference = &generation.manifest.inference;
        let row = Row {
            study: name.into(),
            model: model_name.into(),
            average: if inference.aggregation == Aggregation::Softmax { "softmax" } else { "logits" },
            precision,
            device,
            wall,
            stages: seconds(&done["seconds"]),
            engine,
            windows,
            flop: 2.0 * generation.manifest.architecture.macs(inference.patch, false) as f64,
            matmul: matmul_rate(kind, on),
            rss,
            further: None,
        };
        if best.as_ref().is_none_or(|best| row.wall < best.wall) {
            best = Some(row);
        }
    }
    let mut row = best.expect("at least one run");
    if options.more > 0
        && let Some(studies) = (0..=options.more).map(|number| generated(name, number)).collect::<Option<Vec<_>>>()
    {
        row.further = Some((segment(&studies).1 - row.wall) / options.more as f64);
    }
    row
}

fn main() {
    must(stunetd::sys::libtorch::choose(None).map_err(|fault| fault.detail), "libtorch");
    let options = Options::parse();
    let mut rows = Vec::new();
    for name in &options.study {
        let Some(input) = study(name) else {
            eprintln!("study {name} is left out: the shared data are not beside the repository (STUNETD_SHARED names them)");
            continue;
        };
        for model in &options.model {
            eprintln!("study {name}, model {model}");
            let row = measure(name, &input, model, &options);
            if options.json {
                eprint!("{}", table(&row))
            } else {
                print!("{}", table(&row))
            }
            rows.push(row.json());
        }
    }
    if options.json {
        println!("{}", must(serde_json::to_string_pretty(&rows), "JSON"));
    }
}

fn table(row: &Row) -> String {
    let line = |values: &BTreeMap<String, f64>, order: &[&str]| {
        let parts = order.iter().filter_map(|name| values.get(*name).map(|s| format!("{name} {s:.2}")));
        parts.collect::<Vec<_>>().join("  ")
    };
    let further = row.further.map_or(String::new(), |s| format!("    a further study {s:.2} s, {:.0} an hour\n", 3600.0 / s));
    format!(
        "{} {} ({}, {}, {}): {:.2} s, {:.0} windows, {:.2} windows/s, network {:.3} TFLOP/s = {:.0} % of matmul ({:.3}), peak RSS {:.2} GB\n    start {:.2}  {}\n    in segment: {}\n{further}",
        row.study,
        row.model,
        row.average,
        row.precision,
        row.device,
        row.wall,
        row.windows,
        row.windows / row.stages["segment"],
        row.rate() / 1e12,
        100.0 * row.rate() / row.matmul,
        row.matmul / 1e12,
        row.rss as f64 / 1e9,
        row.rest(),
        line(&row.stages, &["read", "prepare", "segment", "finish", "deliver"]),
        line(&row.engine, &["gather", "network", "accumulate", "head", "export", "finish"]),
    )
}
