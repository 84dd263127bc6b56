//! Compares the ledger with what lies on disk.

use crate::delivery;
use crate::dicom::guard::Limits;
use crate::dicom::read_identity;
use crate::fault::{Code, Fault};
use crate::ledger::{Change, JobId, Ledger, Moment, Object, Problem, Published, Reader, State, Which};
use crate::results::{Input, file_digest};
use crate::sys::durable::{self, Step, StorageError};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Damaged results get a hidden name: this, their name, and a number.
const DAMAGED: &str = ".damaged-";

/// What does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The job.
    pub job: JobId,
    /// Its result.
    pub result: Published,
    /// What is wrong with its result.
    pub problem: Problem,
}

/// How far the comparison goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Results published since the last check or clean end.
    Recent,
    /// All results.
    All,
}

/// Compares results with the output folder, byte for byte.
pub fn compare(ledger: &dyn Reader, output: &Path, depth: Depth) -> Result<(u64, Vec<Finding>), Fault> {
    let jobs = match depth {
        Depth::Recent => ledger.unverified()?,
        Depth::All => {
            let done = ledger.jobs(&Which { states: vec![State::Done], ..Which::default() })?;
            done.into_iter().map(|job| job.id).collect()
        }
    };
    let mut findings = Vec::new();
    let looked_at = jobs.len() as u64;
    for id in jobs {
        let Some(result) = ledger.job(id)?.and_then(|job| job.result) else { continue };
        let dir = output.join(&result.folder);
        if let Some(detail) = ledger.objects(id)?.iter().find_map(|object| damage(&dir, object)) {
            let problem = Problem { code: Code::ResultsChanged.name().into(), detail };
            findings.push(Finding { job: id, result, problem });
        }
    }
    Ok((looked_at, findings))
}

/// Has damaged results made again: what is left of them gets a hidden name, and their jobs go back into the line.
pub fn mend(ledger: &dyn Ledger, output: &Path, findings: Vec<Finding>, who: &str) -> Result<(), Fault> {
    for Finding { job, result, problem } in findings {
        let dir = output.join(&result.folder);
        if dir.exists() {
            let free = (1u32..).map(|n| output.join(format!("{DAMAGED}{}-{n}", result.folder))).find(|aside| !aside.exists());
            let aside = free.ok_or_else(|| Fault::new(Code::InternalBug, "no free name"))?;
            durable::rename(&dir, &aside)?;
        }
        ledger.commit(vec![Change::Reopen { job, who: who.into(), problem }])?;
    }
    Ok(())
}

/// The name of the result that was set aside under this name.
pub fn damaged_of(name: &str) -> Option<&str> {
    Some(name.strip_prefix(DAMAGED)?.rsplit_once('-')?.0)
}

/// Names of folders in the output folder with results that are no job's: of a ledger that is no more, or damaged ones that were set aside.
pub fn strays(ledger: &dyn Reader, output: &Path) -> Result<Vec<String>, Fault> {
    let known: BTreeSet<String> = ledger.jobs(&Which::default())?.into_iter().filter_map(|job| Some(job.result?.folder)).collect();
    let mut names = folders_in(output)?;
    names.retain(|name| {
        damaged_of(name).is_some() || (!name.starts_with('.') && !known.contains(name) && study_of(&output.join(name)).is_some())
    });
    Ok(names)
}

/// Removes damaged results that were set aside before `before`: by then somebody has looked at them, or nobody will. How many.
pub fn remove_damaged(output: &Path, before: Moment) -> Result<u64, Fault> {
    let mut removed = 0;
    for name in folders_in(output)?.into_iter().filter(|name| damaged_of(name).is_some()) {
        let path = output.join(name);
        let meta = std::fs::symlink_metadata(&path).map_err(StorageError::at(Step::Read, &path))?;
        // The renaming is the last thing that happened to it.
        if meta.ctime().saturating_mul(1000) < before.0 {
            std::fs::remove_dir_all(&path).map_err(StorageError::at(Step::Remove, &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn folders_in(output: &Path) -> Result<Vec<String>, Fault> {
    let entries = match std::fs::read_dir(output) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StorageError::at(Step::Read, output))?,
    };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(folders.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Study Instance UID of what lies in a folder of results, whole or damaged; none when nothing there tells.
pub fn study_of(folder: &Path) -> Option<String> {
    if let Ok(Some(manifest)) = delivery::published(folder)
        && let Input::Dicom { study, .. } = manifest.source
    {
        return Some(study);
    }
    objects_in(folder).iter().find_map(|path| Some(read_identity(path, &Limits::default()).ok()?.study_uid.to_string()))
}

/// The DICOM objects in a folder of results.
pub fn objects_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "dcm")).collect()
}

/// What is wrong with a file of a result.
fn damage(dir: &Path, object: &Object) -> Option<String> {
    match file_digest(&dir.join(&object.file)) {
        Ok((bytes, digest)) if bytes == object.bytes && digest == object.sha256 => None,
        Ok(_) => Some(format!("{} in {} is not what was written.", object.file, name(dir))),
        Err(_) => Some(format!("{} in {} can not be read.", object.file, name(dir))),
    }
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
