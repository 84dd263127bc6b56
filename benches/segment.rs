//! Seconds per stage and peak memory of segmenting a generated study with a generated network.
//!
//! `cargo bench --bench segment -- --help`

#[path = "../tests/it/support/made.rs"]
mod made;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../tests/it/support/manifest.rs"]
mod manifest;

use std::time::Duration;
use stunetd::models::Aggregation;
use stunetd::segment::export::Exporter;
use stunetd::segment::{Accumulation, Decision, DeviceChoice, Engine, Grids, Placement, SegmentOptions, TorchEngine, bytes_needed};
use stunetd::stunet::{Architecture, Network, Precision, Size};
use stunetd::sys::clock::Stopwatch;

const HELP: &str = "\
--size S|B|L|H         size of the network [S]
--classes N            outputs [105]
--grid ZxYxX           the network's grid [300x273x273]
--source ZxYxX         the source grid [300x512x512]
--patch ZxYxX          window [128x128x128]
--average logits|softmax   nnU-Net v2's way or v1's [logits]
--step F               window distance in patches [0.5]
--mirror               average over the mirrored copies of all axes
--precision P          auto, f32, bf16, f16 [f32]
--device D             auto, cpu, cuda:N [cpu]
--threads N            of libtorch and of rayon [all]
--export               only interpolation and decision, of outputs with areas as a trained network has them
--noise                with --export: outputs without areas, so that nothing can be pruned";

struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|a| a == name)
    }

    fn value<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        let Some(at) = self.0.iter().position(|a| a == name) else { return default };
        let text = self.0.get(at + 1).unwrap_or_else(|| panic!("{name} wants a value\n{HELP}"));
        text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}\n{HELP}"))
    }

    fn shape(&self, name: &str, default: [usize; 3]) -> [usize; 3] {
        let text: String = self.value(name, default.map(|n| n.to_string()).join("x"));
        let edges: Vec<usize> = text.split('x').filter_map(|n| n.parse().ok()).collect();
        edges.try_into().unwrap_or_else(|_| panic!("{name}: {text:?}\n{HELP}"))
    }
}

/// Most memory that this process has had at a time, in MiB.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    stunetd::sys::memory::keep_freed_memory();
    let arguments = Arguments(std::env::args().skip(1).collect());
    if arguments.flag("--help") {
        println!("{HELP}");
        return;
    }
    let classes = arguments.value("--classes", 105);
    let grids = Grids {
        network: arguments.shape("--grid", [300, 273, 273]),
        cropped: arguments.shape("--source", [300, 512, 512]),
        source: arguments.shape("--source", [300, 512, 512]),
    };
    let threads: usize = arguments.value("--threads", std::thread::available_parallelism().map_or(1, |n| n.get()));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("threads");
    if arguments.flag("--export") {
        return export(&grids, classes, arguments.flag("--noise"));
    }
    tch::set_num_threads(threads as i32);
    let patch = arguments.shape("--patch", [128; 3]);
    let average: String = arguments.value("--average", "logits".to_string());
    let aggregation = if average == "softmax" { Aggregation::Softmax } else { Aggregation::Logits };
    let options = SegmentOptions { step: arguments.value("--step", 0.5), mirror: arguments.flag("--mirror"), skip_air: false };
    let size: Size = arguments.value("--size", Size::S);
    let architecture = Architecture::named(size, 1, classes, Architecture::OFFICIAL_STRIDES);
    let manifest = made::manifest(&architecture, patch, aggregation);
    let device = arguments.value("--device", DeviceChoice::Cpu).resolve().expect("device");
    let precision: Precision = arguments.value("--precision", Precision::F32);
    let network = Network::from_tensors(made::weights(&architecture, 7), &architecture, device, precision).expect("network");
    let precision = network.precision();
    let mut engine = TorchEngine::new(network, manifest.clone()).expect("engine");
    let prepared = made::prepared(&manifest, grids.network, grids.cropped, made::phantom(grids.network));
    let before = peak_rss();
    let watch = Stopwatch::start();
    let mut last = Duration::ZERO;
    let map = engine
        .segment(prepared, options, &mut |p| {
            if watch.elapsed() - last > Duration::from_secs(30) {
                last = watch.elapsed();
                eprintln!("{} of {} windows, {} MiB at most", p.done, p.of, peak_rss());
            }
            true
        })
        .expect("labels");
    let total = watch.seconds();
    println!(
        "STU-Net {size}, {classes} outputs, {average}, {precision}, {threads} threads: grid {:?} to {:?}, step {}{}",
        grids.network,
        grids.source,
        options.step,
        if options.mirror { ", mirrored" } else { "" }
    );
    for (stage, seconds) in engine.timings() {
        println!("{stage:12} {seconds:9.2}");
    }
    println!("{:12} {total:9.2}", "total");
    let number = precision.activation_bytes(architecture.dims[0]);
    let need = bytes_needed(&manifest, &grids, &Placement { cuda: false, number, batch: 1, accumulation: Accumulation::Device });
    println!("peak RSS {} MiB ({before} before the study), estimated {} MiB", peak_rss(), need.host >> 20);
    println!("{} of {} labels occur", map.present().len(), manifest.labels.len());
}

/// The exporter alone.
fn export(grids: &Grids, classes: usize, noise: bool) {
    let decision = Decision::new(&[], classes, Aggregation::Logits).expect("decision");
    let mut exporter = Exporter::new(grids.network, grids.cropped, None, classes, decision, false);
    let (mut filling, mut random) = (0.0, made::noise(1));
    let table: Vec<f32> = (0..1 << 16).map(|_| random()).collect();
    let watch = Stopwatch::start();
    for z in 0..grids.network[0] {
        exporter
            .push(|out| {
                let watch = Stopwatch::start();
                for (i, voxel) in out.chunks_exact_mut(classes).enumerate() {
                    let (y, x) = (i / grids.network[2], i % grids.network[2]);
                    let start = (i * 7919 + z * 104_729) % (table.len() - classes);
                    voxel.copy_from_slice(&table[start..start + classes]);
                    // Areas of about 3 cm, the background between them.
                    let cell = (z / 20 * 31 + y / 20) * 37 + x / 20;
                    if !noise {
                        voxel[if cell % 3 == 0 { cell % classes } else { 0 }] += 20.0;
                    }
                }
                filling += watch.seconds();
                Ok(())
            })
            .expect("slice");
    }
    let labels = exporter.finish().expect("labels");
    println!("{} labels of {classes} outputs in {:.2} s, peak RSS {} MiB", labels.len(), watch.seconds() - filling, peak_rss());
}
