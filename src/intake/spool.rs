//! Where instances from the network are kept: written once, synced, then acknowledged.
//!
//! ```text
//! <spool>/incoming/<n>.part                                  being received; swept at start
//! <spool>/series/<series key>/<instance key>-<content>.dcm   received; file and folder are on disk
//! ```
//! Keys are hexadecimal SHA-256 prefixes: no UID from outside becomes a path. The content digest in the name makes a
//! repeated instance the same file and a corrected one a second file, which `series` then tells apart.

use crate::dicom::Uid;
use crate::fault::{Code, Fault};
use crate::sys::durable::{self, Step, StorageError};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Implementation Class UID (0002,0012) of files that stunetd writes.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.283094163917230943279184620172047105421";
/// Implementation Version Name (0002,0013).
pub const IMPLEMENTATION_VERSION_NAME: &str = concat!("STUNETD_", env!("CARGO_PKG_VERSION"));

/// The folder of received instances.
#[derive(Debug)]
pub struct Spool {
    root: PathBuf,
    next: AtomicU64,
    limit: u64,
}

/// What the file meta group says of an instance on its way in (PS3.10 section 7.1).
#[derive(Clone, Debug)]
pub struct FileMeta {
    /// Media Storage SOP Class UID.
    pub sop_class_uid: Uid,
    /// Media Storage SOP Instance UID.
    pub sop_instance_uid: Uid,
    /// Transfer Syntax UID of the data set that follows.
    pub transfer_syntax_uid: Uid,
}

/// The UIDs inside the data set, which decide where the instance belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// SOP Class UID.
    pub sop_class_uid: Uid,
    /// SOP Instance UID.
    pub sop_instance_uid: Uid,
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
        durable::create_dir_all(&root.join("series"))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).map_err(StorageError::at(Step::Create, root))?;
        for entry in fs::read_dir(&incoming).map_err(StorageError::at(Step::Read, &incoming))?.flatten() {
            // Never acknowledged, so nobody misses it.
            fs::remove_file(entry.path()).map_err(StorageError::at(Step::Remove, &entry.path()))?;
        }
        Ok(Spool { root: root.to_path_buf(), next: AtomicU64::new(0), limit })
    }

    /// The folder that holds one folder a series: what intake scans.
    pub fn series_root(&self) -> PathBuf {
        self.root.join("series")
    }

    /// Starts an instance: the preamble and the file meta group are written, the data set's bytes follow with [`Incoming::write`].
    pub fn begin(&self, meta: &FileMeta) -> Result<Incoming<'_>, Fault> {
        let path = self.root.join("incoming").join(format!("{}-{}.part", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed)));
        let file = File::create_new(&path).map_err(StorageError::at(Step::Create, &path))?;
        let mut incoming =
            Incoming { spool: self, file: Some(BufWriter::with_capacity(1 << 18, file)), path, content: Sha256::new(), bytes: 0 };
        incoming.content.update(meta.transfer_syntax_uid.as_str());
        incoming.put(&file_meta(meta))?;
        Ok(incoming)
    }
}

/// An instance being received. Dropped without [`Incoming::commit`], it leaves nothing.
#[derive(Debug)]
pub struct Incoming<'a> {
    spool: &'a Spool,
    file: Option<BufWriter<File>>,
    path: PathBuf,
    content: Sha256,
    bytes: u64,
}

impl Incoming<'_> {
    /// Appends bytes of the data set. Refuses an instance that outgrows the limit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.spool.limit {
            return Err(Fault::new(Code::InputTooLarge, format!("An instance has more than {} bytes.", self.spool.limit)));
        }
        self.content.update(bytes);
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let file = self.file.as_mut().ok_or_else(|| Fault::new(Code::InternalBug, "an instance was written after its end"))?;
        file.write_all(bytes).map_err(|e| StorageError::at(Step::Write, &self.path)(e).into())
    }

    /// The bytes are complete: brings them to the disk so that the file can be read for its identity.
    pub fn finish(&mut self) -> Result<&Path, Fault> {
        if let Some(file) = self.file.take() {
            let file = file.into_inner().map_err(|e| StorageError::at(Step::Write, &self.path)(e.into_error()))?;
            file.sync_all().map_err(StorageError::at(Step::Sync, &self.path))?;
        }
        Ok(&self.path)
    }

    /// Gives the instance its place. When this returns, file and folder are on disk and the sender may be told so.
    pub fn commit(mut self, identity: &Identity) -> Result<Stored, Fault> {
        self.finish()?;
        let folder = self.spool.series_root().join(key(&[identity.study_uid.as_str(), identity.series_uid.as_str()]));
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
        durable::rename(&self.path, &path)?;
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

/// Preamble, `DICM` and the file meta group in explicit little endian (PS3.10 section 7.1).
pub fn file_meta(meta: &FileMeta) -> Vec<u8> {
    let mut group = Vec::with_capacity(256);
    let mut put = |element: u16, vr: &[u8; 2], value: &[u8], pad: u8| {
        let padded = value.len() + value.len() % 2;
        group.extend_from_slice(&2u16.to_le_bytes());
        group.extend_from_slice(&element.to_le_bytes());
        group.extend_from_slice(vr);
        if vr == b"OB" {
            group.extend_from_slice(&[0, 0]);
            group.extend_from_slice(&(padded as u32).to_le_bytes());
        } else {
            group.extend_from_slice(&(padded as u16).to_le_bytes());
        }
        group.extend_from_slice(value);
        group.resize(group.len() + value.len() % 2, pad);
    };
    put(0x0001, b"OB", &[0, 1], 0);
    put(0x0002, b"UI", meta.sop_class_uid.as_str().as_bytes(), 0);
    put(0x0003, b"UI", meta.sop_instance_uid.as_str().as_bytes(), 0);
    put(0x0010, b"UI", meta.transfer_syntax_uid.as_str().as_bytes(), 0);
    put(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.as_bytes(), 0);
    put(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.as_bytes(), b' ');
    let mut out = vec![0u8; 128];
    out.extend_from_slice(b"DICM");
    out.extend_from_slice(&[2, 0, 0, 0, b'U', b'L', 4, 0]);
    out.extend_from_slice(&(group.len() as u32).to_le_bytes());
    out.extend_from_slice(&group);
    out
}
