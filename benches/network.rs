//! The network alone: windows per second and the share of the machine's matrix-multiply rate that it reaches.
//!
//! `cargo bench --bench network -- --size S,B --precision f32,bf16 --patch 128,128,128 --repeats 5 [--json]`
//!
//! Weights are random; speed does not depend on them. Each repeat runs the multiplications and all networks in turn, so
//! that other load on the machine meets all of them; the smallest time of each counts. FLOP are counted as published:
//! two for each multiply-accumulate of the convolutions, full-resolution head only.

use clap::Parser;
use std::rc::Rc;
use std::time::Instant;
use stunetd::stunet::{Architecture, Network, Precision, Size};
use tch::{Device, Kind, Tensor};

#[derive(Parser)]
struct Options {
    /// Sizes of STU-Net.
    #[arg(long, value_delimiter = ',', default_value = "S")]
    size: Vec<Size>,
    /// Precisions.
    #[arg(long, value_delimiter = ',', default_value = "f32,bf16")]
    precision: Vec<Precision>,
    /// Patch, network axis order.
    #[arg(long, value_delimiter = ',', default_values_t = [128, 128, 128])]
    patch: Vec<usize>,
    /// Output channels.
    #[arg(long, default_value_t = 105)]
    classes: usize,
    /// Rounds; the first one only warms up.
    #[arg(long, default_value_t = 4)]
    repeats: usize,
    /// Threads of libtorch.
    #[arg(long)]
    threads: Option<i32>,
    /// `cpu`, or `cuda:0` where libtorch has it.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Without the segmentation head.
    #[arg(long)]
    features: bool,
    /// Also what follows the network in each window: head, softmax and weighted sum, and the sum of features.
    #[arg(long)]
    sums: bool,
    /// One JSON document; the table goes to standard error.
    #[arg(long)]
    json: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

/// He-normal weights, so that activations keep a usual range.
fn random(architecture: &Architecture, device: Device, precision: Precision) -> Network {
    let tensors = architecture.state_dict().into_iter().map(|(name, shape)| {
        let fan_in = shape.iter().skip(1).product::<i64>().max(1) as f64;
        let t = Tensor::randn(shape.as_slice(), (Kind::Float, Device::Cpu));
        let t = if name.contains("norm") && name.ends_with("weight") { t * 0.3 + 1.0 } else { t * (2.0 / fan_in).sqrt() };
        (name, t)
    });
    Network::from_tensors(tensors.collect(), architecture, device, precision).expect("network")
}

/// Waits until the device has done its work.
fn finish(tensor: &Tensor) {
    let mut corner = tensor.shallow_clone();
    while corner.dim() > 0 {
        corner = corner.get(0);
    }
    corner.double_value(&[]);
}

/// Seconds of all this process's threads on a core so far. Other load on the machine disturbs it less than wall time.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Wall and CPU seconds.
fn seconds(work: impl FnOnce() -> Tensor) -> (f64, f64) {
    #[allow(clippy::disallowed_methods, reason = "a bench measures wall time")]
    let start = (Instant::now(), cpu_seconds());
    finish(&work());
    (start.0.elapsed().as_secs_f64(), cpu_seconds() - start.1)
}

struct Row {
    what: String,
    precision: &'static str,
    flop: f64,
    best: f64,
    cpu: f64,
    work: Box<dyn Fn() -> Tensor>,
}

fn main() {
    stunetd::sys::libtorch::choose(None).expect("libtorch");
    stunetd::sys::memory::keep_freed_memory();
    let options = Options::parse();
    let [x, y, z] = *options.patch.as_slice() else { panic!("--patch takes three numbers") };
    let device = match options.device.strip_prefix("cuda:") {
        Some(index) => Device::Cuda(index.parse().expect("cuda:INDEX")),
        None => Device::Cpu,
    };
    if let Some(threads) = options.threads {
        tch::set_num_threads(threads);
    }
    let mut rows = Vec::new();
    for (precision, kind) in [("f32", Kind::Float), ("bf16", Kind::BFloat16), ("f16", Kind::Half)] {
        if precision == "f16" && device == Device::Cpu {
            continue;
        }
        let edge = if device == Device::Cpu { 3072 } else { 8192 };
        let matrix = Tensor::randn([edge, edge], (Kind::Float, device)).to_kind(kind);
        let work = Box::new(move || matrix.matmul(&matrix));
        rows.push(Row {
            what: format!("matmul {edge}"),
            precision,
            flop: 2.0 * (edge as f64).powi(3),
            best: f64::INFINITY,
            cpu: f64::INFINITY,
            work,
        });
    }
    for &size in &options.size {
        let architecture = Architecture::named(size, 1, options.classes, Architecture::OFFICIAL_STRIDES);
        for &precision in &options.precision {
            let network = Rc::new(random(&architecture, device, precision));
            let input = Tensor::randn([1, 1, x as i64, y as i64, z as i64], (Kind::Float, Device::Cpu));
            let name = network.precision().name();
            let features = options.features;
            if options.sums {
                rows.extend(sums(&network, [x, y, z]));
            }
            rows.push(Row {
                what: format!("STU-Net-{size}"),
                precision: name,
                flop: 2.0 * architecture.macs([x, y, z], false) as f64,
                best: f64::INFINITY,
                cpu: f64::INFINITY,
                work: Box::new(move || if features { network.features(&input) } else { network.forward(&input) }.expect("forward")),
            });
        }
    }
    for round in 0..options.repeats.max(2) {
        for row in &mut rows {
            let (wall, cpu) = seconds(&row.work);
            if round > 0 {
                (row.best, row.cpu) = (row.best.min(wall), row.cpu.min(cpu));
            }
        }
    }
    report(&rows, &options);
}

/// What is done with a window's features; its FLOP are the head's, where there is one.
fn sums(network: &Rc<Network>, patch: [usize; 3]) -> [Row; 2] {
    let [x, y, z] = patch.map(|edge| edge as i64);
    let architecture = network.architecture();
    let (dims, classes) = (architecture.dims[0] as i64, architecture.num_classes as i64);
    let device = network.device();
    let features = network.features(&Tensor::randn([1, 1, x, y, z], (Kind::Float, device))).expect("features");
    let weights = Tensor::rand([x, y, z], (Kind::Float, device));
    let row = |what: &str, channels: i64, flop: i64, add: fn(&Network, &Tensor, &Tensor, &mut Tensor)| {
        let (network, features, weights) = (Rc::clone(network), features.shallow_clone(), weights.shallow_clone());
        let sums = Tensor::zeros([x, y, z, channels], (Kind::Float, device));
        let precision = network.precision().name();
        let work = Box::new(move || {
            let mut sums = sums.shallow_clone();
            add(&network, &features, &weights, &mut sums);
            sums
        });
        Row { what: what.into(), precision, flop: (flop * x * y * z) as f64, best: f64::INFINITY, cpu: f64::INFINITY, work }
    };
    [
        row("probabilities", classes, 2 * dims * classes, |n, f, w, s| n.add_probabilities(f, w, s).expect("sum")),
        row("features", dims, 2 * dims, |n, f, w, s| n.add_features(f, w, s).expect("sum")),
    ]
}

fn report(rows: &[Row], options: &Options) {
    let rate = |row: &Row| row.flop / row.best / 1e9;
    let multiply = |precision: &str| rows.iter().find(|r| r.precision == precision).map(rate);
    if options.json {
        let list: Vec<_> = rows
            .iter()
            .map(|r| {
                serde_json::json!({
                    "what": r.what, "precision": r.precision, "seconds": r.best, "cpu_seconds": r.cpu, "gflop": r.flop / 1e9, "gflop_per_second": rate(r),
                    "share_of_matmul": multiply(r.precision).map(|m| rate(r) / m),
                })
            })
            .collect();
        println!(
            "{}",
            serde_json::json!({ "patch": options.patch, "device": options.device, "threads": tch::get_num_threads(), "rows": list })
        );
    }
    let tell = |line: String| if options.json { eprintln!("{line}") } else { println!("{line}") };
    tell(format!("patch {:?}, {} classes, {}, {} threads", options.patch, options.classes, options.device, tch::get_num_threads()));
    tell(format!("{:<14} {:>5} {:>9} {:>9} {:>10} {:>9} {:>9}", "", "", "s", "cpu s", "windows/s", "TFLOP/s", "of matmul"));
    for row in rows {
        let share = multiply(row.precision).map_or(String::new(), |m| format!("{:.0} %", 100.0 * rate(row) / m));
        tell(format!(
            "{:<14} {:>5} {:>9.3} {:>9.3} {:>10.3} {:>9.3} {share:>9}",
            row.what,
            row.precision,
            row.best,
            row.cpu,
            1.0 / row.best,
            rate(row) / 1e3
        ));
    }
}
