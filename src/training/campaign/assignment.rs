//! What a run is to be made of, written by the daemon.

use crate::fault::{Code, Fault};
use crate::sys::durable::{self, Step, StorageError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The copy of the change plan in a run's folder.
pub const PLAN: &str = "plan.toml";
/// Name of the file in a run's folder.
const FILE: &str = "assignment.json";
/// Largest file.
const MAX_FILE: u64 = 64 << 20;

/// A run's models and cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The state folder.
    pub state: PathBuf,
    /// Folder of the configured model: every run starts from it.
    pub base: PathBuf,
    /// Folder of the generation that serves.
    pub serving: PathBuf,
    /// Names of cases to learn from.
    pub training: Vec<String>,
    /// Names of studies to rehearse.
    pub rehearsal: Vec<String>,
    /// Names of locked cases.
    pub locked: Vec<String>,
    /// Names of studies to compare models on.
    pub studies: Vec<String>,
    /// Distance of neighbouring windows, as the daemon has it.
    pub step: f64,
    /// Mirrored copies, as the daemon has it.
    pub mirror: bool,
}

impl Assignment {
    /// Reads that of a run.
    ///
    /// # Errors
    /// `disk.*`; `training.bad_settings` for one that is not one.
    pub fn read(run: &Path) -> Result<Assignment, Fault> {
        let path = run.join(FILE);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        read.map_err(StorageError::at(Step::Read, &path))?;
        serde_json::from_str(&text).map_err(|_| Fault::new(Code::TrainingSettings, format!("{} is no assignment.", path.display())))
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
