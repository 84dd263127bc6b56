//! Notices changes below the watched folders, so that the next scan runs sooner and looks at less.
//!
//! The scan is the truth. A notice that is lost (the kernel's queue overflows, a network file system says nothing) only
//! means that the periodic scan finds the change.

use crossbeam::channel::{Receiver, Sender, bounded};
use notify::{Event, EventKind, RecursiveMode, Watcher as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// With more changed folders than this a look at everything is cheaper.
const MANY: usize = 10_000;

/// What has to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// These folders, not what is below them.
    Folders(BTreeSet<PathBuf>),
    /// Everything.
    All,
}

impl Dirty {
    /// Nothing.
    pub fn none() -> Dirty {
        Dirty::Folders(BTreeSet::new())
    }

    /// Whether there is nothing to look at.
    pub fn is_none(&self) -> bool {
        matches!(self, Dirty::Folders(folders) if folders.is_empty())
    }

    /// Adds a folder.
    pub fn add(&mut self, folder: PathBuf) {
        if let Dirty::Folders(folders) = self {
            folders.insert(folder);
            if folders.len() > MANY {
                *self = Dirty::All;
            }
        }
    }
}

/// Listens to the system's notices until dropped.
pub struct Watcher {
    notices: Arc<Notices>,
    rung: Receiver<()>,
    // Stops listening when dropped.
    _inner: Option<notify::RecommendedWatcher>,
}

struct Notices {
    dirty: Mutex<Dirty>,
    bell: Sender<()>,
}

impl Watcher {
    /// Listens below `roots`. When the system can not (no more watches, a file system without notices) the second value
    /// says why, and only the periodic scans find changes.
    pub fn start(roots: &[PathBuf]) -> (Watcher, Option<String>) {
        let (bell, rung) = bounded(1);
        let notices = Arc::new(Notices { dirty: Mutex::new(Dirty::All), bell });
        notices.ring();
        let (inner, problem) = match listen(roots, notices.clone()) {
            Ok(inner) => (Some(inner), None),
            Err(e) => (None, Some(e.to_string())),
        };
        (Watcher { notices, rung, _inner: inner }, problem)
    }

    /// For `select!`: ready when something changed since the last [`Watcher::take`].
    pub fn rung(&self) -> &Receiver<()> {
        &self.rung
    }

    /// What changed; from here on changes are gathered anew. Everything counts as changed at first.
    pub fn take(&self) -> Dirty {
        let _ = self.rung.try_recv();
        std::mem::replace(&mut *self.notices.lock(), Dirty::none())
    }
}

fn listen(roots: &[PathBuf], notices: Arc<Notices>) -> notify::Result<notify::RecommendedWatcher> {
    let mut inner = notify::recommended_watcher(move |event| notices.note(event))?;
    for root in roots {
        inner.watch(root, RecursiveMode::Recursive)?;
    }
    Ok(inner)
}

impl Notices {
    fn note(&self, event: notify::Result<Event>) {
        let mut dirty = self.lock();
        match event {
            Ok(event) if event.need_rescan() => *dirty = Dirty::All,
            // Reading files is what we do ourselves.
            Ok(Event { kind: EventKind::Access(access), .. }) if !closed_after_writing(access) => return,
            Ok(event) => event.paths.iter().flat_map(|p| folders_of(p)).for_each(|f| dirty.add(f)),
            Err(_) => *dirty = Dirty::All,
        }
        drop(dirty);
        self.ring();
    }

    fn ring(&self) {
        // Full: it is ringing already.
        let _ = self.bell.try_send(());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed_after_writing(access: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    access == AccessKind::Close(AccessMode::Write)
}

/// The folder an entry is in, and the entry itself, which may be a folder that came with all that is in it.
fn folders_of(path: &Path) -> impl Iterator<Item = PathBuf> {
    path.parent().map(Path::to_path_buf).into_iter().chain([path.to_path_buf()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Waits until a change in `folder` was noticed.
    fn noticed(watcher: &Watcher, folder: &Path) {
        loop {
            watcher.rung().recv_timeout(Duration::from_secs(20)).expect("a notice");
            match watcher.take() {
                Dirty::All => return,
                Dirty::Folders(folders) if folders.contains(folder) => return,
                Dirty::Folders(_) => {}
            }
        }
    }

    #[test]
    fn changes_ring_and_name_their_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let (watcher, problem) = Watcher::start(&[dir.path().to_path_buf()]);
        assert_eq!(problem, None);
        assert_eq!(watcher.take(), Dirty::All);
        assert_eq!(watcher.take(), Dirty::none());
        std::fs::write(dir.path().join("a"), b"1").expect("file");
        noticed(&watcher, dir.path());
        let below = dir.path().join("b");
        std::fs::create_dir(&below).expect("folder");
        noticed(&watcher, &below);
        std::fs::remove_file(dir.path().join("a")).expect("removed");
        noticed(&watcher, dir.path());
    }

    #[test]
    fn a_folder_that_can_not_be_watched_leaves_the_scans() {
        let (watcher, problem) = Watcher::start(&[PathBuf::from("/does/not/exist")]);
        assert!(problem.is_some());
        assert_eq!(watcher.take(), Dirty::All);
    }

    #[test]
    fn many_folders_become_everything() {
        let mut dirty = Dirty::none();
        for i in 0..=MANY {
            dirty.add(PathBuf::from(i.to_string()));
        }
        assert_eq!(dirty, Dirty::All);
    }
}
