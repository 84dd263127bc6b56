//! Manifest, volumes, picture, and which files a source allows.

use crate::need;
use crate::seg_object::phantom::{Grid, generation, label_map, request, series, table, volume};
use crate::support::{data, schema};
use stunetd::config::Format;
use stunetd::fault::Code;
use stunetd::models::{OnUnknown, Scope};
use stunetd::results::{build, cielab, possible_formats};
use stunetd::volume::nifti::NiftiGeometry;
use stunetd::volume::{Affine, LabelMap, Labels, Quantity, Source, Volume};

fn nifti_source(affine: &Affine) -> Source {
    Source::Nifti { path: "a.nii.gz".into(), digest: [7; 32], geometry: Box::new(NiftiGeometry::from_affine(affine)) }
}

#[test]
fn the_manifest_says_what_its_schema_allows() {
    let series = series(&Grid::axial([4, 8, 8]));
    let dicom = label_map(&series, vec![1; 256], table(2));
    let affine = *dicom.affine();
    let nifti = LabelMap::new(Labels::U8(vec![1; 256]), [4, 8, 8], affine, table(2), nifti_source(&affine)).expect("labels");
    for map in [dicom, nifti] {
        let model = generation(map.table());
        let formats = [Format::Seg, Format::LabelMap, Format::Nifti, Format::Preview];
        let mut request = request(&model, &formats);
        request.settings.skip_air = matches!(map.source(), Source::Nifti { .. });
        let dir = tempfile::tempdir().expect("folder");
        let results = build(&map, &volume(&map), &request, dir.path()).expect("built");
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(dir.path().join("manifest.json")).expect("file")).expect("JSON");
        schema::conforms("manifest", &manifest);
        assert_eq!(manifest, serde_json::to_value(&results.manifest).expect("JSON"));
        assert_eq!(results.folder, manifest["volume_key"].as_str().expect("text")[..8]);
        let mut lying: Vec<String> =
            std::fs::read_dir(dir.path()).expect("folder").map(|e| e.expect("entry").file_name().into_string().expect("name")).collect();
        lying.sort();
        let mut listed: Vec<String> = results.manifest.outputs.iter().map(|o| o.file.clone()).chain(["manifest.json".into()]).collect();
        listed.sort();
        assert_eq!(lying, listed);
        for output in &results.manifest.outputs {
            let (bytes, sha256) = stunetd::results::file_digest(&dir.path().join(&output.file)).expect("digest");
            assert_eq!((bytes, &sha256), (output.bytes, &output.sha256));
        }
    }
}

#[test]
fn a_nifti_source_gives_nifti_and_picture_only() {
    let affine = Affine::new([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0; 3]).expect("affine");
    let source = nifti_source(&affine);
    for (asked, given) in [
        (&[Format::Seg][..], &[Format::Nifti, Format::Preview][..]),
        (&[Format::Seg, Format::Preview], &[Format::Nifti, Format::Preview]),
        (&[Format::Preview], &[Format::Preview]),
        (&[Format::Nifti], &[Format::Nifti]),
    ] {
        assert_eq!(possible_formats(asked, &source), given);
    }
    let map = LabelMap::new(Labels::U8(vec![1; 8]), [2, 2, 2], affine, table(1), source).expect("labels");
    let dir = tempfile::tempdir().expect("folder");
    let results = build(&map, &volume(&map), &request(&generation(map.table()), &[Format::Seg]), dir.path()).expect("built");
    assert_eq!(results.manifest.warnings, ["left_out_seg"]);
}

#[test]
fn uneven_slices_give_no_nifti() {
    let mut series = series(&Grid::axial([3, 4, 4]));
    series.geometry.uniform_spacing = false;
    let map = label_map(&series, vec![1; 48], table(1));
    let dir = tempfile::tempdir().expect("folder");
    let results = build(&map, &volume(&map), &request(&generation(map.table()), &[Format::Seg, Format::Nifti]), dir.path()).expect("built");
    assert_eq!(results.manifest.outputs.iter().map(|o| o.file.as_str()).collect::<Vec<_>>(), ["seg.dcm"]);
    assert_eq!(results.manifest.warnings, ["left_out_nifti"]);
}

#[test]
fn volumes_are_in_millilitres_and_cut_structures_have_none() {
    let series = series(&Grid::axial([5, 10, 10]));
    let mut labels = vec![0u8; 500];
    // Label 1: 2 × 3 × 4 voxels inside; 2: one voxel in the first slice; 3: one on the last column.
    for (z, y, x) in (1..3).flat_map(|z| (2..5).flat_map(move |y| (3..7).map(move |x| (z, y, x)))) {
        labels[z * 100 + y * 10 + x] = 1;
    }
    labels[55] = 2;
    labels[2 * 100 + 59] = 3;
    let map = label_map(&series, labels, table(4));
    let dir = tempfile::tempdir().expect("folder");
    let model = generation(map.table());
    let results = build(&map, &volume(&map), &request(&model, &[]), dir.path()).expect("built");
    let entries: Vec<_> = results.manifest.labels.iter().map(|l| (l.voxels, l.volume_ml, l.incomplete)).collect();
    // 24 voxels of 0.75 × 0.8 × 2.5 mm.
    assert_eq!(entries, [(24, Some(0.036), false), (1, None, true), (1, None, true), (0, None, false)]);

    // Uneven distances: a slice reaches half-way to its neighbours. Slices 1 and 2 are 2.5 and (2.5 + 7.5) / 2 mm thick.
    let mut uneven = crate::seg_object::phantom::series(&Grid::axial([5, 10, 10]));
    uneven.geometry.uniform_spacing = false;
    for plane in &mut uneven.planes[3..] {
        plane.position[2] += 5.0;
    }
    let Labels::U8(labels) = map.labels() else { panic!("eight bits") };
    let map = label_map(&uneven, labels.clone(), table(4));
    let dir = tempfile::tempdir().expect("folder");
    let results = build(&map, &volume(&map), &request(&model, &[]), dir.path()).expect("built");
    let expected = 12.0 * 0.75 * 0.8 * (2.5 + 5.0) / 1000.0;
    assert!((results.manifest.labels[0].volume_ml.expect("whole") - expected).abs() < 1e-3);
}

/// The image has to show what the model is made for: whole, not merely cut by an edge.
#[test]
fn the_anatomy_is_confirmed_by_what_is_found() {
    let mut labels = vec![0u8; 500];
    // Label 1 within the image, 2 cut by its edge, 3 not there.
    labels[255] = 1;
    labels[0] = 2;
    let map = label_map(&series(&Grid::axial([5, 10, 10])), labels, table(3));
    let name = |value: u16| map.table().get(value).expect("label").name.clone();
    let built = |expects: &[u16], on_unknown| {
        let mut model = generation(map.table());
        model.manifest.scope = Scope { expects: expects.iter().map(|&v| name(v)).collect(), on_unknown, ..Scope::default() };
        let dir = tempfile::tempdir().expect("folder");
        let results = build(&map, &volume(&map), &request(&model, &[Format::Seg]), dir.path());
        let object = std::fs::read(dir.path().join("seg.dcm")).unwrap_or_default();
        (results.map(|r| r.manifest.warnings).map_err(|fault| fault.code), object.windows(19).any(|w| w == b"anatomy_unconfirmed"))
    };
    let flagged = || Ok(vec!["anatomy_unconfirmed".to_owned()]);
    for (expects, on_unknown, expected) in [
        (&[][..], OnUnknown::Refuse, Ok(vec![])),
        (&[3, 1], OnUnknown::Refuse, Ok(vec![])),
        (&[2, 3], OnUnknown::Refuse, Err(Code::ScopeAnatomy)),
        (&[2, 3], OnUnknown::Flag, flagged()),
        (&[3], OnUnknown::Flag, flagged()),
    ] {
        let told = expected == flagged();
        assert_eq!(built(expects, on_unknown), (expected, told), "{expects:?}");
    }
}

/// A partner that ends within the grid cuts structures as the edge of the image does.
#[test]
fn what_leaves_the_partner_is_incomplete() {
    let grid = Grid::axial([12, 12, 12]);
    let labels: Vec<u8> = (0..12usize.pow(3))
        .map(|i| match (i / 144, i / 12 % 12, i % 12) {
            (4..7, 4..7, 4..7) => 1,
            // In the partner's last slice, in its last row, in its first column, beyond it.
            (8, 5, 5) => 2,
            (5, 9, 5) => 3,
            (5, 5, 2) => 4,
            (10, 5, 5) => 5,
            // Beside the border, within it.
            (7, 8, 3) => 6,
            _ => 0,
        })
        .collect();
    let mut map = label_map(&series(&grid), labels, table(6));
    let expected = [false, true, true, true, true, false];
    // The same voxels, and finer ones, turned about: slices 0 to 8, rows 0 to 9, columns 2 to 11 of the grid.
    let corner = grid.point([2.0, 0.0, 0.0]);
    let same = Grid { shape: [9, 10, 10], origin: corner, ..grid.clone() };
    let turned = Grid {
        shape: [18, 20, 20],
        axes: [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]],
        spacing: grid.spacing.map(|s| s / 2.0),
        origin: grid.point([11.25, 9.25, -0.25]),
    };
    let whole = Grid { shape: [12, 12, 12], ..grid.clone() };
    for (partner, expected) in [(same, expected), (turned, expected), (whole, [false; 6])] {
        let Source::Case(case) = map.source() else { panic!("a case") };
        let mut case = (**case).clone();
        case.channels.truncate(1);
        case.channels.push(series(&partner));
        let source = Source::Case(Box::new(case));
        map = LabelMap::new(map.labels().clone(), map.shape(), *map.affine(), map.table().clone(), source).expect("labels");
        let dir = tempfile::tempdir().expect("folder");
        let results = build(&map, &volume(&map), &request(&generation(map.table()), &[]), dir.path()).expect("built");
        assert_eq!(results.manifest.labels.iter().map(|l| l.incomplete).collect::<Vec<_>>(), expected, "{partner:?}");
    }
}

/// The pixels of a picture: width, rows of RGB.
fn picture(map: &LabelMap, volume: &Volume) -> (usize, Vec<[u8; 3]>) {
    let dir = tempfile::tempdir().expect("folder");
    let model = generation(map.table());
    build(map, volume, &request(&model, &[Format::Preview]), dir.path()).expect("built");
    let file = std::io::BufReader::new(std::fs::File::open(dir.path().join("preview.png")).expect("file"));
    let mut reader = png::Decoder::new(file).read_info().expect("PNG");
    let mut bytes = vec![0; reader.output_buffer_size().expect("size")];
    let info = reader.next_frame(&mut bytes).expect("frame");
    (info.width as usize, bytes.as_chunks::<3>().0.to_vec())
}

#[test]
fn the_picture_is_the_same_whatever_way_the_voxels_are_stored() {
    // One body in patient axes (left, posterior, superior), 40 × 30 × 26 voxels of 2, 2.5 and 3 mm.
    let (size, spacing) = ([40usize, 30, 26], [2.0, 2.5, 3.0]);
    let body = |p: [usize; 3]| -> (f32, u8) {
        let inside =
            |centre: [f64; 3], radius: f64| (0..3).map(|a| (p[a] as f64 * spacing[a] - centre[a]).powi(2)).sum::<f64>() < radius * radius;
        let label = if inside([60.0, 20.0, 60.0], 14.0) { 1 } else { u8::from(inside([25.0, 50.0, 20.0], 7.0)) * 2 };
        (-150.0 + (p[0] * 5 + p[1] * 3 + p[2] * 2) as f32, label)
    };
    let mut first: Option<(usize, Vec<[u8; 3]>)> = None;
    for permutation in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
        for signs in 0..8 {
            // Array axis a (i, j, k) runs along body axis permutation[a], backwards where its sign bit is set.
            let counts = permutation.map(|b| size[b]);
            let mut steps = [[0.0; 3]; 3];
            let mut origin = [0.0; 3];
            for a in 0..3 {
                let backwards = signs >> a & 1 == 1;
                let b = permutation[a];
                steps[a][b] = if backwards { -spacing[b] } else { spacing[b] };
                origin[b] = if backwards { (size[b] - 1) as f64 * spacing[b] } else { 0.0 };
            }
            let affine = Affine::new(steps[0], steps[1], steps[2], origin).expect("affine");
            let (mut values, mut labels) = (vec![], vec![]);
            for k in 0..counts[2] {
                for j in 0..counts[1] {
                    for i in 0..counts[0] {
                        let lps = affine.apply([i as f64, j as f64, k as f64]);
                        let (value, label) = body(std::array::from_fn(|b| (lps[b] / spacing[b]).round() as usize));
                        values.push(value);
                        labels.push(label);
                    }
                }
            }
            let shape = [counts[2], counts[1], counts[0]];
            let map = LabelMap::new(Labels::U8(labels), shape, affine, table(2), nifti_source(&affine)).expect("labels");
            let volume = Volume { data: values, channels: 1, shape, affine, quantity: vec![Quantity::Hu], source: map.source().clone() };
            let (width, pixels) = picture(&map, &volume);
            // The line of text with the grid's size differs; the planes and the legend do not.
            let below = pixels[width * 64..].to_vec();
            match &first {
                None => first = Some((width, below)),
                Some((_, expected)) => {
                    let differing = expected.iter().zip(&below).filter(|(a, b)| a.iter().zip(*b).any(|(x, y)| x.abs_diff(*y) > 3)).count();
                    assert!(differing * 1000 < expected.len(), "{permutation:?} {signs}: {differing} pixels differ");
                }
            }
        }
    }
    // Label 1 lies left, in front and above: right and up in the axial and coronal pictures, left and up in the sagittal one.
    let (width, pixels) = first.expect("a picture");
    let colour = table(2).get(1).expect("label").rgb;
    let third = width / 3;
    for (panel, right) in [(0, true), (1, true), (2, false)] {
        let hits: Vec<(usize, usize)> = (0..pixels.len())
            .filter(|&i| i % width / third == panel && i / width < pixels.len() / width - 60)
            .filter(|&i| pixels[i].iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 12))
            .map(|i| (i % width - panel * third, i / width))
            .collect();
        assert!(!hits.is_empty(), "panel {panel} shows the outline of label 1");
        let mean = hits.iter().map(|h| h.0).sum::<usize>() / hits.len();
        assert_eq!(mean > third / 2, right, "panel {panel}");
    }
}

#[test]
fn colours_are_those_of_the_dictionary() {
    let shared = need!(data("../spec/totalsegmentator_classes.csv"), "shared/spec is not here");
    let text = std::fs::read_to_string(shared).expect("table");
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("header").split(',').collect();
    let column = |name: &str| header.iter().position(|h| *h == name).expect("column");
    let (hex, first) = (column("rgb_hex"), column("cielab_L"));
    let mut checked = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let rgb = u32::from_str_radix(fields[hex].trim_start_matches('#'), 16).expect("colour");
        let found = cielab([(rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8]);
        for (a, b) in found.iter().zip(&fields[first..first + 3]) {
            assert!(a.abs_diff(b.parse().expect("number")) <= 2, "{line}: {found:?}");
        }
        checked += 1;
    }
    assert!(checked > 100);
}
