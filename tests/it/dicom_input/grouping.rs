//! The grouping rules, on headers made for each of them.

use proptest::prelude::*;
use std::path::{Path, PathBuf};
use stunetd::dicom::{
    Announced, CopiedAttributes, Frame, ImageObject, Instance, PetHeader, PhaseKey, PhaseValue, PixelFormat, RawElement, RefusedFile,
    Rescale, SelectionTags, SeriesKey, Uid,
};
use stunetd::fault::{Code, Fault};
use stunetd::series::{Grouped, Irregular, PixelSpacing, Policy, Series, candidate_cases, group};

fn uid(text: &str) -> Uid {
    Uid::parse(text).expect("uid")
}

/// Slice `k` of an axial CT: 40 x 60 pixels of 2 x 1.5 mm, 5 mm apart.
fn slice(k: usize) -> Instance {
    Instance {
        path: PathBuf::from(format!("/data/{k:03}")),
        relative: PathBuf::from(format!("{k:03}")),
        size: 5000,
        object: ImageObject::Ct,
        sop_class_uid: uid("1.2.840.10008.5.1.4.1.1.2"),
        sop_instance_uid: uid(&format!("1.2.3.1000.{k}")),
        study_uid: uid("1.2.3.1"),
        series_uid: uid("1.2.3.2"),
        frame_of_reference_uid: Some(uid("1.2.3.3")),
        image_type: ["ORIGINAL", "PRIMARY", "AXIAL"].map(String::from).to_vec(),
        monochrome: true,
        multi_energy: false,
        lossy: false,
        instance_number: Some(k as i32 + 1),
        pixels: PixelFormat {
            transfer_syntax: uid("1.2.840.10008.1.2.1"),
            frames: 1,
            rows: 40,
            columns: 60,
            bits_allocated: 16,
            bits_stored: 12,
            high_bit: 11,
            signed: false,
            padding: None,
        },
        frames: vec![Frame {
            position: Some([-45.0, -40.0, 5.0 * k as f64]),
            orientation: Some([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
            pixel_spacing: Some([2.0, 1.5]),
            slice_thickness: Some(5.0),
            rescale: Rescale { slope: 1.0, intercept: -1024.0, explicit: true },
            ..Frame::default()
        }],
        announced: Announced::default(),
        selection: SelectionTags::default(),
        pet: None,
        copied: CopiedAttributes::default(),
    }
}

fn stack(n: usize) -> Vec<Instance> {
    (0..n).map(slice).collect()
}

/// Instances with a change to each.
fn changed(n: usize, change: impl Fn(&mut Instance, usize)) -> Vec<Instance> {
    let mut all = stack(n);
    all.iter_mut().enumerate().for_each(|(k, i)| change(i, k));
    all
}

/// The same slices again under other UIDs and names.
fn again(mut instances: Vec<Instance>, mark: usize) -> Vec<Instance> {
    for instance in &mut instances {
        instance.sop_instance_uid = uid(&format!("{}.{mark}", instance.sop_instance_uid));
        instance.relative = PathBuf::from(format!("again{mark}/{}", instance.relative.display()));
        instance.path = PathBuf::from(format!("/data/again{mark}/{}", instance.relative.display()));
    }
    instances
}

fn no_digest(path: &Path, _: u32, _: &PixelFormat) -> Result<[u8; 32], Fault> {
    panic!("{} need not be decoded", path.display())
}

fn grouped(instances: Vec<Instance>) -> Grouped {
    group(instances, Vec::new(), &Policy::default(), &no_digest)
}

fn reasons(grouped: &Grouped) -> Vec<&'static str> {
    grouped.rejected.iter().map(|r| r.refusal.code.reason()).collect()
}

fn z(series: &Series) -> Vec<f64> {
    series.planes.iter().map(|p| p.position[2]).collect()
}

#[test]
fn a_plain_stack_is_one_series() {
    let mut shuffled = stack(7);
    shuffled.reverse();
    shuffled.swap(1, 4);
    shuffled.iter_mut().enumerate().for_each(|(k, i)| i.instance_number = (k % 3 != 0).then_some(7 - k as i32));
    let found = grouped(shuffled);
    assert_eq!((found.series.len(), reasons(&found)), (1, vec![]));
    let series = &found.series[0];
    assert_eq!(z(series), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
    let g = &series.geometry;
    assert_eq!((g.rows, g.columns, g.slice_step, g.slice_thickness), (40, 60, [0.0, 0.0, 5.0], Some(5.0)));
    assert_eq!((g.pixel_spacing, g.uniform_spacing, g.sheared), (PixelSpacing { dx: 1.5, dy: 2.0 }, true, false));
    assert_eq!((series.unit.as_str(), series.hold.as_ref(), series.phase), ("HU", None, None));
    assert!(series.warnings.is_empty());
    assert_eq!(candidate_cases(found.series).cases.len(), 1);
}

#[test]
fn each_refusal_has_its_reason() {
    type Change = fn(&mut Instance, usize);
    let cases: &[(&str, Change)] = &[
        ("no_geometry", |i, _| i.frames[0].position = None),
        ("no_geometry", |i, k| i.frames[0].orientation = i.frames[0].orientation.filter(|_| k != 3)),
        ("bad_orientation", |i, _| i.frames[0].orientation = Some([0.5, 0.0, 0.0, 0.0, 1.0, 0.0])),
        ("bad_orientation", |i, _| i.frames[0].orientation = Some([0.0; 6])),
        ("bad_orientation", |i, _| i.frames[0].orientation = Some([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])),
        ("bad_spacing", |i, _| i.frames[0].pixel_spacing = None),
        ("bad_spacing", |i, _| i.frames[0].pixel_spacing = Some([0.0, 0.0])),
        ("bad_spacing", |i, _| i.frames[0].pixel_spacing = Some([-3.0, 3.0])),
        ("not_a_volume", |i, _| i.frames[0].position = Some([0.0; 3])),
        ("non_collinear", |i, k| i.frames[0].position = Some([if k % 2 == 0 { -45.0 } else { -44.0 }, -40.0, 5.0 * k as f64])),
        ("missing_slice", |i, k| i.frames[0].position = Some([-45.0, -40.0, 5.0 * (k + usize::from(k > 2)) as f64])),
        ("non_uniform_spacing", |i, k| i.frames[0].position = Some([-45.0, -40.0, (k * k) as f64])),
        ("not_monochrome", |i, _| i.monochrome = false),
        ("localizer", |i, _| i.image_type[2] = "LOCALIZER".into()),
        ("derived_series", |i, _| i.image_type = ["DERIVED", "SECONDARY", "AXIAL"].map(String::from).to_vec()),
        ("derived_series", |i, _| i.image_type = ["DERIVED", "PRIMARY", "MIP"].map(String::from).to_vec()),
        ("not_hu", |i, _| i.frames[0].rescale_type = Some("MGML".into())),
        ("not_hu", |i, _| i.frames[0].rescale_type = Some("US".into())),
        ("not_hu", |i, _| i.image_type = ["DERIVED", "PRIMARY", "PERFUSION", "CBF"].map(String::from).to_vec()),
        ("not_hu", |i, _| i.multi_energy = true),
        ("missing_slice", |i, _| i.announced.in_concatenation = Some(8)),
        ("conflicting_patients", |i, k| i.copied = patient(if k == 4 { b"B " } else { b"A " })),
    ];
    for (index, (reason, change)) in cases.iter().enumerate() {
        let found = grouped(changed(6, change));
        assert!(found.series.is_empty(), "case {index}: {reason}");
        assert_eq!(reasons(&found), [*reason], "case {index}");
        assert_eq!(found.rejected[0].files.len(), 6, "case {index}");
    }
}

fn patient(id: &[u8]) -> CopiedAttributes {
    CopiedAttributes { elements: vec![RawElement { tag: (0x0010, 0x0020), vr: *b"LO", value: id.to_vec() }] }
}

#[test]
fn what_looks_odd_and_is_right_passes() {
    type Change = fn(&mut Instance, usize);
    let cases: &[(&str, Change)] = &[
        ("derived primary", |i, _| i.image_type[0] = "DERIVED".into()),
        ("70 keV in HU", |i, _| {
            i.multi_energy = true;
            i.image_type = ["DERIVED", "PRIMARY", "AXIAL", "VMI"].map(String::from).to_vec();
            i.frames[0].rescale_type = Some("HU".into());
        }),
        ("modified HU", |i, _| i.frames[0].rescale_type = Some("HU_MOD".into())),
        ("patient ID padded, or only in some", |i, k| {
            i.copied = [patient(b"A"), patient(b"A "), CopiedAttributes::default()][k % 3].clone()
        }),
        ("positions rounded, orientation with noise", |i, k| {
            i.frames[0].position = Some([-45.0, -40.0, ((k as f64 * 3.333_333) * 100.0).round() / 100.0]);
            i.frames[0].orientation = Some([1.0, 1e-5 * (k % 3) as f64, 0.0, 0.0, 1.0, 0.0]);
        }),
        ("rescale per slice", |i, k| i.frames[0].rescale.slope = 1.0 + 0.1 * k as f64),
        ("no frame of reference", |i, _| i.frame_of_reference_uid = None),
        ("half a metre of drift in the numbers", |i, k| i.frames[0].position = Some([-1e4, 1e4, 1e5 + 0.7 * k as f64])),
    ];
    for (what, change) in cases {
        let found = grouped(changed(9, change));
        assert_eq!((found.series.len(), reasons(&found)), (1, vec![]), "{what}");
        assert!(found.series[0].geometry.uniform_spacing && found.series[0].hold.is_none(), "{what}");
    }
}

#[test]
fn doubtful_values_are_shown_but_held() {
    let no_rescale = grouped(changed(4, |i, _| i.frames[0].rescale = Rescale { explicit: false, ..Rescale::default() }));
    assert_eq!(no_rescale.series[0].hold.as_ref().map(|h| h.code), Some(Code::QuantityRescaleMissing));
    assert_eq!(no_rescale.series[0].warnings, ["rescale_missing"]);
    let no_air = grouped(changed(4, |i, _| i.frames[0].rescale.intercept = 0.0));
    assert_eq!(no_air.series[0].hold.as_ref().map(|h| h.code), Some(Code::QuantityNotHu));
    let falling = grouped(changed(4, |i, _| i.frames[0].rescale = Rescale { slope: -1.0, intercept: 3071.0, explicit: true }));
    assert!(falling.series[0].hold.is_none());
    let candidates = candidate_cases(no_air.series);
    assert_eq!((candidates.cases.len(), candidates.held.len()), (0, 1));
}

#[test]
fn tilt_is_a_sheared_step() {
    let (sin, cos) = 20f64.to_radians().sin_cos();
    let tilted = grouped(changed(6, |i, k| {
        i.frames[0].orientation = Some([1.0, 0.0, 0.0, 0.0, cos, sin]);
        i.frames[0].position = Some([-45.0, -40.0, 5.0 * k as f64]);
    }));
    let series = &tilted.series[0];
    assert!(series.geometry.sheared && series.geometry.uniform_spacing);
    assert_eq!(series.warnings, ["gantry_tilt"]);
    assert!(series.geometry.slice_step.iter().zip([0.0, 0.0, 5.0]).all(|(a, b)| (a - b).abs() < 1e-9), "the true step is kept");
}

#[test]
fn few_slices_and_irregular_stacks_follow_the_policy() {
    let policy = |irregular, min_slices| Policy { irregular, min_slices, ..Policy::default() };
    let with = |instances, policy: Policy| group(instances, Vec::new(), &policy, &no_digest);
    assert_eq!(reasons(&grouped(stack(2))), ["too_few_slices"]);
    assert_eq!(with(stack(2), policy(Irregular::Refuse, 2)).series.len(), 1);
    let one = with(stack(1), policy(Irregular::Refuse, 1));
    assert_eq!(one.series[0].geometry.slice_step, [0.0, 0.0, 5.0], "from Slice Thickness");
    let mut thin = stack(1);
    thin[0].frames[0].slice_thickness = None;
    assert_eq!(reasons(&with(thin, policy(Irregular::Refuse, 1))), ["bad_spacing"]);
    let gap = || changed(6, |i, k| i.frames[0].position = Some([-45.0, -40.0, 5.0 * (k + usize::from(k > 2)) as f64]));
    let refused = grouped(gap());
    let shown = refused.rejected[0].series.as_ref().expect("its geometry is known");
    assert!(!shown.geometry.uniform_spacing);
    let taken = with(gap(), policy(Irregular::Resample, 3));
    assert_eq!((taken.series.len(), taken.series[0].warnings.clone()), (1, vec!["missing_slice".to_string()]));
    let many = Policy { max_planes: 5, ..Policy::default() };
    assert_eq!(reasons(&with(stack(6), many)), ["too_many_slices"]);
}

#[test]
fn duplicates_are_dropped_and_conflicts_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let mut twice = stack(4);
    for (n, instance) in stack(4).into_iter().enumerate() {
        let mut copy = instance;
        copy.relative = PathBuf::from(format!("copy/{n}"));
        copy.path = folder.path().join(n.to_string());
        std::fs::write(&copy.path, b"same").expect("write");
        twice[n].path = copy.path.clone();
        twice.push(copy);
    }
    let identical = grouped(twice.clone());
    assert_eq!((identical.series.len(), identical.series[0].planes.len()), (1, 4));
    assert!(identical.series[0].warnings.is_empty() && identical.series[0].planes.iter().all(|p| !p.path.ends_with("copy")));

    // Other bytes: the decoded pixels decide.
    twice.iter_mut().skip(4).for_each(|i| i.size += 1);
    let by_pixels = |differing: &'static str| {
        move |path: &Path, frame: u32, _: &PixelFormat| {
            assert_eq!(frame, 1);
            Ok([u8::from(path.ends_with(differing)); 32])
        }
    };
    twice.iter_mut().skip(4).for_each(|i| i.path = PathBuf::from(format!("/elsewhere/{}", i.relative.display())));
    let run = |instances: Vec<Instance>, differing| group(instances, Vec::new(), &Policy::default(), &by_pixels(differing));
    assert_eq!(run(twice.clone(), "none").series.len(), 1);
    assert_eq!(reasons(&run(twice.clone(), "copy/2")), ["conflicting_duplicate"]);
    let mut moved = twice.clone();
    moved[6].frames[0].position = Some([0.0; 3]);
    assert_eq!(reasons(&run(moved, "none")), ["conflicting_duplicate"], "the same pixels elsewhere");
    let broken = |_: &Path, _: u32, _: &PixelFormat| Err(Fault::new(Code::CodecDecode, ""));
    assert_eq!(reasons(&group(twice, Vec::new(), &Policy::default(), &broken)), ["decode_error"]);

    // Sent again under new UIDs.
    let resent = || [stack(4), again(stack(4), 7)].concat();
    let found = run(resent(), "none");
    assert_eq!((found.series.len(), found.series[0].planes.len()), (1, 4));
    assert_eq!(found.series[0].warnings, ["duplicate_positions"]);
    let different = |path: &Path, _: u32, _: &PixelFormat| Ok([u8::from(path.starts_with("/data/again7")); 32]);
    assert_eq!(reasons(&group(resent(), Vec::new(), &Policy::default(), &different)), ["duplicate_positions"]);
}

#[test]
fn phases_are_split_by_every_key() {
    for key in PhaseKey::ALL {
        let mut all = Vec::new();
        for phase in 0..3usize {
            let mut part = again(stack(5), phase + 1);
            // Numbers sort as numbers, and the order of the files says nothing.
            let value = PhaseValue::Number([2.0, 10.0, 1.0][phase]);
            part.iter_mut().for_each(|i| i.frames[0].phase.set(key, Some(value.clone())));
            all.extend(part);
        }
        let found = grouped(all);
        assert_eq!((found.series.len(), reasons(&found)), (3, vec![]), "{key:?}");
        for (index, (series, mark)) in found.series.iter().zip(["3", "1", "2"]).enumerate() {
            assert_eq!((series.planes.len(), series.phase), (5, Some(index as u32 + 1)), "{key:?}");
            assert!(series.planes.iter().all(|p| p.sop_instance_uid.as_str().ends_with(mark)), "{key:?}");
        }
    }
}

#[test]
fn phases_by_two_keys_by_time_and_uneven_ones() {
    let set =
        |part: &mut Vec<Instance>, key, value: PhaseValue| part.iter_mut().for_each(|i| i.frames[0].phase.set(key, Some(value.clone())));
    let mut two_keys = Vec::new();
    for (mark, (time, kernel)) in [(1.0, "B30"), (1.0, "B70"), (2.0, "B30"), (2.0, "B70")].into_iter().enumerate() {
        let mut part = again(stack(4), mark);
        set(&mut part, PhaseKey::TemporalPosition, PhaseValue::Number(time));
        set(&mut part, PhaseKey::Kernel, PhaseValue::Text(kernel.into()));
        two_keys.extend(part);
    }
    assert_eq!(grouped(two_keys).series.len(), 4);

    // Every slice has a time of its own: first and second pass.
    let mut passes = [stack(4), again(stack(4), 1)].concat();
    passes.iter_mut().enumerate().for_each(|(n, i)| i.frames[0].timing.acquisition = Some(n as f64));
    let found = grouped(passes);
    assert_eq!(found.series.iter().map(|s| s.planes.len()).collect::<Vec<_>>(), [4, 4]);

    let mut uneven = [stack(5), again(stack(4), 1)].concat();
    uneven
        .iter_mut()
        .enumerate()
        .for_each(|(n, i)| i.frames[0].phase.set(PhaseKey::TemporalPosition, Some(PhaseValue::Number(f64::from(u8::from(n > 4))))));
    let differ = |path: &Path, _: u32, _: &PixelFormat| Ok([u8::from(path.starts_with("/data/again1")); 32]);
    assert_eq!(reasons(&group(uneven, Vec::new(), &Policy::default(), &differ)), ["multi_temporal"]);

    // A key that differs without repeated positions splits nothing.
    let beds = grouped(changed(6, |i, k| i.frames[0].phase.set(PhaseKey::AcquisitionNumber, Some(PhaseValue::Number((k / 2) as f64)))));
    assert_eq!(beds.series.len(), 1);
}

#[test]
fn grids_frames_of_reference_and_studies_are_kept_apart() {
    let coronal = |n: usize, mark: usize| {
        let mut part = again(stack(n), mark);
        for (k, instance) in part.iter_mut().enumerate() {
            instance.frames[0].orientation = Some([1.0, 0.0, 0.0, 0.0, 0.0, -1.0]);
            instance.frames[0].position = Some([0.0, 4.0 * k as f64, 0.0]);
        }
        part
    };
    let mut large = again(stack(3), 9);
    large.iter_mut().for_each(|i| i.pixels.rows = 80);
    let found = grouped([coronal(5, 1), stack(8), large].concat());
    assert_eq!((found.series.len(), reasons(&found)), (1, vec!["mixed_geometry", "mixed_geometry"]));
    assert_eq!(found.series[0].planes.len(), 8);
    assert_eq!(found.series[0].warnings, ["series_split"]);
    assert_eq!(grouped([coronal(4, 1), stack(4)].concat()).series[0].geometry.column_direction, [0.0, 1.0, 0.0], "axial wins a draw");

    let elsewhere = |change: fn(&mut Instance)| {
        let mut other = again(stack(5), 2);
        other.iter_mut().for_each(change);
        grouped([stack(8), other].concat())
    };
    let moved = elsewhere(|i| i.frame_of_reference_uid = Some(uid("1.2.3.33")));
    assert_eq!(moved.series.iter().map(|s| s.planes.len()).collect::<Vec<_>>(), [8, 5]);
    let shared_uid = elsewhere(|i| {
        i.study_uid = uid("1.2.3.11");
        i.copied = patient(b"other");
    });
    assert_eq!((shared_uid.series.len(), reasons(&shared_uid)), (2, vec![]));
    let lost = elsewhere(|i| i.frames[0].position = None);
    assert_eq!((lost.series.len(), reasons(&lost)), (0, vec!["no_geometry"]), "slices of unknown place make the others doubtful");

    let mut scout = again(stack(1), 3);
    scout[0].image_type[2] = "LOCALIZER".into();
    let found = grouped([scout, stack(6)].concat());
    assert_eq!((found.series.len(), reasons(&found)), (1, vec![]));
    assert_eq!(found.ignored.iter().map(|f| f.code.reason()).collect::<Vec<_>>(), ["localizer"]);
}

#[test]
fn a_series_with_a_broken_file_is_not_whole() {
    let key = SeriesKey { study: "1.2.3.1".into(), series: "1.2.3.2".into() };
    let refused = |member_of| RefusedFile { relative: "cut".into(), code: Code::InputTruncated, detail: String::new(), member_of };
    let found = group(stack(6), vec![refused(Some(key))], &Policy::default(), &no_digest);
    assert_eq!((found.series.len(), reasons(&found)), (0, vec!["truncated"]));
    assert_eq!((found.rejected[0].files.len(), found.ignored.len()), (7, 1));
    let found = group(stack(6), vec![refused(None)], &Policy::default(), &no_digest);
    assert_eq!((found.series.len(), found.ignored.len()), (1, 1));
}

#[test]
fn pet_needs_attenuation_correction() {
    let pet = |corrected: &[&str]| {
        let header =
            PetHeader { units: "BQML".into(), corrected_image: corrected.iter().map(|s| s.to_string()).collect(), ..PetHeader::default() };
        grouped(changed(5, |i, _| {
            i.object = ImageObject::Pet;
            i.image_type = ["DERIVED", "SECONDARY"].map(String::from).to_vec();
            i.pet = Some(Box::new(header.clone()));
            i.announced.slices = Some(6);
        }))
    };
    assert_eq!(reasons(&pet(&["DECY", "NORM"])), ["not_attenuation_corrected"]);
    let corrected = pet(&["DECY", "ATTN"]);
    let series = &corrected.series[0];
    assert_eq!((series.modality.as_str(), series.unit.as_str()), ("PT", "BQML"));
    assert_eq!(series.warnings, ["fewer_images_than_announced"]);
    assert_eq!(pet(&[]).series.len(), 1, "unknown is for the SUV to say");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::support::cases_of(128), ..ProptestConfig::default() })]

    /// Wherever a stack lies and in whatever order its files come, it is the same stack.
    #[test]
    fn a_stack_is_the_same_in_any_order_and_pose(
        order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
        angles in proptest::array::uniform3(-3.2f64..3.2),
        origin in proptest::array::uniform3(-2000.0f64..2000.0),
        step in 0.4f64..10.0,
    ) {
        let turn = |v: [f64; 3]| {
            angles.iter().enumerate().fold(v, |v, (axis, angle)| {
                let (s, c) = angle.sin_cos();
                let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
                let mut w = v;
                w[a] = c * v[a] - s * v[b];
                w[b] = s * v[a] + c * v[b];
                w
            })
        };
        let (row, column, normal) = (turn([1.0, 0.0, 0.0]), turn([0.0, 1.0, 0.0]), turn([0.0, 0.0, 1.0]));
        let instances = order.iter().map(|&k| {
            let mut instance = slice(k);
            instance.frames[0].orientation = Some([row[0], row[1], row[2], column[0], column[1], column[2]]);
            instance.frames[0].position = Some(std::array::from_fn(|d| origin[d] + normal[d] * step * k as f64));
            instance
        });
        let found = grouped(instances.collect());
        prop_assert_eq!(found.series.len(), 1);
        let series = &found.series[0];
        let numbers: Vec<i32> = series.planes.iter().filter_map(|p| p.instance_number).collect();
        prop_assert_eq!(numbers, (1..=9).collect::<Vec<i32>>());
        prop_assert!(series.geometry.uniform_spacing && !series.geometry.sheared);
        for (have, direction) in series.geometry.slice_step.iter().zip(normal) {
            prop_assert!((have - direction * step).abs() < 1e-6);
        }
    }
}
