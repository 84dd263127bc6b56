//! The guard: the same header from every encoding, a code for every kind of broken file, never a panic.

use super::maker::{Content, ENCODINGS, Element, Encoding, ct_slice, data_set, file, items, part10, text, with, word};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use stunetd::dicom::guard::{Limits, walk_bytes};
use stunetd::dicom::{Instance, PixelData, RefusedFile, read_instance};

/// Reads a header from bytes, through a file.
fn read(bytes: &[u8]) -> Result<Instance, RefusedFile> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("x");
    std::fs::write(&path, bytes).expect("write");
    read_instance(&path, PathBuf::from("x"), &Limits::default())
}

fn reason(bytes: &[u8]) -> &'static str {
    read(bytes).map_or_else(|refused| refused.code.reason(), |_| "accepted")
}

#[test]
fn every_encoding_gives_the_same_header() {
    for encoding in ENCODINGS {
        for with_preamble in [true, false] {
            let bytes = file(&ct_slice(3), encoding);
            let bytes = if with_preamble { &bytes[..] } else { &bytes[132..] };
            let instance = read(bytes).unwrap_or_else(|e| panic!("{encoding:?}: {e:?}"));
            assert_eq!(instance.sop_instance_uid.as_str(), "1.2.3.3");
            assert_eq!(instance.pixels.transfer_syntax.as_str(), encoding.uid());
            assert_eq!((instance.pixels.rows, instance.pixels.columns, instance.pixels.bits_stored), (4, 6, 12));
            let frame = &instance.frames[0];
            assert_eq!(frame.position, Some([-10.5, -20.0, 15.0]));
            assert_eq!(frame.pixel_spacing, Some([0.8, 0.7]));
            assert_eq!((frame.rescale.slope, frame.rescale.intercept, frame.rescale.explicit), (1.0, -1024.0, true));
            assert_eq!(frame.timing.acquisition, Some(1_706_693_705.5));
            assert_eq!(instance.selection.age_years, Some(45.0));
            assert_eq!(instance.copied.trimmed(0x0010, 0x0010), Some(&b"PHANTOM^ONE"[..]));
            // Sequences are copied in one form whatever the source's encoding.
            let request = instance.copied.get(0x0040, 0x0275).expect("request attributes");
            let expected = ct_slice(3).into_iter().find(|e| e.tag == (0x0040, 0x0275)).expect("element");
            let expected = data_set(&[expected], Encoding::Explicit)[12..].to_vec();
            if encoding == Encoding::Implicit {
                // The private element inside is UN there: its representation is not known.
                assert_eq!(request.value.len(), expected.len() + 4);
            } else {
                assert_eq!(request.value, expected);
            }
        }
    }
    for encoding in [Encoding::Implicit, Encoding::Explicit, Encoding::BigEndian] {
        assert!(read(&data_set(&ct_slice(0), encoding)).is_ok(), "{encoding:?} without a meta header");
    }
}

#[test]
fn pixel_bytes_come_back_frame_by_frame() {
    let folder = tempfile::tempdir().expect("folder");
    for encoding in ENCODINGS {
        let path = folder.path().join(encoding.uid());
        std::fs::write(&path, file(&ct_slice(2), encoding)).expect("write");
        let pixels = PixelData::open(&path, &Limits::default()).expect("open");
        let mut bytes = Vec::new();
        pixels.frame(0, 1, 48, &mut bytes).expect("frame");
        let big = pixels.is_big_endian();
        assert_eq!(big, encoding == Encoding::BigEndian);
        let words: Vec<u16> =
            bytes.chunks(2).map(|b| if big { u16::from_be_bytes([b[0], b[1]]) } else { u16::from_le_bytes([b[0], b[1]]) }).collect();
        assert_eq!(words, (200..224).collect::<Vec<u16>>(), "{encoding:?}");
        assert!(pixels.frame(1, 2, 48, &mut bytes).is_err(), "a second frame is not there");
    }
}

#[test]
fn every_cut_is_refused() {
    for encoding in [Encoding::Implicit, Encoding::Explicit, Encoding::BigEndian] {
        let whole = file(&ct_slice(1), encoding);
        for cut in 0..whole.len() {
            let walked = walk_bytes(&whole[..cut], &Limits::default(), &|_| Ok(()));
            let has_pixels = walked.data.pixels.is_some();
            let refused = walked.error.map(|e| e.code().reason());
            match refused {
                Some("empty_file") => assert_eq!(cut, 0),
                Some("not_dicom") => assert!(cut < 132),
                Some("corrupt") => assert!(cut >= 132),
                Some("truncated") => assert!(cut > 132),
                None => assert!(!has_pixels, "{encoding:?} cut at {cut}: between two elements, but without pixels"),
                Some(other) => panic!("{encoding:?} cut at {cut}: {other}"),
            }
        }
        assert_eq!(reason(&whole[..whole.len() - 1]), "truncated");
        assert_eq!(reason(&whole[..whole.len() - 60]), "truncated", "no pixel data");
    }
    let deflated = file(&ct_slice(1), Encoding::Deflated);
    assert_eq!(reason(&deflated[..deflated.len() - 30]), "truncated");
}

#[test]
fn nested_and_length_bombs_have_a_code() {
    let head = data_set(&ct_slice(0)[..9], Encoding::Explicit);
    let sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff";
    let nested = part10(&[head.clone(), sequence.repeat(20_000)].concat(), Encoding::Explicit);
    assert_eq!(reason(&nested), "corrupt");
    let implicit = b"\x08\x00\x40\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff".repeat(20_000);
    assert_eq!(reason(&part10(&[data_set(&ct_slice(0)[..8], Encoding::Implicit), implicit].concat(), Encoding::Implicit)), "corrupt");
    // Defined lengths, each level inside the other.
    let mut inner = Vec::new();
    for _ in 0..40 {
        inner = data_set(&[items(0x0008, 0x1140, vec![], false)], Encoding::Explicit)
            .into_iter()
            .take(8)
            .chain((inner.len() as u32 + 8).to_le_bytes())
            .chain(*b"\xfe\xff\x00\xe0")
            .chain((inner.len() as u32).to_le_bytes())
            .chain(inner)
            .collect();
    }
    assert_eq!(reason(&part10(&[head.clone(), inner].concat(), Encoding::Explicit)), "corrupt");

    let huge = |length: u32| {
        let bomb = [b"\x09\x00\x10\x00LO\x04\x00ACME\x09\x00\x01\x10OB\0\0".to_vec(), length.to_le_bytes().to_vec(), vec![0; 64]].concat();
        reason(&part10(&[head.clone(), bomb].concat(), Encoding::Explicit))
    };
    assert_eq!((huge(0xFFFF_FFF0), huge(0x7FFF_FFFF), huge(1000)), ("corrupt", "corrupt", "truncated"));
    let open = [head.clone(), sequence.to_vec(), b"\x08\x00\x50\x11UI\x04\x001.2\0".to_vec()].concat();
    assert_eq!(reason(&part10(&open, Encoding::Explicit)), "corrupt", "a sequence that is never closed");

    let mut pixels = data_set(&ct_slice(0), Encoding::Explicit);
    let at = pixels.len() - 48 - 4;
    pixels[at..at + 4].copy_from_slice(&0xFFFF_FFFEu32.to_le_bytes());
    assert_eq!(reason(&part10(&pixels, Encoding::Explicit)), "truncated");

    let many: Vec<Element> = (0..2000).map(|_| text(0x0008, 0x2112, "LO", "x")).collect();
    let few = Limits { elements: 1000, ..Limits::default() };
    let walked = walk_bytes(&file(&many, Encoding::Explicit), &few, &|_| Ok(()));
    assert_eq!(walked.error.map(|e| e.code().reason()), Some("corrupt"));
    let kept = Limits { kept_bytes: 100, ..Limits::default() };
    assert_eq!(walk_bytes(&file(&ct_slice(0), Encoding::Explicit), &kept, &|_| Ok(())).error.map(|e| e.code().reason()), Some("corrupt"));
}

#[test]
fn deflate_bombs_end_early() {
    let private = |length: usize| Element { tag: (0x0009, 0x1001), vr: "OB", content: Content::Bytes(vec![0; length]) };
    let before = with(ct_slice(0), vec![((0x0009, 0x1001), Some(private(100 << 20)))]);
    assert_eq!(reason(&file(&before, Encoding::Deflated)), "corrupt");
    let mut after = ct_slice(0);
    after.push(private(20 << 20));
    assert_eq!(reason(&file(&after, Encoding::Deflated)), "corrupt");
    let small = Limits { inflated_bytes: 500, ..Limits::default() };
    assert_eq!(walk_bytes(&file(&ct_slice(0), Encoding::Deflated), &small, &|_| Ok(())).error.map(|e| e.code().reason()), Some("corrupt"));
    assert_eq!(reason(&part10(b"", Encoding::Deflated)), "truncated", "nothing deflated");
}

#[test]
fn broken_files_have_their_codes() {
    let change = |tag: (u16, u16), element: Option<Element>| file(&with(ct_slice(0), vec![(tag, element)]), Encoding::Explicit);
    let twice = [ct_slice(0)[..20].to_vec(), ct_slice(0)[19..].to_vec()].concat();
    let mut meta_says_explicit = part10(&data_set(&ct_slice(0), Encoding::Implicit), Encoding::Explicit);
    let mut magic_only = vec![0; 128];
    magic_only.extend(b"DICM");
    let random: Vec<u8> = (0u32..50_000).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (what, bytes, expected) in [
        ("empty", vec![], "empty_file"),
        ("text", b"this is not DICOM\n".repeat(20), "not_dicom"),
        ("random", random.clone(), "not_dicom"),
        ("random behind the prefix", [magic_only.clone(), random].concat(), "corrupt"),
        ("prefix alone", magic_only, "corrupt"),
        ("an element twice", file(&twice, Encoding::Explicit), "corrupt"),
        ("implicit data, explicit header", std::mem::take(&mut meta_says_explicit), "corrupt"),
        ("explicit data, implicit header", part10(&data_set(&ct_slice(0), Encoding::Explicit), Encoding::Implicit), "corrupt"),
        ("no rows", change((0x28, 0x10), None), "implausible_dimensions"),
        ("65535 rows", change((0x28, 0x10), Some(word(0x28, 0x10, 65535))), "implausible_dimensions"),
        ("frames", change((0x28, 0x08), Some(text(0x28, 0x08, "IS", "2147483647"))), "implausible_dimensions"),
        ("two frames", change((0x28, 0x08), Some(text(0x28, 0x08, "IS", "2"))), "pixel_data_too_short"),
        ("one more row", change((0x28, 0x10), Some(word(0x28, 0x10, 5))), "pixel_data_too_short"),
        ("12 bits allocated", change((0x28, 0x100), Some(word(0x28, 0x100, 12))), "unsupported_pixel_format"),
        ("more bits stored than allocated", change((0x28, 0x101), Some(word(0x28, 0x101, 17))), "unsupported_pixel_format"),
        ("no SOP instance", change((0x08, 0x18), None), "missing_uid"),
        ("empty SOP class", change((0x08, 0x16), Some(text(0x08, 0x16, "UI", ""))), "missing_uid"),
        ("path as UID", change((0x20, 0x0E), Some(text(0x20, 0x0E, "UI", "../../x"))), "invalid_uid"),
        ("secondary capture", change((0x08, 0x16), Some(text(0x08, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.7"))), "sop_class_not_segmentable"),
        ("segmentation", change((0x08, 0x16), Some(text(0x08, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.66.4"))), "segmentation_object"),
    ] {
        assert_eq!(reason(&bytes), expected, "{what}");
    }
    let mut unknown = file(&ct_slice(0), Encoding::Explicit);
    let at = unknown.windows(19).position(|w| w == b"1.2.840.10008.1.2.1").expect("syntax");
    unknown[at..at + 19].copy_from_slice(b"1.3.46.670589.33.1.");
    assert_eq!(reason(&unknown), "unsupported_transfer_syntax");
}

#[test]
fn a_refused_member_names_its_series_and_nothing_else() {
    let cut = file(&ct_slice(0), Encoding::Explicit);
    let refused = read(&cut[..cut.len() - 1]).expect_err("truncated");
    let key = refused.member_of.expect("member");
    assert_eq!((key.study.as_str(), key.series.as_str()), ("1.2.3.4", "1.2.3.5"));
    let hostile = file(&with(ct_slice(0), vec![((0x20, 0x0E), Some(text(0x20, 0x0E, "UI", "'\"><script>")))]), Encoding::Explicit);
    let refused = read(&hostile).expect_err("invalid");
    assert_eq!(refused.member_of.expect("member").series, "???????????");
    assert!(!refused.detail.contains("script") && !refused.detail.contains("PHANTOM"));
}

#[test]
fn unknown_with_undefined_length_is_an_implicit_sequence() {
    let mut un = data_set(&[items(0x0029, 0x1001, vec![vec![word(0x0028, 0x0010, 99)]], true)], Encoding::Implicit);
    un.splice(4..8, *b"UN\0\0\xff\xff\xff\xff");
    let elements = ct_slice(0);
    let split = elements.iter().position(|e| e.tag > (0x0029, 0)).expect("behind");
    let body = [data_set(&elements[..split], Encoding::Explicit), un, data_set(&elements[split..], Encoding::Explicit)].concat();
    assert_eq!(read(&part10(&body, Encoding::Explicit)).expect("read").pixels.rows, 4, "the nested element is not the image's");
}

#[test]
fn numbers_written_oddly_are_read() {
    let odd = with(
        ct_slice(0),
        vec![
            ((0x28, 0x1053), Some(text(0x28, 0x1053, "DS", "+1.0E+0\0"))),
            ((0x28, 0x1052), Some(text(0x28, 0x1052, "DS", " -1024.000 "))),
            ((0x20, 0x13), Some(text(0x20, 0x13, "IS", "7.0"))),
            ((0x28, 0x30), Some(text(0x28, 0x30, "DS", "0.80000000000000000000\\0.7"))),
            ((0x08, 0x22), Some(text(0x08, 0x22, "DA", "2024.01.31"))),
            ((0x08, 0x32), Some(text(0x08, 0x32, "TM", "09:35:05.5"))),
        ],
    );
    let instance = read(&file(&odd, Encoding::Explicit)).expect("read");
    let frame = &instance.frames[0];
    assert_eq!((frame.rescale.slope, frame.rescale.intercept, instance.instance_number), (1.0, -1024.0, Some(7)));
    assert_eq!((frame.pixel_spacing, frame.timing.acquisition), (Some([0.8, 0.7]), Some(1_706_693_705.5)));
    let bad = with(
        ct_slice(0),
        vec![((0x28, 0x30), Some(text(0x28, 0x30, "DS", "NaN\\inf"))), ((0x20, 0x13), Some(text(0x20, 0x13, "IS", "one")))],
    );
    let instance = read(&file(&bad, Encoding::Explicit)).expect("read");
    assert_eq!((instance.frames[0].pixel_spacing, instance.instance_number), (None, None));
}

#[test]
fn padding_is_a_stored_value_whatever_its_representation() {
    let signed = |bytes: [u8; 2], vr: &'static str| {
        let padding = Element { tag: (0x28, 0x120), vr, content: Content::Bytes(bytes.to_vec()) };
        let elements = with(ct_slice(0), vec![((0x28, 0x103), Some(word(0x28, 0x103, 1))), ((0x28, 0x120), Some(padding))]);
        read(&file(&elements, Encoding::Explicit)).expect("read").pixels.padding
    };
    assert_eq!(signed((-2000i16).to_le_bytes(), "SS"), Some((-2000, -2000)));
    assert_eq!(signed(63536u16.to_le_bytes(), "US"), Some((-2000, -2000)));
}

/// Whatever the bytes are: no panic, and pixel data only where there are bytes.
fn harmless(bytes: &[u8]) {
    let walked = walk_bytes(bytes, &Limits::default(), &|_| Ok(()));
    if let (None, Some(pixels), None) = (&walked.error, &walked.data.pixels, walked.data.deflated_at) {
        assert!(pixels.end() <= bytes.len() as u64);
    }
    let root = walked.data.root();
    // Reading from the index of a refused file is as safe as from a good one.
    for value in root.elements() {
        value.text();
        value.numbers();
        assert!(value.items().count() <= bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::support::cases_of(512), ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..2000), prefix in 0usize..4) {
        let start: &[u8] = match prefix {
            0 => b"",
            1 => b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
            2 => b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100",
            _ => b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100",
        };
        harmless(&[start, &bytes].concat());
        let mut magic = vec![0; 128];
        magic.extend(b"DICM");
        harmless(&[&magic, start, &bytes].concat());
        harmless(&part10(&[start, &bytes].concat(), Encoding::Explicit));
        let mut deflated = part10(b"", Encoding::Explicit);
        let at = deflated.len() - 20;
        deflated.splice(at - 2.., *b"\x16\x001.2.840.10008.1.2.1.99");
        harmless(&[&deflated[..], &bytes].concat());
    }

    #[test]
    fn mutated_files_are_harmless(which in 0usize..4, flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut bytes = file(&ct_slice(0), ENCODINGS[which]);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        harmless(&bytes);
        harmless(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn limits_hold_for_files_as_for_buffers() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("big");
    std::fs::write(&path, file(&ct_slice(0), Encoding::Explicit)).expect("write");
    let limits = Limits { file_bytes: 100, ..Limits::default() };
    let refused = read_instance(&path, PathBuf::from("big"), &limits).expect_err("too large");
    assert_eq!(refused.code.reason(), "file_too_large");
    assert!(
        read_instance(Path::new("/nonexistent/x"), PathBuf::from("x"), &Limits::default())
            .is_err_and(|e| e.code.reason() == "unreadable_file")
    );
}

#[test]
fn elements_passed_on_as_unknown_are_read_by_the_dictionary() {
    let mut elements = ct_slice(0);
    for element in &mut elements {
        if element.tag.0 > 0x0008 && element.tag.0 < 0x7FE0 && element.vr != "SQ" {
            element.vr = "UN";
        }
    }
    let nested = elements.iter_mut().find(|e| e.tag == (0x0040, 0x0275)).expect("sequence");
    let implicit = data_set(std::slice::from_ref(nested), Encoding::Implicit)[8..].to_vec();
    *nested = Element { tag: nested.tag, vr: "UN", content: Content::Bytes(implicit) };
    let instance = read(&file(&elements, Encoding::Explicit)).expect("read");
    assert_eq!((instance.pixels.rows, instance.pixels.columns, instance.frames[0].position), (4, 6, Some([-10.5, -20.0, 0.0])));
    assert_eq!(instance.copied.get(0x0040, 0x0275).map(|e| e.vr), Some(*b"SQ"));
    assert_eq!(instance.copied.get(0x0010, 0x0010).map(|e| e.vr), Some(*b"PN"));
}
