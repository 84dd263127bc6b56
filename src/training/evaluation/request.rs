//! What is compared on what.

use crate::fault::{Code, Fault};
use crate::sys::durable::{self, Step, StorageError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name of the file in a run's folder.
const FILE: &str = "request.json";
/// Largest request.
const MAX_FILE: u64 = 64 << 20;
/// Longest name of a case.
const MAX_NAME: usize = 64;

/// One case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Names its files: letters, digits, `-` and `_`.
    pub name: String,
    /// Pseudonym of the patient.
    pub patient: String,
    /// `vendor = "A"` and the like.
    pub subgroups: BTreeMap<String, String>,
    /// The image, NIfTI.
    pub image: PathBuf,
    /// People's labels on its grid, NIfTI; none for a study without.
    pub labels: Option<PathBuf>,
    /// Label values that a person reviewed, without the background.
    pub reviewed: Vec<u16>,
}

/// A comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Folder of the model that serves.
    pub serving: PathBuf,
    /// Folder of the candidate.
    pub candidate: PathBuf,
    /// Locked cases.
    pub locked: Vec<Subject>,
    /// Local studies without labels.
    pub studies: Vec<Subject>,
    /// Distance of neighbouring windows as a share of the window, as the daemon has it.
    pub step: f64,
    /// Mirrored copies, as the daemon has it.
    pub mirror: bool,
}

impl Request {
    /// Reads the request of a run.
    ///
    /// # Errors
    /// `disk.*`; `training.bad_case` for one that is not one.
    pub fn read(run: &Path) -> Result<Request, Fault> {
        let path = run.join(FILE);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        read.map_err(StorageError::at(Step::Read, &path))?;
        let bad = |why: &str| Fault::new(Code::TrainingCase, format!("{}: {why}.", path.display()));
        let request: Request = serde_json::from_str(&text).map_err(|_| bad("not a request"))?;
        let plain = |name: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(fits)
        };
        match request.locked.iter().chain(&request.studies).all(|subject| plain(&subject.name)) {
            true => Ok(request),
            false => Err(bad("a case has a name that is none")),
        }
    }

    /// Writes it into a run's folder.
    ///
    /// # Errors
    /// `disk.*`.
    pub fn write(&self, run: &Path) -> Result<(), Fault> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| Fault::new(Code::InternalBug, e.to_string()))?;
        Ok(durable::write_file(&run.join(FILE), &text)?)
    }
}
