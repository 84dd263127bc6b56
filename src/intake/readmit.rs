//! Files of the spool that the ledger does not know: one that was begun anew or restored from a backup knows nothing of them, and a crash
//! may come between the file and its row. Unknown, they would be segmented, but never removed.

use super::reception::series_of;
use super::spool::{Spool, series_root};
use crate::dicom::guard::Limits;
use crate::dicom::read_identity;
use crate::fault::Fault;
use crate::ledger::{Change, Ledger, Reader, Received};
use crate::sys::durable::{Step, StorageError};
use rayon::prelude::*;
use std::fs;
use std::path::Path;

/// What became of unknown files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readmitted {
    /// Known from now on.
    pub taken: u64,
    /// Not what was received: they can not be read, or lie in the folder of another series.
    pub foreign: u64,
}

/// Has the ledger know every instance that lies in the spool at `root`, which need not be there. Interrupted, it is to be called again.
pub fn readmit(ledger: &dyn Ledger, root: &Path, max_instance: u64) -> Result<Readmitted, Fault> {
    let limits = Limits { file_bytes: max_instance, ..Limits::default() };
    let mut all = Readmitted::default();
    each_unknown(ledger, root, |unknown| {
        let received: Vec<Option<Received>> = unknown.par_iter().map(|path| received(root, path, &limits)).collect();
        all.foreign += received.iter().filter(|r| r.is_none()).count() as u64;
        let changes: Vec<Change> = received.into_iter().flatten().map(Change::Receive).collect();
        all.taken += changes.len() as u64;
        if !changes.is_empty() {
            ledger.commit(changes)?;
        }
        Ok(())
    })?;
    Ok(all)
}

/// How many files of the spool at `root` the ledger does not know.
pub fn unknown(ledger: &dyn Reader, root: &Path) -> Result<u64, Fault> {
    let mut count = 0;
    each_unknown(ledger, root, |unknown| {
        count += unknown.len() as u64;
        Ok(())
    })?;
    Ok(count)
}

/// Calls `told` for every series that has unknown files, with their paths below the root.
fn each_unknown<L: Reader + ?Sized>(ledger: &L, root: &Path, mut told: impl FnMut(Vec<String>) -> Result<(), Fault>) -> Result<(), Fault> {
    let series = series_root(root);
    if !series.is_dir() {
        return Ok(());
    }
    for folder in fs::read_dir(&series).map_err(StorageError::at(Step::Read, &series))? {
        let folder = folder.map_err(StorageError::at(Step::Read, &series))?.path();
        // Removed meanwhile, or no folder.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let names = entries.flatten().filter_map(|entry| Some(entry.path().strip_prefix(root).ok()?.to_str()?.to_owned()));
        let unknown = ledger.unknown(names.collect())?;
        if !unknown.is_empty() {
            told(unknown)?;
        }
    }
    Ok(())
}

/// What a file was received as; none when it is not what lies in such a place.
fn received(root: &Path, path: &str, limits: &Limits) -> Option<Received> {
    let file = root.join(path);
    let bytes = fs::symlink_metadata(&file).ok().filter(|meta| meta.is_file())?.len();
    let identity = read_identity(&file, limits).ok()?;
    let series = series_of(&identity);
    let its_own = file.parent() == Some(&Spool::folder_below(root, &series.study, &series.series));
    its_own.then(|| Received { series, sop_instance: identity.sop_instance_uid.to_string(), path: path.into(), bytes })
}
