//! One model folder, checked.

use super::Manifest;
use super::error::ModelError;
use super::weights_file;
use crate::fault::{Code, Fault};
use crate::sys::durable::{Step, StorageError};
use std::path::{Path, PathBuf};

/// Name of the manifest in a model folder.
pub const MANIFEST: &str = "manifest.toml";
/// Largest manifest that is read.
const MAX_MANIFEST: u64 = 4 << 20;
/// Most entries of a folder that [`list`] looks at.
const MAX_LISTED: usize = 10_000;

/// A model folder whose manifest has been read and checked and whose weights file is there. Immutable.
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
    /// Reads and checks the manifest, and sees that the weights file is there and has the size that it must have. The
    /// bytes of the weights are not read: that is [`Generation::verify`].
    pub fn open(dir: &Path) -> Result<Generation, Fault> {
        Ok(open(dir)?)
    }

    /// That the model can tell air from the rest, as `skip_air` wants: its first channel has to be normalised by HU alone.
    pub fn tells_air(&self) -> Result<(), Fault> {
        if self.manifest.preprocessing.normalised(-1000.0).is_none() {
            let name = &self.manifest.name;
            return Err(
                ModelError::Usage(format!("skip_air: the first channel of the model `{name}` is not normalised by HU alone")).into()
            );
        }
        Ok(())
    }

    /// Compares the weights file with the manifest: its digest, and its tensors' names, order and shapes with the
    /// architecture. `progress` gets the bytes read and the size of the file.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Fault> {
        Ok(verify(self, progress)?)
    }

    /// Compares the names and shapes of the weights with the architecture; their numbers are not read.
    pub(super) fn fits(&self) -> Result<(), Fault> {
        Ok(fits(self)?)
    }

    /// That this model can take the place of another one without the rules noticing: the same channels of the same modalities, on the same
    /// grid. `model.not_promotable` otherwise.
    pub fn takes_the_place_of(&self, other: &Generation) -> Result<(), Fault> {
        let shape = |g: &Generation| {
            let channels: Vec<String> = g.manifest.preprocessing.channels.iter().map(|c| c.name.clone()).collect();
            (channels, g.manifest.preprocessing.grid_channel, g.manifest.scope.modality.clone())
        };
        if shape(self) == shape(other) {
            return Ok(());
        }
        let (own, its) = (&self.manifest.name, &other.manifest.name);
        Err(Fault::new(Code::ModelNotPromotable, format!("The models `{own}` and `{its}` do not take the same channels and modalities.")))
    }

    /// The weights file.
    pub fn weights(&self) -> PathBuf {
        self.dir.join(&self.manifest.weights.file)
    }

    /// Its name, its version, its digest.
    pub fn names(&self) -> (&str, &str, &str) {
        (&self.manifest.name, &self.manifest.version, &self.digest)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn open(dir: &Path) -> Result<Generation, ModelError> {
    let path = dir.join(MANIFEST);
    let unreadable = |e| ModelError::from(StorageError::at(Step::Read, &path)(e));
    let meta = std::fs::metadata(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ModelError::Missing(path.clone()),
        _ => unreadable(e),
    })?;
    if !meta.is_file() || meta.len() > MAX_MANIFEST {
        return Err(ModelError::Manifest { path, detail: format!("not a file of at most {MAX_MANIFEST} bytes") });
    }
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => ModelError::Manifest { path: path.clone(), detail: "not UTF-8 text".into() },
        _ => unreadable(e),
    })?;
    let manifest = Manifest::parse(&text).map_err(|detail| ModelError::Manifest { path, detail })?;
    let digest = manifest.digest();
    let generation = Generation { dir: dir.to_path_buf(), manifest, digest };
    let (weights, parameters) = (generation.weights(), generation.manifest.weights.parameters);
    match weights_file::sizes(&weights)? {
        (size, header) if header.checked_add(8 + 4 * parameters) == Some(size) => Ok(generation),
        (size, _) => {
            Err(ModelError::Digest { path: weights, detail: format!("has {size} bytes, which is not the size of {parameters} parameters") })
        }
    }
}

fn verify(generation: &Generation, progress: &mut dyn FnMut(u64, u64)) -> Result<(), ModelError> {
    let path = generation.weights();
    let manifest = &generation.manifest;
    let found = weights_file::sha256(&path, progress)?;
    if found != manifest.weights.sha256 {
        return Err(ModelError::Digest { path, detail: format!("has SHA-256 {found}; the manifest says {}", manifest.weights.sha256) });
    }
    fits(generation)
}

fn fits(generation: &Generation) -> Result<(), ModelError> {
    let path = generation.weights();
    let tensors = weights_file::names_and_shapes(&path)?;
    generation.manifest.architecture.check_tensors(&tensors).map_err(|e| ModelError::Mismatch { path, detail: e.to_string() })
}

/// A model folder that was found, and whether it can be used.
#[derive(Debug)]
pub struct Listed {
    /// The folder.
    pub dir: PathBuf,
    /// The model, or why it can not be used.
    pub opened: Result<Generation, Fault>,
}

impl Listed {
    fn open(dir: PathBuf) -> Listed {
        Listed { opened: Generation::open(&dir), dir }
    }
}

/// The model folders in a folder (or the folder itself if it is one), by name, each opened or refused. Hidden and
/// unfinished folders are left out.
pub fn list(folder: &Path) -> Result<Vec<Listed>, Fault> {
    if folder.join(MANIFEST).exists() {
        return Ok(vec![Listed::open(folder.to_path_buf())]);
    }
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ModelError::Missing(folder.into()),
        _ => StorageError::at(Step::Read, folder)(e).into(),
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)?.take(MAX_LISTED) {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.join(MANIFEST).exists() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.into_iter().map(Listed::open).collect())
}
