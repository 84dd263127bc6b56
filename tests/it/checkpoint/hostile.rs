//! Files that are not weights, broken ones, and ones made to do harm: each its own code, no panic, no memory.

use super::containers::weights;
use super::forge::{self, Entry, Pickle, Weight};
use crate::need;
use crate::support::golden;
use stunetd::fault::{Code, Fault};

fn code(bytes: &[u8]) -> Option<Code> {
    let file = forge::write(bytes);
    weights(file.path()).err().map(|e| Fault::from(e).code)
}

/// A state dict of one weight `w` of 4 numbers in storage `0`, with fields changed.
fn one(change: impl FnOnce(&mut Weight)) -> Vec<u8> {
    let mut w = Weight { name: "w", storage: "FloatStorage", key: "0", numel: 4, offset: 0, shape: &[4], strides: &[1] };
    change(&mut w);
    let pickle = forge::state_dict(&[w]);
    forge::archive(&[("r/data.pkl", &pickle), ("r/data/0", &[0; 16])])
}

#[test]
fn files_that_are_something_else() {
    let cases: &[(&str, &[u8], Code)] = &[
        ("an empty file", b"", Code::CheckpointTruncated),
        ("a web page", b"<!DOCTYPE html><html><body>Sign in</body></html>", Code::CheckpointHtml),
        ("a web page after blank lines", b"\r\n\r\n  <html lang=\"en\">", Code::CheckpointHtml),
        ("an XML error", b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", Code::CheckpointHtml),
        ("a JSON error", b"{\"error\": \"not found\"}", Code::CheckpointNotOne),
        ("a PDF", b"%PDF-1.7 ...", Code::CheckpointNotOne),
        ("a Git LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", Code::CheckpointNotOne),
        ("text", b"these are not the weights", Code::CheckpointNotOne),
        ("zeros", &[0; 4096], Code::CheckpointNotOne),
        ("a plain pickle", b"\x80\x04}.", Code::CheckpointNotOne),
        ("only PK", b"PK", Code::CheckpointTruncated),
        ("an older stream cut within its magic number", b"\x80\x02\x8a", Code::CheckpointTruncated),
        ("an older stream with another magic number", b"\x80\x02\x8a\x0a\x6c\xfc\0\0\0\0\0\0\0\x19.", Code::CheckpointNotOne),
    ];
    for (what, bytes, wanted) in cases {
        assert_eq!(code(bytes), Some(*wanted), "{what}");
    }
    let folder = tempfile::tempdir().expect("folder");
    assert_eq!(weights(folder.path()).err().map(|e| Fault::from(e).code), Some(Code::CheckpointNotOne), "a folder");
    assert_eq!(weights(&folder.path().join("x")).err().map(|e| Fault::from(e).code), Some(Code::DiskUnreadable), "no file");
    let zip = forge::archive(&[("word/document.xml", b"hello")]);
    assert_eq!(code(&zip), Some(Code::CheckpointNotOne), "another zip file");
}

#[test]
fn archives_that_lie() {
    let pickle =
        forge::state_dict(&[Weight { name: "w", storage: "FloatStorage", key: "0", numel: 4, offset: 0, shape: &[4], strides: &[1] }]);
    let index = Entry::stored("r/data.pkl", &pickle);
    let data = Entry::stored("r/data/0", &[0; 16]);
    assert_eq!(code(&forge::zip(&[index.clone(), data.clone()])), None, "the honest one");

    let bomb = forge::deflate(&vec![b'N'; 100 << 20]);
    let packed_pickle = forge::deflate(&pickle);
    let crc = index.crc;
    let cases: Vec<(&str, Vec<Entry>, Code)> = vec![
        ("no tensor data", vec![index.clone()], Code::CheckpointTruncated),
        ("two pickles", vec![index.clone(), Entry::stored("s/data.pkl", &pickle), data.clone()], Code::CheckpointMalformed),
        ("an entry twice", vec![index.clone(), data.clone(), data.clone()], Code::CheckpointMalformed),
        ("a wrong checksum of the pickle", vec![Entry { crc: crc ^ 1, ..index.clone() }, data.clone()], Code::CheckpointCorrupt),
        ("a wrong checksum of a tensor", vec![index.clone(), Entry { crc: 1, ..data.clone() }], Code::CheckpointCorrupt),
        ("another local name", vec![index.clone(), Entry { local_name: "r/data/1", ..data.clone() }], Code::CheckpointMalformed),
        ("sizes that differ", vec![index.clone(), Entry { size: 17, ..data.clone() }], Code::CheckpointMalformed),
        ("data beyond the directory", vec![index.clone(), Entry { size: 400, packed: 400, ..data.clone() }], Code::CheckpointTruncated),
        ("data beyond the file", vec![index.clone(), Entry { size: 1 << 40, packed: 1 << 40, ..data.clone() }], Code::CheckpointTruncated),
        ("sizes of 2^64 - 1", vec![index.clone(), Entry { size: u64::MAX, packed: u64::MAX, ..data.clone() }], Code::CheckpointMalformed),
        ("an offset beyond the file", vec![index.clone(), Entry { header: Some(1 << 30), ..data.clone() }], Code::CheckpointTruncated),
        ("entries that overlap", vec![index.clone(), Entry { header: Some(0), ..data.clone() }], Code::CheckpointMalformed),
        ("an encrypted entry", vec![index.clone(), Entry { flags: 1, ..data.clone() }], Code::CheckpointUnsupported),
        ("another compression method", vec![index.clone(), Entry { method: 93, ..data.clone() }], Code::CheckpointUnsupported),
        ("a compressed tensor", vec![index.clone(), Entry::deflated("r/data/0", b"\x63\0\0", 16, 0)], Code::CheckpointUnsupported),
        ("a zip bomb with its true size", vec![Entry::deflated("r/data.pkl", &bomb, 100 << 20, 0)], Code::CheckpointLimit),
        ("a zip bomb that understates", vec![Entry::deflated("r/data.pkl", &bomb, 1000, 0)], Code::CheckpointLimit),
        ("a pickle that inflates to less", vec![Entry::deflated("r/data.pkl", &packed_pickle, 100_000, crc)], Code::CheckpointLimit),
        ("garbage instead of deflate", vec![Entry::deflated("r/data.pkl", &[0xff; 50], 1000, 0)], Code::CheckpointCorrupt),
        ("an unknown byte order", vec![index.clone(), Entry::stored("r/byteorder", b"middle"), data.clone()], Code::CheckpointMalformed),
        ("a long byte order", vec![index.clone(), Entry::stored("r/byteorder", &[b'l'; 99]), data.clone()], Code::CheckpointLimit),
    ];
    for (what, entries, wanted) in &cases {
        assert_eq!(code(&forge::zip(entries)), Some(*wanted), "{what}");
    }
    let long_name = "n".repeat(600);
    assert_eq!(code(&forge::zip(&[index.clone(), Entry::stored(&long_name, b"")])), Some(Code::CheckpointLimit), "a long name");
    // A re-packed pickle is read.
    let size = pickle.len() as u64;
    assert_eq!(code(&forge::zip(&[Entry::deflated("r/data.pkl", &packed_pickle, size, crc), data.clone()])), None, "a deflated pickle");
    // Directories that lie.
    for (what, end, wanted) in [
        ("more entries than bytes", forge::end_record(1000, 46, 4), Code::CheckpointMalformed),
        ("a directory beyond the file", forge::end_record(1, 46, 9999), Code::CheckpointMalformed),
        ("zip64 without a locator", forge::end_record(0xffff, 46, 0), Code::CheckpointMalformed),
        ("no entries", forge::end_record(0, 0, 0), Code::CheckpointNotOne),
    ] {
        let bytes = [&b"PK\x03\x04"[..], &[0; 60], &end].concat();
        assert_eq!(code(&bytes), Some(wanted), "{what}");
    }
}

#[test]
fn tensors_that_do_not_lie_in_their_storage() {
    assert_eq!(code(&one(|_| ())), None, "the honest one");
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("a shape beyond the storage", one(|w| w.shape = &[5]), Code::CheckpointMalformed),
        ("an offset beyond the storage", one(|w| w.offset = 1), Code::CheckpointMalformed),
        ("strides beyond the storage", one(|w| w.strides = &[2]), Code::CheckpointMalformed),
        ("one element for a million", one(|w| (w.shape, w.strides) = (&[1000, 1000], &[0, 0])), Code::CheckpointMalformed),
        ("a product that overflows", one(|w| (w.shape, w.strides) = (&[1 << 40, 1 << 40, 1 << 40], &[0, 0, 0])), Code::CheckpointMalformed),
        ("more strides than axes", one(|w| w.strides = &[1, 1]), Code::CheckpointMalformed),
        (
            "nine axes",
            one(|w| (w.shape, w.strides) = (&[1, 1, 1, 1, 1, 1, 1, 1, 1], &[1, 1, 1, 1, 1, 1, 1, 1, 1])),
            Code::CheckpointMalformed,
        ),
        ("a storage larger than its entry", one(|w| w.numel = 5), Code::CheckpointMalformed),
        ("a storage smaller than its entry", one(|w| (w.numel, w.shape) = (3, &[3])), Code::CheckpointMalformed),
        ("a storage of 2^60 elements", one(|w| w.numel = 1 << 60), Code::CheckpointMalformed),
        ("a storage that is not there", one(|w| w.key = "7"), Code::CheckpointTruncated),
        ("a key that is a path", one(|w| w.key = "../data.pkl"), Code::CheckpointTruncated),
        (
            "a key that is long",
            one(|w| w.key = "00000000000000000000000000000000000000000000000000000000000000000"),
            Code::CheckpointMalformed,
        ),
        ("integers as weights", one(|w| (w.storage, w.numel) = ("IntStorage", 4)), Code::CheckpointUnsupported),
        ("an unknown storage type", one(|w| w.storage = "ComplexFloatStorage"), Code::CheckpointForbidden),
    ];
    for (what, bytes, wanted) in cases {
        assert_eq!(code(&bytes), Some(wanted), "{what}");
    }
    for (what, value) in [("NaN", f32::NAN), ("infinity", f32::NEG_INFINITY)] {
        let pickle =
            forge::state_dict(&[Weight { name: "w", storage: "FloatStorage", key: "0", numel: 1, offset: 0, shape: &[1], strides: &[1] }]);
        let file = forge::archive(&[("r/data.pkl", &pickle), ("r/data/0", &value.to_le_bytes())]);
        assert_eq!(code(&file), Some(Code::CheckpointNotFinite), "{what}");
    }
}

#[test]
fn weights_that_are_none() {
    let saved = |fill: &dyn Fn(&mut Pickle)| {
        let mut pickle = Pickle::new(2);
        fill(&mut pickle);
        code(&forge::archive(&[("r/data.pkl", &pickle.bytes), ("r/data/0", &[0; 16])]))
    };
    assert_eq!(
        saved(&|p| {
            p.op(b"}.");
        }),
        Some(Code::CheckpointNoWeights),
        "an empty dict"
    );
    assert_eq!(
        saved(&|p| {
            p.op(b"K\x01.");
        }),
        Some(Code::CheckpointNoWeights),
        "a number"
    );
    assert_eq!(
        saved(&|p| {
            p.op(b"}").str("state_dict").op(b"Ns.");
        }),
        Some(Code::CheckpointNoWeights),
        "None"
    );
    assert_eq!(
        saved(&|p| {
            p.op(b"}").str("state_dict").op(b"}s.");
        }),
        Some(Code::CheckpointNoWeights),
        "no weights"
    );
    assert_eq!(
        saved(&|p| {
            p.op(b"}").str("state_dict").op(b"}K\x01Nss.");
        }),
        Some(Code::CheckpointMalformed),
        "a number as name"
    );
    assert_eq!(
        saved(&|p| {
            p.op(b"}").str("state_dict").op(b"}").str("w").op(b"Nss.");
        }),
        Some(Code::CheckpointMalformed),
        "None as weight"
    );
    let twice = |p: &mut Pickle| {
        p.op(b"}").str("network_weights").op(b"}(");
        for _ in 0..2 {
            p.str("w").tensor("FloatStorage", "0", 4, 0, &[4], &[1]);
        }
        p.op(b"us.");
    };
    assert_eq!(saved(&twice), Some(Code::CheckpointMalformed), "a weight twice");
    let call = |p: &mut Pickle| {
        p.op(b"}").str("state_dict").global("os", "system").str("true").op(b"\x85Rs.");
    };
    assert_eq!(saved(&call), Some(Code::CheckpointForbidden), "a call");
}

#[test]
fn cut_off_anywhere_every_container_is_refused() {
    for name in ["micro_torch110_layout.model", "micro_ddp_prefix.model", "micro_legacy_pickle.model"] {
        let bytes = std::fs::read(need!(golden(&format!("stunet/{name}")), "the micro goldens are not in this clone")).expect("file");
        let ends = (0..400).chain((400..bytes.len()).step_by(997)).chain(bytes.len() - 200..bytes.len());
        for end in ends {
            let refused = code(&bytes[..end]);
            let expected = [Code::CheckpointTruncated, Code::CheckpointMalformed];
            assert!(refused.is_some_and(|c| expected.contains(&c)), "{name} cut at {end} of {}: {refused:?}", bytes.len());
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    // Every byte of the structure (and some of the data) changed in turn: read or refused, nothing else.
    for name in ["micro_torch110_layout.model", "micro_legacy_pickle.model"] {
        let bytes = std::fs::read(need!(golden(&format!("stunet/{name}")), "the micro goldens are not in this clone")).expect("file");
        let mut refused = 0;
        for at in (0..bytes.len()).step_by(61).chain(bytes.len() - 64..bytes.len()) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xa5;
            refused += code(&changed).is_some() as usize;
        }
        assert!(refused > 100, "{name}: {refused}");
    }
}
