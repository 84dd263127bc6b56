//! One model folder, checked.

use super::Manifest;
use std::path::{Path, PathBuf};

/// A model folder whose manifest has been read and whose weights file is there. Immutable.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The folder.
    pub dir: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// SHA-256 over the manifest's meaning and the weights' digest, hexadecimal: names the model in results.
    pub digest: String,
}

impl Generation {
    /// The weights file.
    pub fn weights(&self) -> PathBuf {
        self.dir.join(&self.manifest.weights.file)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
