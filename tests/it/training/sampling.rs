//! Patches, augmentation and loading: the recipe's probabilities and ranges, and the same numbers in every order.

use crate::support::eventually;
use std::sync::Arc;
use stunetd::stunet::learning::IGNORED;
use stunetd::training::data::{
    Augmentation, Batch, BatchPlan, CaseFile, Drawn, Geometry, Loader, NewCase, OUTSIDE, Random, Region, TrainingSet, is_forced,
};

/// A case with a ball of class 1, a bar of class 3 and an ignored corner; the image tells every voxel apart.
pub fn write_case(folder: &std::path::Path, name: &str, shape: [usize; 3], channels: usize) -> std::path::PathBuf {
    let voxels: usize = shape.iter().product();
    let label = |i: usize| {
        let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
        let off: f64 = (0..3).map(|a| ((at[a] as f64 - shape[a] as f64 / 3.0) / (shape[a] as f64 / 6.0)).powi(2)).sum();
        match () {
            () if off < 1.0 => 1,
            () if at[0] == shape[0] - 3 && at[1] == shape[1] - 4 => 3,
            () if at.iter().sum::<usize>() < 3 => IGNORED,
            () => 0,
        }
    };
    let labels: Vec<u16> = (0..voxels).map(label).collect();
    let value = |i: usize| (i % voxels) as f32 / voxels as f32 + 2.0 * f32::from(labels[i % voxels] == 1) + (i / voxels) as f32;
    let image: Vec<f32> = (0..channels * voxels).map(value).collect();
    let path = folder.join(format!("{name}.safetensors"));
    NewCase { image: &image, labels: &labels, shape, allowed: &[0, 1, 3] }.write(&path, 1).expect("case");
    path
}

fn whole(case: &CaseFile) -> stunetd::training::data::Patch {
    case.read(&Region { start: [0; 3], size: case.shape() }).expect("patch")
}

fn plan(patch: [usize; 3], batch: usize) -> BatchPlan {
    let augmentation = Augmentation { geometry: Geometry::new(patch), mirror: [true; 3], masked: vec![false] };
    BatchPlan { seed: 7, batch, augmentation, strides: vec![[2; 3]; 2] }
}

#[test]
fn regions_may_hang_over() {
    let folder = tempfile::tempdir().expect("folder");
    let case = CaseFile::open(&write_case(folder.path(), "a", [9, 11, 13], 2)).expect("case");
    assert_eq!((case.channels(), case.shape(), case.allowed()), (2, [9, 11, 13], &[0, 1, 3][..]));
    assert_eq!(case.present().collect::<Vec<_>>(), [1, 3]);
    let all = whole(&case);
    assert_eq!(all.image.len(), 2 * 9 * 11 * 13);
    for region in [
        Region { start: [-2, 3, -5], size: [6, 20, 9] },
        Region { start: [4, -1, 5], size: [9, 4, 20] },
        Region { start: [50, 0, 0], size: [2, 2, 2] },
        Region { start: [0, 0, -9], size: [2, 2, 5] },
    ] {
        let patch = case.read(&region).expect("patch");
        let [a, b, c] = region.size;
        for i in 0..a * b * c {
            let at = [i / (b * c), i / c % b, i % c];
            let source: [i64; 3] = std::array::from_fn(|axis| region.start[axis] + at[axis] as i64);
            let inside = (0..3).all(|axis| (0..case.shape()[axis] as i64).contains(&source[axis]));
            let from = inside.then(|| ((source[0] * 11 + source[1]) * 13 + source[2]) as usize);
            assert_eq!(patch.labels[i], from.map_or(OUTSIDE, |f| all.labels[f]));
            for channel in 0..2 {
                assert_eq!(patch.image[channel * a * b * c + i], from.map_or(0.0, |f| all.image[channel * 9 * 11 * 13 + f]));
            }
        }
    }
}

#[test]
fn damaged_cases_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = write_case(folder.path(), "a", [6, 6, 6], 1);
    let bytes = std::fs::read(&path).expect("bytes");
    let mut refused = 0;
    for cut in [0, 4, 8, 40, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).expect("write");
        refused += usize::from(CaseFile::open(&path).is_err());
    }
    assert_eq!(refused, 6);
    let mut long = bytes.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &long).expect("write");
    assert!(CaseFile::open(&path).is_err());
    let new = |image: &[f32], labels: &[u16], allowed: &[u16]| {
        NewCase { image, labels, shape: [1, 1, 2], allowed }.write(&folder.path().join("b.safetensors"), 0).is_ok()
    };
    assert!(new(&[0.0, 1.0], &[0, 1], &[0, 1]));
    assert!(!new(&[0.0, f32::NAN], &[0, 1], &[0, 1]) && !new(&[0.0, 1.0], &[0, 2], &[0, 1]));
    assert!(!new(&[0.0], &[0, 1], &[0, 1]) && !new(&[0.0, 1.0], &[0, 1], &[1]) && !new(&[0.0, 1.0], &[0, 1], &[0, 1, 1]));
}

#[test]
fn patches_follow_the_rule_of_nnunet() {
    assert_eq!([0, 1].map(|place| is_forced(place, 2)), [false, true]);
    assert_eq!((0..5).filter(|&place| is_forced(place, 5)).count(), 2);
    assert_eq!((0..12).filter(|&place| is_forced(place, 12)).count(), 4);
    assert_eq!(Geometry::new([128; 3]).loaded, [205; 3]);
    let flat = Geometry::new([16, 64, 64]);
    assert!(flat.in_plane && flat.loaded == [16, 75, 75] && !Geometry::new([32, 64, 96]).in_plane);

    let folder = tempfile::tempdir().expect("folder");
    let case = CaseFile::open(&write_case(folder.path(), "a", [40, 44, 36], 1)).expect("case");
    let all = whole(&case);
    let geometry = Geometry::new([16; 3]);
    let need = geometry.loaded[0] as i64 - 16;
    let (mut classes, mut ends) = ([0; 4], [[i64::MAX, i64::MIN]; 3]);
    for i in 0..4000 {
        let mut random = Random::new(3, i);
        let region = geometry.place(&case, true, &mut random).expect("region");
        let centre: [usize; 3] = std::array::from_fn(|a| (region.start[a] + geometry.loaded[a] as i64 / 2) as usize);
        let clamped = region.start.iter().any(|&start| start == (-need).div_euclid(2));
        if !clamped {
            classes[usize::from(all.labels[(centre[0] * 44 + centre[1]) * 36 + centre[2]])] += 1;
        }
        let region = geometry.place(&case, false, &mut random).expect("region");
        for (ends, start) in ends.iter_mut().zip(region.start) {
            *ends = [ends[0].min(start), ends[1].max(start)];
        }
    }
    assert!(classes[0] == 0 && classes[2] == 0 && classes[1] > 1500 && classes[3] > 1500, "{classes:?}: both classes alike");
    for (axis, shape) in [40i64, 44, 36].into_iter().enumerate() {
        let high = shape + need / 2 + need % 2 - geometry.loaded[axis] as i64;
        assert_eq!(ends[axis], [(-need).div_euclid(2), high], "axis {axis}");
    }
    // A case that is smaller than the patch is padded.
    let small = CaseFile::open(&write_case(folder.path(), "small", [10, 12, 10], 1)).expect("case");
    let region = Geometry::new([16; 3]).place(&small, false, &mut Random::new(1, 1)).expect("region");
    assert!(region.start.iter().all(|&start| start <= 0));
}

/// Mean and ends of numbers.
fn summary(values: &[f64]) -> (f64, f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    (mean, values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

#[test]
fn probabilities_and_ranges_are_the_recipes() {
    const DRAWS: usize = 40_000;
    let augmentation = plan([32; 3], 2).augmentation;
    let draws: Vec<Drawn> = (0..DRAWS as u64).map(|i| augmentation.draw(2, &mut Random::new(11, i))).collect();
    // Five standard deviations of a count.
    let near = |what: &str, found: usize, probability: f64, of: usize| {
        let (expected, of) = (probability * of as f64, of as f64);
        let slack = 5.0 * (of * probability * (1.0 - probability)).sqrt();
        assert!((found as f64 - expected).abs() <= slack, "{what}: {found} of {of}, expected {expected}");
    };
    let count = |f: &dyn Fn(&Drawn) -> bool| draws.iter().filter(|d| f(d)).count();
    near("rotation", count(&|d| d.rotation.is_some()), 0.2, DRAWS);
    near("scale", count(&|d| d.scale.is_some()), 0.2, DRAWS);
    near("both", count(&|d| d.rotation.is_some() && d.scale.is_some()), 0.04, DRAWS);
    near("noise", count(&|d| d.noise.is_some()), 0.1, DRAWS);
    (0..3).for_each(|axis| near("mirror", count(&|d| d.mirror[axis]), 0.5, DRAWS));
    near("blur of a channel", count(&|d| d.blur[0].is_some()), 0.1, DRAWS);
    near("blur of both", count(&|d| d.blur[0].is_some() && d.blur[1].is_some()), 0.05, DRAWS);
    near("low resolution of a channel", count(&|d| d.low_resolution[1].is_some()), 0.125, DRAWS);
    near("low resolution of both", count(&|d| d.low_resolution[0].is_some() && d.low_resolution[1].is_some()), 0.0625, DRAWS);
    for (name, probability, low, high, part) in [
        ("brightness", 0.15, 0.75, 1.25, (|d: &Drawn| &d.brightness) as fn(&Drawn) -> &Vec<Option<f64>>),
        ("contrast", 0.15, 0.75, 1.25, |d: &Drawn| &d.contrast),
        ("gamma of the inverted image", 0.1, 0.7, 1.5, |d: &Drawn| &d.gamma_inverted),
        ("gamma", 0.3, 0.7, 1.5, |d: &Drawn| &d.gamma),
    ] {
        near(name, count(&|d| part(d)[0].is_some()), probability, DRAWS);
        assert_eq!(count(&|d| part(d)[0].is_some() != part(d)[1].is_some()), 0, "{name}: all channels or none");
        assert!(count(&|d| part(d)[0].is_some() && part(d)[0] == part(d)[1]) == 0, "{name}: each channel by itself");
        let values: Vec<f64> = draws.iter().filter_map(|d| part(d)[0]).collect();
        near(name, values.iter().filter(|v| **v < 1.0).count(), 0.5, values.len());
        let (_, least, most) = summary(&values);
        assert!(least >= low && least < low + 0.01 && most <= high && most > high - 0.01, "{name}: {least} {most}");
    }
    let scales: Vec<f64> = draws.iter().filter_map(|d| d.scale).collect();
    near("scale below 1", scales.iter().filter(|v| **v < 1.0).count(), 0.5, scales.len());
    let angles: Vec<f64> = draws.iter().filter_map(|d| d.rotation).flatten().map(f64::to_degrees).collect();
    let noise: Vec<f64> = draws.iter().filter_map(|d| d.noise).collect();
    let blur: Vec<f64> = draws.iter().filter_map(|d| d.blur[0]).flatten().collect();
    let low: Vec<f64> = draws.iter().filter_map(|d| d.low_resolution[0]).collect();
    let uniform: [(&str, &[f64], f64, f64); 4] =
        [("angle", &angles, -30.0, 30.0), ("noise", &noise, 0.0, 0.1), ("blur", &blur, 0.5, 1.0), ("low", &low, 0.5, 1.0)];
    for (name, values, low, high) in uniform {
        let (mean, least, most) = summary(values);
        let width = high - low;
        assert!((mean - (low + high) / 2.0).abs() < 5.0 * width / (12.0 * values.len() as f64).sqrt(), "{name}: {mean}");
        assert!(least >= low && least < low + 0.01 * width && most <= high && most > high - 0.01 * width, "{name}: {least} {most}");
    }
    let (_, least, most) = summary(&scales);
    assert!((0.7..0.705).contains(&least) && (1.39..=1.4).contains(&most));
    assert!(draws.iter().filter_map(|d| d.blur[0]).all(|b| b[0] != b[1] && b[1] != b[2]), "each axis by itself");
    // In plane: about axis 0 only, all the way round; axes that may not be mirrored are not.
    let flat = Augmentation { geometry: Geometry::new([8, 32, 32]), mirror: [true, false, true], masked: vec![] };
    let flat: Vec<Drawn> = (0..2000).map(|i| flat.draw(1, &mut Random::new(2, i))).collect();
    let angles: Vec<[f64; 3]> = flat.iter().filter_map(|d| d.rotation).collect();
    assert!(angles.iter().all(|a| a[1] == 0.0 && a[2] == 0.0) && angles.iter().any(|a| a[0].abs() > 3.0));
    assert!(flat.iter().all(|d| !d.mirror[1]) && flat.iter().any(|d| d.mirror[0]));
}

#[test]
fn turning_keeps_image_and_labels_together() {
    let folder = tempfile::tempdir().expect("folder");
    let case = CaseFile::open(&write_case(folder.path(), "a", [48, 48, 48], 1)).expect("case");
    let augmentation = Augmentation { geometry: Geometry::new([32; 3]), mirror: [true; 3], masked: vec![false] };
    let (mut turned, mut agreed, mut all) = (0, 0, 0);
    for i in 0..60 {
        let mut random = Random::new(5, i);
        let patch = augmentation.sample(&case, true, &mut random).expect("patch");
        assert!(patch.image.iter().all(|v| v.is_finite()) && patch.labels.iter().all(|l| [0, 1, 3, IGNORED].contains(l)));
        let mut again = Random::new(5, i);
        let _ = augmentation.geometry.place(&case, true, &mut again).expect("region");
        let drawn = augmentation.draw(1, &mut again);
        let quiet = drawn.gamma[0].or(drawn.gamma_inverted[0]).or(drawn.contrast[0]).is_none() && drawn.low_resolution[0].is_none();
        if quiet && (drawn.rotation.is_some() || drawn.scale.is_some()) {
            turned += 1;
            // Inside the ball the image is 2 higher; at its rim interpolation blurs both.
            all += patch.labels.len();
            let limit = (1.5 * drawn.brightness[0].unwrap_or(1.0)) as f32;
            agreed += patch.image.iter().zip(&patch.labels).filter(|(v, l)| (**v > limit) == (**l == 1)).count();
        }
        let mut random = Random::new(5, i);
        assert_eq!(augmentation.sample(&case, true, &mut random).expect("patch"), patch, "the same numbers again");
    }
    assert!(turned > 5 && agreed as f64 > 0.985 * all as f64, "{turned}: {agreed} of {all}");
    // Without anything drawn, the patch is the middle of what was placed.
    let mut random = Random::new(9, 4);
    let region = augmentation.geometry.place(&case, false, &mut random).expect("region");
    let mut expected = case.read(&augmentation.geometry.middle(&region)).expect("patch");
    expected.labels.iter_mut().filter(|l| **l == OUTSIDE).for_each(|l| *l = 0);
    assert_eq!(augmentation.plain(&case, false, &mut Random::new(9, 4)).expect("patch"), expected);
}

#[test]
fn channels_are_cleared_outside_their_mask() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("masked.safetensors");
    let labels: Vec<u16> = (0..1000).map(|i| if i % 10 < 3 { OUTSIDE } else { 0 }).collect();
    NewCase { image: &[5.0; 2000], labels: &labels, shape: [10; 3], allowed: &[0, 1] }.write(&path, 0).expect("case");
    let case = CaseFile::open(&path).expect("case");
    let geometry = Geometry { patch: [10; 3], loaded: [10; 3], in_plane: false };
    let augmentation = Augmentation { geometry, mirror: [false; 3], masked: vec![true, false] };
    let patch = augmentation.plain(&case, false, &mut Random::new(0, 0)).expect("patch");
    assert_eq!(patch.image[..1000].iter().filter(|v| **v == 0.0).count(), 300);
    assert!(patch.image[1000..].iter().all(|v| *v == 5.0) && patch.labels.iter().all(|l| *l == 0));
}

#[test]
fn batches_do_not_depend_on_the_workers() {
    let folder = tempfile::tempdir().expect("folder");
    let open = |name: &str| CaseFile::open(&write_case(folder.path(), name, [24, 28, 20], 1)).expect("case");
    let set = Arc::new(TrainingSet { curated: vec![open("a"), open("b")], rehearsal: vec![open("c")], rehearsal_share: 0.5 });
    set.check(1).expect("a set");
    let plan = plan([16; 3], 2);
    let take = |first: u64, workers: usize, count: usize| -> Vec<Batch> {
        let mut loader = Loader::start(set.clone(), plan.clone(), first, workers).expect("loader");
        (0..count).map(|_| loader.next_batch().expect("batch")).collect()
    };
    let one = take(0, 1, 9);
    assert_eq!(one, take(0, 3, 9));
    assert_eq!(one[4..], take(4, 2, 5));
    assert_eq!(one.iter().map(|b| b.number).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
    assert!(one.windows(2).all(|pair| pair[0].image != pair[1].image));
    let shapes: Vec<[usize; 3]> = one[0].levels.iter().map(|level| level.shape).collect();
    assert_eq!(shapes, [[16; 3], [8; 3], [4; 3]]);
    let plain = plan.make_plain(&set, 3).expect("batch");
    assert!(plain.image != one[3].image && plain == plan.make_plain(&set, 3).expect("batch"));
    let many: usize = (0..200).map(|i| plan.make(&set, i).expect("batch").rehearsal.iter().filter(|r| **r).count()).sum();
    assert!((150..250).contains(&many), "{many} of 400 from the rehearsal");
    // Ahead, but bounded.
    let loader = Loader::start(set.clone(), plan.clone(), 0, 2).expect("loader");
    eventually("two batches of each worker are ready", || loader.waiting() == 4);
    drop(loader);
}

#[test]
fn sets_that_can_not_be_drawn_from_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let open = || CaseFile::open(&write_case(folder.path(), "a", [8, 8, 8], 2)).expect("case");
    let set = |curated, rehearsal, rehearsal_share| TrainingSet { curated, rehearsal, rehearsal_share };
    assert!(set(vec![], vec![], 0.0).check(2).is_err());
    assert!(set(vec![open()], vec![], 0.5).check(2).is_err());
    assert!(set(vec![open()], vec![], 1.5).check(2).is_err());
    assert!(set(vec![open()], vec![], 0.0).check(1).is_err());
    assert!(set(vec![open()], vec![], 0.0).check(2).is_ok() && set(vec![], vec![open()], 1.0).check(2).is_ok());
}

#[test]
fn random_numbers_have_their_distributions() {
    let mut random = Random::new(1, 2);
    let normal: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
    let (mean, ..) = summary(&normal);
    let variance = normal.iter().map(|v| v * v).sum::<f64>() / normal.len() as f64;
    let beyond = normal.iter().filter(|v| v.abs() > 1.959_964).count();
    assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02 && (4700..5300).contains(&beyond), "{mean} {variance} {beyond}");
    let mut counts = [0usize; 7];
    (0..70_000).for_each(|_| counts[random.below(7) as usize] += 1);
    assert!(counts.iter().all(|n| (9500..10_500).contains(n)), "{counts:?}");
    assert_eq!((random.below(0), random.below(1)), (0, 0));
    // Neighbouring purposes have nothing in common.
    let first: Vec<u64> = (0..1000).map(|i| Random::new(1, i).bits()).collect();
    let ones: u32 = first.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).sum();
    assert!((31_000..33_000).contains(&ones), "{ones}");
}
