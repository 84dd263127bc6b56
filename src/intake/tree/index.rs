//! Which files each series has, so that what is asked of one series does not cost a walk over all files that are known.

use super::Stamp;
use crate::dicom::SeriesKey;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

/// The files of all series. Names are shared with the folders they are in.
#[derive(Default)]
pub(super) struct Index(BTreeMap<Arc<SeriesKey>, Files>);

/// The files of one series.
#[derive(Default)]
struct Files {
    folders: BTreeMap<Arc<Path>, BTreeSet<Arc<OsStr>>>,
    count: usize,
    /// The sum over the hash of each file: a file that comes or goes changes it without a look at the others.
    sum: u64,
}

impl Index {
    /// The key of a series as it is kept, if it has files.
    pub fn kept(&self, key: &SeriesKey) -> Option<Arc<SeriesKey>> {
        self.0.get_key_value(key).map(|(kept, _)| kept.clone())
    }

    pub fn add(&mut self, key: &Arc<SeriesKey>, folder: &Arc<Path>, name: &Arc<OsStr>, stamp: Stamp) {
        let files = self.0.entry(key.clone()).or_default();
        if files.folders.entry(folder.clone()).or_default().insert(name.clone()) {
            files.count += 1;
            files.sum = files.sum.wrapping_add(hash(folder, name, stamp));
        }
    }

    pub fn remove(&mut self, key: &SeriesKey, folder: &Path, name: &OsStr, stamp: Stamp) {
        let Some(files) = self.0.get_mut(key) else { return };
        let Some(names) = files.folders.get_mut(folder) else { return };
        if !names.remove(name) {
            return;
        }
        let empty = names.is_empty();
        files.count -= 1;
        files.sum = files.sum.wrapping_sub(hash(folder, name, stamp));
        if empty {
            files.folders.remove(folder);
        }
        if files.count == 0 {
            self.0.remove(key);
        }
    }

    /// Every series with the number that its files give.
    pub fn prints(&self) -> impl Iterator<Item = (&SeriesKey, u64)> {
        self.0.iter().map(|(key, files)| (&**key, files.sum))
    }

    /// The number that the files of a series give; none when it has none.
    pub fn print(&self, key: &SeriesKey) -> Option<u64> {
        self.0.get(key).map(|files| files.sum)
    }

    /// The folders that hold files of a series.
    pub fn folders(&self, key: &SeriesKey) -> impl Iterator<Item = &Arc<Path>> {
        self.0.get(key).into_iter().flat_map(|files| files.folders.keys())
    }

    /// Folder and name of each file of a series, in order.
    pub fn files(&self, key: &SeriesKey) -> impl Iterator<Item = (&Arc<Path>, &Arc<OsStr>)> {
        self.0
            .get(key)
            .into_iter()
            .flat_map(|files| &files.folders)
            .flat_map(|(folder, names)| names.iter().map(move |name| (folder, name)))
    }
}

fn hash(folder: &Path, name: &OsStr, stamp: Stamp) -> u64 {
    let mut hash = DefaultHasher::new();
    (folder, name, stamp).hash(&mut hash);
    hash.finish()
}
