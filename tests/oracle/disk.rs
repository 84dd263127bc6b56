//! A disk that keeps only what was synced, and that can fail: `disk.c`, preloaded into the daemon.
//!
//! The shim copies what a file or folder holds whenever the daemon syncs it. [`Disk::cut`] puts that in the place of the real folders: what
//! a power loss would leave. The file system may have written names early ([`Names::Kept`]: a rename or a new file that nobody synced is
//! there, without the bytes that nobody synced) or late ([`Names::Lost`]); both are allowed to it, so both have to be survived.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

/// What a power loss does with names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// A folder is as at its last sync.
    Lost,
    /// It is as it was; only bytes are lost.
    Kept,
}

/// What else the shim does to a run of the daemon.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The changes from this one on fail with this error, until the disk is [healed](Disk::heal).
    pub fail: Option<(u64, i32)>,
    /// The same for reads.
    pub fail_reads: Option<(u64, i32)>,
    /// Seconds that the wall clock is wrong by, from the start on.
    pub clock: i64,
}

/// A folder that is a disk.
pub struct Disk {
    root: PathBuf,
    image: PathBuf,
    shim: PathBuf,
    /// A sync that is taken out of the code, as it were: `file:` or `folder:` and a part of the path.
    pub forget: Option<&'static str>,
    pub faults: Faults,
}

impl Disk {
    /// A disk in `root/disk` that holds these folders; none when there is no compiler for the shim.
    pub fn new(root: &Path, folders: &[&str]) -> Option<Disk> {
        static SHIM: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
        let shim = SHIM.get_or_init(build).as_ref()?.path().join("disk.so");
        let (disk, image) = (root.join("disk"), root.join("image"));
        for folder in [&disk, &image] {
            std::fs::create_dir(folder).expect("folder");
        }
        folders.iter().for_each(|folder| std::fs::create_dir(disk.join(folder)).expect("folder"));
        let disk = Disk { root: disk, image, shim, forget: None, faults: Faults::default() };
        disk.remember(&disk.root);
        Some(disk)
    }

    /// Has a daemon live on it.
    pub fn mount(&self, command: &mut Command) {
        for mark in ["failing", "healed"] {
            // Not there the first time.
            let _ = std::fs::remove_file(self.image.join(mark));
        }
        command.env("LD_PRELOAD", &self.shim).env("ORACLE_DISK", &self.root).env("ORACLE_IMAGE", &self.image);
        std::fs::write(self.shared(), [[0; 8], [0; 8], self.faults.clock.to_ne_bytes()].concat()).expect("written");
        if let Some(what) = self.forget {
            command.env("ORACLE_FORGET", what);
        }
        if let Some((first, error)) = self.faults.fail {
            command.env("ORACLE_FAIL", format!("{first}:{error}"));
        }
        if let Some((first, error)) = self.faults.fail_reads {
            command.env("ORACLE_FAIL_READS", format!("{first}:{error}"));
        }
    }

    fn shared(&self) -> PathBuf {
        self.image.join("shared")
    }

    /// Changes and reads so far of the daemon that runs, or ran last.
    pub fn counts(&self) -> (u64, u64) {
        let bytes = std::fs::read(self.shared()).expect("read");
        let number = |i: usize| u64::from_ne_bytes(bytes[8 * i..][..8].try_into().expect("eight bytes"));
        (number(0), number(1))
    }

    /// Sets the wall clock of the daemon that runs: wrong by so many seconds from now on.
    pub fn set_clock(&mut self, seconds: i64) {
        self.faults.clock = seconds;
        let file = File::options().write(true).open(self.shared()).expect("opened");
        file.write_all_at(&seconds.to_ne_bytes(), 16).expect("written");
    }

    /// Whether a change has failed in this run.
    pub fn has_failed(&self) -> bool {
        self.image.join("failing").exists()
    }

    /// Changes succeed again.
    pub fn heal(&self) {
        std::fs::write(self.image.join("healed"), []).expect("written");
    }

    /// The power is cut, and comes back. No daemon may run.
    pub fn cut(&self, names: Names) {
        let after = self.root.with_extension("after");
        std::fs::create_dir(&after).expect("folder");
        let mut files = BTreeMap::new();
        find(&self.root, &mut files);
        self.restore(&self.plan(&self.root, &key(&self.root), names), &after, &mut files);
        std::fs::remove_dir_all(&self.root).expect("removed");
        rename(&after, &self.root);
        // What is there now is durable, under the names that it has now.
        let old = self.image.with_extension("old");
        rename(&self.image, &old);
        std::fs::create_dir(&self.image).expect("folder");
        self.remember(&self.root);
        std::fs::remove_dir_all(&old).expect("removed");
    }

    /// What is durable of a folder and all below it.
    fn plan(&self, live: &Path, folder: &str, names: Names) -> Vec<Entry> {
        let inside = |(is_folder, key, name): (bool, String, String)| {
            let entries = is_folder.then(|| self.plan(&live.join(&name), &key, names));
            Entry { key, name, entries }
        };
        self.entries(live, folder, names).into_iter().map(inside).collect()
    }

    /// Makes it. A file that is still there stays the file that it is, with the bytes that were synced; one of which nothing was synced is
    /// empty.
    fn restore(&self, plan: &[Entry], to: &Path, files: &mut BTreeMap<String, PathBuf>) {
        for entry in plan {
            let to = to.join(&entry.name);
            if let Some(entries) = &entry.entries {
                std::fs::create_dir(&to).expect("folder");
                self.restore(entries, &to, files);
                continue;
            }
            let durable = std::fs::read(self.image.join(&entry.key)).unwrap_or_default();
            match files.remove(&entry.key) {
                Some(path) => {
                    rename(&path, &to);
                    if std::fs::read(&to).expect("read") != durable {
                        let changed = std::fs::metadata(&to).and_then(|meta| meta.modified()).expect("metadata");
                        std::fs::write(&to, durable).expect("written");
                        File::options().write(true).open(&to).and_then(|file| file.set_modified(changed)).expect("its date");
                    }
                }
                None => std::fs::write(&to, durable).expect("written"),
            }
        }
    }

    /// Whether each is a folder, what names it for ever, and its name.
    fn entries(&self, live: &Path, folder: &str, names: Names) -> Vec<(bool, String, String)> {
        match names {
            Names::Kept => listing(live),
            Names::Lost => {
                let text = std::fs::read_to_string(self.image.join(folder)).unwrap_or_default();
                let line = |line: &str| {
                    let mut parts = line.splitn(3, ' ');
                    let mut next = || parts.next().expect("a line of the shim").to_owned();
                    (next() == "d", next(), next())
                };
                text.lines().map(line).collect()
            }
        }
    }

    fn remember(&self, folder: &Path) {
        let mut text = String::new();
        for (is_folder, entry, name) in listing(folder) {
            text += &format!("{} {entry} {name}\n", if is_folder { 'd' } else { 'f' });
            let path = folder.join(&name);
            if is_folder {
                self.remember(&path);
            } else {
                std::fs::copy(&path, self.image.join(&entry)).expect("copied");
            }
        }
        std::fs::write(self.image.join(key(folder)), text).expect("written");
    }
}

/// Compiles the shim, where there is a compiler.
fn build() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().expect("folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/disk.c");
    let built =
        Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(folder.path().join("disk.so")).arg(source).arg("-ldl").status();
    built.is_ok_and(|status| status.success()).then_some(folder)
}

/// Something that is durable.
struct Entry {
    key: String,
    name: String,
    /// Of a folder.
    entries: Option<Vec<Entry>>,
}

/// All files below a folder.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for (is_folder, key, name) in listing(folder) {
        let path = folder.join(name);
        if is_folder {
            find(&path, files);
        } else {
            files.insert(key, path);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "not the daemon's data")]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("renamed");
}

fn listing(folder: &Path) -> Vec<(bool, String, String)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("entry"));
    // A socket is nothing to a disk.
    let kept = entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir() || t.is_file()));
    kept.map(|entry| (entry.path().is_dir(), key(&entry.path()), entry.file_name().into_string().expect("a name of ours"))).collect()
}

/// As in `disk.c`.
fn key(path: &Path) -> String {
    let meta = std::fs::symlink_metadata(path).expect("metadata");
    let born = meta.created().expect("a file system that tells").duration_since(UNIX_EPOCH).expect("after 1970");
    format!("{}-{}.{}", meta.st_ino(), born.as_secs(), born.subsec_nanos())
}
