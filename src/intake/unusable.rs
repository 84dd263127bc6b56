//! Files that can not be used, told so that each of them can be found again, without writing down what its name says: names of watched files
//! may hold patient data.

use crate::fault::Code;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An entry of a watched folder that can not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Where it is. Never part of a log line, nor of the ledger.
    pub path: PathBuf,
    /// Its size in bytes; 0 for folders.
    pub bytes: u64,
    /// When it was last modified, ms since 1970 UTC; 0 for folders.
    pub modified: i64,
    /// Why.
    pub code: Code,
}

/// Stands for a path: the same for every look by the ledger that `key` names, and nothing to anybody else.
pub fn place(key: &str, path: &Path) -> String {
    let hash = Sha256::new_with_prefix(key).chain_update([0]).chain_update(path.as_os_str().as_bytes()).finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Which of these places lie below `roots` now. Links are not followed.
pub fn find(key: &str, places: &BTreeSet<String>, roots: &[PathBuf]) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut line: Vec<PathBuf> = roots.to_vec();
    while let Some(folder) = line.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = place(key, &path);
            if places.contains(&name) {
                found.push((name, path.clone()));
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                line.push(path);
            }
        }
        if found.len() == places.len() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_again_by_whoever_has_the_key() {
        let root = tempfile::tempdir().expect("folder");
        let below = root.path().join("a/b");
        fs::create_dir_all(&below).expect("folders");
        let path = below.join("NAME^OF.dcm");
        fs::write(&path, b"x").expect("file");
        let name = place("k", &path);
        assert_ne!(name, place("l", &path));
        let places = BTreeSet::from([name.clone(), place("k", Path::new("/gone"))]);
        assert_eq!(find("k", &places, &[root.path().to_path_buf()]), [(name, path)]);
        assert_eq!(find("l", &places, &[root.path().to_path_buf()]), []);
    }
}
