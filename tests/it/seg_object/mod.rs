//! Segmentation objects: written ones read back by a second reader and by independent tools, and objects of other makers read.

mod judge;
pub mod phantom;
mod plain;
mod readback;
mod street;

use phantom::{Grid, blobs, generation, label_map, request, series, table, volume};
use stunetd::config::Format;
use stunetd::models::LabelTable;
use stunetd::results::{INCOMPLETE, Results, build};
use stunetd::series::{Case, Series};
use stunetd::volume::{LabelMap, Labels, Source};

/// Builds results in a fresh folder.
fn built(map: &LabelMap, formats: &[Format]) -> (tempfile::TempDir, Results) {
    let dir = tempfile::tempdir().expect("folder");
    let model = generation(map.table());
    let results = build(map, &volume(map), &request(&model, formats), dir.path()).expect("built");
    (dir, results)
}

fn object(dir: &tempfile::TempDir, name: &str) -> plain::Set {
    plain::read(&std::fs::read(dir.path().join(name)).expect("file"))
}

/// Labels given slice by slice of the grid, in the order of the series' planes.
fn in_series_order(grid: &Grid, series: &Series, labels: &[u8]) -> Vec<u8> {
    let area = grid.shape[1] * grid.shape[2];
    let slice = |k: usize| &labels[k * area..(k + 1) * area];
    series.planes.iter().flat_map(|p| slice(p.instance_number.expect("number") as usize - 1)).copied().collect()
}

/// A series on a grid with blobs, and the expected centroids.
fn case(grid: &Grid, n: u16) -> (Series, LabelMap, Vec<(u16, [f64; 3])>) {
    let series = series(grid);
    let labels = blobs(grid.shape, n);
    let [_, ny, nx] = grid.shape;
    let voxels = labels.iter().enumerate().filter(|(_, l)| **l != 0);
    let points = voxels.map(|(i, &l)| (l.into(), grid.point([(i % nx) as f64, (i / nx % ny) as f64, (i / (nx * ny)) as f64])));
    let points = points.collect();
    let map = label_map(&series, in_series_order(grid, &series, &labels), table(n));
    (series, map, points)
}

/// The 48 signed permutations of the axes, half of them left-handed, each turned a little when `turned`.
fn orientations(turned: bool) -> Vec<[[f64; 3]; 3]> {
    let permutations = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let (s, c) = if turned { (0.2f64.sin(), 0.2f64.cos()) } else { (0.0, 1.0) };
    let turn = |v: [f64; 3]| [c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]];
    let signed = |p: [usize; 3], signs: usize| {
        std::array::from_fn(|axis| {
            let mut v = [0.0; 3];
            v[p[axis]] = if signs >> axis & 1 == 1 { -1.0 } else { 1.0 };
            turn(v)
        })
    };
    permutations.into_iter().flat_map(|p| (0..8).map(move |signs| signed(p, signs))).collect()
}

#[test]
fn every_label_is_where_it_was_in_all_orientations() {
    for turned in [false, true] {
        for axes in orientations(turned) {
            // 7 × 9 × 11: neither frames nor rows fill whole bytes.
            let grid = Grid { axes, ..Grid::axial([7, 9, 11]) };
            let (_, map, points) = case(&grid, 3);
            let (dir, _) = built(&map, &[Format::Seg, Format::LabelMap]);
            let expected = plain::centroids(points);
            for name in ["seg.dcm", "labelmap.dcm"] {
                let set = object(&dir, name);
                let found = plain::centroids(plain::voxels(&set).into_iter().map(|v| (v.segment, v.point)));
                assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name} {axes:?}");
                for (segment, (centre, count)) in &found {
                    let (wanted, voxels) = expected[segment];
                    assert_eq!(*count, voxels, "{name} {axes:?} segment {segment}");
                    for (a, b) in centre.iter().zip(wanted) {
                        assert!((a - b).abs() < 0.01, "{name} {axes:?} segment {segment}: {centre:?}, expected {wanted:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn each_frame_refers_to_the_source_image_at_its_place() {
    for axes in orientations(true).into_iter().step_by(5) {
        let (series, map, _) = case(&Grid { axes, ..Grid::axial([6, 8, 8]) }, 2);
        let (dir, _) = built(&map, &[Format::Seg]);
        let set = object(&dir, "seg.dcm");
        let normal = [
            axes[0][1] * axes[1][2] - axes[0][2] * axes[1][1],
            axes[0][2] * axes[1][0] - axes[0][0] * axes[1][2],
            axes[0][0] * axes[1][1] - axes[0][1] * axes[1][0],
        ];
        let along = |p: [f64; 3]| -> f64 { p.iter().zip(normal).map(|(a, b)| a * b).sum() };
        let mut used = std::collections::BTreeSet::new();
        for voxel in plain::voxels(&set) {
            let plane = series.planes.iter().find(|p| p.sop_instance_uid.as_str() == voxel.source).expect("a source plane");
            assert!((along(plane.position) - along(voxel.point)).abs() < 1e-6);
            used.insert(voxel.source);
        }
        // Common Instance Reference: exactly these, once each.
        let listed = &set.items((0x08, 0x1115))[0];
        assert_eq!(listed.text((0x20, 0x0E)), series.series_uid.as_str());
        let listed: Vec<String> = listed.items((0x08, 0x114A)).iter().map(|i| i.text((0x08, 0x1155))).collect();
        assert_eq!(listed.len(), used.len());
        assert_eq!(listed.into_iter().collect::<std::collections::BTreeSet<_>>(), used);
    }
}

#[test]
fn what_is_written_is_said_as_the_clinical_rules_want_it() {
    let (_, map, _) = case(&Grid::axial([5, 8, 8]), 3);
    let (dir, results) = built(&map, &[Format::Seg, Format::LabelMap]);
    for (name, class) in [("seg.dcm", "1.2.840.10008.5.1.4.1.1.66.4"), ("labelmap.dcm", "1.2.840.10008.5.1.4.1.1.66.7")] {
        let set = object(&dir, name);
        for (tag, text) in [
            ((0x02, 0x02), class),
            ((0x02, 0x10), "1.2.840.10008.1.2.1"),
            ((0x08, 0x16), class),
            ((0x08, 0x60), "SEG"),
            ((0x08, 0x08), "DERIVED\\PRIMARY"),
            ((0x08, 0x103E), "RESEARCH - not for diagnosis: phantom-model 1.0"),
            ((0x18, 0x9004), "RESEARCH"),
            ((0x70, 0x80), "PHANTOM_MODEL"),
            ((0x10, 0x10), "Phantom^Box"),
            ((0x10, 0x20), "PH-1"),
            ((0x10, 0x30), ""),
            ((0x08, 0x50), "A17"),
            ((0x28, 0x2110), "00"),
            ((0x62, 0x13), "NO"),
            // One second before midnight in London is half past midnight in the job's zone.
            ((0x08, 0x23), "20270101"),
            ((0x08, 0x33), "005959"),
        ] {
            assert_eq!(set.text(tag), text, "{name} {tag:04x?}");
        }
        assert_eq!(set.text((0x02, 0x03)), set.text((0x08, 0x18)));
        let number: u32 = set.text((0x20, 0x11)).parse().expect("a number");
        assert!((9_000_000..10_000_000).contains(&number));
        let equipment = &set.items((0x18, 0xA001))[0];
        assert_eq!(equipment.items((0x40, 0xA170))[0].text((0x08, 0x100)), "109102");
        assert_eq!(equipment.text((0x18, 0x1020)), format!("stunetd {}\\phantom-model 1.0", env!("CARGO_PKG_VERSION")));
        let segments = set.items((0x62, 0x02));
        let kidney = segments.iter().find(|s| s.text((0x62, 0x05)) == "kidney_right").expect("kidney");
        assert_eq!(kidney.us((0x62, 0x04)), [2]);
        let kind = &kidney.items((0x62, 0x0F))[0];
        assert_eq!((kind.text((0x08, 0x100)).as_str(), kind.text((0x08, 0x102)).as_str()), ("64033007", "SCT"));
        assert_eq!(kind.items((0x62, 0x11))[0].text((0x08, 0x100)), "24028007");
        let algorithm = &kidney.items((0x62, 0x07))[0];
        assert_eq!(algorithm.items((0x66, 0x2F))[0].text((0x08, 0x100)), "123110");
        let output = results.manifest.outputs.iter().find(|o| o.file == name).expect("in the manifest");
        let uids = output.dicom.as_ref().expect("DICOM");
        assert_eq!(uids.sop_instance, set.text((0x08, 0x18)));
        assert_eq!(uids.series, set.text((0x20, 0x0E)));
    }
    assert_ne!(object(&dir, "seg.dcm").text((0x20, 0x0E)), object(&dir, "labelmap.dcm").text((0x20, 0x0E)));
}

/// A structure in the first slice, one within the image, one that is not found; a source with warnings.
fn cut_and_odd() -> (Series, LabelMap) {
    let mut series = series(&Grid::axial([5, 10, 10]));
    series.warnings = ["dose_assumed_mbq", "age_unknown", "age_unknown"].map(String::from).to_vec();
    let mut labels = vec![0u8; 500];
    labels[44..47].fill(1);
    labels[255] = 2;
    let map = label_map(&series, labels, table(3));
    (series, map)
}

#[test]
fn what_is_cut_and_what_is_odd_stands_in_the_object() {
    let (_, map) = cut_and_odd();
    let (dir, results) = built(&map, &[Format::Seg, Format::LabelMap]);
    let cut = map.table().get(1).expect("label").name.clone();
    for name in ["seg.dcm", "labelmap.dcm"] {
        let set = object(&dir, name);
        assert_eq!(set.text((0x20, 0x4000)), "To be noted: age_unknown, dose_assumed_mbq");
        let described = set.items((0x62, 0x02)).iter().filter(|s| s.0.contains_key(&(0x62, 0x06)));
        let described: Vec<_> = described.map(|s| (s.text((0x62, 0x05)), s.text((0x62, 0x06)))).collect();
        assert_eq!(described, [(cut.clone(), INCOMPLETE.to_owned())], "{name}");
    }
    assert_eq!(results.manifest.warnings, ["age_unknown", "dose_assumed_mbq"]);
    // Nothing is said of a source that nothing is odd about.
    let (_, map, _) = case(&Grid::axial([5, 8, 8]), 3);
    let (dir, _) = built(&map, &[Format::Seg]);
    assert!(!object(&dir, "seg.dcm").0.contains_key(&(0x20, 0x4000)));
}

#[test]
fn segment_numbers_are_label_values_where_they_can_be() {
    let numbers = |values: &[u16]| {
        let labels = table(9).iter().filter(|l| values.contains(&l.value)).cloned().collect();
        let table = LabelTable::new(labels).expect("table");
        let series = series(&Grid::axial([4, 6, 6]));
        let mut labels = vec![0; 4 * 36];
        (labels[40], labels[41]) = (values[0] as u8, values[1] as u8);
        let (dir, results) = built(&label_map(&series, labels, table), &[Format::Seg, Format::LabelMap]);
        let of = |name: &str| -> Vec<u16> { object(&dir, name).items((0x62, 0x02)).iter().map(|s| s.us((0x62, 0x04))[0]).collect() };
        let frames: Vec<u16> = plain::voxels(&object(&dir, "seg.dcm")).iter().map(|v| v.segment).collect();
        let manifest: Vec<u16> = results.manifest.labels.iter().map(|l| l.segment).collect();
        assert_eq!(manifest, of("seg.dcm"));
        (of("seg.dcm"), of("labelmap.dcm"), frames)
    };
    // All labels of the model are listed, found or not.
    assert_eq!(numbers(&[1, 2, 3, 4]), (vec![1, 2, 3, 4], vec![0, 1, 2, 3, 4], vec![1, 2]));
    assert_eq!(numbers(&[2, 5, 9]), (vec![1, 2, 3], vec![0, 2, 5, 9], vec![1, 2]));
}

#[test]
fn nothing_found_is_one_empty_frame() {
    let series = series(&Grid::axial([4, 5, 7]));
    let map = label_map(&series, vec![0; 4 * 35], table(3));
    let (dir, results) = built(&map, &[Format::Seg, Format::LabelMap, Format::Preview, Format::Nifti]);
    for name in ["seg.dcm", "labelmap.dcm"] {
        let set = object(&dir, name);
        assert_eq!(set.text((0x28, 0x08)), "1");
        assert!(plain::voxels(&set).is_empty());
        assert_eq!(set.text((0x70, 0x81)), "RESEARCH - not for diagnosis: no structure found");
        assert_eq!(set.items((0x08, 0x1115))[0].items((0x08, 0x114A)).len(), 1);
    }
    assert!(results.manifest.labels.iter().all(|l| l.voxels == 0 && l.volume_ml.is_none() && !l.incomplete));
}

#[test]
fn frames_that_would_be_empty_are_left_out_and_the_rest_is_in_order() {
    let (_, map, _) = case(&Grid::axial([9, 12, 13]), 4);
    let (dir, _) = built(&map, &[Format::Seg]);
    let set = object(&dir, "seg.dcm");
    let area = 12 * 13;
    let Labels::U8(labels) = map.labels() else { panic!("eight bits") };
    let expected: Vec<[u32; 2]> = {
        let present = |v: u16, z: usize| labels[z * area..(z + 1) * area].contains(&(v as u8));
        let used: Vec<usize> = (0..9).filter(|&z| (1..=4).any(|v| present(v, z))).collect();
        let rank = |z: usize| used.iter().position(|&u| u == z).map(|r| r as u32 + 1);
        (1..=4u16)
            .flat_map(|v| (0..9).filter(move |&z| present(v, z)).filter_map(move |z| Some([v.into(), rank(z)?])).collect::<Vec<_>>())
            .collect()
    };
    let frames = set.items((0x5200, 0x9230));
    let found: Vec<Vec<u32>> = frames.iter().map(|f| f.items((0x20, 0x9111))[0].ul((0x20, 0x9157))).collect();
    assert_eq!(found, expected.iter().map(|v| v.to_vec()).collect::<Vec<_>>());
}

#[test]
fn multi_frame_sources_are_named_with_their_frame() {
    let grid = Grid::axial([4, 8, 8]);
    let (mut series, _, _) = case(&grid, 1);
    for (n, plane) in series.planes.iter_mut().enumerate() {
        plane.sop_instance_uid = phantom::uid("1.2.826.0.1.1.2.99");
        plane.frame = Some(4 - n as u32);
    }
    let map = label_map(&series, vec![1; 4 * 64], table(1));
    let (dir, _) = built(&map, &[Format::Seg]);
    let set = object(&dir, "seg.dcm");
    let frames = set.items((0x5200, 0x9230));
    let named: Vec<String> = frames.iter().map(|f| f.items((0x08, 0x9124))[0].items((0x08, 0x2112))[0].text((0x08, 0x1160))).collect();
    assert_eq!(named, ["4", "3", "2", "1"]);
    assert_eq!(set.items((0x08, 0x1115))[0].items((0x08, 0x114A)).len(), 1);
}

#[test]
fn inputs_on_another_grid_are_named_as_a_whole() {
    let (ct, map, _) = case(&Grid::axial([4, 8, 8]), 1);
    let mut pet = series(&Grid { spacing: [4.0, 4.0, 3.0], ..Grid::axial([3, 2, 2]) });
    pet.series_uid = phantom::uid("1.2.826.0.1.1.7");
    pet.lossy = true;
    for (n, plane) in pet.planes.iter_mut().enumerate() {
        plane.sop_instance_uid = phantom::uid(&format!("1.2.826.0.1.1.7.{}", n + 1));
    }
    let Labels::U8(labels) = map.labels() else { panic!("eight bits") };
    let source = Source::Case(Box::new(Case { channels: vec![ct.clone(), pet], grid: 0, volume_key: [3; 32] }));
    let map = LabelMap::new(Labels::U8(labels.clone()), map.shape(), *map.affine(), table(1), source).expect("labels");
    let (dir, _) = built(&map, &[Format::Seg]);
    let set = object(&dir, "seg.dcm");
    let listed: Vec<(String, usize)> =
        set.items((0x08, 0x1115)).iter().map(|s| (s.text((0x20, 0x0E)), s.items((0x08, 0x114A)).len())).collect();
    assert_eq!(listed.iter().map(|l| l.0.as_str()).collect::<Vec<_>>(), [ct.series_uid.as_str(), "1.2.826.0.1.1.7"]);
    assert_eq!(listed[1].1, 3);
    let sources: Vec<String> = set.items((0x08, 0x2112)).iter().map(|s| s.text((0x08, 0x1155))).collect();
    assert_eq!(sources, ["1.2.826.0.1.1.7.1", "1.2.826.0.1.1.7.2", "1.2.826.0.1.1.7.3"]);
    assert_eq!(set.text((0x28, 0x2110)), "01");
    // Frames refer to the CT alone.
    assert!(plain::voxels(&set).iter().all(|v| v.source.starts_with("1.2.826.0.1.1.2.")));
}

#[test]
fn the_same_input_gives_the_same_bytes_and_other_input_other_uids() {
    let (_, map, _) = case(&Grid::axial([6, 10, 9]), 3);
    let formats = [Format::Seg, Format::LabelMap, Format::Nifti, Format::Preview];
    let ((one, first), (two, second)) = (built(&map, &formats), built(&map, &formats));
    for output in &first.manifest.outputs {
        let bytes = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(&output.file)).expect("file");
        assert!(bytes(&one) == bytes(&two), "{}", output.file);
    }
    assert_eq!(first.manifest, second.manifest);

    let model = generation(map.table());
    let mut other = request(&model, &formats);
    other.settings.step = 0.25;
    let dir = tempfile::tempdir().expect("folder");
    let third = build(&map, &volume(&map), &other, dir.path()).expect("built");
    assert_ne!(third.manifest.identity, first.manifest.identity);
    for (a, b) in first.manifest.outputs.iter().zip(&third.manifest.outputs).filter(|(a, _)| a.dicom.is_some()) {
        assert_ne!(a.dicom, b.dicom);
    }
    assert_eq!(third.folder, first.folder);
}

#[test]
fn sixteen_bit_label_maps_keep_their_values() {
    let series = series(&Grid::axial([3, 6, 5]));
    let values: Vec<u16> = (0..90).map(|i| if i % 3 == 0 { 0 } else { 250 + i % 50 }).collect();
    let case = Case { channels: vec![series.clone()], grid: 0, volume_key: [1; 32] };
    let source = Source::Case(Box::new(case));
    let map = LabelMap::new(Labels::U16(values.clone()), [3, 6, 5], phantom::affine(&series), table(300), source).expect("labels");
    let (dir, _) = built(&map, &[Format::LabelMap, Format::Seg]);
    for name in ["labelmap.dcm", "seg.dcm"] {
        let mut found = vec![0; 90];
        for v in plain::voxels(&object(&dir, name)) {
            let index = map.affine().invert(v.point).map(|x| x.round() as usize);
            found[(index[2] * 6 + index[1]) * 5 + index[0]] = v.segment;
        }
        assert_eq!(found, values, "{name}");
    }
}
