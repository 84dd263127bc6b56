//! The memory ladder: what runs out of memory is computed in smaller steps, with the same labels.

use crate::serve::daemon::{Daemon, World};
use crate::serve::scripted::Act;
use crate::support::ct::Ct;
use crate::support::made;
use stunetd::fault::{Code, Fault};
use stunetd::models::{Aggregation, Manifest, Region};
use stunetd::segment::{Accumulation, Engine, Grids, Placement, SegmentOptions, TorchEngine};
use stunetd::stunet::{Architecture, Network, Precision, Shortage};
use stunetd::volume::{LabelMap, Prepared};
use tch::Device;

const SHAPE: [usize; 3] = [19, 40, 36];
const SOURCE: [usize; 3] = [23, 61, 47];
/// Smaller allocations are left alone: on a real device they come out of what the allocator holds already.
const LEAST: u64 = 4 << 10;

fn manifest(aggregation: Aggregation, classes: usize) -> Manifest {
    let architecture = Architecture {
        in_channels: 1,
        num_classes: classes,
        dims: [4, 6, 8, 8, 8, 8],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    };
    made::manifest(&architecture, [8, 16, 16], aggregation)
}

/// On the CPU in f32, with every rung that a device of its own memory has.
fn engine(manifest: &Manifest) -> TorchEngine {
    tch::set_num_threads(1);
    let weights = made::weights(&manifest.architecture, 6);
    let network = Network::from_tensors(weights, &manifest.architecture, Device::Cpu, Precision::F32).expect("network");
    TorchEngine::new(network, manifest.clone()).expect("engine").with_every_rung()
}

fn study(manifest: &Manifest) -> Prepared {
    let mut noise = made::noise(3);
    let image = made::phantom(SHAPE).into_iter().map(|v| v + noise()).collect();
    made::prepared(manifest, SHAPE, SOURCE, image)
}

fn run(engine: &mut TorchEngine, prepared: Prepared) -> Result<LabelMap, Fault> {
    engine.segment(prepared, SegmentOptions::default(), &mut |_| true)
}

fn values(map: &LabelMap) -> Vec<u16> {
    (0..map.labels().len()).map(|i| map.labels().get(i)).collect()
}

/// Averages of features, of logits, of probabilities, and of regions that overlap.
fn kinds() -> [Manifest; 4] {
    let mut regions = manifest(Aggregation::Softmax, 3);
    regions.inference.regions = [(2, 1), (0, 2), (1, 2)].map(|(output, value)| Region { output, value }).into();
    [manifest(Aggregation::Logits, 7), manifest(Aggregation::Logits, 3), manifest(Aggregation::Softmax, 6), regions]
}

#[test]
fn every_rung_gives_the_same_labels() {
    for manifest in kinds() {
        let mut engine = engine(&manifest);
        let rungs = engine.placements(&Grids { network: SHAPE, cropped: SOURCE, source: SOURCE }, 100).expect("placements");
        let shape = |p: &Placement| (p.batch, p.accumulation);
        use Accumulation::{Device as OnDevice, Host, Slabs};
        let all = [(8, OnDevice), (4, OnDevice), (2, OnDevice), (1, OnDevice), (1, Slabs), (1, Host)];
        assert_eq!(rungs.iter().map(shape).collect::<Vec<_>>(), all);
        let first = run(&mut engine, study(&manifest)).expect("labels");
        assert_eq!(engine.steps_down(), 0);
        assert!(first.present().len() > 1, "{:?}: too little to compare", first.present());
        for (rung, way) in all.iter().enumerate().skip(1) {
            // The image is on the host already; then each way fails at once.
            let short = Shortage::begin(LEAST, 1, rung as u64).expect("a shortage");
            let map = run(&mut engine, study(&manifest)).expect("labels");
            drop(short);
            assert_eq!(engine.steps_down(), rung);
            assert!(values(&map) == values(&first), "other labels on {way:?}");
        }
    }
}

/// At any moment: every allocation of a study fails once, or one after the other of a sample of them.
#[test]
fn wherever_memory_runs_out_the_labels_are_the_same() {
    let manifest = manifest(Aggregation::Logits, 7);
    let mut engine = engine(&manifest);
    let short = Shortage::begin(LEAST, u64::MAX, 0).expect("a shortage");
    let first = run(&mut engine, study(&manifest)).expect("labels");
    let count = short.end().expect("the end of a shortage");
    let runs = std::env::var("STUNETD_SHORTAGES").map_or(20, |runs| runs.parse().expect("a number"));
    assert!(count > 100, "{count} allocations");
    let mut stepped = 0;
    for run_number in 0..count.min(runs) {
        // The first is the image on the host, before there is a choice.
        let spared = 1 + run_number * (count - 1) / count.min(runs);
        let short = Shortage::begin(LEAST, spared, 1).expect("a shortage");
        let map = run(&mut engine, study(&manifest)).unwrap_or_else(|fault| panic!("allocation {spared} of {count}: {fault}"));
        drop(short);
        stepped += engine.steps_down();
        assert!(values(&map) == values(&first), "other labels after allocation {spared} of {count} failed");
    }
    assert_eq!(stepped as u64, count.min(runs), "each failure is one step down");
    println!("memory ran out at {stepped} of {count} allocations: the same labels each time");
}

#[test]
fn what_does_not_fit_at_all_is_told_with_numbers() {
    let manifest = manifest(Aggregation::Softmax, 6);
    let mut engine = engine(&manifest);
    let first = run(&mut engine, study(&manifest)).expect("labels");
    let short = Shortage::begin(LEAST, 1, u64::MAX).expect("a shortage");
    let fault = run(&mut engine, study(&manifest)).expect_err("no memory");
    drop(short);
    assert_eq!((fault.code, engine.steps_down()), (Code::DeviceOutOfMemory, 5));
    assert!(fault.detail.contains("MiB of the device"), "{}", fault.detail);
    // The next study is not harmed.
    assert!(values(&run(&mut engine, study(&manifest)).expect("labels")) == values(&first));
    assert_eq!(engine.steps_down(), 0);
}

#[test]
fn a_study_that_runs_out_of_memory_again_and_again_is_parked() {
    let world = World::new();
    (0..3).for_each(|_| world.engine.next(Act::Fail(Code::DeviceOutOfMemory)));
    let daemon = Daemon::start(&world);
    Ct::new(1, 6).write(&world.incoming());
    daemon.shows("stunetd_jobs_parked_total{code=\"device.out_of_memory\"}", 1.0);
    assert_eq!(world.engine.calls(), 3, "twice it was tried again");
    assert_eq!(daemon.metric("stunetd_gpu_oom_total{device=\"cpu\",outcome=\"failed\"}"), 3.0);
    Ct::new(2, 8).write(&world.incoming());
    assert_eq!(world.shape(&daemon.next_result())[0], 8);
    daemon.end().expect("a clean end");
}
