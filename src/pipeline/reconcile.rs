//! Compares the ledger with what lies on disk.

use crate::fault::{Code, Fault};
use crate::ledger::{Change, JobId, Ledger, Object, Problem, Published, Reader, State, Which};
use crate::results::file_digest;
use crate::sys::durable;
use std::path::Path;

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
            let free = (1u32..).map(|n| output.join(format!(".damaged-{}-{n}", result.folder))).find(|aside| !aside.exists());
            let aside = free.ok_or_else(|| Fault::new(Code::InternalBug, "no free name"))?;
            durable::rename(&dir, &aside)?;
        }
        ledger.commit(vec![Change::Reopen { job, who: who.into(), problem }])?;
    }
    Ok(())
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
