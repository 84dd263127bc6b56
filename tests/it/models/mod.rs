//! Models on disk: import of both nnU-Net versions, model folders, the verbs of `stunetd model`.

mod folders;
mod goldens;
mod plans_v1;
mod plans_v2;
mod store;
mod unharmed;

use std::path::{Path, PathBuf};
use stunetd::fault::Fault;
use stunetd::models::import::{ImportOptions, Imported, import};
use stunetd::stunet::Architecture;

/// A scratch folder and a name in it that does not exist.
pub fn out() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("made");
    (folder, path)
}

pub fn imported(source: &Path, out: &Path, options: &ImportOptions) -> Result<Imported, Fault> {
    import(source, out, options, &mut |_, _| true)
}

/// Names in a folder, hidden ones too.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("folder");
    let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A network of a few thousand weights.
fn small(in_channels: usize, num_classes: usize) -> Architecture {
    let strides = [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]];
    Architecture { in_channels, num_classes, dims: [1, 2, 2, 2, 3, 3], depth: [1; 6], kernels: [[3; 3]; 6], strides }
}
