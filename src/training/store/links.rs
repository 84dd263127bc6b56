//! `links.jsonl`: which person and which files a case came from. The only place where that is written; only the daemon's user may read it.

use super::Store;
use super::place::write_private;
use crate::fault::{Code, Fault};
use crate::sys::durable::{Step, StorageError};
use crate::sys::lock::LockFile;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::path::PathBuf;

/// Largest table.
const MAX_FILE: u64 = 256 << 20;
/// How often the lock is asked for, and how long is waited in between: 10 s together.
const ASKED: usize = 1000;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(10);

/// What a case came from. Has no `Debug`: patient data never reaches a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The case, or what stands for a folder that was refused.
    pub case: String,
    /// The folder that it was found in.
    pub folder: PathBuf,
    /// What the folder was like then: changed, it is looked at again.
    pub print: String,
    /// Issuer of Patient ID.
    pub issuer: String,
    /// Patient ID.
    pub patient_id: String,
    /// Study Instance UID.
    pub study: String,
    /// Series Instance UID of each channel.
    pub series: Vec<String>,
}

impl Store {
    /// The whole table; empty before the first case.
    ///
    /// # Errors
    /// `disk.*`, `training.bad_case` for a line that can not be read.
    pub fn links(&self) -> Result<Vec<Link>, Fault> {
        let path = self.root().join("links.jsonl");
        let mut text = String::new();
        match fs::File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StorageError::at(Step::Read, &path)(e).into()),
            Ok(_) if text.len() as u64 > MAX_FILE => return Err(bad(0)),
            Ok(_) => {}
        }
        // The parser's own message would quote the line.
        text.lines().enumerate().map(|(i, line)| serde_json::from_str(line).map_err(|_| bad(i + 1))).collect()
    }

    /// Adds a line; one of the same case is replaced.
    ///
    /// # Errors
    /// As [`links`](Store::links).
    pub fn link(&self, link: Link) -> Result<(), Fault> {
        self.change_links(|links| {
            links.retain(|other| other.case != link.case);
            links.push(link);
        })
    }

    /// Removes the lines of a case.
    ///
    /// # Errors
    /// As [`links`](Store::links).
    pub fn unlink(&self, case: &str) -> Result<(), Fault> {
        self.change_links(|links| links.retain(|link| link.case != case))
    }

    /// Two processes may change the table, a verb and the daemon's child.
    fn change_links(&self, change: impl FnOnce(&mut Vec<Link>)) -> Result<(), Fault> {
        let lock = self.root().join("links.lock");
        let mut held = None;
        for _ in 0..ASKED {
            held = LockFile::take(&lock)?;
            if held.is_some() {
                break;
            }
            std::thread::sleep(BETWEEN);
        }
        let Some(_held) = held else {
            return Err(Fault::new(Code::DiskUnwritable, format!("{} is held by another process.", lock.display())));
        };
        let mut links = self.links()?;
        change(&mut links);
        let mut text = Vec::new();
        for link in &links {
            serde_json::to_writer(&mut text, link).map_err(|_| Fault::new(Code::InternalBug, "A link can not be written as JSON."))?;
            text.push(b'\n');
        }
        Ok(write_private(&self.root().join("links.jsonl"), &text)?)
    }
}

fn bad(line: usize) -> Fault {
    Fault::new(Code::TrainingCase, format!("links.jsonl: line {line} can not be read."))
}
