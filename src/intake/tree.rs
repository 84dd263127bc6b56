//! What lies in the watched folders: every file with its stamp and the series it belongs to.
//!
//! A header is read once for each state of a file (size, modification time, inode) and then forgotten but for the series it names and a few numbers, so
//! that folders of a million files cost little memory. The headers of a series that is due are read again, all together.

mod index;

use super::scan::{self, ScanLimits};
use super::unusable::Unusable;
use super::watch::Dirty;
use crate::dicom::{Instance, RefusedFile, SeriesKey, read_identity};
use crate::fault::Code;
use crate::series::{self, Series, Trace, Wholeness};
use index::Index;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::ops::Bound;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folders below some roots.
pub struct Tree {
    roots: Vec<PathBuf>,
    limits: ScanLimits,
    folders: BTreeMap<Arc<Path>, Folder>,
    /// The files of `folders` by series.
    index: Index,
    /// Folders that may not be read, as they were told.
    unreadable: BTreeSet<PathBuf>,
    /// A sign of life.
    alive: Arc<dyn Fn() + Send + Sync>,
}

/// State of a file: another state, another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
    inode: u64,
}

impl Stamp {
    fn words(self) -> String {
        format!("{}-{}.{:09}-{}", self.size, self.seconds, self.nanoseconds, self.inode)
    }

    fn of(meta: &Metadata) -> Stamp {
        Stamp { size: meta.len(), seconds: meta.mtime(), nanoseconds: meta.mtime_nsec(), inode: meta.ino() }
    }
}

#[derive(Default)]
struct Folder {
    files: BTreeMap<Arc<OsStr>, Known>,
    folders: BTreeSet<OsString>,
    /// It holds more than the limits allow, and that was told.
    beyond: bool,
}

/// A file whose header was read in this state.
struct Known {
    stamp: Stamp,
    /// The series it is an image of, or would be if it were not refused.
    series: Option<Arc<SeriesKey>>,
    /// What it says about the series; none if it was refused.
    trace: Option<Trace>,
    /// It looks as if it were still being written; told once it turns out that it is not.
    unfinished: bool,
}

impl Known {
    /// An entry whose header is not read.
    fn unread(stamp: Stamp, unfinished: bool) -> Known {
        Known { stamp, series: None, trace: None, unfinished }
    }
}

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    /// By its name, still being written; or a hidden folder, where copying tools keep what is.
    Unfinished,
    /// A link, a pipe, a socket or a device.
    Special,
}

/// What a look found new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files whose header was read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The same of the files below each root.
    pub by_root: BTreeMap<PathBuf, (u64, u64)>,
    /// Those among them that can not be used, by code.
    pub refused: BTreeMap<Code, u64>,
    /// What is not used, but for whole objects that nobody expects to be: at most [`MOST_TOLD`].
    pub unusable: Vec<Unusable>,
    /// Series of whole objects that are never segmented, as far as that is told: at most [`MOST_TOLD`].
    pub others: BTreeMap<SeriesKey, Code>,
}

/// Entries that one look tells of by themselves; of more only the number is told.
pub const MOST_TOLD: usize = 10_000;

impl Found {
    fn tell(&mut self, path: &Path, stamp: Option<Stamp>, code: Code) {
        if !is_expected(code) && self.unusable.len() < MOST_TOLD {
            let (bytes, modified) = stamp.map_or((0, 0), |s| (s.size, s.seconds.saturating_mul(1000) + s.nanoseconds / 1_000_000));
            self.unusable.push(Unusable { path: path.into(), bytes, modified, code });
        }
    }
}

/// Objects that come with most studies.
fn is_expected(code: Code) -> bool {
    matches!(code, Code::InputSopClass | Code::InputSegmentation)
}

/// Says whether any file of a series changed: names and stamps of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Print(u64);

/// The files of a series, read together.
pub struct Loaded {
    /// Images whose headers could be read.
    pub instances: Vec<Instance>,
    /// Files that belong to the series and can not be used.
    pub refused: Vec<RefusedFile>,
    /// States of all its files.
    pub stamps: Stamps,
}

/// States of the files of a series.
#[derive(Debug, Default)]
pub struct Stamps(BTreeMap<PathBuf, Stamp>);

impl Stamps {
    /// Names what a volume of the series is made of, in hexadecimal: its instances, and size and modification time of each of its files.
    /// The same files in another folder have the same name; a file that was written anew gives another one.
    pub fn name(&self, volume: &Series) -> String {
        let paths: BTreeSet<&PathBuf> = volume.planes.iter().map(|plane| &plane.path).collect();
        let mut states: Vec<_> =
            paths.iter().filter_map(|path| self.0.get(*path)).map(|s| format!("{} {}.{:09}\n", s.size, s.seconds, s.nanoseconds)).collect();
        states.sort();
        let hash = states.iter().fold(Sha256::new_with_prefix(volume.instances_digest()), |hash, state| hash.chain_update(state));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Tree {
    /// The folders below `roots`, of which nothing is known yet. Links are not followed; hidden and temporary names are passed over.
    pub fn new(roots: Vec<PathBuf>, limits: ScanLimits) -> Tree {
        let (folders, index) = (BTreeMap::new(), Index::default());
        Tree { roots, limits, folders, index, unreadable: BTreeSet::new(), alive: Arc::new(|| {}) }
    }

    /// The same, which calls `alive` with every folder and file that it reads.
    pub fn telling(self, alive: Arc<dyn Fn() + Send + Sync>) -> Tree {
        Tree { alive, ..self }
    }

    /// Looks at the folders that changed, and below those that are new. A root that can not be read is an error of that root alone:
    /// what was known of it stays.
    pub fn look(&mut self, dirty: Dirty) -> (Found, Vec<(PathBuf, std::io::Error)>) {
        let (mut errors, mut found) = (Vec::new(), Found::default());
        let everything = dirty == Dirty::All;
        let mut line: Vec<PathBuf> = match dirty {
            Dirty::All => self.roots.clone(),
            Dirty::Folders(folders) => folders.into_iter().filter(|f| self.folders.contains_key(f.as_path())).collect(),
        };
        let mut news: Vec<(PathBuf, Stamp)> = Vec::new();
        while let Some(folder) = line.pop() {
            (self.alive)();
            match self.list(&folder, everything, &mut news, &mut found) {
                Ok(new) => {
                    self.unreadable.remove(&folder);
                    let below = self.folders.get(folder.as_path()).map(|f| &f.folders);
                    let again = below.into_iter().flatten().filter(|_| everything).map(|name| folder.join(name));
                    line.extend(again.chain(new).collect::<BTreeSet<_>>());
                }
                Err(e) if self.roots.contains(&folder) => errors.push((folder, e)),
                // It went away, or may not be read: so its files are not there for us.
                Err(e) => {
                    self.forget(&folder);
                    if e.kind() != std::io::ErrorKind::NotFound && self.unreadable.insert(folder.clone()) {
                        found.tell(&folder, None, Code::InputUnreadableFile);
                    }
                }
            }
        }
        self.read(news, &mut found);
        (found, errors)
    }

    /// The series that are there now, each with its print.
    pub fn series(&self) -> BTreeMap<SeriesKey, Print> {
        self.index.prints().map(|(key, print)| (key.clone(), Print(print))).collect()
    }

    /// How many files each of these series has, and whether they look like all of it.
    pub fn progress(&self, series: &[SeriesKey]) -> BTreeMap<SeriesKey, (usize, Wholeness)> {
        let judge = |key: &SeriesKey| {
            let traces: Vec<Option<&Trace>> = self.files(key).map(|(.., known)| known.trace.as_ref()).collect();
            let broken = traces.contains(&None);
            (traces.len(), series::wholeness(traces.into_iter().flatten(), broken))
        };
        series.iter().map(|key| (key.clone(), judge(key))).collect()
    }

    /// The print of one series as a number, the same for every process of this version; none when it is not there.
    pub fn print(&self, series: &SeriesKey) -> Option<u64> {
        self.index.print(series)
    }

    /// The files of a series, each with words that name its state: when they change, so did the file.
    pub fn files_of(&self, series: &SeriesKey) -> Vec<(PathBuf, String)> {
        self.files(series).map(|(folder, name, known)| (folder.join(name), known.stamp.words())).collect()
    }

    /// The folders that hold files of a series.
    pub fn folders_of(&self, series: &SeriesKey) -> BTreeSet<PathBuf> {
        self.index.folders(series).map(|folder| folder.to_path_buf()).collect()
    }

    /// Reads all headers of a series; of one with more planes than the limit none are kept, and it says so. `None` when a file of it is
    /// no longer as it was seen.
    pub fn load(&self, series: &SeriesKey) -> Option<Loaded> {
        let files: Vec<(PathBuf, Stamp)> = self.files(series).map(|(folder, name, known)| (folder.join(name), known.stamp)).collect();
        let mut read = Vec::new();
        let mut planes = files.len();
        for batch in files.chunks(scan::BATCH) {
            if planes <= self.limits.planes {
                let done = read.len();
                read.par_extend(batch.par_iter().with_min_len(16).map(|(path, _)| self.read_file(path)));
                // Each file was counted as one plane until its header was read.
                let counted = read[done..].iter().map(|result| result.as_ref().map_or(1, |instance| instance.frames.len()));
                planes = planes - batch.len() + counted.sum::<usize>();
            }
        }
        if planes > self.limits.planes {
            let first = files.first().map_or_else(PathBuf::new, |(path, _)| self.relative(path));
            read = vec![Err(scan::too_many(first, series.clone(), planes, &self.limits))];
        }
        let unchanged = files.par_iter().all(|(path, stamp)| fs::symlink_metadata(path).is_ok_and(|meta| Stamp::of(&meta) == *stamp));
        let stamps = Stamps(files.into_iter().collect());
        let mut loaded = Loaded { instances: Vec::with_capacity(read.len()), refused: Vec::new(), stamps };
        for result in read {
            match result {
                Ok(instance) => loaded.instances.push(instance),
                Err(refused) => loaded.refused.push(refused),
            }
        }
        // Without what the disk does not give now it would be judged as a series that lacks it.
        let is_whole = loaded.refused.iter().all(|refused| refused.code != Code::DiskUnreadable);
        (unchanged && is_whole).then_some(loaded)
    }

    /// Files that are known.
    pub fn len(&self) -> usize {
        self.folders.values().map(|f| f.files.len()).sum()
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files of a series, by folder and name.
    fn files(&self, series: &SeriesKey) -> impl Iterator<Item = (&Path, &OsStr, &Known)> {
        self.index.files(series).filter_map(|(folder, name)| Some((&**folder, &**name, self.folders.get(folder)?.files.get(name)?)))
    }

    fn relative(&self, path: &Path) -> PathBuf {
        let root = self.roots.iter().find_map(|root| path.strip_prefix(root).ok());
        root.unwrap_or(path).to_path_buf()
    }

    /// Takes a folder, and what is below it, as gone.
    fn forget(&mut self, folder: &Path) {
        let from = (Bound::Included(folder), Bound::Unbounded);
        // Paths are ordered by their components, so what lies in a folder stands behind it.
        let gone: Vec<Arc<Path>> =
            self.folders.range::<Path, _>(from).map(|(path, _)| path).take_while(|path| path.starts_with(folder)).cloned().collect();
        for path in gone {
            for (name, known) in self.folders.remove(&path).unwrap_or_default().files {
                if let Some(series) = &known.series {
                    self.index.remove(series, &path, &name, known.stamp);
                }
            }
        }
    }

    fn read_file(&self, path: &Path) -> Result<Instance, RefusedFile> {
        (self.alive)();
        scan::read_file(path, self.relative(path), &self.limits)
    }

    /// The series of an object of any kind.
    fn series_of(&self, path: &Path) -> Option<SeriesKey> {
        let identity = read_identity(path, &self.limits.file).ok()?;
        Some(SeriesKey { study: identity.study_uid.to_string(), series: identity.series_uid.to_string() })
    }

    /// Compares a folder with what is known of it: files in a new state are added to `news`, new folders are returned. What is not read is
    /// told of in `found`: at once, or, if it may still be being written, when a look at everything finds it as the one before did.
    fn list(
        &mut self,
        folder: &Path,
        everything: bool,
        news: &mut Vec<(PathBuf, Stamp)>,
        found: &mut Found,
    ) -> std::io::Result<Vec<PathBuf>> {
        let Entries { files, folders, beyond } = entries(folder, self.limits.entries)?;
        let (path, mut known) = self.folders.remove_entry(folder).unwrap_or_else(|| (folder.into(), Folder::default()));
        let index = &mut self.index;
        known.files.retain(|name, file| {
            let is_same = files.get(&**name).is_some_and(|(stamp, _)| *stamp == file.stamp);
            if let Some(series) = file.series.as_ref().filter(|_| !is_same) {
                index.remove(series, &path, name, file.stamp);
            }
            is_same
        });
        for (name, (stamp, kind)) in files {
            match (known.files.get_mut(name.as_os_str()), kind) {
                (Some(file), _) if everything && file.unfinished => {
                    file.unfinished = false;
                    found.tell(&folder.join(&name), Some(stamp), Code::InputTemporary);
                }
                (Some(_), _) => {}
                (None, Kind::File) => news.push((folder.join(name), stamp)),
                (None, Kind::Unfinished) => drop(known.files.insert(name.into(), Known::unread(stamp, true))),
                (None, Kind::Special) => {
                    *found.refused.entry(Code::InputSpecialFile).or_default() += 1;
                    found.tell(&folder.join(&name), Some(stamp), Code::InputSpecialFile);
                    known.files.insert(name.into(), Known::unread(stamp, false));
                }
            }
        }
        for gone in known.folders.difference(&folders) {
            self.forget(&folder.join(gone));
        }
        let deep = self.relative(folder).components().count() >= self.limits.depth;
        let new: Vec<PathBuf> = folders.difference(&known.folders).map(|name| folder.join(name)).collect();
        if beyond && !known.beyond {
            found.tell(folder, None, Code::InputTooMany);
        }
        if deep {
            new.iter().for_each(|below| found.tell(below, None, Code::InputTooMany));
        }
        (known.folders, known.beyond) = (folders, beyond);
        self.folders.insert(path, known);
        Ok(if deep { Vec::new() } else { new })
    }

    /// Reads the headers of new files and files them.
    fn read(&mut self, news: Vec<(PathBuf, Stamp)>, found: &mut Found) {
        let headers: Vec<_> = news
            .par_iter()
            .with_min_len(16)
            .map(|(path, _)| match self.read_file(path) {
                Ok(i) => (Some(i.series_key()), Ok(series::trace(&i)), None),
                Err(refused) => (refused.member_of, Err(refused.code), is_expected(refused.code).then(|| self.series_of(path)).flatten()),
            })
            .collect();
        for ((path, stamp), (series, read, other)) in news.into_iter().zip(headers) {
            if let (Err(code), Some(other)) = (&read, other)
                && found.others.len() < MOST_TOLD
            {
                found.others.insert(other, *code);
            }
            found.files += 1;
            found.bytes += stamp.size;
            if let Some(root) = self.roots.iter().find(|root| path.starts_with(root)) {
                let (files, bytes) = found.by_root.entry(root.clone()).or_default();
                (*files, *bytes) = (*files + 1, *bytes + stamp.size);
            }
            let unfinished = matches!(read, Err(Code::InputTemporary));
            if let Err(code) = read {
                *found.refused.entry(code).or_default() += 1;
                if code == Code::DiskUnreadable {
                    // Not remembered: the next look reads it again.
                    continue;
                }
                if !unfinished {
                    found.tell(&path, Some(stamp), code);
                }
            }
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let Some((parent, _)) = self.folders.get_key_value(parent) else { continue };
            let (parent, name) = (parent.clone(), Arc::<OsStr>::from(name));
            let series = series.map(|key| self.index.kept(&key).unwrap_or_else(|| Arc::new(key)));
            let Some(folder) = self.folders.get_mut(&parent) else { continue };
            let known = Known { stamp, series: series.clone(), trace: read.ok(), unfinished };
            // Where a folder was listed twice.
            if let Some(Known { stamp, series: Some(series), .. }) = folder.files.insert(name.clone(), known) {
                self.index.remove(&series, &parent, &name, stamp);
            }
            if let Some(series) = &series {
                self.index.add(series, &parent, &name, stamp);
            }
        }
    }
}

/// What is in a folder.
#[derive(Default)]
struct Entries {
    /// Everything that is not a folder to be looked into.
    files: BTreeMap<OsString, (Stamp, Kind)>,
    folders: BTreeSet<OsString>,
    /// There is more than the limit, which is not looked at.
    beyond: bool,
}

/// The state of a file as [`Tree::files_of`] names it; none when it is not there.
pub fn state_of(path: &Path) -> Option<String> {
    Some(Stamp::of(&fs::symlink_metadata(path).ok()?).words())
}

/// Lists a folder; at most `limit` entries. Links are not followed, and nothing is opened.
fn entries(folder: &Path, limit: usize) -> std::io::Result<Entries> {
    let mut listed = Entries::default();
    let mut read = fs::read_dir(folder)?;
    for entry in read.by_ref().take(limit) {
        // An entry that vanishes meanwhile is none of ours any more.
        let Ok(entry) = entry else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name();
        let kind = match () {
            () if meta.is_dir() && !scan::is_hidden(&name) => {
                listed.folders.insert(name);
                continue;
            }
            () if meta.is_dir() => Kind::Unfinished,
            () if !meta.is_file() => Kind::Special,
            () if scan::is_temporary(&name) => Kind::Unfinished,
            () => Kind::File,
        };
        listed.files.insert(name, (Stamp::of(&meta), kind));
    }
    listed.beyond = read.next().is_some();
    Ok(listed)
}

#[cfg(test)]
pub(super) mod tests;
