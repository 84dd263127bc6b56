//! Labels of people on the image's grid: objects of several makers against masks of others, and what is not admitted.

use crate::need;
use crate::support::data;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use stunetd::dicom::{rtstruct, seg};
use stunetd::fault::Code;
use stunetd::fault::Fault;
use stunetd::models::{Generation, Label, LabelTable, codes};
use stunetd::stunet::learning::IGNORED;
use stunetd::training::cases::{
    CaseError, CaseKeys, Concept, Decision, ImageGrid, Likeness, Mapped, Origin, Role, Roles, SignOff, Structure, admit, changed_share,
    from_contours, from_label_volume, from_segmentation, ignore_unreviewed, label_digest, map_structures, patient_key, to_network_grid,
};
use stunetd::training::data::Random;
use stunetd::training::gates::dice;
use stunetd::volume::{Affine, Limits, nifti, prepare};

fn nifti_grid(path: &Path) -> ImageGrid {
    ImageGrid::from(&nifti::read(path, &Limits::default()).expect("image"))
}

/// A NIfTI mask as label values on the grid.
fn on_grid(structures: &[Structure], grid: &ImageGrid) -> Vec<u16> {
    let mut labels = vec![0; grid.voxels()];
    structures.iter().for_each(|s| s.voxels.iter().for_each(|&v| labels[v as usize] = s.number as u16));
    labels
}

#[test]
fn contours_become_the_mask_that_others_made_of_them() {
    let folder = need!(data("petct_sts001"), "shared data is not there");
    for (set, name, close) in [("RS_CT", "CT", 0.99), ("RS_PT", "PET", 0.94)] {
        let image = folder.join(format!("nifti/{name}_image.nii.gz"));
        let grid = nifti_grid(&image);
        let mask = nifti::read(&folder.join(format!("nifti/{name}_mask.nii.gz")), &Limits::default()).expect("mask");
        let expected = on_grid(&from_label_volume(&mask, &grid).expect("labels"), &grid);
        let set = rtstruct::read(&folder.join(set).join("RS.dcm")).expect("structure set");
        assert_eq!((set.regions.len(), set.series.len(), set.frames_of_reference.len()), (1, 1, 1));
        assert_eq!((set.regions[0].contours.len(), set.regions[0].left_out), (32, 0));
        let structures = from_contours(&set, &grid).expect("voxels");
        assert!(structures[0].name.starts_with("GTV_Mass_"));
        let agreement = dice(&on_grid(&structures, &grid), &expected, 1).expect("both there");
        println!("{name}: Dice {agreement:.4} with the mask of the data set");
        assert!(agreement > close, "{name}: {agreement}");
        // Drawn on the other image: its slices are 0.02 mm off, its pixels are others; the voxels still lie in the same place.
        let shifted = ImageGrid { affine: moved(&grid.affine, [0.0, 0.0, 1.6]), ..grid };
        assert!(matches!(from_contours(&set, &shifted), Err(CaseError::Geometry(_))), "half a slice beside");
    }
    assert!(rtstruct::read(&folder.join("CT/000000.dcm")).is_err(), "an image is no structure set");
}

fn moved(affine: &Affine, by: [f64; 3]) -> Affine {
    let mut affine = *affine;
    (0..3).for_each(|r| affine.rows[r][3] += by[r]);
    affine
}

/// The grid that an object's own frames span.
fn own_grid(object: &seg::SegObject) -> ImageGrid {
    let f = &object.frames[0];
    let (r, c) = (f.row_direction, f.column_direction);
    let normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
    let along = |p: [f64; 3]| p.iter().zip(normal).map(|(a, b)| a * b).sum::<f64>();
    let mut places: Vec<(f64, [f64; 3])> = object.frames.iter().map(|f| (along(f.position), f.position)).collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    places.dedup_by(|a, b| (a.0 - b.0).abs() < 1e-3);
    let step = if places.len() > 1 { (places[places.len() - 1].0 - places[0].0) / (places.len() - 1) as f64 } else { 1.0 };
    let scaled = |v: [f64; 3], by: f64| v.map(|x| x * by);
    let affine = Affine::new(scaled(r, f.pixel_spacing[1]), scaled(c, f.pixel_spacing[0]), scaled(normal, step), places[0].1);
    ImageGrid { shape: [places.len(), object.rows, object.columns], affine: affine.expect("invertible") }
}

#[test]
fn segments_of_several_makers_lie_on_the_grid() {
    let folder = need!(data("seg_readback"), "shared data is not there");
    let read = |name: &str| seg::read(&folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let structures = |name: &str| {
        let object = read(name);
        let grid = own_grid(&object);
        (from_segmentation(&object, &grid).unwrap_or_else(|e| panic!("{name}: {e}")), grid, object)
    };
    // One liver in many encodings.
    let (liver, grid, object) = structures("dcmqi/liver.dcm");
    assert!(liver.len() == 1 && liver[0].voxels.len() > 1000);
    for other in ["pydicom/liver.dcm", "pydicom/liver_rle.dcm", "pydicom/liver_deflate.dcm", "pydicom/liver_expb.dcm"] {
        assert_eq!(structures(other).0[0].voxels, liver[0].voxels, "{other}");
    }
    // Every voxel is where its frame says.
    let bits: usize = (0..object.frames.len()).map(|n| object.frame(n).expect("frame").iter().filter(|v| **v != 0).count()).sum();
    assert_eq!(liver[0].voxels.len(), bits);
    // The same grid with its axes turned round gives the same places.
    let [nz, ny, nx] = grid.shape;
    let far = grid.affine.apply([(nx - 1) as f64, (ny - 1) as f64, (nz - 1) as f64]);
    let back = |c: usize| grid.affine.column(c).map(|v| -v);
    let turned = ImageGrid { affine: Affine::new(back(0), back(1), back(2), far).expect("invertible"), ..grid };
    let mirrored = from_segmentation(&object, &turned).expect("structures");
    let last = (nz * ny * nx - 1) as u32;
    let mut expected: Vec<u32> = liver[0].voxels.iter().map(|v| last - v).collect();
    expected.sort_unstable();
    assert_eq!(mirrored[0].voxels, expected);

    // Overlapping segments stay apart.
    let (parts, ..) = structures("dcmqi/partial_overlaps.dcm");
    assert_eq!(parts.len(), 5);
    let both = parts
        .iter()
        .enumerate()
        .flat_map(|(i, a)| parts[..i].iter().map(move |b| (a, b)))
        .filter(|(a, b)| a.voxels.iter().any(|v| b.voxels.binary_search(v).is_ok()));
    assert!(both.count() > 0);
    for name in [
        "dcmqi/sparse-labelmap-noppv.dcm",
        "dcmqi/sparse-labelmap-ppv5.dcm",
        "highdicom/seg_image_ct_binary.dcm",
        "highdicom/seg_image_ct_binary_overlap.dcm",
        "highdicom/seg_image_ct_true_fractional.dcm",
    ] {
        let (found, ..) = structures(name);
        assert!(found.iter().any(|s| !s.voxels.is_empty()), "{name}");
    }

    // Half a voxel beside, another spacing, beyond the image.
    let code = |grid: ImageGrid| Fault::code(from_segmentation(&object, &grid));
    let sx = grid.affine.spacing()[0];
    assert_eq!(code(ImageGrid { affine: moved(&grid.affine, [sx * 0.5, 0.0, 0.0]), ..grid }), Some(Code::CasesGeometry));
    assert_eq!(code(ImageGrid { shape: [nz, ny, nx - 1], ..grid }), Some(Code::CasesGeometry));
    let stretched = |c: usize| grid.affine.column(c).map(|v| v * 1.01);
    let wide = Affine::new(stretched(0), grid.affine.column(1), grid.affine.column(2), grid.affine.column(3)).expect("invertible");
    assert_eq!(code(ImageGrid { affine: wide, ..grid }), Some(Code::CasesGeometry));
    assert_eq!(code(ImageGrid { affine: moved(&grid.affine, [sx * 0.05, 0.0, 0.0]), ..grid }), None, "rounding is no other grid");
}

/// The code of a failure.
trait FailureCode {
    fn code(result: Result<Vec<Structure>, Fault>) -> Option<Code>;
}

impl FailureCode for Fault {
    fn code(result: Result<Vec<Structure>, Fault>) -> Option<Code> {
        result.err().map(|fault| fault.code)
    }
}

fn table() -> LabelTable {
    let label = |value: u16, name: &str| codes::look_up(name).unwrap_or_else(|| codes::tissue(value)).label(value, name);
    let labels: Vec<Label> =
        vec![label(1, "liver"), label(2, "kidney_left"), label(3, "kidney_right"), label(4, "tumour a"), label(5, "tumour b")];
    LabelTable::new(labels).expect("table")
}

fn small_grid() -> ImageGrid {
    ImageGrid { shape: [4, 5, 6], affine: Affine::new([1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0], [0.0; 3]).expect("invertible") }
}

fn structure(number: i64, name: &str, code: Option<&Label>, voxels: std::ops::Range<u32>) -> Structure {
    let concept = code.map(|label| Concept {
        value: label.property_type.value.clone(),
        scheme: label.property_type.scheme.clone(),
        modifier: label.modifier.as_ref().map(|m| m.value.clone()),
    });
    Structure { number, name: name.into(), concept, voxels: voxels.collect() }
}

#[test]
fn structures_find_their_label_by_code_then_name() {
    let (table, grid, none) = (table(), small_grid(), BTreeMap::new());
    let code = |value: u16| table.get(value);
    let mapped = map_structures(
        &[
            structure(7, "anything", code(3), 0..10),
            structure(8, "Liver", None, 10..20),
            structure(9, "Tumour-A", code(4), 20..22),
            structure(10, "spleen", None, 30..40),
            structure(11, "kidney left", code(1), 50..50),
        ],
        &table,
        &none,
        &grid,
    )
    .expect("mapped");
    assert_eq!(mapped.found.iter().copied().collect::<Vec<_>>(), [1, 3, 4], "the code goes before the name, and tissue is no code");
    assert_eq!((mapped.left_out.as_slice(), mapped.contested), (&[10][..], 0));
    assert_eq!([0, 9, 10, 19, 20, 22, 35].map(|i| mapped.labels[i]), [3, 3, 1, 1, 4, 0, 0]);
    let chosen = BTreeMap::from([(10, 5u16)]);
    let mapped = map_structures(&[structure(10, "spleen", None, 30..40)], &table, &chosen, &grid).expect("mapped");
    assert_eq!(mapped.labels[30..40], [5; 10]);
    assert!(map_structures(&[], &table, &BTreeMap::from([(1, 99)]), &grid).is_err());
    assert_eq!(map_structures(&[structure(1, "spleen", None, 0..1)], &table, &none, &grid), Err(CaseError::NoKnownLabel(1)));
    assert!(map_structures(&[structure(1, "liver", None, 0..121)], &table, &none, &grid).is_err(), "beyond the image");
}

#[test]
fn contested_voxels_are_ignored_or_refused() {
    let (table, grid, none) = (table(), small_grid(), BTreeMap::new());
    let pair = |second: std::ops::Range<u32>| {
        map_structures(&[structure(1, "liver", None, 0..60), structure(2, "kidney_left", None, second)], &table, &none, &grid)
    };
    let mapped = pair(58..110).expect("a little");
    assert_eq!((mapped.contested, mapped.labels[57], mapped.labels[58], mapped.labels[59], mapped.labels[60]), (2, 1, IGNORED, IGNORED, 2));
    assert!(matches!(pair(30..90), Err(CaseError::Overlap { first: 1, second: 2, percent }) if (percent - 50.0).abs() < 1e-9));
}

#[test]
fn admission_looks_at_volumes_and_likeness() {
    let grid = ImageGrid { shape: [16; 3], ..small_grid() };
    let mut random = Random::new(1, 1);
    let image: Vec<f32> = (0..4096).map(|i| (i as f32 / 300.0).sin() * 100.0 + random.normal() as f32).collect();
    let likeness = Likeness::of(&image, grid.shape).expect("likeness");
    let mapped = Mapped { labels: (0..4096).map(|i| u16::from(i < 1000)).collect(), found: [1].into(), left_out: vec![], contested: 0 };
    let plausible = BTreeMap::from([(1, [5.0, 7.0]), (2, [1.0, 2.0])]);
    let try_it = |plausible: &BTreeMap<u16, [f64; 2]>, confirmed: &[u16], known: &[(String, Likeness)]| {
        admit(&mapped, &grid, plausible, confirmed, &likeness, known)
    };
    let admission = try_it(&plausible, &[], &[]).expect("1000 voxels of 6 mm3");
    assert!((admission.millilitres[&1] - 6.0).abs() < 1e-9);
    let narrow = BTreeMap::from([(1, [6.5, 7.0])]);
    assert!(matches!(try_it(&narrow, &[], &[]), Err(CaseError::Implausible { label: 1, .. })));
    assert!(try_it(&narrow, &[1], &[]).is_ok(), "confirmed");
    // The same image with noise, another scale and other rounding is the same; another image is not.
    let copy: Vec<f32> = image.iter().map(|v| (v * 1.3 + 40.0 + random.normal() as f32 * 3.0).round()).collect();
    let other: Vec<f32> = (0..4096).map(|i| (i as f32 / 217.0).cos() * 100.0).collect();
    let known = |data: &[f32]| [("case-1".to_string(), Likeness::of(data, grid.shape).expect("likeness"))];
    assert_eq!(try_it(&plausible, &[], &known(&copy)), Err(CaseError::Duplicate("case-1".into())));
    assert!(try_it(&plausible, &[], &known(&other)).is_ok());
    assert!(Likeness::of(&[1.0; 4096], grid.shape).is_none() && Likeness::of(&image, [4, 32, 32]).is_none());
}

fn record(labels: &[u16]) -> SignOff {
    SignOff {
        reader: "Dr. A. Reader".into(),
        time: "2026-01-31T17:05:00Z".into(),
        labels: label_digest(labels),
        classes: vec!["liver".into(), "kidney_left".into()],
        origin: Origin::AiCorrected,
        decision: Decision::Accepted,
        confirmed: Vec::new(),
    }
}

#[test]
fn only_what_a_person_signed_for_is_learned_from() {
    let table = table();
    let labels: Vec<u16> = (0..120).map(|i| if i < 30 { 1 } else { 0 }).collect();
    let reviewed = |change: &dyn Fn(&mut SignOff), changed: Option<f64>| {
        let mut record = record(&labels);
        change(&mut record);
        record.reviewed(&labels, &table, changed)
    };
    assert_eq!(reviewed(&|_| {}, Some(0.2)), Ok(vec![0, 1, 2]), "absent, but listed: known not to be there");
    assert_eq!(reviewed(&|r| r.origin = Origin::Manual, None), Ok(vec![0, 1, 2]));
    type Change<'a> = &'a dyn Fn(&mut SignOff);
    let refused: [(&str, Change); 9] = [
        ("nobody", &|r| r.reader = " ".into()),
        ("no time", &|r| r.time = "yesterday".into()),
        ("other labels", &|r| r.labels = "0".repeat(64)),
        ("unknown class", &|r| r.classes.push("spleen".into())),
        ("no class", &|r| r.classes.clear()),
        ("twice", &|r| r.classes.push("liver".into())),
        ("not reviewed", &|r| r.classes = vec!["kidney_left".into()]),
        ("refused", &|r| r.decision = Decision::Refused),
        ("withdrawn", &|r| r.decision = Decision::Withdrawn),
    ];
    for (what, change) in refused {
        assert!(matches!(reviewed(change, Some(0.2)), Err(CaseError::SignOff(_))), "{what}");
    }
    for (changed, origin) in [(Some(0.0), Origin::AiCorrected), (Some(0.0), Origin::Manual), (Some(0.5), Origin::AiUnchanged)] {
        assert!(matches!(reviewed(&|r| r.origin = origin, changed), Err(CaseError::Unchanged { .. })), "{origin:?}");
    }
    assert!(reviewed(&|_| {}, None).is_err(), "corrected, but from what?");
    let text = toml::to_string(&record(&labels)).expect("toml");
    assert_eq!(SignOff::parse(&text), Ok(record(&labels)));
    let secret = text.replace("origin", "patient_name = \"Miller\"\norigin");
    let error = SignOff::parse(&secret).expect_err("an unknown key").to_string();
    assert!(!error.contains("Miller") && error.contains("line"), "{error}");
    let model: Vec<u16> = (0..120).map(|i| if (3..33).contains(&i) { 1 } else { 0 }).collect();
    assert!((changed_share(&labels, &model, &[0, 1, 2]) - 6.0 / 33.0).abs() < 1e-12);
    assert_eq!((changed_share(&labels, &labels, &[1]), changed_share(&labels, &model, &[2])), (0.0, 0.0));
}

#[test]
fn organs_that_nobody_reviewed_are_ignored() {
    let mut labels = vec![0, 0, 0, 1, 1, 0];
    ignore_unreviewed(&mut labels, &[0, 1, 3, 3, 0, 2], &[0, 1, 2]);
    assert_eq!(labels, [0, 0, IGNORED, 1, 1, 0]);
}

fn keys(case: &str, patient: &str, study: &str, frame: Option<&str>) -> CaseKeys {
    CaseKeys { case: case.into(), patient: patient.into(), study: study.into(), frame_of_reference: frame.map(Into::into), likeness: None }
}

#[test]
fn a_person_is_on_one_side_for_ever() {
    let key = |id: &str| patient_key(b"a site's secret", "hospital", id);
    // RFC 2104 by another hand: HMAC-SHA-256 of the length-prefixed issuer and the ID.
    assert_eq!(patient_key(&[0x0b; 20], "", "Hi There").len(), 64);
    assert!(
        key("1") != key("2")
            && key("1") != patient_key(b"another secret", "hospital", "1")
            && key("1") != patient_key(b"a site's secret", "hospita", "l1")
    );
    let many: Vec<CaseKeys> = (0..2000).map(|i| keys(&format!("c{i}"), &key(&i.to_string()), &format!("s{i}"), None)).collect();
    let mut roles = Roles::default();
    let first = roles.assign(&many, 0.5).expect("roles");
    let locked = first.values().filter(|role| **role == Role::Locked).count();
    assert!((900..1100).contains(&locked), "{locked} of 2000");
    // A smaller share later moves nobody, in any order of the cases.
    let reversed: Vec<CaseKeys> = many.iter().rev().cloned().collect();
    assert_eq!(roles.assign(&reversed, 0.2).expect("roles"), first);
    // A new identity of a known person takes over the role: by study, by frame of reference.
    let (person, role) = (many[7].patient.clone(), first["c7"]);
    let copies = [many[7].clone(), keys("new-1", &key("new 1"), "s7", Some("f")), keys("new-2", &key("new 2"), "other", Some("f"))];
    let again = roles.assign(&copies, 1.0 - f64::from(u8::from(role == Role::Locked))).expect("roles");
    assert!(again.values().all(|r| *r == role) && roles.of(&key("new 2")) == Some(role) && roles.of(&person) == Some(role));
    // Two persons of different sides who turn out to be one: nothing is trained.
    let trained = first.iter().find(|(_, r)| **r == Role::Training).map(|(name, _)| name.clone()).expect("one");
    let held = first.iter().find(|(_, r)| **r == Role::Locked).map(|(name, _)| name.clone()).expect("one");
    let of = |name: &str| many.iter().find(|c| c.case == *name).expect("case").clone();
    let joined = [of(&trained), CaseKeys { study: of(&trained).study, ..of(&held) }];
    let before = roles.clone();
    assert!(matches!(roles.assign(&joined, 0.5), Err(CaseError::Leak(_))));
    assert_eq!(roles, before);
}

#[test]
fn the_same_image_under_another_name_is_the_same_person() {
    let image = |by: f32| -> Vec<f32> { (0..4096).map(|i| (i as f32 / by).sin()).collect() };
    let like = |by: f32| Likeness::of(&image(by), [16; 3]);
    let with = |name: &str, likeness| CaseKeys { likeness, ..keys(name, name, name, None) };
    let cases = [with("a", like(300.0)), with("b", like(300.0)), with("c", like(171.0))];
    let mut roles = Roles::default();
    let found = roles.assign(&cases, 0.5).expect("roles");
    assert_eq!(found["a"], found["b"]);
}

#[test]
fn labels_go_the_way_of_the_image() {
    let model = Generation::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("demo model");
    let folder = need!(data("petct_sts001"), "shared data is not there");
    let image = nifti::read(&folder.join("nifti/CT_image.nii.gz"), &Limits::default()).expect("image");
    let mask = nifti::read(&folder.join("nifti/CT_mask.nii.gz"), &Limits::default()).expect("mask");
    let grid = ImageGrid::from(&image);
    let labels = on_grid(&from_label_volume(&mask, &grid).expect("labels"), &grid);
    let prepared = prepare(&image, &model.manifest, &Limits::default()).expect("prepared");
    let there = to_network_grid(&labels, &prepared).expect("labels");
    assert_eq!(there.len(), prepared.shape.iter().product::<usize>());
    // And back, the way that results go: coarser, but in the same place.
    let count = |labels: &[u16]| labels.iter().filter(|l| **l == 1).count() as f64;
    let coarser = grid.voxels() as f64 / there.len() as f64;
    assert!((count(&there) * coarser / count(&labels) - 1.0).abs() < 0.1, "{} of {}", count(&there) * coarser, count(&labels));
    let back = stunetd::volume::resample::resize_labels(
        &there,
        prepared.shape,
        prepared.back.cropped,
        prepared.back.separate_axis,
        stunetd::volume::resample::LabelRule::Strongest,
    );
    let agreement = dice(&prepared.back.labels_to_source(&back), &labels, 1).expect("both");
    println!("there and back: Dice {agreement:.4}");
    assert!(agreement > 0.9, "{agreement}");
    assert!(to_network_grid(&labels[1..], &prepared).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// A label volume turned and mirrored in any of 48 ways lands on the same voxels.
    #[test]
    fn label_volumes_may_run_any_way(turn in 0usize..6, mirror in 0usize..8, seed in any::<u64>()) {
        let grid = ImageGrid { shape: [3, 4, 5], ..small_grid() };
        let mut random = Random::new(seed, 0);
        let labels: Vec<u16> = (0..60).map(|_| random.below(4) as u16).collect();
        let order = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][turn];
        // Axis s of the file (slowest first) runs along axis order[s] of the image (0 = z), forwards or backwards.
        let shape: [usize; 3] = std::array::from_fn(|s| grid.shape[order[s]]);
        let back = |s: usize| mirror >> s & 1 == 1;
        let at = |index: [usize; 3]| -> [usize; 3] {
            let mut voxel = [0; 3];
            (0..3).for_each(|s| voxel[order[s]] = if back(s) { shape[s] - 1 - index[s] } else { index[s] });
            voxel
        };
        let data: Vec<f32> = (0..60)
            .map(|i| {
                let [z, y, x] = at([i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]]);
                f32::from(labels[(z * 4 + y) * 5 + x])
            })
            .collect();
        let column = |s: usize| grid.affine.column(2 - order[s]).map(|v| if back(s) { -v } else { v });
        let [z, y, x] = at([0; 3]).map(|v| v as f64);
        let affine = Affine::new(column(2), column(1), column(0), grid.affine.apply([x, y, z])).expect("invertible");
        let folder = tempfile::tempdir().expect("folder");
        let source = stunetd::volume::Source::Nifti { path: folder.path().into(), digest: [0; 32], geometry: geometry() };
        let volume = stunetd::volume::Volume { data, channels: 1, shape, affine, quantity: vec![stunetd::volume::Quantity::Unknown], source };
        let found = on_grid(&from_label_volume(&volume, &grid).expect("labels"), &grid);
        prop_assert_eq!(found, labels);
    }
}

/// Some header geometry; the affine beside it is what counts.
fn geometry() -> Box<nifti::NiftiGeometry> {
    let (pixdim, quaternion, offset, rows) = ([1.0; 4], [0.0; 3], [0.0; 3], [[0.0; 4]; 3]);
    Box::new(nifti::NiftiGeometry { pixdim, units: 2, qform_code: 0, sform_code: 0, quaternion, offset, rows })
}
