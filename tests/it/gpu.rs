//! A CUDA device against the CPU. Skipped where there is none; `make test-gpu` runs these tests, one after the other.
//!
//! `STUNETD_LIBTORCH` names a libtorch with CUDA. With `STUNETD_GPU=1` a device that can not be used is a failure.

use crate::network::{compare, copy, params, shapes, tensor};
use crate::pipeline_e2e::{Agreement, agreement, compare as compare_labels, demo, dicom_volume, only_series, segment};
use crate::support::{Tensors, golden, made, stunetd};
use crate::{need, pipeline_e2e};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock};
use stunetd::fault::Code;
use stunetd::models::{Aggregation, Generation, Manifest};
use stunetd::segment::aggregate::{Blending, SlabSink, aggregate};
use stunetd::segment::tiles::Tiling;
use stunetd::segment::{
    Accumulation, DeviceChoice, Engine, Grids, MemoryLimits, Placement, SegmentError, SegmentOptions, Timings, TorchEngine, bytes_needed,
};
use stunetd::stunet::{Architecture, Network, Precision, cuda_memory, empty_cuda_cache, reset_cuda_peak};
use stunetd::sys::libtorch;
use stunetd::volume::{LabelMap, Prepared, Volume};
use tch::{Device, Kind, Tensor};

const CUDA: Device = Device::Cuda(0);
const NO_GPU: &str = "no CUDA device, or no libtorch with CUDA (STUNETD_LIBTORCH names one)";

/// The device, for one test at a time: they look at its memory.
fn gpu() -> Option<MutexGuard<'static, ()>> {
    static THERE: OnceLock<bool> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    let there = *THERE.get_or_init(|| {
        libtorch::choose(None).expect("the libtorch that STUNETD_LIBTORCH names");
        tch::Cuda::device_count() > 0
    });
    assert!(there || std::env::var_os("STUNETD_GPU").is_none_or(|v| v != "1"), "{NO_GPU}");
    let guard = ONE.lock().unwrap_or_else(|broken| broken.into_inner());
    there.then(|| {
        empty_cuda_cache().expect("cache");
        guard
    })
}

/// The generated phantom study.
fn phantom() -> &'static Volume {
    static VOLUME: OnceLock<Volume> = OnceLock::new();
    VOLUME.get_or_init(|| {
        let folder = tempfile::tempdir().expect("folder");
        let status = std::process::Command::new(stunetd()).arg("demo").arg(folder.path()).stdout(std::process::Stdio::null()).status();
        assert!(status.expect("stunetd").success(), "stunetd demo");
        only_series(folder.path())
    })
}

fn open(model: &Generation, device: DeviceChoice, precision: Precision) -> TorchEngine {
    TorchEngine::open(model, device, precision, None).expect("engine")
}

fn agree(got: &LabelMap, want: &LabelMap) -> Agreement {
    assert!(want.present().len() > 2, "{:?}: too little to compare", want.present());
    agreement(|i| got.labels().get(i), |i| want.labels().get(i), want.labels().len())
}

/// Labels that may differ where two outputs are equal to a few units in the last place.
fn same(got: &LabelMap, want: &LabelMap, what: &str) {
    let found = agree(got, want);
    println!("{what}: {:.5} % of voxels", 100.0 * found.equal);
    assert!(found.equal >= 0.99999, "{what}: {}", found.equal);
}

/// A study that is larger than a window in every direction, and a model for it whose weights are made.
struct Made {
    manifest: Manifest,
    grids: Grids,
    image: Vec<f32>,
}

impl Made {
    fn new(aggregation: Aggregation) -> Made {
        let architecture = Architecture {
            in_channels: 1,
            num_classes: 12,
            dims: [16, 24, 32, 48, 48, 48],
            depth: [1; 6],
            kernels: [[3; 3]; 6],
            strides: Architecture::OFFICIAL_STRIDES,
        };
        let (network, source) = ([60, 90, 80], [75, 120, 110]);
        let mut noise = made::noise(3);
        Made {
            manifest: made::manifest(&architecture, [32, 64, 64], aggregation),
            grids: Grids { network, cropped: source, source },
            image: made::phantom(network).into_iter().map(|v| v + 0.5 * noise()).collect(),
        }
    }

    fn network(&self, device: Device, precision: Precision) -> Network {
        let architecture = &self.manifest.architecture;
        Network::from_tensors(made::weights(architecture, 6), architecture, device, precision).expect("network")
    }

    fn engine(&self, device: Device, precision: Precision) -> TorchEngine {
        TorchEngine::new(self.network(device, precision), self.manifest.clone()).expect("engine")
    }

    fn study(&self) -> Prepared {
        made::prepared(&self.manifest, self.grids.network, self.grids.source, self.image.clone())
    }

    fn need(&self, batch: usize, accumulation: Accumulation) -> u64 {
        bytes_needed(&self.manifest, &self.grids, &Placement { cuda: true, number: 4, batch, accumulation }).device
    }

    fn labels(&self, engine: &mut TorchEngine, mirror: bool) -> LabelMap {
        engine.segment(self.study(), SegmentOptions { mirror, ..SegmentOptions::default() }, &mut |_| true).expect("labels")
    }
}

#[test]
fn network_goldens() {
    let _gpu = need!(gpu(), NO_GPU);
    let cases = [
        ("case_pool_padded", [[2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 1], [1, 1, 1]]),
        ("case_mixed_depth_kernel", [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]),
    ];
    for (name, strides) in cases {
        let file = Tensors::open(&need!(golden(&format!("stunet/{name}.safetensors")), "golden not here"));
        let params = params(&file, "param/");
        let architecture = Architecture::infer(&shapes(&params), strides).expect("a STU-Net");
        // cuDNN may multiply by Winograd's or Fourier's way, which lose a digit against the CPU's 1e-5.
        for (precision, golden, tolerance) in [(Precision::F32, "f32", 1e-4), (Precision::F64, "f64", 1e-10)] {
            let network = Network::from_tensors(copy(&params), &architecture, CUDA, precision).expect("network");
            assert_eq!((network.device(), network.precision()), (CUDA, precision));
            compare(&file, &network, golden, tolerance);
        }
        // A step of bf16 is 2⁻⁸ and of f16 2⁻¹¹ of a number, and errors add up over the layers.
        let cpu = Network::from_tensors(copy(&params), &architecture, Device::Cpu, Precision::F32).expect("network");
        let expected = cpu.forward(&tensor(&file, "input")).expect("forward");
        for (precision, tolerance) in [(Precision::Bf16, 0.1), (Precision::F16, 0.02)] {
            let network = Network::from_tensors(copy(&params), &architecture, CUDA, precision).expect("network");
            let got = network.forward(&tensor(&file, "input")).expect("forward").to_device(Device::Cpu);
            let error = ((&got - &expected).abs().max() / expected.abs().max()).double_value(&[]);
            println!("{name}, {precision}: {error:.1e}");
            assert!(error <= tolerance, "{name}, {precision}: {error:.1e} of the largest value, {tolerance} allowed");
        }
    }
}

#[test]
fn f32_is_not_tf32() {
    let _gpu = need!(gpu(), NO_GPU);
    let made = Made::new(Aggregation::Logits);
    drop(made.network(CUDA, Precision::F32));
    let matrix = Tensor::randn([512, 512], (Kind::Float, Device::Cpu));
    let exact = matrix.to_kind(Kind::Double).matmul(&matrix.to_kind(Kind::Double));
    let there = matrix.to_device(CUDA);
    let error = ((there.matmul(&there).to_device(Device::Cpu) - &exact).abs().max() / exact.abs().max()).double_value(&[]);
    // TF32 has 10 bits of mantissa: its error would be near 1e-4.
    assert!(error < 1e-5, "{error:.1e}");
}

#[test]
fn labels_of_the_demo_model() {
    let _gpu = need!(gpu(), NO_GPU);
    let (model, volume) = (demo(), phantom());
    let run = |device, precision| segment(&mut open(&model, device, precision), &model.manifest, volume, false);
    let cpu = run(DeviceChoice::Cpu, Precision::F32);
    same(&run(DeviceChoice::Cuda(0), Precision::F32), &cpu, "f32");
    for precision in [Precision::Bf16, Precision::F16] {
        let found = agree(&run(DeviceChoice::Cuda(0), precision), &cpu);
        println!("{precision} against f32: {:.4} % of voxels, worst Dice {:.4}", 100.0 * found.equal, found.dice);
        assert!(found.equal >= 0.999 && found.dice >= 0.995, "{precision}: {} {}", found.equal, found.dice);
    }
}

#[test]
fn real_ct_equals_the_strict_reference() {
    let _gpu = need!(gpu(), NO_GPU);
    let volume = need!(dicom_volume(), "shared data is not there");
    let model = demo();
    let map = segment(&mut open(&model, DeviceChoice::Cuda(0), Precision::F32), &model.manifest, &volume, false);
    compare_labels(&map, "dicom_f32_mirror0", 0.99999, 0.9999);
    for precision in [Precision::Bf16, Precision::F16] {
        let fast = segment(&mut open(&model, DeviceChoice::Cuda(0), precision), &model.manifest, &volume, false);
        let found = agree(&fast, &map);
        println!("real CT, {precision} against f32: {:.4} % of voxels, worst Dice {:.4}", 100.0 * found.equal, found.dice);
        assert!(found.equal >= 0.999 && found.dice >= 0.995, "{precision}: {} {}", found.equal, found.dice);
    }
}

#[test]
fn every_placement_gives_the_same_labels() {
    let _gpu = need!(gpu(), NO_GPU);
    for aggregation in [Aggregation::Logits, Aggregation::Softmax] {
        let made = Made::new(aggregation);
        let cpu = made.labels(&mut made.engine(Device::Cpu, Precision::F32), false);
        use Accumulation::{Device as OnDevice, Host, Slabs};
        for (batch, accumulation) in [(8, OnDevice), (4, OnDevice), (2, OnDevice), (1, OnDevice), (1, Slabs), (1, Host)] {
            let limits = MemoryLimits { host: None, device: Some(made.need(batch, accumulation)) };
            let mut engine = made.engine(CUDA, Precision::F32).with_limits(limits);
            let placement = engine.placements(&made.grids, 100).expect("placements")[0];
            assert_eq!((placement.batch, placement.accumulation), (batch, accumulation));
            same(&made.labels(&mut engine, false), &cpu, &format!("{aggregation:?}, batch {batch}, {accumulation:?}"));
            let exact = made.labels(&mut engine.timed_exactly(), false);
            same(&exact, &cpu, "timed exactly");
        }
        let refused = made.engine(CUDA, Precision::F32).with_limits(MemoryLimits { host: None, device: Some(1 << 20) });
        let fault = { refused }.segment(made.study(), SegmentOptions::default(), &mut |_| true).expect_err("too large");
        assert_eq!(fault.code, Code::MemoryTooLarge);
    }
}

/// Keeps every slab: `[z, y, x, output]`.
struct Keep(Vec<Tensor>);

impl SlabSink for Keep {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        self.0.push(values.to_device(Device::Cpu));
        Ok(())
    }
}

#[test]
fn mirrored_copies_run_as_one_batch() {
    let _gpu = need!(gpu(), NO_GPU);
    let made = Made::new(Aggregation::Softmax);
    let tiling = Tiling::new(made.grids.network, made.manifest.inference.patch, 0.5).expect("tiling");
    let outputs = |device: Device, batch: usize| {
        let network = made.network(device, Precision::F32);
        let accumulation = Accumulation::Device;
        let blending = Blending { aggregation: Aggregation::Softmax, regions: false, mirror_axes: vec![0, 1, 2], batch, accumulation };
        let image = Tensor::from_slice(&made.image).view(made.grids.network.map(|n| n as i64)).unsqueeze(0);
        let (mut keep, mut timings) = (Keep(Vec::new()), Timings::default());
        aggregate(&network, image, &tiling, &blending, &mut keep, &mut timings, &mut |_| true).expect("outputs");
        assert_eq!(timings.windows, tiling.windows() * 8);
        Tensor::cat(&keep.0, 0)
    };
    let cpu = outputs(Device::Cpu, 1);
    for batch in [8, 1] {
        let worst = (outputs(CUDA, batch) - &cpu).abs().max().double_value(&[]);
        println!("batch {batch}: probabilities differ by {worst:.1e}");
        assert!(worst <= 1e-3, "batch {batch}: {worst:.1e}");
    }
    let mut engine = made.engine(CUDA, Precision::F32);
    same(&made.labels(&mut engine, true), &made.labels(&mut made.engine(Device::Cpu, Precision::F32), true), "mirrored");
}

#[test]
fn memory_stays_within_the_budget() {
    let _gpu = need!(gpu(), NO_GPU);
    for aggregation in [Aggregation::Logits, Aggregation::Softmax] {
        let made = Made::new(aggregation);
        for (batch, accumulation) in
            [(8, Accumulation::Device), (2, Accumulation::Device), (1, Accumulation::Slabs), (1, Accumulation::Host)]
        {
            let limit = made.need(batch, accumulation);
            let mut engine = made.engine(CUDA, Precision::F32).with_limits(MemoryLimits { host: None, device: Some(limit) });
            reset_cuda_peak(0).expect("peak");
            made.labels(&mut engine, false);
            let peak = cuda_memory(0).expect("memory").peak;
            println!("{aggregation:?}, batch {batch}: peak {} MiB of {} MiB", peak >> 20, limit >> 20);
            assert!(peak <= limit, "{aggregation:?}, batch {batch}: {peak} bytes of {limit}");
        }
    }
}

#[test]
fn a_second_study_finds_the_memory_of_the_first() {
    let _gpu = need!(gpu(), NO_GPU);
    let made = Made::new(Aggregation::Logits);
    let mut engine = made.engine(CUDA, Precision::F32);
    let before = engine.placements(&made.grids, 100).expect("placements");
    let first = made.labels(&mut engine, false);
    let memory = cuda_memory(0).expect("memory");
    assert!(memory.reserved > memory.allocated, "nothing is cached");
    assert_eq!(engine.placements(&made.grids, 100).expect("placements"), before);
    same(&made.labels(&mut engine, false), &first, "the second study");
}

#[test]
fn a_full_device_gets_smaller_batches() {
    let _gpu = need!(gpu(), NO_GPU);
    let made = Made::new(Aggregation::Logits);
    // Warm: cuDNN has chosen, and its own memory is taken.
    let mut engine =
        made.engine(CUDA, Precision::F32).with_limits(MemoryLimits { host: None, device: Some(made.need(8, Accumulation::Device)) });
    let whole = made.labels(&mut engine, false);
    empty_cuda_cache().expect("cache");
    let free = cuda_memory(0).expect("memory").free;
    // Somebody else takes the device but for a part of what the batch of eight needs.
    let left = made.need(8, Accumulation::Device) / 3;
    let other = (free > left).then(|| Tensor::empty([(free - left) as i64], (Kind::Uint8, CUDA)));
    assert_eq!(engine.placements(&made.grids, 100).expect("placements")[0].batch, 8);
    match engine.segment(made.study(), SegmentOptions::default(), &mut |_| true) {
        Ok(map) => same(&map, &whole, "on a full device"),
        Err(fault) => assert_eq!(fault.code, Code::DeviceOutOfMemory, "{}", fault.detail),
    }
    drop(other);
    same(&made.labels(&mut engine, false), &whole, "when the memory is back");
}

#[test]
fn the_program_runs_on_it() {
    let _gpu = need!(gpu(), NO_GPU);
    let folder = tempfile::tempdir().expect("folder");
    let (study, out) = (folder.path().join("study"), folder.path().join("out"));
    let run = |arguments: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut command = std::process::Command::new(stunetd());
        for argument in arguments {
            command.arg(argument);
        }
        let output = command.output().expect("stunetd");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&[&"demo", &study]);
    let model = crate::support::root().join("models/demo");
    let told = run(&[&"segment", &study, &"--model", &model, &"--out", &out, &"--device", &"cuda:0", &"--json"]);
    let report: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    let manifest = &report["results"][0]["manifest"];
    assert_eq!((manifest["device"].as_str(), manifest["settings"]["precision"].as_str()), (Some("cuda:0"), Some("bf16")));
    let result = Path::new(report["results"][0]["folder"].as_str().expect("folder")).to_path_buf();
    run(&[&"demo", &study, &"--compare", &result]);
}

#[test]
fn tolerances_can_fail() {
    // The comparisons of this module on the CPU, where they always run: equal labels are equal, others are not.
    let made = Made::new(Aggregation::Logits);
    let map = made.labels(&mut made.engine(Device::Cpu, Precision::F32), false);
    same(&map, &map, "itself");
    let (equal, half) = (|i: usize| map.labels().get(i), |i: usize| if i.is_multiple_of(2) { 0 } else { map.labels().get(i) });
    let found = pipeline_e2e::agreement(half, equal, map.labels().len());
    assert!(found.equal < 0.99999 && found.dice < 0.995, "{} {}", found.equal, found.dice);
}
