//! Publication into a folder.

use crate::fault::{Code, Fault};
use crate::results::{MANIFEST_FILE, Output, ResultManifest, file_digest, write_manifest};
use crate::sys::durable::{self, StagingDir, Step, StorageError};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a manifest that are read; ours have a few thousand.
const MAX_MANIFEST: u64 = 64 << 20;

/// What lies in a published folder; files and folder are synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The folder.
    pub dir: PathBuf,
    /// Its files, without the manifest.
    pub files: Vec<ReceiptFile>,
    /// What publishing did.
    pub outcome: Outcome,
}

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptFile {
    /// Name in the folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// What publishing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The folder is new.
    Published,
    /// The same bytes were there already.
    AlreadyThere,
    /// The same result was there with other bytes in these files (another run dates it otherwise): the first stays.
    FirstKept(Vec<String>),
    /// The same result was there without these files: they were added.
    Added(Vec<String>),
}

/// Why a folder could not be published.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("{} is there and holds something else", .0.display())]
    Foreign(PathBuf),
    #[error("{} holds a result of another model, other settings or another volume", .0.display())]
    OtherIdentity(PathBuf),
    #[error("{} holds the same result with other labels; the first published stays", .0.display())]
    OtherLabels(PathBuf),
    #[error("the staged folder has no manifest that can be read")]
    Staging,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Fault(Box<Fault>),
}

impl From<DeliveryError> for Fault {
    fn from(error: DeliveryError) -> Fault {
        match error {
            DeliveryError::Storage(e) => e.into(),
            DeliveryError::Fault(fault) => *fault,
            DeliveryError::Staging => Fault::new(Code::InternalBug, error.to_string()),
            DeliveryError::Foreign(_) | DeliveryError::OtherIdentity(_) | DeliveryError::OtherLabels(_) => {
                Fault::new(Code::DeliveryConflict, error.to_string())
            }
        }
    }
}

/// The manifest of the result in a folder; none when the folder is absent, empty or holds something else.
pub fn published(dir: &Path) -> Result<Option<ResultManifest>, Fault> {
    Ok(read_manifest(dir)?)
}

/// The manifests of all results in `output`, which need not exist. What is not a result of ours is passed over.
pub fn all_published(output: &Path) -> Result<Vec<ResultManifest>, Fault> {
    let entries = match std::fs::read_dir(output) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StorageError::at(Step::Read, output)(e).into()),
    };
    let read = entries.flatten().filter_map(|entry| read_manifest(&entry.path()).transpose());
    Ok(read.collect::<Result<_, StorageError>>()?)
}

/// `delivery.conflict`: the folder has a result of the same volume by another model or other settings.
pub fn conflict(dir: &Path) -> Fault {
    DeliveryError::OtherIdentity(dir.into()).into()
}

/// Publishes a folder of results (with its manifest) as `to`: files and folders synced, one rename.
///
/// `staging` has to lie on the file system of `to`; make it with `StagingDir::new_in` beside it. Whatever happens, nothing
/// half-written stays. When `to` is there already, its manifest decides: the same identity and bytes give a receipt, other
/// bytes too (the first published win), files that it lacks are added if the labels are the same. Another identity, or
/// files that are not ours, are `delivery.conflict`.
pub fn publish(mut staging: StagingDir, to: &Path) -> Result<Receipt, Fault> {
    Ok(publish_folder(&mut staging, to)?)
}

fn publish_folder(staging: &mut StagingDir, to: &Path) -> Result<Receipt, DeliveryError> {
    let staged = read_manifest(staging.path())?.ok_or(DeliveryError::Staging)?;
    durable::create_dir_all(durable::parent(to))?;
    if !holds_something(to)? {
        match staging.publish(to) {
            Ok(()) => return Ok(receipt(to, &staged, Outcome::Published)),
            // Somebody else was faster: see what they published.
            Err(_) if holds_something(to)? => {}
            Err(e) => return Err(e.into()),
        }
    }
    let Some(mut first) = read_manifest(to)? else { return Err(DeliveryError::Foreign(to.into())) };
    if first.identity != staged.identity {
        return Err(DeliveryError::OtherIdentity(to.into()));
    }

    let (mut missing, mut differing) = (Vec::new(), Vec::new());
    for output in &staged.outputs {
        let listed = first.outputs.iter().find(|o| o.file == output.file);
        match listed {
            Some(l) if l.sha256 != output.sha256 => differing.push(output.file.clone()),
            // Listed but gone or damaged: these are its bytes.
            Some(l) if !is_intact(&to.join(&l.file), l)? => missing.push(output.clone()),
            Some(_) => {}
            None => missing.push(output.clone()),
        }
    }
    if missing.is_empty() {
        let outcome = if differing.is_empty() { Outcome::AlreadyThere } else { Outcome::FirstKept(differing) };
        return Ok(receipt(to, &first, outcome));
    }
    if first.labels_sha256 != staged.labels_sha256 {
        return Err(DeliveryError::OtherLabels(to.into()));
    }
    for output in &missing {
        durable::rename(&staging.path().join(&output.file), &to.join(&output.file))?;
        first.outputs.retain(|o| o.file != output.file);
        first.outputs.push(output.clone());
    }
    write_manifest(&to.join(MANIFEST_FILE), &first).map_err(|f| DeliveryError::Fault(Box::new(f)))?;
    Ok(receipt(to, &first, Outcome::Added(missing.into_iter().map(|o| o.file).collect())))
}

fn receipt(dir: &Path, manifest: &ResultManifest, outcome: Outcome) -> Receipt {
    let file = |o: &Output| ReceiptFile { name: o.file.clone(), bytes: o.bytes, sha256: o.sha256.clone() };
    Receipt { dir: dir.into(), files: manifest.outputs.iter().map(file).collect(), outcome }
}

/// Whether the path is a folder with entries, or a file.
fn holds_something(path: &Path) -> Result<bool, StorageError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Ok(true),
        Err(e) => Err(StorageError::at(Step::Read, path)(e)),
    }
}

/// The manifest in a folder; none when it is absent or not ours.
fn read_manifest(dir: &Path) -> Result<Option<ResultManifest>, StorageError> {
    let path = dir.join(MANIFEST_FILE);
    let read = std::fs::File::open(&path).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST).read_to_end(&mut bytes).map(|_| bytes)
    });
    match read {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(StorageError::at(Step::Read, &path)(e)),
    }
}

fn is_intact(path: &Path, output: &Output) -> Result<bool, StorageError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() == output.bytes => Ok(file_digest(path)?.1 == output.sha256),
        Ok(_) => Ok(false),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StorageError::at(Step::Read, path)(e)),
    }
}
