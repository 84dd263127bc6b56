//! Walking a folder: which regular files are there, and what their headers say.

use crate::dicom::{Instance, RefusedFile, SeriesKey, guard, read_instance};
use crate::fault::{Code, Fault};
use crate::series::MOST_PLANES;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Headers that are read before their planes are counted.
pub(super) const BATCH: usize = 4096;

/// What a folder may hold.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Files and folders in all.
    pub entries: usize,
    /// Folders within folders.
    pub depth: usize,
    /// Planes of a series: the headers of one that has more are not kept.
    pub planes: usize,
    /// Limits on each file.
    pub file: guard::Limits,
}

impl Default for ScanLimits {
    fn default() -> ScanLimits {
        ScanLimits { entries: 1_000_000, depth: 512, planes: MOST_PLANES, file: guard::Limits::default() }
    }
}

/// What was found, ordered by relative path.
#[derive(Debug, Default)]
pub struct Scan {
    /// CT and PET images whose headers could be read.
    pub instances: Vec<Instance>,
    /// Everything else, each with its reason. Paths are relative to the root.
    pub ignored: Vec<RefusedFile>,
}

impl Scan {
    /// Whether there was no file at all.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.ignored.is_empty()
    }
}

/// Reads the headers of all regular files below `root` (or of `root` itself, when it is a file), in parallel.
///
/// Links are never followed: what they point to inside the root is found by itself, what lies outside does not belong to the input.
/// Errors: the root does not exist or can not be read, or holds more than the limits allow.
pub fn scan(root: &Path, limits: &ScanLimits) -> Result<Scan, Fault> {
    let missing = |e: std::io::Error| Fault::new(Code::ConfigInputMissing, format!("{}.", e.kind())).caused_by(e);
    let root = fs::canonicalize(root).map_err(missing)?;
    let listing = if fs::metadata(&root).map_err(missing)?.is_dir() {
        list(&root, limits)?
    } else {
        let name = root.file_name().map(PathBuf::from).unwrap_or_default();
        Listing { files: vec![(root.clone(), name)], ignored: Vec::new() }
    };
    let mut scan = Scan { instances: Vec::new(), ignored: listing.ignored };
    let mut planes: HashMap<SeriesKey, usize> = HashMap::new();
    for batch in listing.files.chunks(BATCH) {
        let read: Vec<Result<Instance, RefusedFile>> =
            batch.par_iter().with_min_len(16).map(|(path, relative)| read_file(path, relative.clone(), limits)).collect();
        for result in read {
            match result {
                Ok(instance) => {
                    let key = instance.series_key();
                    let count = planes.entry(key.clone()).or_default();
                    *count += instance.frames.len();
                    if *count > limits.planes {
                        scan.ignored.push(too_many(instance.relative, key, *count, limits));
                    } else {
                        scan.instances.push(instance);
                    }
                }
                Err(refused) => scan.ignored.push(refused),
            }
        }
    }
    scan.ignored.sort_by(|a, b| a.relative.cmp(&b.relative));
    Ok(scan)
}

/// Regular files as (path, path relative to the root), and what is none of them.
struct Listing {
    files: Vec<(PathBuf, PathBuf)>,
    ignored: Vec<RefusedFile>,
}

fn list(root: &Path, limits: &ScanLimits) -> Result<Listing, Fault> {
    let mut listing = Listing { files: Vec::new(), ignored: Vec::new() };
    let mut folders = vec![(root.to_path_buf(), PathBuf::new(), 0)];
    let mut entries = 0;
    while let Some((folder, relative, depth)) = folders.pop() {
        let read = match fs::read_dir(&folder) {
            Ok(read) => read,
            Err(e) if depth == 0 => return Err(Fault::new(Code::ConfigInputMissing, format!("{}.", e.kind())).caused_by(e)),
            Err(e) => {
                listing.ignored.push(refused(relative, Code::InputUnreadableFile, format!("folder: {}", e.kind())));
                continue;
            }
        };
        for entry in read {
            entries += 1;
            if entries > limits.entries {
                return Err(Fault::new(Code::InputTooMany, format!("More than {} entries.", limits.entries)));
            }
            // An entry that vanishes while the folder is read is none of ours any more.
            let Ok(entry) = entry else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            let (path, relative) = (entry.path(), relative.join(entry.file_name()));
            if kind.is_dir() && is_hidden(&entry.file_name()) {
                listing.ignored.push(refused(relative, Code::InputTemporary, "hidden folder".into()));
            } else if kind.is_dir() && depth >= limits.depth {
                listing.ignored.push(refused(relative, Code::InputTooMany, format!("folders deeper than {}", limits.depth)));
            } else if kind.is_dir() {
                folders.push((path, relative, depth + 1));
            } else if kind.is_file() {
                listing.files.push((path, relative));
            } else {
                listing.ignored.push(refused(relative, Code::InputSpecialFile, "not a regular file".into()));
            }
        }
    }
    listing.files.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(listing)
}

fn refused(relative: PathBuf, code: Code, detail: String) -> RefusedFile {
    RefusedFile { relative, code, detail, member_of: None }
}

/// A file that is one too many of its series; with it the series is refused.
pub(super) fn too_many(relative: PathBuf, series: SeriesKey, count: usize, limits: &ScanLimits) -> RefusedFile {
    let detail = format!("{count} planes or more, the limit is {}", limits.planes);
    RefusedFile { relative, code: Code::SeriesTooMany, detail, member_of: Some(series) }
}

pub(super) fn read_file(path: &Path, relative: PathBuf, limits: &ScanLimits) -> Result<Instance, RefusedFile> {
    let name = relative.file_name().unwrap_or_default();
    if is_temporary(name) {
        return Err(refused(relative, Code::InputTemporary, "by its name".into()));
    }
    let hidden = is_hidden(name);
    match read_instance(path, relative, &limits.file) {
        // Copying tools write under hidden names first.
        Ok(Instance { relative, .. }) if hidden => Err(refused(relative, Code::InputTemporary, "hidden file".into())),
        Err(RefusedFile { relative, code, .. }) if hidden && code != Code::InputNotDicom => {
            Err(refused(relative, Code::InputTemporary, "hidden file".into()))
        }
        other => other,
    }
}

/// Whether the name is one that files have while they are written, or that editors leave behind.
pub fn is_temporary(name: &OsStr) -> bool {
    const EXTENSIONS: [&str; 10] = ["part", "partial", "tmp", "temp", "filepart", "crdownload", "download", "swp", "lock", "incomplete"];
    let bytes = name.as_bytes();
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    bytes.first() == Some(&b'~') || matches!(bytes.last(), Some(b'~' | b'#')) || extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names() {
        for name in ["a.part", "a.dcm.PART", "x.tmp", "~lock.dcm#", "a.dcm~", "b.filepart"] {
            assert!(is_temporary(OsStr::new(name)), "{name}");
        }
        for name in ["a.dcm", "IM0001", "1.2.840.10008", "part", "tmp.dcm", "a#b"] {
            assert!(!is_temporary(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn links_pipes_and_missing_roots() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("empty.dcm"), b"").expect("write");
        fs::write(at("text"), b"hello").expect("write");
        std::os::unix::fs::symlink(folder.path(), at("loop")).expect("link");
        std::os::unix::fs::symlink("nowhere", at("dangling")).expect("link");
        assert!(std::process::Command::new("mkfifo").arg(at("fifo")).status().expect("mkfifo").success());
        let found = scan(folder.path(), &ScanLimits::default()).expect("scan");
        let reasons: Vec<(String, &str)> = found.ignored.iter().map(|r| (r.relative.display().to_string(), r.code.reason())).collect();
        let expected = [
            ("dangling", "special_file"),
            ("empty.dcm", "empty_file"),
            ("fifo", "special_file"),
            ("loop", "special_file"),
            ("text", "not_dicom"),
        ];
        assert_eq!(reasons, expected.map(|(p, r)| (p.to_string(), r)));
        // The guard itself never waits for a pipe, nor follows a link.
        for name in ["fifo", "dangling"] {
            let refused = read_instance(&at(name), PathBuf::from(name), &guard::Limits::default()).expect_err("not a file");
            assert_eq!(refused.code, Code::InputSpecialFile);
        }
        assert_eq!(scan(&at("absent"), &ScanLimits::default()).expect_err("absent").code, Code::ConfigInputMissing);
        let few = ScanLimits { entries: 2, ..ScanLimits::default() };
        assert_eq!(scan(folder.path(), &few).expect_err("too many").code, Code::InputTooMany);
        assert_eq!(scan(&at("text"), &ScanLimits::default()).expect("one file").ignored.len(), 1);
    }

    #[test]
    fn a_series_with_more_planes_than_the_limit_is_not_kept() {
        use crate::intake::tree::tests::image;
        let folder = tempfile::tempdir().expect("folder");
        (1..=5).for_each(|n| image(&folder.path().join(format!("long{n}")), 1, n));
        (1..=3).for_each(|n| image(&folder.path().join(format!("short{n}")), 2, n));
        let limits = ScanLimits { planes: 3, ..ScanLimits::default() };
        let found = scan(folder.path(), &limits).expect("scan");
        assert_eq!(found.instances.len(), 6);
        let excess: Vec<_> = found.ignored.iter().map(|r| (r.code, r.detail.as_str())).collect();
        let told = |count: usize| (Code::SeriesTooMany, format!("{count} planes or more, the limit is 3"));
        assert_eq!(excess, [told(4), told(5)].iter().map(|(code, detail)| (*code, detail.as_str())).collect::<Vec<_>>());
        let grouped = crate::series::group(found.instances, found.ignored, &Default::default(), &|_, _, _| panic!("no duplicates"));
        let rejected: Vec<_> = grouped.rejected.iter().map(|r| (r.key.series.as_str(), r.refusal.code, r.files.len())).collect();
        assert_eq!((grouped.series.len(), rejected), (1, vec![("1.2.1", Code::SeriesTooMany, 5)]));
    }
}
