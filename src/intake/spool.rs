//! Where instances from the network are kept: written once, synced, then acknowledged.
//!
//! ```text
//! <spool>/incoming/<n>.part                                  being received; swept at start
//! <spool>/series/<series key>/<instance key>-<content>.dcm   received; file and folder are on disk
//! <spool>/quarantine/<ms>-<n>.dcm                            refused, for people to look at; bounded
//! ```
//! Keys are hexadecimal SHA-256 prefixes: no UID from outside becomes a path. The content digest in the name makes a
//! repeated instance the same file and a corrected one a second file, which `series` then tells apart.

use crate::dicom::Identity;
use crate::fault::{Code, Fault};
use crate::ledger::Moment;
use crate::sys::clock::Stopwatch;
use crate::sys::crash::{self, Point};
use crate::sys::durable::{self, Step, StorageError};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Refused objects that are kept at most: files, and their bytes.
const MOST_REFUSED: (usize, u64) = (1000, 1 << 30);

/// The folder of received instances.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    next: AtomicU64,
    limit: u64,
    /// Held shared while an instance gets its place, alone while a series is removed.
    gate: RwLock<()>,
}

/// An instance that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The file.
    pub path: PathBuf,
    /// Whether the same bytes had been received before.
    pub duplicate: bool,
}

impl Spool {
    /// Opens the spool below `root`, creates its folders (mode 0700) and sweeps what an earlier process left half received.
    /// An instance may have at most `limit` bytes.
    pub fn open(root: &Path, limit: u64) -> Result<Spool, StorageError> {
        use std::os::unix::fs::PermissionsExt;
        let incoming = root.join("incoming");
        durable::create_dir_all(&incoming)?;
        durable::create_dir_all(&series_root(root))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(StorageError::at(Step::Create, root))?;
        for entry in fs::read_dir(&incoming).map_err(StorageError::at(Step::Read, &incoming))?.flatten() {
            // Never acknowledged, so nobody misses it.
            fs::remove_file(entry.path()).map_err(StorageError::at(Step::Remove, &entry.path()))?;
        }
        // Its instances were removed; an earlier process ended before their files were.
        let trash = trash(root);
        if trash.exists() {
            fs::remove_dir_all(&trash).map_err(StorageError::at(Step::Remove, &trash))?;
        }
        Ok(Spool { root: root.to_path_buf(), next: AtomicU64::new(0), limit, gate: RwLock::new(()) })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds one folder a series: what intake scans.
    pub fn series_root(&self) -> PathBuf {
        series_root(&self.root)
    }

    /// The folder that holds a series.
    pub fn folder_of(&self, study_uid: &str, series_uid: &str) -> PathBuf {
        Spool::folder_below(&self.root, study_uid, series_uid)
    }

    /// The folder of a series in a spool that another has open: to open it twice would sweep what is being received.
    pub fn folder_below(root: &Path, study_uid: &str, series_uid: &str) -> PathBuf {
        series_root(root).join(key(&[study_uid, series_uid]))
    }

    /// Removes a series, all at once as a scan sees it, if it holds no other files than the `known` ones (paths below the root), or whatever it
    /// holds; `gone` is called before the bytes are. False, and nothing is removed, when it holds others: they are on their way into the ledger.
    pub fn remove(
        &self,
        study_uid: &str,
        series_uid: &str,
        known: Option<&BTreeSet<PathBuf>>,
        gone: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        let folder = self.folder_of(study_uid, series_uid);
        let trash = trash(&self.root).join(folder.file_name().unwrap_or_default());
        {
            let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            if folder.is_dir() {
                let entries = known.map(|_| fs::read_dir(&folder).map_err(StorageError::at(Step::Read, &folder))).transpose()?;
                for entry in entries.into_iter().flatten() {
                    let path = entry.map_err(StorageError::at(Step::Read, &folder))?.path();
                    if !path.strip_prefix(&self.root).is_ok_and(|path| known.is_some_and(|known| known.contains(path))) {
                        return Ok(false);
                    }
                }
                durable::create_dir_all(durable::parent(&trash))?;
                durable::rename(&folder, &trash)?;
            }
        }
        gone()?;
        if trash.is_dir() {
            fs::remove_dir_all(&trash).map_err(StorageError::at(Step::Remove, &trash))?;
        }
        Ok(true)
    }

    /// Keeps an object that was refused, for people to look at; older ones go where there would be too many. Its place below the root; none
    /// when it is too large to be kept. No sender relies on it, so nothing is synced.
    pub fn set_aside(&self, mut incoming: Incoming<'_>, now: Moment) -> Result<Option<String>, Fault> {
        incoming.finish()?;
        if incoming.bytes > MOST_REFUSED.1 / 4 {
            return Ok(None);
        }
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut kept = refused_files(&self.root)?;
        let mut bytes = incoming.bytes + kept.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        let mut files = kept.len() + 1;
        kept.sort();
        for (_, size, path) in kept {
            if files <= MOST_REFUSED.0 && bytes <= MOST_REFUSED.1 {
                break;
            }
            fs::remove_file(&path).map_err(StorageError::at(Step::Remove, &path))?;
            (files, bytes) = (files - 1, bytes - size);
        }
        let place = format!("{QUARANTINE}/{:013}-{}.dcm", now.0, self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.root.join(&place);
        durable::create_dir_all(durable::parent(&path))?;
        durable::rename(&incoming.path, &path)?;
        Ok(Some(place))
    }

    /// Removes refused objects that came before this.
    pub fn remove_refused(&self, before: Moment) -> Result<(), Fault> {
        for (_, _, path) in refused_files(&self.root)?.into_iter().filter(|(at, ..)| *at < before) {
            fs::remove_file(&path).map_err(StorageError::at(Step::Remove, &path))?;
        }
        Ok(())
    }

    /// Starts a file (PS3.10); its bytes follow with [`Incoming::write`].
    pub fn begin(&self) -> Result<Incoming<'_>, Fault> {
        let path = self.root.join("incoming").join(format!("{}-{}.part", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed)));
        let file = File::create_new(&path).map_err(StorageError::at(Step::Create, &path))?;
        Ok(Incoming {
            spool: self,
            file: Some(BufWriter::with_capacity(1 << 18, file)),
            path,
            content: Sha256::new(),
            bytes: 0,
            begun: Stopwatch::start(),
        })
    }
}

/// Where refused objects are kept, below the root.
pub const QUARANTINE: &str = "quarantine";

/// The refused objects that are kept: since when, their bytes, and where.
fn refused_files(root: &Path) -> Result<Vec<(Moment, u64, PathBuf)>, StorageError> {
    let folder = root.join(QUARANTINE);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(StorageError::at(Step::Read, &folder))?.flatten() {
        let since = entry.file_name().to_str().and_then(|name| name.split_once('-')?.0.parse().ok());
        let (Some(since), Ok(meta)) = (since, entry.metadata()) else { continue };
        files.push((Moment(since), meta.len(), entry.path()));
    }
    Ok(files)
}

/// Where series go on their way out: outside of what is scanned.
fn trash(root: &Path) -> PathBuf {
    root.join("trash")
}

/// The folder of the spool at `root` that holds one folder a series.
pub fn series_root(root: &Path) -> PathBuf {
    root.join("series")
}

/// An instance being received. Dropped without [`Incoming::commit`], it leaves nothing.
#[derive(Debug)]
pub struct Incoming<'a> {
    spool: &'a Spool,
    file: Option<BufWriter<File>>,
    path: PathBuf,
    content: Sha256,
    bytes: u64,
    begun: Stopwatch,
}

impl Incoming<'_> {
    /// Since its first byte.
    pub fn begun(&self) -> Stopwatch {
        self.begun
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes. Refuses a file that outgrows the limit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.spool.limit {
            return Err(Fault::new(Code::InputTooLarge, format!("An instance has more than {} bytes.", self.spool.limit)));
        }
        let file = self.file.as_mut().ok_or_else(|| Fault::new(Code::InternalBug, "an instance was written after its end"))?;
        self.content.update(bytes);
        file.write_all(bytes).map_err(|e| StorageError::at(Step::Write, &self.path)(e).into())
    }

    /// The bytes are complete: brings them to the disk so that the file can be read for its identity.
    pub fn finish(&mut self) -> Result<&Path, Fault> {
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(|e| StorageError::at(Step::Write, &self.path)(e.into_error()))?;
            crash::point(Point::InstanceReceived);
            file.sync_all().map_err(StorageError::at(Step::Sync, &self.path))?;
            crash::point(Point::InstanceSynced);
        }
        Ok(&self.path)
    }

    /// Gives the instance its place. When this returns, file and folder are on disk and the sender may be told so.
    pub fn commit(mut self, identity: &Identity) -> Result<Stored, Fault> {
        self.finish()?;
        let _shared = self.spool.gate.read().unwrap_or_else(PoisonError::into_inner);
        let folder = self.spool.folder_of(identity.study_uid.as_str(), identity.series_uid.as_str());
        if !folder.is_dir() {
            durable::create_dir_all(&folder)?;
        }
        let content = hex(&std::mem::take(&mut self.content).finalize()[..8]);
        let path = folder.join(format!("{}-{content}.dcm", key(&[identity.sop_instance_uid.as_str()])));
        if path.is_file() {
            // Its folder may not be synced yet by whoever is storing it this moment.
            durable::sync_dir(&folder)?;
            return Ok(Stored { path, duplicate: true });
        }
        durable::move_into(&self.path, &path)?;
        Ok(Stored { path, duplicate: false })
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        // After a commit the name is gone already; otherwise the next start sweeps what stays.
        let _ = fs::remove_file(&self.path);
    }
}

/// 32 hexadecimal digits that stand for UIDs in a path.
fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
