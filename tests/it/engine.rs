//! The engine as the pipeline uses it: options, limits, faults, label tables, post-processing.

use crate::support::made;
use std::ops::Range;
use stunetd::fault::{Code, Fault};
use stunetd::models::{Aggregation, Manifest, Normalization, Postprocessing, Region};
use stunetd::segment::aggregate::{Blending, SlabSink, aggregate};
use stunetd::segment::export::labels_plain;
use stunetd::segment::tiles::Tiling;
use stunetd::segment::{
    Accumulation, Decision, DeviceChoice, Engine, Grids, MemoryLimits, Placement, SegmentError, SegmentOptions, Timings, TorchEngine,
    bytes_needed,
};
use stunetd::stunet::{Architecture, Network, Precision};
use stunetd::volume::{LabelMap, Labels, Prepared};
use tch::{Device, Tensor};

const SHAPE: [usize; 3] = [11, 20, 17];
const SOURCE: [usize; 3] = [13, 31, 29];
/// Of weights with which most classes occur.
const SEED: u64 = 6;

fn architecture(classes: usize) -> Architecture {
    Architecture {
        in_channels: 1,
        num_classes: classes,
        dims: [4, 6, 8, 8, 8, 8],
        depth: [1; 6],
        kernels: [[3; 3]; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    }
}

fn network(architecture: &Architecture) -> Network {
    tch::set_num_threads(1);
    Network::from_tensors(made::weights(architecture, SEED), architecture, Device::Cpu, Precision::F32).expect("network")
}

fn manifest(classes: usize, aggregation: Aggregation) -> Manifest {
    made::manifest(&architecture(classes), [8, 16, 16], aggregation)
}

fn engine(manifest: &Manifest) -> TorchEngine {
    TorchEngine::new(network(&manifest.architecture), manifest.clone()).expect("engine")
}

/// Too small to hold organs: the phantom with much noise, so that many classes occur.
fn image() -> Vec<f32> {
    let mut noise = made::noise(3);
    made::phantom(SHAPE).into_iter().map(|v| v + noise()).collect()
}

fn study(manifest: &Manifest) -> Prepared {
    made::prepared(manifest, SHAPE, SOURCE, image())
}

fn run(engine: &mut TorchEngine, prepared: Prepared, options: SegmentOptions) -> Result<LabelMap, Fault> {
    engine.segment(prepared, options, &mut |_| true)
}

fn values(map: &LabelMap) -> Vec<u16> {
    (0..map.labels().len()).map(|i| map.labels().get(i)).collect()
}

struct Keep(Vec<f32>);

impl SlabSink for Keep {
    fn slab(&mut self, values: &Tensor) -> Result<(), SegmentError> {
        self.0.extend(Vec::<f32>::try_from(values.reshape([-1])).map_err(SegmentError::from)?);
        Ok(())
    }
}

/// The labels of a study by the plain statement of the export.
fn plain(manifest: &Manifest, mirror: bool) -> Vec<u16> {
    let inference = &manifest.inference;
    let blending = Blending {
        aggregation: inference.aggregation,
        regions: !inference.regions.is_empty(),
        mirror_axes: if mirror { inference.mirror_axes.clone() } else { vec![] },
        batch: 1,
        accumulation: Accumulation::Device,
    };
    let tiling = Tiling::new(SHAPE, inference.patch, 0.5).expect("tiling");
    let image = Tensor::from_slice(&image()).view(SHAPE.map(|n| n as i64)).unsqueeze(0);
    let mut keep = Keep(Vec::new());
    let network = network(&manifest.architecture);
    aggregate(&network, image, &tiling, &blending, &mut keep, &mut Timings::default(), &mut |_| true).expect("outputs");
    let outputs = manifest.architecture.num_classes;
    let decision = Decision::new(&inference.regions, outputs, inference.aggregation).expect("decision");
    labels_plain(&keep.0, SHAPE, SOURCE, None, outputs, &decision)
}

#[test]
fn labels_are_on_the_source_grid() {
    for aggregation in [Aggregation::Logits, Aggregation::Softmax] {
        let manifest = manifest(6, aggregation);
        let mut engine = engine(&manifest);
        assert_eq!((engine.device(), engine.precision()), (Device::Cpu, Precision::F32));
        for mirror in [false, true] {
            let options = SegmentOptions { mirror, ..SegmentOptions::default() };
            let map = run(&mut engine, study(&manifest), options).expect("labels");
            assert_eq!((map.shape(), values(&map)), (SOURCE, plain(&manifest, mirror)));
            assert!(map.present().len() > 2, "{:?}: too little to compare", map.present());
            let windows = engine.timings().into_iter().find(|(name, _)| *name == "windows");
            assert_eq!(windows, Some(("windows", if mirror { 64.0 } else { 8.0 })));
        }
    }
}

#[test]
fn a_model_without_mirror_axes_is_not_mirrored() {
    let mut manifest = manifest(4, Aggregation::Logits);
    manifest.inference.mirror_axes.clear();
    let mut engine = engine(&manifest);
    let mirrored = run(&mut engine, study(&manifest), SegmentOptions { mirror: true, ..SegmentOptions::default() }).expect("labels");
    assert_eq!(values(&mirrored), plain(&manifest, false));
}

#[test]
fn regions_overwrite_in_their_order() {
    for aggregation in [Aggregation::Logits, Aggregation::Softmax] {
        let mut manifest = manifest(3, aggregation);
        manifest.inference.regions = [(2, 1), (0, 2), (1, 2)].map(|(output, value)| Region { output, value }).into();
        let map = run(&mut engine(&manifest), study(&manifest), SegmentOptions::default()).expect("labels");
        assert_eq!(values(&map), plain(&manifest, false));
        assert_eq!(map.present(), [1, 2]);
    }
}

#[test]
fn many_classes_make_wide_labels() {
    let manifest = manifest(600, Aggregation::Logits);
    let map = run(&mut engine(&manifest), study(&manifest), SegmentOptions::default()).expect("labels");
    assert!(matches!(map.labels(), Labels::U16(_)));
    assert!(map.present().iter().any(|&l| l > 255), "{:?}", map.present());
    assert_eq!(values(&map), plain(&manifest, false));
}

#[test]
fn postprocessing_keeps_the_largest() {
    let mut manifest = manifest(4, Aggregation::Logits);
    let all = run(&mut engine(&manifest), study(&manifest), SegmentOptions::default()).expect("labels");
    manifest.postprocessing = Postprocessing { keep_largest: vec![vec![1], vec![2, 3]], connectivity: Some(6) };
    let some = run(&mut engine(&manifest), study(&manifest), SegmentOptions::default()).expect("labels");
    assert!(some.count(1) < all.count(1) && some.count(1) > 0, "{} {}", some.count(1), all.count(1));
    assert!(values(&all).iter().zip(values(&some)).all(|(a, b)| b == 0 || *a == b));
    manifest.postprocessing.connectivity = Some(18);
    let fault = run(&mut engine(&manifest), study(&manifest), SegmentOptions::default()).expect_err("18 neighbours");
    assert_eq!(fault.code, Code::InternalBug);
}

#[test]
fn what_does_not_fit_is_refused_before_work() {
    let manifest = manifest(4, Aggregation::Softmax);
    let mut refuse = engine(&manifest);
    let code = |engine: &mut TorchEngine, prepared: Prepared, step: f64| {
        let options = SegmentOptions { step, ..SegmentOptions::default() };
        engine.segment(prepared, options, &mut |_| panic!("work was done")).expect_err("refused").code
    };
    let good = || study(&manifest);
    assert_eq!(code(&mut refuse, Prepared { channels: 2, ..good() }, 0.5), Code::ModelChannels);
    assert_eq!(code(&mut refuse, Prepared { shape: [11, 20, 18], ..good() }, 0.5), Code::InternalBug);
    assert_eq!(code(&mut refuse, Prepared { shape: [usize::MAX, 20, 18], ..good() }, 0.5), Code::InternalBug);
    assert_eq!(code(&mut refuse, good(), 0.0), Code::ConfigUsage);
    assert_eq!(code(&mut refuse, good(), 1.5), Code::ConfigUsage);

    let mut poor = refuse.with_limits(MemoryLimits { host: Some(1 << 20), device: None });
    let fault = poor.segment(good(), SegmentOptions::default(), &mut |_| panic!("work was done")).expect_err("refused");
    assert_eq!(fault.code, Code::MemoryTooLarge);
    assert!(fault.detail.contains("11 × 20 × 17") && fault.detail.contains(", 1 MiB may be used"), "{}", fault.detail);
}

#[test]
fn windows_lie_over_what_is_more_than_air() {
    let ct = Normalization::Ct { lower: -1000.0, upper: 1000.0, mean: 0.0, sd: 500.0 };
    // More than air lies in 20..26, 24..40 and 30..50; 20 mm around it are 14 voxels.
    let (shape, part) = ([46, 60, 70], [6..40, 10..54, 16..64]);
    let size = part.clone().map(|range: Range<usize>| range.len());
    let inside = |i: usize| {
        let at = [i / (60 * 70), i / 70 % 60, i % 70];
        (0..3).all(|axis| part[axis].contains(&at[axis]))
    };
    let mut noise = made::noise(8);
    let image: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|i| {
            let [z, y, x] = [i / (60 * 70), i / 70 % 60, i % 70];
            let dense = (20..26).contains(&z) && (24..40).contains(&y) && (30..50).contains(&x);
            if dense { noise().max(-0.9) } else { -1.5 + 0.1 * noise().clamp(-4.0, 4.0) }
        })
        .collect();
    let cut: Vec<f32> = image.iter().enumerate().filter(|(i, _)| inside(*i)).map(|(_, v)| *v).collect();
    let options = SegmentOptions { skip_air: true, ..SegmentOptions::default() };
    for (aggregation, regions) in [(Aggregation::Logits, false), (Aggregation::Softmax, false), (Aggregation::Softmax, true)] {
        let mut manifest = manifest(5, aggregation);
        if regions {
            manifest.inference.regions = [(2, 1), (0, 2), (1, 3)].map(|(output, value)| Region { output, value }).into();
        }
        let mut engine = engine(&manifest);
        let study = |manifest: &Manifest| made::prepared(manifest, shape, shape, image.clone());
        assert_eq!(run(&mut engine, study(&manifest), options).expect_err("a z-score").code, Code::ConfigUsage);
        manifest.preprocessing.channels[0].normalization = ct;
        let mut engine = self::engine(&manifest);
        let found = values(&run(&mut engine, study(&manifest), options).expect("labels"));
        let windows = engine.timings().into_iter().find(|(name, _)| *name == "windows");
        assert_eq!(windows, Some(("windows", Tiling::new(size, [8, 16, 16], 0.5).expect("tiling").windows() as f64)));
        let alone = made::prepared(&manifest, size, size, cut.clone());
        let expected = values(&run(&mut engine, alone, SegmentOptions::default()).expect("labels"));
        let (kept, around): (Vec<_>, Vec<_>) = found.into_iter().enumerate().partition(|(i, _)| inside(*i));
        assert!(kept.iter().map(|(_, label)| label).eq(&expected), "{aggregation:?}");
        assert!(expected.iter().any(|&label| label > 0) && around.iter().all(|(_, label)| *label == 0), "{aggregation:?}");
        // Without air nothing changes.
        let full = || made::prepared(&manifest, size, size, cut.iter().map(|v| v.max(-0.9)).collect());
        let [with, without] =
            [options, SegmentOptions::default()].map(|options| values(&run(&mut engine, full(), options).expect("labels")));
        assert_eq!(with, without);
    }
}

#[test]
fn a_study_can_be_stopped() {
    let manifest = manifest(4, Aggregation::Logits);
    let mut engine = engine(&manifest);
    let fault = engine.segment(study(&manifest), SegmentOptions::default(), &mut |p| p.done < 3).expect_err("stopped");
    assert_eq!(fault.code, Code::InternalShutdown);
    assert_eq!(values(&run(&mut engine, study(&manifest), SegmentOptions::default()).expect("labels")), plain(&manifest, false));
}

#[test]
fn broken_weights_are_noticed() {
    let manifest = manifest(4, Aggregation::Logits);
    let mut weights = made::weights(&manifest.architecture, SEED);
    weights.insert("seg_outputs.4.bias".into(), Tensor::from_slice(&[0.0f32, f32::NAN, 0.0, 0.0]));
    // Refused when they are opened, or when their output is seen: never labels.
    let result = Network::from_tensors(weights, &manifest.architecture, Device::Cpu, Precision::F32)
        .map_err(Fault::from)
        .and_then(|network| TorchEngine::new(network, manifest.clone()))
        .and_then(|mut engine| run(&mut engine, study(&manifest), SegmentOptions::default()));
    let code = result.expect_err("not finite").code;
    assert!([Code::ModelNotFinite, Code::ModelMismatch].contains(&code), "{code}");
}

#[test]
fn engine_and_manifest_must_be_of_one_model() {
    let network = network(&architecture(4));
    let fault = TorchEngine::new(network, manifest(5, Aggregation::Logits)).err().expect("refused");
    assert_eq!(fault.code, Code::InternalBug);
    let mut odd = manifest(4, Aggregation::Logits);
    odd.inference.patch = [8, 16, 12];
    let network = self::network(&odd.architecture);
    assert_eq!(TorchEngine::new(network, odd).err().expect("refused").code, Code::ModelManifest);
}

#[test]
fn devices_that_are_not_there_are_refused() {
    let count = tch::Cuda::device_count().max(0) as usize;
    let fault = Fault::from(DeviceChoice::Cuda(count).resolve().expect_err("no such device"));
    assert_eq!(fault.code, Code::DeviceUnavailable);
    assert!(DeviceChoice::Auto.resolve().is_ok());
}

#[test]
fn memory_grows_with_what_is_held() {
    let shapes = Grids { network: [300, 273, 273], cropped: [300, 512, 512], source: [300, 512, 512] };
    let patch = [128; 3];
    let model = |size, classes, aggregation| {
        made::manifest(&Architecture::named(size, 1, classes, Architecture::OFFICIAL_STRIDES), patch, aggregation)
    };
    use stunetd::stunet::Size::{B, S};
    let cpu = Placement { cuda: false, number: 4, batch: 1, accumulation: Accumulation::Device };
    let host = |m: &Manifest, g: &Grids| bytes_needed(m, g, &cpu).host;
    let v2 = host(&model(S, 105, Aggregation::Logits), &shapes);
    let v1 = host(&model(S, 105, Aggregation::Softmax), &shapes);
    // The sums of a v1 model are 105 numbers for each voxel of 128 slices, those of a v2 model 16 features.
    assert_eq!(v1 - v2, 128 * 273 * 273 * (105 - 16) * 4u64);
    assert!(v2 < 4 << 30 && v1 < 6 << 30, "{v2} {v1}");
    assert!(host(&model(B, 105, Aggregation::Logits), &shapes) > v2);
    let tall = Grids { network: [900, 273, 273], cropped: [900, 512, 512], source: [900, 512, 512] };
    assert!(host(&model(S, 105, Aggregation::Logits), &tall) < v2 + (2 << 30), "sums do not grow with the number of slices");
    let absurd = Grids { network: [usize::MAX; 3], cropped: [usize::MAX; 3], source: [usize::MAX; 3] };
    assert_eq!(host(&model(S, 105, Aggregation::Logits), &absurd), u64::MAX);

    let cuda = Placement { cuda: true, batch: 1, number: 2, accumulation: Accumulation::Device };
    let need = |p: Placement| bytes_needed(&model(S, 105, Aggregation::Softmax), &shapes, &p);
    assert!(need(Placement { batch: 4, ..cuda }).device > need(cuda).device);
    assert!(need(Placement { accumulation: Accumulation::Host, ..cuda }).device + (4 << 30) < need(cuda).device + (1 << 30));
    assert!(need(Placement { accumulation: Accumulation::Host, ..cuda }).host > need(cuda).host);
}
