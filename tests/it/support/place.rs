//! Where the repository, the program under test and the shared data lie. Benches use this file too.
#![allow(dead_code, reason = "each user takes a part of it")]

use std::path::{Path, PathBuf};

/// The repository, or the folder that `$STUNETD_ROOT` names in its place: one with the same `tests/goldens`, `models` and
/// `target/release/stunetd`, where tests and benches run away from the repository.
pub fn root() -> PathBuf {
    std::env::var_os("STUNETD_ROOT").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// The program under test.
pub fn stunetd() -> PathBuf {
    match std::env::var_os("STUNETD_ROOT") {
        Some(root) => Path::new(&root).join("target/release/stunetd"),
        None => env!("CARGO_BIN_EXE_stunetd").into(),
    }
}

/// `$STUNETD_SHARED` or `../shared`, if it is there.
pub fn shared() -> Option<PathBuf> {
    let path = std::env::var_os("STUNETD_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    path.join("goldens").is_dir().then_some(path)
}
