//! Messages that the repository has not read yet: a file each, in the state folder.

use crate::fault::Fault;
use crate::sys::durable::{self, Step, StorageError};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// What a small file takes on a disk.
const BLOCK: u64 = 4096;
/// Longest message that is read back, in bytes.
const LONGEST: u64 = 1 << 20;
/// How the names of messages end.
const ENDING: &str = "msg";

/// Messages in the order they came.
pub struct Spool {
    folder: PathBuf,
    /// Number and size of each.
    waiting: VecDeque<(u64, u64)>,
    next: u64,
    bytes: u64,
    limit: u64,
}

impl Spool {
    /// The messages of a folder, which is created if need be.
    pub fn open(folder: &Path, limit: u64) -> Result<Spool, Fault> {
        durable::create_dir_all(folder)?;
        durable::remove_leftovers(folder)?;
        let mut waiting = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(StorageError::at(Step::Read, folder))? {
            let entry = entry.map_err(StorageError::at(Step::Read, folder))?;
            let path = entry.path();
            let number = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
            let (Some(number), true) = (number, path.extension().is_some_and(|e| e == ENDING)) else { continue };
            let size = entry.metadata().map_err(StorageError::at(Step::Read, &path))?.len();
            waiting.push((number, on_disk(size)));
        }
        waiting.sort_unstable();
        let next = waiting.last().map_or(0, |(number, _)| number + 1);
        let bytes = waiting.iter().map(|(_, size)| size).sum();
        Ok(Spool { folder: folder.to_owned(), waiting: waiting.into(), next, bytes, limit })
    }

    /// Keeps a message. When this returns true it is on disk; false when there is no room for it.
    pub fn push(&mut self, message: &[u8]) -> Result<bool, Fault> {
        let size = on_disk(message.len() as u64);
        if message.len() as u64 > LONGEST || self.bytes + size > self.limit {
            return Ok(false);
        }
        durable::write_file(&self.path(self.next), message)?;
        self.waiting.push_back((self.next, size));
        self.bytes += size;
        self.next += 1;
        Ok(true)
    }

    /// The oldest messages with their numbers, at most so many. One that is gone or can not be read is passed over.
    pub fn oldest(&self, count: usize) -> Vec<(u64, Vec<u8>)> {
        let read = |number: &u64| {
            let path = self.path(*number);
            std::fs::metadata(&path).ok().filter(|m| m.len() <= LONGEST).and_then(|_| std::fs::read(&path).ok())
        };
        self.waiting.iter().take(count).map(|(number, _)| (*number, read(number).unwrap_or_default())).collect()
    }

    /// The repository has these, the oldest. Should the machine fail before the disk knows it, it gets them twice.
    pub fn remove(&mut self, numbers: &[u64]) {
        for number in numbers {
            // What can not be removed is sent again by the next process.
            let _ = std::fs::remove_file(self.path(*number));
        }
        while let Some((_, size)) = self.waiting.front().copied().filter(|(number, _)| numbers.contains(number)) {
            self.waiting.pop_front();
            self.bytes -= size;
        }
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that they take on the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}.{ENDING}"))
    }
}

fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK).max(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stay_in_order_across_a_restart_and_within_the_limit() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("audit");
        let mut spool = Spool::open(&folder, 3 * BLOCK).expect("open");
        for text in ["a", "b", "c"] {
            assert!(spool.push(text.as_bytes()).expect("written"));
        }
        assert!(!spool.push(b"d").expect("no room"));
        std::fs::write(folder.join("other"), b"x").expect("written");
        let mut spool = Spool::open(&folder, 3 * BLOCK).expect("open");
        assert_eq!((spool.len(), spool.bytes()), (3, 3 * BLOCK));
        let oldest = spool.oldest(2);
        assert_eq!(oldest.iter().map(|(_, text)| text.as_slice()).collect::<Vec<_>>(), [b"a", b"b"]);
        spool.remove(&oldest.iter().map(|(number, _)| *number).collect::<Vec<_>>());
        assert!(spool.push(b"e").expect("written"));
        let spool = Spool::open(&folder, 0).expect("open");
        assert_eq!(spool.oldest(9).into_iter().map(|(_, text)| text).collect::<Vec<_>>(), [b"c", b"e"]);
    }
}
