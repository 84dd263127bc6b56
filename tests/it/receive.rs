//! Studies from the network, through the daemon: dcmtk sends, and clients that misbehave.
//!
//! The daemon runs in this process with a scripted engine and a clock that is moved by hand; sockets, disk and codecs are real.

pub mod dimse;
mod many;
pub mod peers;
mod program;
mod retention;
mod stow;

use crate::serve::daemon::{World, free_port};
use std::path::{Path, PathBuf};
use stunetd::config::{Dimse, Listen};

/// A world whose daemon listens for DICOM at the port, with more of a configuration.
pub fn world(change: impl Fn(&mut Dimse) + 'static) -> (World, u16) {
    let port = free_port();
    let mut world = World::new();
    world.configure = Box::new(move |config| {
        config.dimse.listen = Listen(Some(([127, 0, 0, 1], port).into()));
        change(&mut config.dimse);
    });
    (world, port)
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in peers::files(&folder) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The received files: whole ones, and those that are still coming.
fn spooled(world: &World) -> (Vec<PathBuf>, Vec<PathBuf>) {
    (files_below(&world.spool().join("series")), files_below(&world.spool().join("incoming")))
}
