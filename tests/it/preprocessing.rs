//! From a volume to the network's grid and back: against nnU-Net's numbers, and as an algebra.

use crate::need;
use crate::support::cases::{decoder, grouped};
use crate::support::manifest::{channel, manifest, preprocessing};
use crate::support::{Tensors, data, golden, relative_error};
use proptest::prelude::*;
use std::path::PathBuf;
use stunetd::fault::Code;
use stunetd::models::{Normalization, NormalizationOrder, Orientation, Preprocessing, Resampling};
use stunetd::series::{Case, Irregular, Policy};
use stunetd::volume::nifti::{self, NiftiGeometry};
use stunetd::volume::resample::{Grid, Interpolation, Resize};
use stunetd::volume::{Affine, Axes, Labels, Limits, Prepared, Quantity, ReadLimits, Source, Volume, prepare, read};

const V1: NormalizationOrder = NormalizationOrder::ResampleFirst;
const V2: NormalizationOrder = NormalizationOrder::NormalizeFirst;

/// A volume whose axes are those of LPS, with spacing (z, y, x).
fn volume(data: Vec<f32>, channels: usize, shape: [usize; 3], [sz, sy, sx]: [f64; 3]) -> Volume {
    let affine = Affine::new([sx, 0.0, 0.0], [0.0, sy, 0.0], [0.0, 0.0, sz], [-10.0, 20.0, 30.0]).expect("invertible");
    with_affine(data, channels, shape, affine)
}

fn with_affine(data: Vec<f32>, channels: usize, shape: [usize; 3], affine: Affine) -> Volume {
    let geometry = Box::new(NiftiGeometry::from_affine(&affine));
    let source = Source::Nifti { path: PathBuf::from("scan.nii.gz"), digest: [0; 32], geometry };
    Volume { data, channels, shape, affine, quantity: vec![Quantity::Unknown; channels], source }
}

fn prepared(volume: &Volume, steps: Preprocessing) -> Prepared {
    prepare(volume, &manifest(steps), &Limits::default()).expect("can be prepared")
}

fn triple(shape: &[usize]) -> [usize; 3] {
    shape[shape.len() - 3..].try_into().expect("three axes")
}

fn largest_difference(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    got.iter().zip(expected).fold(0.0, |w, (g, e)| w.max((f64::from(*g) - e).abs()))
}

#[test]
fn normalisation_is_the_references() {
    let tensors = Tensors::open(&need!(golden("nnunet/normalization.safetensors"), "goldens/nnunet is not there"));
    let ct = Normalization::Ct { lower: -958.0, upper: 327.0, mean: 47.3, sd: 92.4 };
    let ct2 = Normalization::Ct2 { lower: -958.0, upper: 327.0 };
    let z = Normalization::ZScore;
    for (input, output, order, normalization, mask) in [
        ("ct.in", "ct.out", V2, ct, false),
        ("ct.in", "zscore.out", V2, z, false),
        ("ct.in", "rescale01.out", V2, Normalization::Rescale01, false),
        ("crop.in", "crop.data", V2, Normalization::None, false),
        ("crop.in", "zscore_mask.out", V2, z, true),
        ("crop.in", "v1.CT.mask0.out", V1, ct, false),
        ("crop.in", "v1.CT.mask1.out", V1, ct, true),
        ("crop.in", "v1.CT2.mask0.out", V1, ct2, false),
        ("crop.in", "v1.CT2.mask1.out", V1, ct2, true),
        ("crop.in", "v1.nonCT.mask0.out", V1, z, false),
        ("crop.in", "v1.nonCT.mask1.out", V1, z, true),
        ("crop.in", "v1.noNorm.mask0.out", V1, Normalization::None, false),
        ("crop.in", "v1.noNorm.mask1.out", V1, Normalization::None, true),
    ] {
        let (shape, image) = tensors.f32(input);
        let mut steps = preprocessing(order, [1.0; 3]);
        steps.channels = vec![channel(normalization, mask)];
        let got = prepared(&volume(image, 1, triple(&shape), [1.0; 3]), steps);
        let expected = tensors.get(output);
        assert_eq!(got.shape, triple(&expected.shape), "{output}");
        let error = largest_difference(&got.data, &expected.values);
        assert!(error < if output == "crop.data" { 1e-30 } else { 2e-5 }, "{output}: {error:.1e}");
    }
}

#[test]
fn the_crop_is_the_references() {
    let tensors = Tensors::open(&need!(golden("nnunet/normalization.safetensors"), "goldens/nnunet is not there"));
    let (shape, image) = tensors.f32("crop.in");
    let got = prepared(&volume(image, 1, triple(&shape), [1.0; 3]), preprocessing(V2, [1.0; 3]));
    let bounds: Vec<usize> = tensors.get("crop.bbox").values.iter().map(|&v| v as usize).collect();
    for a in 0..3 {
        assert_eq!((got.back.crop_start[a], got.back.crop_start[a] + got.back.cropped[a]), (bounds[2 * a], bounds[2 * a + 1]));
    }
}

/// Crop, transposition, CT normalisation, cubic resampling, and all of it undone for the labels.
#[test]
fn preprocessing_and_export_are_the_references() {
    let tensors = Tensors::open(&need!(golden("nnunet/export.safetensors"), "goldens/nnunet is not there"));
    let (shape, raw) = tensors.f32("raw");
    let mut steps = preprocessing(V2, [1.5; 3]);
    steps.transpose = [1, 0, 2];
    steps.channels = vec![channel(Normalization::Ct { lower: -3.0, upper: 3.0, mean: 0.0, sd: 1.0 }, false)];
    let got = prepared(&volume(raw, 1, triple(&shape), [2.0, 0.9, 1.1]), steps);
    let expected = tensors.get("preprocessed");
    assert_eq!(got.shape, triple(&expected.shape));
    let error = relative_error(got.data.iter().map(|&v| v.into()), &expected.values);
    assert!(error < 1e-6, "{error:.1e}");

    let (logits_shape, logits) = tensors.f32("logits_f16");
    let resize = Resize { to: got.back.cropped, interpolation: Interpolation::Linear, separate_axis: got.back.separate_axis };
    let [voxels, n] = [got.shape, got.back.cropped].map(|s| s.iter().product::<usize>());
    let classes: Vec<Vec<f32>> = (0..logits_shape[0])
        .map(|c| resize.apply(&Grid::new(&logits[c * voxels..][..voxels], got.shape)))
        .map(|class| class.into_iter().map(|v| half::f16::from_f32(v).to_f32()).collect())
        .collect();
    let best = |i: usize| (1..classes.len()).fold(0, |best, c| if classes[c][i] > classes[best][i] { c } else { best });
    let labels = Labels::U8((0..n).map(|i| best(i) as u8).collect());
    let map = got.back.label_map(labels).expect("labels of the table");
    let expected = tensors.get("label");
    assert_eq!(map.shape(), triple(&expected.shape));
    let differ = expected.values.iter().enumerate().filter(|(i, e)| f64::from(map.labels().get(*i)) != **e).count();
    assert!(differ as f64 <= 1e-4 * expected.values.len() as f64, "{differ} labels differ");
}

#[derive(serde::Deserialize)]
struct Turn {
    ras_affine: [[f64; 4]; 3],
    /// For each input axis i, j, k: the world axis it becomes, and its sign.
    world_axis: [usize; 3],
    sign: [i32; 3],
}

/// 300 random affines, rotated, sheared and mirrored, as nibabel 5.4 decides.
#[test]
fn closest_canonical_is_nibabels() {
    let path = need!(golden("nnunet/orientation.json"), "goldens/nnunet is not there");
    let turns: Vec<Turn> = serde_json::from_slice(&std::fs::read(path).expect("golden")).expect("turns");
    assert!(turns.len() >= 300);
    for turn in turns {
        let column = |c: usize| [-turn.ras_affine[0][c], -turn.ras_affine[1][c], turn.ras_affine[2][c]];
        let affine = Affine::new(column(0), column(1), column(2), column(3)).expect("invertible");
        let axes = Axes::ras(&affine);
        for input in 0..3 {
            let array_axis = 2 - turn.world_axis[input];
            assert_eq!(axes.source_axis[array_axis], 2 - input, "{:?}", turn.ras_affine);
            assert_eq!(axes.flipped[array_axis], turn.sign[input] < 0, "{:?}", turn.ras_affine);
        }
    }
}

#[test]
fn a_real_series_is_prepared_as_the_reference_does() {
    let golden = Tensors::open(&need!(golden("nnunet/e2e/dicom_lowres.safetensors"), "goldens/nnunet is not there"));
    let folder = need!(data("ct_real/dicom"), "shared/data is not there");
    let volume = read_series(&folder, &Policy::default());
    let got = prepared(&volume, demo());
    let expected = golden.get("preprocessed_f32");
    assert_eq!(got.shape, triple(&expected.shape));
    let error = relative_error(got.data.iter().map(|&v| v.into()), &expected.values);
    assert!(error < 1e-6, "{error:.1e}");
}

fn read_series(folder: &std::path::Path, policy: &Policy) -> Volume {
    let decoder = decoder();
    let channels = grouped(folder, policy, &decoder).series;
    assert_eq!(channels.len(), 1, "{}", folder.display());
    read(Case { channels, grid: 0, volume_key: [0; 32] }, &ReadLimits::default(), &decoder).expect("reads")
}

/// A real tilted and uneven series: the body, painted on the upright grid, returns to the slices that it was seen in.
#[test]
fn the_body_returns_to_real_tilted_slices() {
    let folder = need!(data("ct_ge_tilt_varspacing"), "shared/data is not there");
    let volume = read_series(&folder, &Policy { irregular: Irregular::Resample, ..Policy::default() });
    let [_, sy, sx] = volume.spacing_zyx();
    let got = prepared(&volume, preprocessing(V2, [2.0, sy, sx]));
    let rectified = got.back.rectified.as_ref().expect("is rectified");
    assert_eq!(rectified.slices.len(), volume.shape[0]);
    assert!(rectified.shape[1] > volume.shape[1], "the slices lean along their columns");
    let resize = Resize { to: got.back.cropped, interpolation: Interpolation::Linear, separate_axis: got.back.separate_axis };
    let upright = resize.apply(&Grid::new(&got.data, got.shape));
    let back = got.back.labels_to_source(&upright.iter().map(|&v| u8::from(v > -300.0)).collect::<Vec<_>>());
    let (mut both, mut sum) = (0usize, 0usize);
    for (label, v) in back.iter().zip(&volume.data) {
        both += usize::from(*label == 1 && *v > -300.0);
        sum += usize::from(*label == 1) + usize::from(*v > -300.0);
    }
    let dice = 2.0 * both as f64 / sum as f64;
    assert!(dice > 0.99, "{dice}");
}

/// The demo model's preprocessing.
fn demo() -> Preprocessing {
    let mut steps = preprocessing(V2, [3.0; 3]);
    let ct = Normalization::Ct { lower: -952.0, upper: 571.0, mean: 69.80499267578125, sd: 139.25955200195312 };
    steps.channels = vec![channel(ct, false)];
    steps
}

#[test]
fn a_real_volume_at_the_models_spacing_is_only_normalised() {
    let path = need!(data("ct_nifti/example_ct_sm.nii.gz"), "shared/data is not there");
    let volume = nifti::read(&path, &Limits::default()).expect("reads");
    let got = prepared(&volume, demo());
    assert_eq!(got.shape, volume.shape);
    for (g, v) in got.data.iter().zip(&volume.data) {
        assert_eq!(*g, (v.clamp(-952.0, 571.0) - 69.80499267578125f64 as f32) / 139.25955200195312f64 as f32);
    }
}

fn permutation() -> impl Strategy<Value = [usize; 3]> {
    prop::sample::select(vec![[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
}

/// A volume of random size, orientation and zero border, whose voxels are all different.
fn any_volume() -> impl Strategy<Value = Volume> {
    let sizes = proptest::array::uniform3(1usize..9);
    let borders = proptest::array::uniform3((0usize..3, 0usize..3));
    let signs = proptest::array::uniform3(any::<bool>());
    (sizes, borders, permutation(), signs, proptest::array::uniform3(-0.15f64..0.15)).prop_map(|(shape, borders, order, signs, lean)| {
        let full: [usize; 3] = std::array::from_fn(|a| shape[a] + borders[a].0 + borders[a].1);
        let mut data = vec![0.0f32; full.iter().product()];
        for (i, v) in data.iter_mut().enumerate() {
            let p = [i / (full[1] * full[2]), i / full[2] % full[1], i % full[2]];
            if (0..3).all(|a| (borders[a].0..borders[a].0 + shape[a]).contains(&p[a])) {
                *v = 1.0 + i as f32;
            }
        }
        // orthonormal: a small rotation about a skew axis, then permuted and mirrored
        let [a, b, c] = lean;
        let w = (1.0 - a * a - b * b - c * c).sqrt();
        let rotation = [
            [1.0 - 2.0 * (b * b + c * c), 2.0 * (a * b + c * w), 2.0 * (a * c - b * w)],
            [2.0 * (a * b - c * w), 1.0 - 2.0 * (a * a + c * c), 2.0 * (b * c + a * w)],
            [2.0 * (a * c + b * w), 2.0 * (b * c - a * w), 1.0 - 2.0 * (a * a + b * b)],
        ];
        let step = |i: usize| rotation[order[i]].map(|v| v * if signs[i] { -1.5 } else { 1.5 });
        let affine = Affine::new(step(0), step(1), step(2), [5.0, -40.0, 7.5]).expect("invertible");
        with_affine(data, 1, full, affine)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Without resampling every voxel comes back to where it was: labels that number the network's voxels land on the voxels they name.
    #[test]
    fn labels_return_to_the_voxels_they_came_from(volume in any_volume(), ras: bool, transpose in permutation()) {
        let mut steps = preprocessing(V2, [1.5; 3]);
        steps.orientation = if ras { Orientation::Ras } else { Orientation::AsStored };
        steps.transpose = transpose;
        let got = prepared(&volume, steps);
        prop_assert_eq!(got.shape, got.back.cropped);
        prop_assert_eq!(&got.back.labels_to_source(&got.data), &volume.data);
        let wide: Vec<u16> = got.data.iter().map(|&v| v as u16 % 200).collect();
        let map = got.back.label_map(Labels::U16(wide)).expect("labels");
        prop_assert!(volume.data.iter().enumerate().all(|(i, v)| map.labels().get(i) == *v as u16 % 200));
        if ras {
            // along each network axis the patient's coordinate grows towards superior, anterior, right
            for (a, axis) in transpose.into_iter().enumerate() {
                let column = volume.affine.column(2 - got.back.source_axis[a]);
                let sign = if got.back.flipped[a] { -1.0 } else { 1.0 };
                let world = 2 - axis;
                let ras = [-column[0], -column[1], column[2]].map(|v| v * sign);
                prop_assert!(ras[world] > 0.0 && ras.iter().all(|v| v.abs() <= ras[world]), "{ras:?}");
            }
        }
    }

    /// RAS first does not depend on how the voxels are stored.
    #[test]
    fn storage_order_does_not_matter_in_ras(volume in any_volume(), order in permutation(), flips in proptest::array::uniform3(any::<bool>())) {
        let grid = Grid::new(&volume.data, volume.shape).reordered(order).flipped(flips);
        let shape = grid.shape();
        let data: Vec<f32> = (0..shape[0]).flat_map(|a| (0..shape[1]).flat_map(move |b| grid.row(a, b))).collect();
        let column = |axis: usize| volume.affine.column(2 - order[axis]).map(|v| if flips[axis] { -v } else { v });
        let corner: [f64; 3] = std::array::from_fn(|i| {
            let axis = (0..3).find(|&a| order[a] == 2 - i).expect("a permutation");
            if flips[axis] { (shape[axis] - 1) as f64 } else { 0.0 }
        });
        let affine = Affine::new(column(2), column(1), column(0), volume.affine.apply(corner)).expect("invertible");
        let stored = with_affine(data, 1, shape, affine);
        let mut steps = preprocessing(V1, [1.5; 3]);
        steps.orientation = Orientation::Ras;
        let [a, b] = [&volume, &stored].map(|v| prepared(v, steps.clone()));
        prop_assert_eq!(a.shape, b.shape);
        prop_assert_eq!(a.data, b.data);
    }

    /// Whatever the sizes, spacings and settings: a finite grid of the right shape, and labels that fill the source grid.
    #[test]
    fn any_settings_give_a_finite_grid(
        volume in any_volume(), spacing in proptest::array::uniform3(0.4f64..7.0), v1: bool, torch: bool, mask: bool, transpose in permutation(),
        scheme in 0usize..4,
    ) {
        let mut steps = preprocessing(if v1 { V1 } else { V2 }, spacing);
        steps.transpose = transpose;
        steps.resampling = if torch { Resampling::Torch } else { Resampling::Default };
        let normalization = [Normalization::ZScore, Normalization::Rescale01, Normalization::None,
            Normalization::Ct { lower: -5.0, upper: 40.0, mean: 3.0, sd: 2.0 }][scheme];
        steps.channels = vec![channel(normalization, mask)];
        let got = prepared(&volume, steps);
        prop_assert_eq!(got.data.len(), got.shape.iter().product::<usize>());
        prop_assert!(got.data.iter().all(|v| v.is_finite()));
        let ones = vec![1u8; got.back.cropped.iter().product()];
        let back = got.back.labels_to_source(&ones);
        prop_assert!(back.iter().zip(&volume.data).all(|(label, v)| *label == 1 || *v == 0.0));
    }
}

#[test]
fn channels_share_one_crop() {
    let mut data = vec![0.0f32; 2 * 4 * 4 * 4];
    data[21] = 2.0; // (1, 1, 1) of the first
    data[64 + 43] = 3.0; // (2, 2, 3) of the second
    let mut steps = preprocessing(V2, [1.0; 3]);
    steps.channels = vec![channel(Normalization::None, false), channel(Normalization::None, false)];
    let got = prepared(&volume(data, 2, [4; 3], [1.0; 3]), steps);
    assert_eq!((got.back.crop_start, got.back.cropped), ([1; 3], [2, 2, 3]));
    assert_eq!((got.data[0], got.data[12 + 11]), (2.0, 3.0));
}

#[test]
fn an_empty_image_is_not_cropped() {
    let got = prepared(&volume(vec![0.0; 60], 1, [3, 4, 5], [1.0; 3]), preprocessing(V2, [1.0; 3]));
    assert_eq!((got.back.crop_start, got.back.cropped), ([0; 3], [3, 4, 5]));
}

#[test]
fn refusals_have_their_codes() {
    let image = |data: Vec<f32>| volume(data, 1, [2; 3], [1.0; 3]);
    let code = |volume: &Volume, steps: Preprocessing| {
        prepare(volume, &manifest(steps), &Limits { max_voxels: 1000 }).map(|p| p.shape).expect_err("is refused").code
    };
    let nan = image([&[f32::NAN][..], &[1.0; 7]].concat());
    let infinite = image([&[f32::INFINITY][..], &[1.0; 7]].concat());
    let plain = image(vec![1.0; 8]);
    let mut two = preprocessing(V2, [1.0; 3]);
    two.channels = vec![channel(Normalization::None, false), channel(Normalization::None, false)];
    assert_eq!(code(&plain, two), Code::ModelChannels);
    assert_eq!(code(&plain, preprocessing(V2, [0.1; 3])), Code::MemoryTooLarge);
    assert_eq!(code(&plain, preprocessing(V2, [1e-300; 3])), Code::MemoryTooLarge);
    assert_eq!(code(&nan, preprocessing(V2, [1.0; 3])), Code::VolumeNotFinite);
    assert_eq!(code(&infinite, preprocessing(V1, [1.0; 3])), Code::VolumeNotFinite);
    assert_eq!(code(&Volume { data: vec![1.0; 7], ..plain.clone() }, preprocessing(V2, [1.0; 3])), Code::InternalBug);
    for (quantity, expected) in [(Quantity::NotHu, Code::QuantityNotHu), (Quantity::PetUnits, Code::QuantitySuv)] {
        assert_eq!(code(&Volume { quantity: vec![quantity], ..plain.clone() }, preprocessing(V2, [1.0; 3])), expected);
    }
    // v1 takes NaN for 0, after the crop
    let got = prepared(&nan, preprocessing(V1, [1.0; 3]));
    assert_eq!((got.data[0], got.back.cropped), (0.0, [2; 3]));
    let wrong = got.back.label_map(Labels::U8(vec![0; 7])).map(|m| m.shape()).expect_err("too few labels");
    assert_eq!(wrong.code, Code::InternalBug);
}
