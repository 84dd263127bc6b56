//! The store of generations: models that training made, that a person approved, or that were brought in to serve in another's place.
//!
//! ```text
//! <state>/training/generations/<digest>/   manifest.toml, weights.safetensors, lineage.toml; never changed
//! <state>/training/canaries/<digest>/      digests of the labels that it gives for the canary, one file a kind of device
//! ```

use super::error::ModelError;
use super::generation::{Generation, MANIFEST};
use super::manifest::{Manifest, Status, Weights};
use super::weights_file;
use crate::fault::{Code, Fault};
use crate::sys::durable::{self, StagingDir, Step, StorageError};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the weights file in a generation.
const WEIGHTS: &str = "weights.safetensors";
/// Name of the file that says where a generation came from.
const LINEAGE: &str = "lineage.toml";
/// Largest such file that is read.
const MAX_LINEAGE: u64 = 64 << 10;
/// Most generations that are listed.
const MAX_LISTED: usize = 10_000;
/// Shortest beginning of a digest that names a generation.
const SHORTEST: usize = 8;

/// Where a generation came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Digest of the configured model in whose place it may serve.
    pub slot: String,
    /// Number of the training run that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// SHA-256 of the report that its gates were judged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// The model that this one is but for its status or name, by its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who approved it for clinical use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

/// A person's approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who.
    pub by: String,
    /// The document that says so.
    pub document: String,
}

/// The store of a state folder.
#[derive(Clone, Debug)]
pub struct Store {
    training: PathBuf,
}

/// A generation of the store, or why it can not be used.
#[derive(Debug)]
pub struct Stored {
    /// Its digest, the folder's name.
    pub digest: String,
    /// The model and where it came from.
    pub opened: Result<(Generation, Lineage), Fault>,
}

impl Store {
    /// The store of a state folder; its folders are made when something is put into it.
    pub fn of(state: &Path) -> Store {
        Store { training: state.join("training") }
    }

    fn generations(&self) -> PathBuf {
        self.training.join("generations")
    }

    /// Whether a model lies in this store.
    pub fn holds(&self, model: &Generation) -> bool {
        model.dir.parent() == Some(&self.generations())
    }

    /// Puts a model into the store: this manifest, with research status, and these weights, whose names and shapes have to be those of the
    /// manifest's architecture. What is there already is given back as it is.
    pub fn publish(&self, manifest: Manifest, weights: &Path, lineage: &Lineage) -> Result<Generation, Fault> {
        let mut staging = self.staging(&self.generations())?;
        let copy = staging.path().join(WEIGHTS);
        fs::copy(weights, &copy).map_err(StorageError::at(Step::Write, &copy))?;
        fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(StorageError::at(Step::Sync, &copy))?;
        let sha256 = weights_file::sha256(&copy, &mut |_, _| {})?;
        let weights = Weights { file: WEIGHTS.into(), sha256, parameters: manifest.architecture.parameters() };
        self.complete(&mut staging, Manifest { status: Status::Research, weights, ..manifest }, lineage)
    }

    /// Makes the generation that is like this one but approved for clinical use; its weights are the same file where the disk allows. The
    /// weights are read whole first.
    pub fn approve(&self, model: &Generation, slot: &str, approval: Approval) -> Result<Generation, Fault> {
        if model.manifest.status == Status::Clinical {
            return Err(Fault::new(Code::ModelNotPromotable, format!("{} is approved already.", model.digest)));
        }
        model.verify(&mut |_, _| {})?;
        let mut staging = self.staging(&self.generations())?;
        let (source, target) = (model.weights(), staging.path().join(WEIGHTS));
        // A link needs the same disk; a copy does not.
        if !self.holds(model) || fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target).map_err(StorageError::at(Step::Write, &target))?;
            fs::File::open(&target).and_then(|file| file.sync_all()).map_err(StorageError::at(Step::Sync, &target))?;
        }
        let known = if self.holds(model) { self.lineage(&model.digest)? } else { Lineage::default() };
        let lineage = Lineage { slot: slot.into(), from: Some(model.digest.clone()), approval: Some(approval), ..known };
        let weights = Weights { file: WEIGHTS.into(), ..model.manifest.weights.clone() };
        let approved = self.complete(&mut staging, Manifest { status: Status::Clinical, weights, ..model.manifest.clone() }, &lineage)?;
        for (device, labels) in self.canaries(&model.digest) {
            self.record_canary(&approved.digest, &device, &labels)?;
        }
        Ok(approved)
    }

    fn staging(&self, folder: &Path) -> Result<StagingDir, Fault> {
        durable::create_dir_all(durable::parent(&self.training))?;
        // What lies here is learned from patients.
        match fs::DirBuilder::new().mode(0o700).create(&self.training) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(StorageError::at(Step::Create, &self.training)(e).into());
            }
            _ => durable::sync_dir(durable::parent(&self.training))?,
        }
        durable::create_dir_all(folder)?;
        durable::remove_leftovers(folder)?;
        Ok(StagingDir::new_in(folder)?)
    }

    /// Writes what is missing beside the weights, and gives the folder its name.
    fn complete(&self, staging: &mut StagingDir, manifest: Manifest, lineage: &Lineage) -> Result<Generation, Fault> {
        let broken = |detail: String| ModelError::Manifest { path: staging.path().join(MANIFEST), detail };
        manifest.check().map_err(broken)?;
        let texts = toml::to_string(&manifest).and_then(|manifest| Ok((manifest, toml::to_string(lineage)?)));
        let (text, lineage) = texts.map_err(|e| broken(e.to_string()))?;
        durable::write_file(&staging.path().join(MANIFEST), text.as_bytes())?;
        durable::write_file(&staging.path().join(LINEAGE), lineage.as_bytes())?;
        let made = Generation::open(staging.path())?;
        made.fits()?;
        for file in [MANIFEST, LINEAGE, WEIGHTS] {
            let path = staging.path().join(file);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).map_err(StorageError::at(Step::Write, &path))?;
        }
        let place = self.generations().join(&made.digest);
        if !place.exists() {
            staging.publish(&place)?;
        }
        Generation::open(&place)
    }

    /// The generation that a digest, or its unmistakable beginning of 8 or more digits, names. `model.unknown_generation` when there is none.
    pub fn get(&self, digest: &str) -> Result<Generation, Fault> {
        let whole = self.named(digest)?;
        let generation = Generation::open(&self.generations().join(&whole))?;
        if generation.digest != whole {
            let detail = format!("{} holds the model {}.", generation.dir.display(), generation.digest);
            return Err(Fault::new(Code::ModelDigest, detail));
        }
        Ok(generation)
    }

    fn named(&self, digest: &str) -> Result<String, Fault> {
        let unknown = |why: &str| Fault::new(Code::ModelUnknownGeneration, format!("{digest}: {why}."));
        if digest.len() < SHORTEST || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown("not the digest of a model, or less than 8 digits of one"));
        }
        let mut found = self.names()?.into_iter().filter(|name| name.starts_with(digest));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(unknown("several generations begin like this")),
            (None, _) => Err(unknown("there is no such generation in the store")),
        }
    }

    /// Digests of what is there, ascending.
    fn names(&self) -> Result<Vec<String>, Fault> {
        let folder = self.generations();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StorageError::at(Step::Read, &folder)(e).into()),
        };
        let mut names = Vec::new();
        for entry in entries.take(MAX_LISTED) {
            let name = entry.map_err(StorageError::at(Step::Read, &folder))?.file_name().to_string_lossy().into_owned();
            if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// All that is there, by digest, each opened or refused.
    pub fn list(&self) -> Result<Vec<Stored>, Fault> {
        let open = |digest: String| {
            let opened = self.get(&digest).and_then(|generation| Ok((generation, self.lineage(&digest)?)));
            Stored { digest, opened }
        };
        Ok(self.names()?.into_iter().map(open).collect())
    }

    /// Where a generation of the store came from.
    pub fn lineage(&self, digest: &str) -> Result<Lineage, Fault> {
        let path = self.generations().join(digest).join(LINEAGE);
        let text = read(&path, MAX_LINEAGE)?;
        toml::from_str(&text).map_err(|e| ModelError::Manifest { path, detail: e.message().to_string() }.into())
    }

    fn canary_folder(&self, digest: &str) -> PathBuf {
        self.training.join("canaries").join(digest)
    }

    /// Digest of the labels that a generation gave for the canary on a kind of device; none before the first time.
    pub fn canary(&self, digest: &str, device: &str) -> Option<String> {
        let text = read(&self.canary_folder(digest).join(device), MAX_LINEAGE).ok()?;
        Some(text.trim().to_string())
    }

    fn canaries(&self, digest: &str) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(self.canary_folder(digest)) else { return Vec::new() };
        let devices = entries.take(MAX_LISTED).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        devices.filter_map(|device| Some((device.clone(), self.canary(digest, &device)?))).collect()
    }

    /// Remembers what a generation gives for the canary on a kind of device.
    pub fn record_canary(&self, digest: &str, device: &str, labels: &str) -> Result<(), Fault> {
        let folder = self.canary_folder(digest);
        durable::create_dir_all(&folder)?;
        Ok(durable::write_file(&folder.join(device), labels.as_bytes())?)
    }
}

fn read(path: &Path, longest: u64) -> Result<String, ModelError> {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => ModelError::Missing(path.into()),
        _ => StorageError::at(Step::Read, path)(e).into(),
    })?;
    file.take(longest).read_to_string(&mut text).map_err(StorageError::at(Step::Read, path))?;
    Ok(text)
}
