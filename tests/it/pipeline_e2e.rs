//! Real CTs, from file to labels, against the label maps that nnU-Net made of them with the same weights.

use crate::need;
use crate::support::cases::{decoder, series_in};
use crate::support::{data, golden, note_skipped, root};
use std::collections::BTreeMap;
use std::path::Path;
use stunetd::models::import::{ImportOptions, import};
use stunetd::models::{Generation, Manifest, Orientation};
use stunetd::segment::{DeviceChoice, Engine, SegmentOptions, TorchEngine};
use stunetd::series::candidate_cases;
use stunetd::stunet::{Precision, cpu_has_bf16};
use stunetd::volume::{LabelMap, Limits, ReadLimits, Volume, nifti, prepare, read};

/// The demo model that the repository ships.
pub fn demo() -> Generation {
    Generation::open(&root().join("models/demo")).expect("models/demo")
}

/// The real series, read from its JPEG 2000 slices.
pub fn dicom_volume() -> Option<Volume> {
    Some(only_series(&data("ct_real/dicom")?))
}

/// The one series of a folder.
pub fn only_series(folder: &Path) -> Volume {
    let decoder = decoder();
    let mut cases = candidate_cases(series_in(folder, &decoder)).cases;
    assert_eq!(cases.len(), 1, "one series");
    read(cases.remove(0), &ReadLimits::default(), &decoder).expect("volume")
}

fn nifti_volume(name: &str) -> Option<Volume> {
    Some(nifti::read(&data(&format!("ct_nifti/{name}"))?, &Limits::default()).expect("NIfTI"))
}

pub fn segment(engine: &mut TorchEngine, manifest: &Manifest, volume: &Volume, mirror: bool) -> LabelMap {
    let prepared = prepare(volume, manifest, &Limits::default()).expect("prepared");
    let options = SegmentOptions { mirror, ..SegmentOptions::default() };
    engine.segment(prepared, options, &mut |_| true).expect("labels")
}

fn open(model: &Generation, precision: Precision) -> TorchEngine {
    TorchEngine::open(model, DeviceChoice::Cpu, precision, None).expect("engine")
}

/// How two label maps agree.
pub struct Agreement {
    /// Share of equal voxels.
    pub equal: f64,
    /// Smallest Dice of the labels in the second.
    pub dice: f64,
}

pub fn agreement(got: impl Fn(usize) -> u16, want: impl Fn(usize) -> u16, voxels: usize) -> Agreement {
    let mut counts: BTreeMap<u16, [u64; 3]> = BTreeMap::new();
    let mut equal = 0u64;
    for i in 0..voxels {
        let (a, b) = (got(i), want(i));
        equal += u64::from(a == b);
        counts.entry(a).or_default()[0] += 1;
        counts.entry(b).or_default()[1] += 1;
        counts.entry(a).or_default()[2] += u64::from(a == b);
    }
    let dice = counts
        .iter()
        .filter(|(label, [_, there, _])| **label > 0 && *there > 0)
        .map(|(_, [a, b, both])| 2.0 * *both as f64 / (a + b) as f64)
        .fold(1.0, f64::min);
    Agreement { equal: equal as f64 / voxels as f64, dice }
}

/// Holds a label map to a golden file: place in the patient, voxels, every label's Dice.
pub fn compare(map: &LabelMap, name: &str, equal: f64, dice: f64) {
    let path = golden(&format!("nnunet/e2e/{name}.nii.gz")).expect("golden");
    let golden = nifti::read(&path, &Limits::default()).expect("golden");
    assert_eq!(map.shape(), golden.shape, "{name}");
    for (row, wanted) in map.affine().rows.iter().zip(&golden.affine.rows) {
        assert!(row.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-4), "{name}: {:?} {:?}", map.affine(), golden.affine);
    }
    let found = agreement(|i| map.labels().get(i), |i| golden.data[i] as u16, golden.data.len());
    println!("{name}: {:.5} % of voxels, worst Dice {:.5}", 100.0 * found.equal, found.dice);
    assert!(found.equal >= equal, "{name}: {} of voxels", found.equal);
    assert!(found.dice >= dice, "{name}: Dice {}", found.dice);
}

/// bf16 against the labels in f32, as promised: 99.9 % of voxels, Dice 0.995 for every label.
fn bf16_keeps_the_labels(model: &Generation, volume: &Volume, map: &LabelMap, name: &str) {
    if !cpu_has_bf16() {
        return note_skipped("bf16 against f32", "this CPU does not compute in bf16");
    }
    let fast = segment(&mut open(model, Precision::Bf16), &model.manifest, volume, false);
    let found = agreement(|i| fast.labels().get(i), |i| map.labels().get(i), map.labels().len());
    println!("{name}, bf16 against f32: {:.4} % of voxels, worst Dice {:.4}", 100.0 * found.equal, found.dice);
    assert!(found.equal >= 0.999 && found.dice >= 0.995, "{name}, bf16: {} {}", found.equal, found.dice);
}

/// Whether long checks are to run; says so when not.
fn long(name: &str) -> bool {
    let wanted = std::env::var_os("STUNETD_LONG").is_some_and(|v| v == "1");
    if !wanted {
        note_skipped(name, "takes minutes; set STUNETD_LONG=1");
    }
    wanted
}

/// The README's tolerance for goldens that were summed in f16.
const README: (f64, f64) = (0.999, 0.995);

#[test]
fn dicom_equals_the_strict_reference() {
    let volume = need!(dicom_volume(), "shared data is not there");
    let model = demo();
    let mut engine = open(&model, Precision::F32);
    let map = segment(&mut engine, &model.manifest, &volume, false);
    compare(&map, "dicom_f32_mirror0", 0.99999, 0.9999);
    compare(&map, "dicom_mirror0", 0.9998, 0.998);
    bf16_keeps_the_labels(&model, &volume, &map, "dicom");
    compare(&segment(&mut engine, &model.manifest, &volume, true), "dicom_mirror1", README.0, README.1);
    // Windows over what is more than air, as measured: docs/performance.md.
    let prepared = prepare(&volume, &model.manifest, &Limits::default()).expect("prepared");
    let options = SegmentOptions { skip_air: true, ..SegmentOptions::default() };
    let skipped = engine.segment(prepared, options, &mut |_| true).expect("labels");
    let windows = engine.timings().into_iter().find(|(name, _)| *name == "windows");
    assert_eq!(windows, Some(("windows", 6.0)), "of 9");
    let found = agreement(|i| skipped.labels().get(i), |i| map.labels().get(i), map.labels().len());
    println!("dicom, skip_air: {:.4} % of voxels, worst Dice {:.4}", 100.0 * found.equal, found.dice);
    assert!(found.equal >= 0.994 && found.dice >= 0.94, "skip_air: {} {}", found.equal, found.dice);
}

#[test]
fn dicom_turned_to_ras() {
    let volume = need!(dicom_volume(), "shared data is not there");
    let mut model = demo();
    model.manifest.preprocessing.orientation = Orientation::Ras;
    let map = segment(&mut open(&model, Precision::F32), &model.manifest, &volume, false);
    compare(&map, "dicom_ras_mirror0", README.0, README.1);
}

#[test]
fn dicom_with_the_v1_model() {
    let volume = need!(dicom_volume(), "shared data is not there");
    let source = need!(golden("nnunet/demo_model/v1/demo_ep1.model"), "goldens are not here");
    let labels = source.parent().and_then(Path::parent).expect("above").join("nnUNetTrainer__nnUNetPlans__3d_fullres/dataset.json");
    let folder = tempfile::tempdir().expect("folder");
    let options = ImportOptions { labels: Some(labels.display().to_string()), ..ImportOptions::default() };
    let model = import(&source, &folder.path().join("v1"), &options, &mut |_, _| true).expect("import").generation;
    let mut engine = open(&model, Precision::F32);
    compare(&segment(&mut engine, &model.manifest, &volume, false), "dicom_v1_mirror0", README.0, README.1);
    if long("dicom_v1_mirror1") {
        compare(&segment(&mut engine, &model.manifest, &volume, true), "dicom_v1_mirror1", README.0, README.1);
    }
}

#[test]
fn nifti_volumes() {
    let model = demo();
    let mut engine = open(&model, Precision::F32);
    for (name, quick_mirror) in [("ct_sm", true), ("ct", false)] {
        let volume = need!(nifti_volume(&format!("example_{name}.nii.gz")), "shared data is not there");
        let map = segment(&mut engine, &model.manifest, &volume, false);
        compare(&map, &format!("{name}_mirror0"), README.0, README.1);
        bf16_keeps_the_labels(&model, &volume, &map, name);
        if quick_mirror || long(&format!("{name}_mirror1")) {
            compare(&segment(&mut engine, &model.manifest, &volume, true), &format!("{name}_mirror1"), README.0, README.1);
        }
    }
}
