//! A run's result as a model folder.

use crate::fault::{Code, Fault};
use crate::models::{Generation, MANIFEST, Manifest, Status};
use crate::sys::durable::{self, Step, StorageError};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes that are copied at a time.
const BLOCK: usize = 1 << 20;

/// Makes `candidate/` in a run's folder of `result.safetensors`: the base model's manifest with other weights, a version that names the run, and the
/// status of a research model. One that is there already is opened.
///
/// # Errors
/// `disk.*`; `model.*` for a result that is not the base model's network.
pub fn make_candidate(run: &Path, base: &Generation, number: u64) -> Result<Generation, Fault> {
    let folder = run.join("candidate");
    if folder.join(MANIFEST).is_file() {
        return Generation::open(&folder);
    }
    durable::create_dir_all(&folder)?;
    durable::remove_leftovers(&folder)?;
    // As the store of generations names it: the digest of both is one.
    let file = "weights.safetensors".to_string();
    let sha256 = copy(&run.join("result.safetensors"), &folder.join(&file))?;
    let mut manifest: Manifest = base.manifest.clone();
    manifest.version = format!("{}+run{number}", base.manifest.version);
    manifest.status = Status::Research;
    manifest.weights.sha256 = sha256;
    manifest.weights.file = file;
    manifest.provenance.format = "stunetd".into();
    manifest.provenance.trainer = "stunetd train".into();
    manifest.provenance.epoch = None;
    manifest.provenance.files.insert("base".into(), base.digest.clone());
    manifest.provenance.importer = env!("CARGO_PKG_VERSION").into();
    let text = toml::to_string(&manifest).map_err(|e| Fault::new(Code::InternalBug, format!("a manifest can not be written: {e}")))?;
    // Last: a folder with a manifest is a whole one.
    durable::write_file(&folder.join(MANIFEST), text.as_bytes())?;
    let candidate = Generation::open(&folder)?;
    candidate.verify(&mut |_, _| {})?;
    Ok(candidate)
}

/// Copies a file, durably, and returns its SHA-256.
fn copy(from: &Path, to: &Path) -> Result<String, Fault> {
    let mut source = File::open(from).map_err(StorageError::at(Step::Read, from))?;
    let digest = durable::write_file_with(to, |file| {
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        loop {
            match source.read(&mut block).map_err(StorageError::at(Step::Read, from))? {
                0 => return Ok::<_, StorageError>(hash.finalize()),
                read => {
                    hash.update(&block[..read]);
                    file.write_all(&block[..read]).map_err(StorageError::at(Step::Write, to))?;
                }
            }
        }
    })?;
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
