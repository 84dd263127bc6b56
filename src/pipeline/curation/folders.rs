//! Folders of cases: which there are, and whether they are whole.

use crate::dicom::guard::Limits;
use crate::dicom::read_identity;
use crate::intake::scan::is_temporary;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 100_000;
/// Folders within folders.
const MAX_DEPTH: usize = 16;

/// The folders directly below a root, by name; none when it can not be read. Hidden and unfinished ones are left out.
pub fn below(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let plain = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        !name.as_encoded_bytes().starts_with(b".") && !is_temporary(&name) && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    let mut folders: Vec<PathBuf> = entries.take(MAX_ENTRIES).flatten().filter(plain).map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// What a folder is like: a digest over names, sizes and times of change. None when it is empty, can not be read, or holds a file that is being
/// written.
pub fn print_of(folder: &Path) -> Option<String> {
    let mut files = Vec::new();
    collect(folder, 0, &mut files)?;
    if files.is_empty() {
        return None;
    }
    files.sort();
    let mut hash = Sha256::new();
    for (path, size, changed) in files {
        let name = path.as_os_str().as_encoded_bytes();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update(size.to_le_bytes());
        hash.update(changed.to_le_bytes());
    }
    Some(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, u64, u128)>) -> Option<()> {
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let (path, kind) = (entry.path(), entry.file_type().ok()?);
        if is_temporary(&entry.file_name()) || files.len() >= MAX_ENTRIES || depth > MAX_DEPTH {
            return None;
        }
        if kind.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() {
            let meta = entry.metadata().ok()?;
            let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            files.push((path, meta.len(), changed));
        }
    }
    Some(())
}

/// Whether a received file is a segmentation or a structure set.
pub fn is_label_object(path: &Path) -> bool {
    const CLASSES: [&str; 3] = ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.481.3"];
    let limits = Limits { elements: 8_000_000, kept_bytes: 512 << 20, frames: 200_000, fragments: 200_000, ..Limits::default() };
    read_identity(path, &limits).is_ok_and(|identity| CLASSES.contains(&identity.sop_class_uid.as_str()))
}

/// Since when folders are as they are.
pub struct Settling {
    quiet: Duration,
    since: BTreeMap<PathBuf, (String, Instant)>,
}

impl Settling {
    /// A folder has settled when it stays as it is for this long.
    pub fn new(quiet: Duration) -> Settling {
        Settling { quiet, since: BTreeMap::new() }
    }

    /// Whether it has.
    pub fn is_settled(&mut self, folder: &Path, print: &str, now: Instant) -> bool {
        match self.since.get(folder) {
            Some((same, since)) if same == print => now.saturating_duration_since(*since) >= self.quiet,
            _ => {
                self.since.insert(folder.into(), (print.into(), now));
                self.quiet.is_zero()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::{Clock, SystemClock};

    #[test]
    fn a_folder_has_settled_when_nothing_changes_for_the_quiet_time() {
        let mut settling = Settling::new(Duration::from_secs(10));
        let start = SystemClock.monotonic();
        let mut at = |seconds: u64, print: &str| settling.is_settled(Path::new("/c/1"), print, start + Duration::from_secs(seconds));
        let seen = [at(0, "a"), at(9, "a"), at(10, "a"), at(11, "b"), at(20, "b"), at(21, "b")];
        assert_eq!(seen, [false, false, true, false, false, true]);
    }

    #[test]
    fn a_print_tells_every_change_and_waits_for_unfinished_files() {
        let root = tempfile::tempdir().expect("folder");
        let case = root.path().join("case");
        fs::create_dir_all(case.join("image")).expect("folder");
        fs::create_dir(root.path().join(".hidden")).expect("folder");
        assert_eq!((below(root.path()), print_of(&case)), (vec![case.clone()], None));
        fs::write(case.join("image/1.dcm"), b"1").expect("written");
        let first = print_of(&case).expect("something there");
        fs::write(case.join("labels.dcm"), b"22").expect("written");
        let second = print_of(&case).expect("something there");
        assert_ne!(first, second);
        assert_eq!(print_of(&case).as_deref(), Some(second.as_str()));
        fs::write(case.join("more.dcm.part"), b"").expect("written");
        assert_eq!(print_of(&case), None, "a file that is being written");
        assert!(below(&root.path().join("none")).is_empty() && !is_label_object(&case.join("labels.dcm")));
    }
}
