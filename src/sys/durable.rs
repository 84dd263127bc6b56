//! Files and folders that are there after a power loss: written beside their place, synced, renamed, folder synced.
//!
//! Everything goes through `std` and libc, never raw system calls, so that a preload shim can drop or fail a single
//! step in a test. A temporary name starts with a dot and ends with `.part`; scanners skip both.

use super::crash::{self, Point};
use crate::fault::{Code, Fault};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A step on a file or folder that failed.
#[derive(Debug, thiserror::Error)]
#[error("can not {step} {}: {source}", path.display())]
pub struct StorageError {
    /// What was tried.
    pub step: Step,
    /// On what.
    pub path: PathBuf,
    /// What the system answered.
    pub source: io::Error,
}

/// What can be tried on a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open or read.
    Read,
    /// Create.
    Create,
    /// Write.
    Write,
    /// Bring to the disk.
    Sync,
    /// Rename.
    Rename,
    /// Remove.
    Remove,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Read => "read",
            Step::Create => "create",
            Step::Write => "write",
            Step::Sync => "sync",
            Step::Rename => "rename",
            Step::Remove => "remove",
        })
    }
}

impl StorageError {
    /// Whether a file can not be renamed because its new place is on another file system.
    pub fn is_other_disk(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EXDEV)
    }

    /// For `map_err`: says of a system error what was tried on what.
    pub fn at(step: Step, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        move |source| StorageError { step, path: path.to_path_buf(), source }
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Fault {
        let code = match (error.source.raw_os_error(), error.step) {
            (Some(libc::ENOSPC | libc::EDQUOT), _) => Code::DiskFull,
            (_, Step::Read) => Code::DiskUnreadable,
            _ => Code::DiskUnwritable,
        };
        Fault::new(code, error.to_string()).caused_by(error)
    }
}

/// Writes a file whole or not at all: after a crash the old bytes stand there, or the new ones.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    write_file_with(path, |file| file.write_all(bytes).map_err(StorageError::at(Step::Write, path)))
}

/// Like [`write_file`], with a closure that writes: whatever it returns as an error, nothing stays behind.
pub fn write_file_with<T, E: From<StorageError>>(path: &Path, write: impl FnOnce(&mut File) -> Result<T, E>) -> Result<T, E> {
    let folder = parent(path);
    let (mut partial, mut file) = Partial::file(folder)?;
    let value = write(&mut file)?;
    crash::point(Point::FileWritten);
    file.sync_all().map_err(StorageError::at(Step::Sync, path))?;
    drop(file);
    crash::point(Point::FileSynced);
    rename_only(&partial.path, path)?;
    partial.armed = false;
    crash::point(Point::FileRenamed);
    sync_dir(folder)?;
    Ok(value)
}

/// Renames a file or folder and syncs the folders on both sides. A file takes the place of a file; a folder that
/// holds something is never replaced. What is renamed must have been synced before.
pub fn rename(from: &Path, to: &Path) -> Result<(), StorageError> {
    rename_only(from, to)?;
    crash::point(Point::FileRenamed);
    let (old, new) = (parent(from), parent(to));
    sync_dir(new)?;
    if old == new { Ok(()) } else { sync_dir(old) }
}

/// Like [`rename`], but syncs only the folder that the file arrives in. For a file whose old name is swept should it come back after a power
/// loss.
pub fn move_into(from: &Path, to: &Path) -> Result<(), StorageError> {
    rename_only(from, to)?;
    crash::point(Point::FileRenamed);
    sync_dir(parent(to))
}

/// Brings a folder's entries to the disk.
pub fn sync_dir(path: &Path) -> Result<(), StorageError> {
    let folder = File::open(path).map_err(StorageError::at(Step::Sync, path))?;
    match folder.sync_all() {
        // Some network file systems have no sync of folders; there the server decides.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => Ok(()),
        other => other.map_err(StorageError::at(Step::Sync, path)),
    }?;
    crash::point(Point::FolderSynced);
    Ok(())
}

/// Creates a folder and the missing ones above it, each synced into its parent.
pub fn create_dir_all(path: &Path) -> Result<(), StorageError> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    create_dir_all(parent(path))?;
    match fs::create_dir(path) {
        // Somebody else was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other.map_err(StorageError::at(Step::Create, path))?,
    }
    crash::point(Point::FolderCreated);
    sync_dir(parent(path))
}

/// A folder under construction: removed with all it holds when dropped, unless [`StagingDir::publish`] gave it its name.
#[derive(Debug)]
pub struct StagingDir {
    partial: Partial,
}

impl StagingDir {
    /// A new empty folder with a temporary name inside `parent`, which is created if need be.
    pub fn new_in(parent: &Path) -> Result<StagingDir, StorageError> {
        create_dir_all(parent)?;
        loop {
            let path = parent.join(temporary_name());
            match fs::create_dir(&path) {
                Ok(()) => return Ok(StagingDir { partial: Partial { path, armed: true } }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(StorageError { step: Step::Create, path, source: e }),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.partial.path
    }

    /// Syncs the folder and renames it to `to`; see [`rename`]. The files in it must have been synced. After an error the
    /// folder is still there, and `publish` may be tried again.
    pub fn publish(&mut self, to: &Path) -> Result<(), StorageError> {
        sync_dir(self.path())?;
        crash::point(Point::StagingSynced);
        rename_only(self.path(), to)?;
        self.partial.armed = false;
        crash::point(Point::StagingRenamed);
        let (old, new) = (parent(self.path()), parent(to));
        sync_dir(new)?;
        if old != new {
            sync_dir(old)?;
        }
        crash::point(Point::StagingPublished);
        Ok(())
    }
}

/// Removes what a killed process left in a folder: temporary names whose process is gone, or had this process's number. To be
/// called before this process writes there. Returns how many there were.
pub fn remove_leftovers(folder: &Path) -> Result<usize, StorageError> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(StorageError::at(Step::Read, folder))? {
        let path = entry.map_err(StorageError::at(Step::Read, folder))?.path();
        let Some(owner) = path.file_name().and_then(|n| n.to_str()).and_then(owner_of) else { continue };
        if owner != std::process::id() && Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.map_err(StorageError::at(Step::Remove, &path))?;
        removed += 1;
    }
    Ok(removed)
}

/// The process number in a temporary name.
fn owner_of(name: &str) -> Option<u32> {
    let (owner, number) = name.strip_prefix(".stunetd-")?.strip_suffix(".part")?.split_once('-')?;
    number.parse::<u64>().ok()?;
    owner.parse().ok()
}

/// The folder that an entry is in; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// A file or folder that is removed when dropped while armed.
#[derive(Debug)]
struct Partial {
    path: PathBuf,
    armed: bool,
}

impl Partial {
    fn file(folder: &Path) -> Result<(Partial, File), StorageError> {
        loop {
            let path = folder.join(temporary_name());
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Partial { path, armed: true }, file)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(StorageError { step: Step::Create, path, source: e }),
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.armed {
            // The error that led here is the one to report.
            let _ = if self.path.is_dir() { fs::remove_dir_all(&self.path) } else { fs::remove_file(&self.path) };
        }
    }
}

fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(".stunetd-{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[allow(clippy::disallowed_methods, reason = "the one place that renames; its callers sync the folders")]
fn rename_only(from: &Path, to: &Path) -> Result<(), StorageError> {
    fs::rename(from, to).map_err(StorageError::at(Step::Rename, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).expect("folder").map(|e| e.expect("entry").file_name().into_string().expect("name")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_written_whole_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a/b/c.bin");
        create_dir_all(parent(&path)).expect("folders");
        for bytes in [&b"one"[..], b"", b"three and more"] {
            write_file(&path, bytes).expect("written");
            assert_eq!(fs::read(&path).expect("file"), bytes);
            assert_eq!(names(parent(&path)), ["c.bin"]);
        }
    }

    #[test]
    fn a_failed_writer_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("c.bin");
        write_file(&path, b"old").expect("written");
        let result: Result<(), StorageError> = write_file_with(&path, |file| {
            file.write_all(b"half").map_err(StorageError::at(Step::Write, &path))?;
            Err(StorageError { step: Step::Write, path: path.clone(), source: io::Error::from_raw_os_error(libc::ENOSPC) })
        });
        assert_eq!(Fault::from(result.expect_err("fails")).code, Code::DiskFull);
        assert_eq!(fs::read(&path).expect("file"), b"old");
        assert_eq!(names(dir.path()), ["c.bin"]);
    }

    #[test]
    fn a_staging_folder_is_published_or_gone() {
        let dir = tempfile::tempdir().expect("folder");
        let target = dir.path().join("done");
        let mut kept = StagingDir::new_in(dir.path()).expect("folder");
        write_file(&kept.path().join("x"), b"1").expect("written");
        let mut dropped = StagingDir::new_in(dir.path()).expect("folder");
        write_file(&dropped.path().join("x"), b"2").expect("written");
        kept.publish(&target).expect("published");
        drop(kept);
        // The name is taken by a folder that holds something: refused, and the second folder is removed when dropped.
        assert!(dropped.publish(&target).is_err());
        drop(dropped);
        assert_eq!(names(dir.path()), ["done"]);
        assert_eq!(fs::read(target.join("x")).expect("file"), b"1");
    }

    #[test]
    fn only_leftovers_of_the_dead_are_removed() {
        let dir = tempfile::tempdir().expect("folder");
        let (dead, own) = (u32::MAX, std::process::id());
        let dead_folder = dir.path().join(format!(".stunetd-{dead}-0.part"));
        fs::create_dir(&dead_folder).expect("folder");
        for name in [format!(".stunetd-{own}-99.part"), ".stunetd-1-0.part".into(), "a.part".into(), ".stunetd-x-0.part".into()] {
            fs::write(dir.path().join(name), b"").expect("written");
        }
        fs::write(dead_folder.join("half"), b"").expect("written");
        assert_eq!(remove_leftovers(dir.path()).expect("removed"), 2);
        assert_eq!(names(dir.path()), [".stunetd-1-0.part", ".stunetd-x-0.part", "a.part"]);
    }

    #[test]
    fn system_errors_become_codes() {
        for (errno, step, code) in [
            (libc::ENOSPC, Step::Sync, Code::DiskFull),
            (libc::EDQUOT, Step::Write, Code::DiskFull),
            (libc::EROFS, Step::Create, Code::DiskUnwritable),
            (libc::EACCES, Step::Rename, Code::DiskUnwritable),
            (libc::EIO, Step::Read, Code::DiskUnreadable),
        ] {
            let error = StorageError { step, path: "x".into(), source: io::Error::from_raw_os_error(errno) };
            assert_eq!(Fault::from(error).code, code);
        }
        assert!(write_file(Path::new("/dev/null/x"), b"").is_err());
    }
}
