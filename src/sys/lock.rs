//! One process at a time: a lock that the system gives back when its holder dies.

use super::durable::{Step, StorageError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// An exclusive lock on a file, held until dropped. The file stays; it names the process that had it last.
#[derive(Debug)]
pub struct LockFile {
    _file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock, creating the file if need be; none when another process has it.
    pub fn take(path: &Path) -> Result<Option<LockFile>, StorageError> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(StorageError::at(Step::Create, path)(e)),
        }
        // Only for people; the lock itself is the truth.
        let written = file.set_len(0).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        written.map_err(StorageError::at(Step::Write, path))?;
        Ok(Some(LockFile { _file: file, path: path.into() }))
    }

    /// The number of the process that has, or had last, the lock.
    pub fn holder(path: &Path) -> Option<u32> {
        let mut text = String::new();
        File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path).map_err(StorageError::at(Step::Create, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_next_after_it() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("lock");
        let first = LockFile::take(&path).expect("a file").expect("free");
        assert_eq!(LockFile::holder(&path), Some(std::process::id()));
        assert!(LockFile::take(&path).expect("a file").is_none());
        drop(first);
        assert_eq!(LockFile::take(&path).expect("a file").expect("free again").path(), path);
        assert!(LockFile::take(&dir.path().join("no/such/folder")).is_err());
    }
}
