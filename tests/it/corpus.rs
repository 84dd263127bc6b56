//! What fuzzing found worth keeping (`tests/corpus/<target>/`), through the functions that the fuzz targets call.

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::path::Path;

type Entry = fn(&[u8]);

const TARGETS: [(&str, Entry); 7] = [
    ("header", entries::header),
    ("pixels", entries::pixels),
    ("jpeg", entries::jpeg),
    ("jpegls", entries::jpegls),
    ("jpeg2000", entries::jpeg2000),
    ("seg", entries::seg),
    ("checkpoint", entries::checkpoint),
];

#[test]
fn the_corpus_does_no_harm() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut folders: Vec<String> =
        std::fs::read_dir(&root).expect("corpus").map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    folders.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort();
    assert_eq!(folders, names, "a folder for each target");
    let mut bytes = 0;
    for (name, entry) in TARGETS {
        let mut inputs = 0;
        for file in std::fs::read_dir(root.join(name)).expect("folder") {
            let data = std::fs::read(file.expect("entry").path()).expect("input");
            bytes += data.len();
            inputs += 1;
            entry(&data);
        }
        assert!(inputs >= 5, "{name}: {inputs} inputs");
    }
    assert!(bytes <= 1 << 20, "the corpus is kept small: {bytes} bytes");
}
