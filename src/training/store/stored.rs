//! A case on disk.
//!
//! ```text
//! case.toml                      what it is, without a person's name
//! image.nii.gz                   voxels in HU or SUV, on the source's grid
//! labels.nii.gz                  people's labels on the same grid, if it is a labelled one
//! models/<digest>.nii.gz         a model's own labels of the image
//! signoff.jsonl                  what readers said of the labels; only ever grows
//! prepared/<name>.safetensors    on a model's grid, for training; can be made again
//! ```

use super::record::CaseRecord;
use crate::fault::{Code, Fault};
use crate::models::{Generation, LabelTable};
use crate::sys::durable::{self, Step, StorageError};
use crate::training::cases::{CaseError, CaseKeys, Decision, SignOff, ignore_unreviewed, label_digest, to_network_grid};
use crate::training::data::NewCase;
use crate::volume::{Affine, Limits, Quantity, Source, Volume, nifti, prepare};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest `case.toml` and `signoff.jsonl`.
const MAX_FILE: u64 = 4 << 20;
/// Hexadecimal digits of a model's digest in names of files.
const SHORT: usize = 16;

/// A case of the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// What is known of it.
    pub record: CaseRecord,
}

impl Stored {
    pub(super) fn open(name: &str, folder: &Path) -> Result<Stored, Fault> {
        let text = read_text(&folder.join("case.toml"))?;
        let record: CaseRecord = toml::from_str(&text).map_err(|_| bad(name, "case.toml can not be read"))?;
        if record.schema != 1 || record.shape.contains(&0) || record.channels == 0 {
            return Err(bad(name, "case.toml has another layout than this version's"));
        }
        Ok(Stored { name: name.into(), folder: folder.into(), record })
    }

    /// Whether a person labelled it.
    pub fn is_labelled(&self) -> bool {
        self.record.labels.is_some()
    }

    /// What tells whose it is.
    pub fn keys(&self) -> CaseKeys {
        CaseKeys {
            case: self.name.clone(),
            patient: self.record.patient.clone(),
            study: self.record.study.clone(),
            frame_of_reference: self.record.frame_of_reference.clone(),
            likeness: self.record.likeness,
        }
    }

    /// The file with the image.
    pub fn image_file(&self) -> PathBuf {
        self.folder.join("image.nii.gz")
    }

    /// The file with people's labels; none for an unlabelled one.
    pub fn labels_file(&self) -> Option<PathBuf> {
        self.is_labelled().then(|| self.folder.join("labels.nii.gz"))
    }

    /// What the case is one of, for comparisons by kind of scanner, image and person: name of the kind → value.
    pub fn subgroups(&self) -> BTreeMap<String, String> {
        let technical = &self.record.technical;
        let thickness = if technical.thickness > 3.0 { "thick" } else { "thin" };
        let mut groups = BTreeMap::from([
            ("vendor", technical.manufacturer.clone()),
            ("kernel", technical.kernel.clone()),
            ("contrast", technical.contrast.to_string()),
            ("slices", thickness.to_string()),
        ]);
        groups.extend(technical.decade.map(|decade| ("decade", decade.to_string())));
        groups.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.to_string(), value)).collect()
    }

    /// The image.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn image(&self) -> Result<Volume, Fault> {
        let volume = nifti::read(&self.image_file(), &Limits::default())?;
        match (volume.shape, volume.channels) == (self.record.shape, self.record.channels) {
            true => Ok(volume),
            false => Err(bad(&self.name, "image.nii.gz has another shape than case.toml says")),
        }
    }

    /// People's labels on the image's grid, `[z, y, x]`.
    ///
    /// # Errors
    /// `cases.no_labels` for an unlabelled one; what is wrong with the file.
    pub fn labels(&self) -> Result<Vec<u16>, Fault> {
        let Some(record) = &self.record.labels else {
            return Err(CaseError::NoLabels(format!("case {} is an unlabelled study", self.name)).into());
        };
        let labels = read_labels(&self.folder.join("labels.nii.gz"), self.record.shape)?;
        match label_digest(&labels) == record.digest {
            true => Ok(labels),
            false => Err(bad(&self.name, "labels.nii.gz is not what case.toml says")),
        }
    }

    /// What a model says of the image, on its grid; none when it was not asked.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn model_labels(&self, digest: &str) -> Result<Option<Vec<u16>>, Fault> {
        let path = self.model_file(digest);
        path.is_file().then(|| read_labels(&path, self.record.shape)).transpose()
    }

    fn model_file(&self, digest: &str) -> PathBuf {
        let digest: String = digest.chars().filter(char::is_ascii_hexdigit).take(SHORT).collect();
        self.folder.join("models").join(digest + ".nii.gz")
    }

    /// Keeps what a model says of the image, and how far people's labels differ from it.
    ///
    /// # Errors
    /// The disk.
    pub fn keep_model_labels(&mut self, model: &Generation, labels: &[u16]) -> Result<(), Fault> {
        let path = self.model_file(&model.digest);
        durable::create_dir_all(durable::parent(&path))?;
        let affine = self.image()?.affine;
        write_labels(&path, labels, self.record.shape, affine)?;
        match self.is_labelled() {
            true => self.compare(&model.digest, &model.manifest.labels, labels),
            false => Ok(()),
        }
    }

    /// Notes how far people's labels differ from a model's.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn compare(&mut self, model: &str, table: &LabelTable, labels: &[u16]) -> Result<(), Fault> {
        let share = super::changed(&self.labels()?, labels, &self.record, table);
        self.record.changed.insert(model.into(), share);
        write_record(&self.folder, &self.record)
    }

    /// What readers said, in that order.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn signoffs(&self) -> Result<Vec<SignOff>, Fault> {
        let path = self.folder.join("signoff.jsonl");
        if !path.is_file() {
            return Ok(Vec::new());
        }
        let line = |(i, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|_| bad(&self.name, &format!("signoff.jsonl: line {} can not be read", i + 1)))
        };
        read_text(&path)?.lines().enumerate().map(line).collect()
    }

    pub(super) fn append(&self, record: &SignOff) -> Result<(), Fault> {
        let path = self.folder.join("signoff.jsonl");
        let mut text = if path.is_file() { read_text(&path)? } else { String::new() };
        text += &serde_json::to_string(record).map_err(|_| bad(&self.name, "a record can not be written as JSON"))?;
        text.push('\n');
        Ok(durable::write_file(&path, text.as_bytes())?)
    }

    /// The label values that a reader reviewed, with the background, ascending, when the last record lets them be learned from.
    ///
    /// # Errors
    /// `cases.bad_signoff` when nobody accepted the case, or withdrew it; `cases.unchanged`, `cases.implausible_volume`.
    pub fn reviewed(&self, model: &Generation) -> Result<Vec<u16>, Fault> {
        let Some(last) = self.signoffs()?.pop() else {
            return Err(CaseError::SignOff(format!("nobody has signed for case {}", self.name)).into());
        };
        super::sign::check(self, &last, model)
    }

    /// Whether the last record is a reader's acceptance.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn is_accepted(&self) -> Result<bool, Fault> {
        Ok(self.signoffs()?.last().is_some_and(|record| record.decision == Decision::Accepted))
    }

    /// The case on the model's grid, for learning: `allowed` are the classes that it teaches, with the background, ascending. People's labels
    /// where there are any, with background ignored where the model sees a class that is not among them; else the model's own, ignored where they
    /// are of another class. Made once; the file's name says of what.
    ///
    /// # Errors
    /// `training.bad_case` when the model was not asked for its labels; what is wrong with the files.
    pub fn prepared(&self, model: &Generation, allowed: &[u16]) -> Result<PathBuf, Fault> {
        let name = |labels: &str| {
            let mut hash = Sha256::new();
            [model.digest.as_str(), labels, &format!("{allowed:?}")].iter().for_each(|part| {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            });
            let digest: String = hash.finalize().iter().take(SHORT / 2).map(|byte| format!("{byte:02x}")).collect();
            self.folder.join("prepared").join(format!("{}-{digest}.safetensors", self.name))
        };
        let path = name(self.record.labels.as_ref().map_or("", |labels| labels.digest.as_str()));
        if path.is_file() {
            return Ok(path);
        }
        let model_labels = self.model_labels(&model.digest)?;
        let Some(base) = model_labels else { return Err(bad(&self.name, "the model was not asked for its labels")) };
        let labels = if self.is_labelled() {
            let mut labels = self.labels()?;
            ignore_unreviewed(&mut labels, &base, allowed);
            labels
        } else {
            let outside = |label: &u16| allowed.binary_search(label).is_err();
            base.iter().map(|label| if outside(label) { crate::stunet::learning::IGNORED } else { *label }).collect()
        };
        let prepared = prepare(&self.image()?, &model.manifest, &Limits::default())?;
        let labels = to_network_grid(&labels, &prepared)?;
        durable::create_dir_all(durable::parent(&path))?;
        let seed = self.name.bytes().fold(0u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        NewCase { image: &prepared.data, labels: &labels, shape: prepared.shape, allowed }.write(&path, seed)?;
        Ok(path)
    }
}

pub(super) fn write_record(folder: &Path, record: &CaseRecord) -> Result<(), Fault> {
    let text = toml::to_string(record).map_err(|_| Fault::new(Code::InternalBug, "A case's record can not be written as TOML."))?;
    Ok(durable::write_file(&folder.join("case.toml"), text.as_bytes())?)
}

/// Writes label values as NIfTI.
pub(super) fn write_labels(path: &Path, labels: &[u16], shape: [usize; 3], affine: Affine) -> Result<(), Fault> {
    let source = Source::Nifti { path: path.into(), digest: [0; 32], geometry: Box::new(nifti::NiftiGeometry::from_affine(&affine)) };
    let data = labels.iter().map(|&label| f32::from(label)).collect();
    write_volume(path, &Volume { data, channels: 1, shape, affine, quantity: vec![Quantity::Unknown], source })
}

pub(super) fn write_volume(path: &Path, volume: &Volume) -> Result<(), Fault> {
    durable::write_file_with(path, |file| nifti::write_volume(file, volume).map_err(StorageError::at(Step::Write, path)))?;
    Ok(())
}

fn read_labels(path: &Path, shape: [usize; 3]) -> Result<Vec<u16>, Fault> {
    let volume = nifti::read(path, &Limits::default())?;
    let value = |v: &f32| Some(*v as u16).filter(|label| f32::from(*label) == *v);
    let labels: Option<Vec<u16>> = volume.data.iter().map(value).collect();
    match labels.filter(|_| volume.channels == 1 && volume.shape == shape) {
        Some(labels) => Ok(labels),
        None => Err(Fault::new(Code::TrainingCase, format!("{} does not hold labels of the image.", path.display()))),
    }
}

fn read_text(path: &Path) -> Result<String, Fault> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
    read.map_err(StorageError::at(Step::Read, path))?;
    match text.len() as u64 > MAX_FILE {
        true => Err(Fault::new(Code::TrainingCase, format!("{} is larger than {MAX_FILE} bytes.", path.display()))),
        false => Ok(text),
    }
}

pub(super) fn bad(case: &str, what: &str) -> Fault {
    Fault::new(Code::TrainingCase, format!("Case {case}: {what}."))
}
