//! Generated DICOM cases (`make_cases.py` of the shared tools) and series made of a folder.

use super::{note_skipped, python_with, shared, stunetd};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use stunetd::dicom::guard::Limits;
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::series::{Grouped, Policy, Series, group};
use stunetd::volume::decode::{Decoder, DecoderConfig, plane_digest};

/// `$STUNETD_CASES`, or the cases made once in the target folder when python has pydicom and numpy.
pub fn cases() -> Option<&'static Path> {
    static CASES: OnceLock<Option<PathBuf>> = OnceLock::new();
    CASES.get_or_init(find_or_make).as_deref()
}

fn find_or_make() -> Option<PathBuf> {
    let made = match std::env::var_os("STUNETD_CASES") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("cases"),
    };
    let complete = || made.join("manifest.json").is_file();
    if !complete() {
        let Some(python) = python_with("numpy, pydicom") else {
            note_skipped("generated cases", "python3 has no pydicom or numpy");
            return None;
        };
        let generator = shared()?.join("tools/make_cases.py");
        let run = Command::new(&python).arg(generator).arg(&made).output().ok()?;
        assert!(run.status.success(), "make_cases.py: {}", String::from_utf8_lossy(&run.stderr));
    }
    complete().then_some(made)
}

/// The files of a PET reference object of the IBSI, unpacked.
pub fn reference_object(name: &str) -> Option<tempfile::TempDir> {
    let packed = super::data("pet_suv_dro/ibsi_suv_dro.zip")?;
    let folder = tempfile::tempdir().expect("folder");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(packed).expect("zip")).expect("zip");
    for index in 0..archive.len() {
        let mut file = archive.by_index(index).expect("entry");
        if let Some(slice) = file.name().strip_prefix(&format!("DRO/{name}/PT/")).filter(|slice| slice.ends_with(".dcm")) {
            let mut out = std::fs::File::create(folder.path().join(slice)).expect("file");
            std::io::copy(&mut file, &mut out).expect("unpacked");
        }
    }
    Some(folder)
}

/// The manifest's entries.
pub fn manifest(cases: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(cases.join("manifest.json")).expect("manifest");
    let manifest: Value = serde_json::from_str(&text).expect("json");
    manifest["cases"].as_array().expect("cases").clone()
}

/// A decoder whose workers are the built daemon.
pub fn decoder() -> Decoder {
    Decoder::new(decoder_config()).expect("decoder")
}

/// Its configuration.
pub fn decoder_config() -> DecoderConfig {
    DecoderConfig { program: stunetd(), workers: 2, ..DecoderConfig::default() }
}

/// Everything below a folder, grouped.
pub fn grouped(folder: &Path, policy: &Policy, decoder: &Decoder) -> Grouped {
    let found = scan(folder, &ScanLimits::default()).expect("scan");
    let limits = Limits::default();
    group(found.instances, found.ignored, policy, &|path, frame, format| plane_digest(path, frame, format, &limits, decoder))
}

/// The series of a folder that give volumes.
pub fn series_in(folder: &Path, decoder: &Decoder) -> Vec<Series> {
    grouped(folder, &Policy { min_slices: 2, ..Policy::default() }, decoder).series
}
