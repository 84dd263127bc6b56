//! The small files around a checkpoint.

use crate::models::error::ModelError;
use crate::models::weights_file::hex;
use crate::sys::durable::{Step, StorageError};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest plan or dataset file.
const MAX_SMALL: u64 = 64 << 20;
/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Which checkpoint of a fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// After the last epoch.
    #[default]
    Final,
    /// With the best validation.
    Best,
    /// The last one saved.
    Latest,
}

/// The paths in a folder, sorted.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let unreadable = |e| ModelError::from(StorageError::at(Step::Read, folder)(e));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)?.take(MAX_ENTRIES) {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The folder of a fold (`fold_0`, `all` …) inside a model folder: the one asked for, or the only one; `None` if there is none.
pub(super) fn fold(folder: &Path, wanted: Option<&str>) -> Result<Option<PathBuf>, ModelError> {
    let name = |p: &PathBuf| p.file_name().and_then(|n| n.to_str()).map(|n| n.strip_prefix("fold_").unwrap_or(n).to_string());
    let is_fold = |p: &PathBuf| p.is_dir() && p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n == "all" || n.starts_with("fold_"));
    let folds: Vec<PathBuf> = entries(folder)?.into_iter().filter(is_fold).collect();
    let all = || folds.iter().filter_map(name).collect::<Vec<_>>().join(", ");
    match (wanted, &folds[..]) {
        (_, []) => Ok(None),
        (Some(wanted), _) => match folds.iter().find(|p| name(p).as_deref() == Some(wanted)) {
            Some(path) => Ok(Some(path.clone())),
            None => Err(ModelError::Usage(format!("{} has no fold {wanted}; it has: {}", folder.display(), all()))),
        },
        (None, [one]) => Ok(Some(one.clone())),
        (None, _) => Err(ModelError::Usage(format!("{} has the folds {}; choose one with --fold", folder.display(), all()))),
    }
}

/// A small file whole; its SHA-256 goes to `digests` under its name. A missing file is a missing plan.
pub(super) fn read_small(path: &Path, digests: &mut BTreeMap<String, String>) -> Result<Vec<u8>, ModelError> {
    let bad = |detail: String| ModelError::Plans { path: path.into(), detail };
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => bad("is missing".into()),
        _ => StorageError::at(Step::Read, path)(e).into(),
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() || meta.len() > MAX_SMALL {
        return Err(bad(format!("is not a file of at most {MAX_SMALL} bytes")));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    digests.insert(name, hex(&Sha256::digest(&bytes)));
    Ok(bytes)
}

/// A JSON file.
pub(super) fn read_json(path: &Path, digests: &mut BTreeMap<String, String>) -> Result<Json, ModelError> {
    let bytes = read_small(path, digests)?;
    serde_json::from_slice(&bytes).map_err(|e| ModelError::Plans { path: path.into(), detail: format!("is not JSON: {e}") })
}
