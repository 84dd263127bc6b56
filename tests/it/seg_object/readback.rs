//! The reader under test: our own objects, and those of dcmqi, highdicom and pydicom.

use super::phantom::{Grid, copied, label_map, series, table};
use super::{built, case, object, plain};
use crate::{need, support};
use std::collections::BTreeMap;
use std::path::Path;
use stunetd::config::Format;
use stunetd::dicom::DicomError;
use stunetd::dicom::seg::{ReadKind, SegObject, read};

/// Number of voxels of each segment and their centroid.
fn centroids(object: &SegObject) -> BTreeMap<u16, ([f64; 3], usize)> {
    let mut voxels = vec![];
    for (n, frame) in object.frames.iter().enumerate() {
        for (i, value) in object.frame(n).expect("pixels").into_iter().enumerate().filter(|(_, v)| *v != 0) {
            let (row, column) = ((i / object.columns) as f64, (i % object.columns) as f64);
            let point = std::array::from_fn(|a| {
                frame.position[a]
                    + frame.row_direction[a] * frame.pixel_spacing[1] * column
                    + frame.column_direction[a] * frame.pixel_spacing[0] * row
            });
            voxels.push((frame.segment.unwrap_or(value), point));
        }
    }
    plain::centroids(voxels)
}

#[test]
fn our_objects_are_read_back() {
    for shape in [[5, 8, 8], [7, 9, 11], [3, 1, 1], [4, 3, 5]] {
        let (_, map, points) = case(&Grid::axial(shape), 3);
        let (dir, _) = built(&map, &[Format::Seg, Format::LabelMap]);
        let expected = plain::centroids(points);
        for (name, kind) in [("seg.dcm", ReadKind::Binary), ("labelmap.dcm", ReadKind::LabelMap { padding: None })] {
            let read = read(&dir.path().join(name)).expect("read");
            assert_eq!(read.kind, kind);
            let segments: Vec<_> = read.segments.iter().filter(|s| s.number != 0).map(|s| (s.number, s.label.as_str())).collect();
            assert_eq!(segments, [(1, "spleen"), (2, "kidney_right"), (3, "kidney_left")]);
            assert_eq!(read.segments.last().and_then(|s| s.modifier.as_ref()).map(|m| m.meaning.as_str()), Some("Left"));
            let found = centroids(&read);
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (segment, (centre, count)) in found {
                assert_eq!(count, expected[&segment].1);
                assert!(centre.iter().zip(expected[&segment].0).all(|(a, b)| (a - b).abs() < 0.01));
            }
        }
    }
}

/// A gzip or raw NRRD of scalar labels: values in file order.
fn nrrd(path: &Path) -> Vec<i64> {
    let bytes = std::fs::read(path).expect("file");
    let end = bytes.windows(2).position(|w| w == b"\n\n").expect("header") + 2;
    let header = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |name: &str| header.lines().find_map(|l| l.strip_prefix(name)).expect("field").trim().to_owned();
    let mut data = bytes[end..].to_vec();
    if field("encoding:").starts_with("gz") {
        let mut out = vec![];
        std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&data[..]), &mut out).expect("gzip");
        data = out;
    }
    match field("type:").as_str() {
        "short" | "int16" | "signed short" => data.chunks_exact(2).map(|c| i16::from_le_bytes([c[0], c[1]]).into()).collect(),
        "unsigned short" | "uint16" | "ushort" => data.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]).into()).collect(),
        "uchar" | "unsigned char" | "uint8" => data.iter().map(|&b| b.into()).collect(),
        other => panic!("{}: type {other}", path.display()),
    }
}

/// The object as a stack of slices in the order of position along the normal, labels by value of `of`.
fn stacked(object: &SegObject, of: impl Fn(u16, u16) -> i64) -> Vec<Vec<i64>> {
    let mut stack: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (n, frame) in object.frames.iter().enumerate() {
        let (r, c) = (frame.row_direction, frame.column_direction);
        let normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
        let along: f64 = frame.position.iter().zip(normal).map(|(a, b)| a * b).sum();
        let slice = stack.entry((along * 1000.0).round() as i64).or_insert_with(|| vec![0; object.rows * object.columns]);
        for (out, value) in slice.iter_mut().zip(object.frame(n).expect("pixels")) {
            if value != 0 {
                *out = of(frame.segment.unwrap_or(value), value);
            }
        }
    }
    stack.into_values().collect()
}

#[test]
fn frames_that_fill_no_whole_bytes_are_read() {
    let dir = need!(support::data("seg_readback/dcmqi"), "shared/data/seg_readback is not here");
    for name in ["23x38x3", "24x38x3"] {
        let object = read(&dir.join(name).join("seg/label.seg")).expect("read");
        let expected = nrrd(&dir.join(name).join("nrrd/label.nrrd"));
        let found = stacked(&object, |segment, _| segment.into());
        assert_eq!(found.len() * object.rows * object.columns, expected.len());
        assert_eq!(found.concat(), expected, "{name}");
    }
}

#[test]
fn overlapping_segments_stay_apart() {
    let dir = need!(support::data("seg_readback/dcmqi"), "shared/data/seg_readback is not here");
    let object = read(&dir.join("partial_overlaps.dcm")).expect("read");
    assert_eq!((object.kind, object.segments.len()), (ReadKind::Binary, 5));
    // The reference holds each voxel of each segment in one of three files.
    let mut expected: BTreeMap<i64, usize> = BTreeMap::new();
    for n in 1..=3 {
        for value in nrrd(&dir.join(format!("partial_overlaps-{n}.nrrd"))).into_iter().filter(|v| *v != 0) {
            *expected.entry(value).or_default() += 1;
        }
    }
    let found: Vec<usize> = centroids(&object).into_values().map(|(_, n)| n).collect();
    assert_eq!(found, expected.into_values().collect::<Vec<_>>());
}

#[test]
fn label_maps_of_dcmqi_are_read() {
    let dir = need!(support::data("seg_readback/dcmqi"), "shared/data/seg_readback is not here");
    for (name, padding) in [("sparse-labelmap-noppv.dcm", None), ("sparse-labelmap-ppv5.dcm", Some(5))] {
        let object = read(&dir.join(name)).expect("read");
        assert_eq!(object.kind, ReadKind::LabelMap { padding }, "{name}");
        assert_eq!(object.segments[0].label, "Background");
        let reference = nrrd(&dir.join(name.replace("-", "_").replace(".dcm", "_seg.nrrd")));
        let count = |values: &[i64]| values.iter().filter(|v| **v == 1).count();
        assert_eq!(count(&stacked(&object, |s, _| s.into()).concat()), count(&reference), "{name}");
    }
}

#[test]
fn the_same_liver_is_read_from_every_encoding() {
    let dir = need!(support::data("seg_readback/pydicom"), "shared/data/seg_readback is not here");
    for (plain, others) in [
        ("liver.dcm", &["liver_expb.dcm", "liver_rle.dcm", "liver_deflate.dcm"][..]),
        ("liver_nonbyte_aligned.dcm", &["liver_nonbyte_aligned_rle.dcm", "liver_nonbyte_aligned_deflate.dcm"]),
    ] {
        let expected = centroids(&read(&dir.join(plain)).expect("read"));
        assert!(expected[&1].1 > 1000);
        for other in others {
            assert_eq!(centroids(&read(&dir.join(other)).unwrap_or_else(|e| panic!("{other}: {e}"))), expected, "{other}");
        }
    }
    let refused = read(&dir.join("liver_j2k.dcm")).expect_err("one bit JPEG 2000");
    assert!(matches!(refused, DicomError::TransferSyntax(_)), "{refused}");
}

#[test]
fn objects_of_highdicom_are_read() {
    let dir = need!(support::data("seg_readback/highdicom"), "shared/data/seg_readback is not here");
    let open = |name: &str| read(&dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let binary = open("seg_image_ct_binary.dcm");
    let fractional = open("seg_image_ct_binary_fractional.dcm");
    let ReadKind::Fractional { maximum } = fractional.kind else { panic!("{:?}", fractional.kind) };
    for n in 0..fractional.frames.len() {
        assert!(fractional.frame(n).expect("pixels").iter().all(|&v| v == 0 || v == maximum));
    }
    assert_eq!(centroids(&binary), centroids(&fractional));
    assert_eq!(open("seg_image_ct_binary_single_frame.dcm").frames.len(), 1);
    assert_eq!(open("seg_image_ct_binary_overlap.dcm").segments.len(), 2);
    let refused = read(&dir.join("ct_image.dcm")).expect_err("a CT image");
    assert!(matches!(refused, DicomError::SopClass(_)), "{refused}");
}

#[test]
fn damaged_objects_are_refused() {
    let (_, map, _) = case(&Grid::axial([4, 6, 7]), 2);
    let (dir, _) = built(&map, &[Format::Seg]);
    let bytes = std::fs::read(dir.path().join("seg.dcm")).expect("file");
    let read_bytes = |bytes: &[u8]| {
        let path = dir.path().join("changed.dcm");
        std::fs::write(&path, bytes).expect("written");
        read(&path)
    };
    assert!(read_bytes(&bytes).is_ok());
    for cut in [0, 100, 200, 900, bytes.len() - 40, bytes.len() - 3] {
        assert!(read_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let patch = |tag: [u8; 4], value: &[u8]| {
        let at = bytes.windows(4).rposition(|w| w == tag).expect("element");
        let mut changed = bytes.clone();
        changed[at + 8..at + 8 + value.len()].copy_from_slice(value);
        read_bytes(&changed).map(|_| ()).expect_err("refused")
    };
    assert!(matches!(patch([0x28, 0, 0x10, 0], &[0xFF, 0xFF]), DicomError::Implausible(_)));
    assert!(matches!(patch([0x28, 0, 0x10, 0], &[0, 0]), DicomError::Corrupt(_)));
    assert!(matches!(patch([0x28, 0, 0x10, 0], &[0, 9]), DicomError::PixelDataShort { .. }));
    assert!(matches!(patch([0x28, 0, 0x08, 0], b"99"), DicomError::Corrupt(_)));
    assert!(matches!(patch([0x28, 0, 0, 1], &[8, 0]), DicomError::PixelFormat(_)));
}

/// The raw value of a top-level element of an explicit or implicit little endian file, by the rules of PS3.5 section 7.
fn raw_value(file: &[u8], wanted: (u16, u16)) -> Option<Vec<u8>> {
    let mut at = if file.get(128..132) == Some(b"DICM") { 132 } else { 0 };
    let mut implicit = false;
    while at + 8 <= file.len() {
        let tag = (u16::from_le_bytes([file[at], file[at + 1]]), u16::from_le_bytes([file[at + 2], file[at + 3]]));
        let explicit = tag.0 == 2 || !implicit;
        let word = |p: usize| u32::from_le_bytes([file[p], file[p + 1], file[p + 2], file[p + 3]]) as usize;
        let (length, head) = match explicit {
            true if [b"OB", b"OW", b"SQ", b"UN", b"UT"].contains(&&[file[at + 4], file[at + 5]]) => (word(at + 8), 12),
            true => (u16::from_le_bytes([file[at + 6], file[at + 7]]).into(), 8),
            false => (word(at + 4), 8),
        };
        let value = file.get(at + head..at + head + length)?;
        if tag == (2, 0x10) {
            implicit = value.starts_with(b"1.2.840.10008.1.2\0") || value == b"1.2.840.10008.1.2";
        }
        if tag == wanted {
            return Some(value.to_vec());
        }
        at += head + length;
    }
    None
}

#[test]
fn names_in_every_character_set_leave_as_they_came() {
    use dicom_dictionary_std::tags;
    let dir = need!(support::data("charsets"), "shared/data/charsets is not here");
    let mut checked = 0;
    for entry in std::fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "dcm") {
            continue;
        }
        let file = std::fs::read(&path).expect("file");
        let (Some(charset), Some(name)) = (raw_value(&file, (0x08, 0x05)), raw_value(&file, (0x10, 0x10))) else { continue };
        let mut series = series(&Grid::axial([3, 4, 4]));
        series.copied = copied(&[(tags::SPECIFIC_CHARACTER_SET, b"CS", &charset), (tags::PATIENT_NAME, b"PN", &name)]);
        let map = label_map(&series, vec![1; 48], table(1));
        let (dir, _) = built(&map, &[Format::Seg]);
        let set = object(&dir, "seg.dcm");
        let padded = |mut v: Vec<u8>| {
            v.resize(v.len().next_multiple_of(2), b' ');
            v
        };
        assert_eq!(set.bytes((0x08, 0x05)), padded(charset), "{}", path.display());
        assert_eq!(set.bytes((0x10, 0x10)), padded(name), "{}", path.display());
        checked += 1;
    }
    assert!(checked >= 12, "{checked} files");
}
