//! Files leave a watched folder once nobody needs them any more (`[[watch]] after`).
//!
//! What of a series still lies there while they leave is no new state of it: the ledger knows which files are leaving before the first one
//! does, so that a process that dies half way has the next one go on, instead of finding a series with fewer slices.

use super::{Service, is_open};
use crate::config::{After, Watch};
use crate::delivery;
use crate::dicom::SeriesKey;
use crate::fault::{Code, Fault};
use crate::intake::tree::state_of;
use crate::intake::unusable::place;
use crate::intake::watch::Dirty;
use crate::ledger::{Change, DeliveryState, State, Which};
use crate::results::{Input, file_digest};
use crate::sys::crash::{self, Point};
use crate::sys::durable::{self, Step, StorageError};
use crate::telemetry::log::keyed_hash;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

impl Service {
    /// Goes on where an earlier process stopped.
    pub(super) fn go_on_leaving(&mut self) {
        if self.gone_on || self.looked.is_none() {
            return;
        }
        let went = self
            .jobs
            .ledger()
            .leaving()
            .map_err(Fault::from)
            .and_then(|leaving| leaving.into_iter().try_for_each(|(series, files)| self.leave(&series, |name| files.contains(name))));
        match went {
            // Files that could not be looked for leave when they can.
            Ok(()) => self.gone_on = self.unreadable.is_empty(),
            Err(fault) => self.not_left(&fault),
        }
    }

    /// Has the files of all series leave that are done with, as their folders' configuration says. To be called after a look at everything.
    pub(super) fn clear(&mut self) {
        if self.config.watch.iter().all(|watch| watch.after == After::Keep) || !self.unreadable.is_empty() || !self.gone_on {
            return;
        }
        let taken = self.settle.known().filter(|(_, taken)| *taken).map(|(key, _)| key);
        let leaving = |key: &&SeriesKey| self.tree.folders_of(key).iter().any(|folder| self.rule_of(folder).is_some());
        let studies: BTreeSet<String> = taken.filter(leaving).map(|key| key.study.clone()).collect();
        for study in studies {
            self.seat.moved();
            let left = self.done_with(&study).and_then(|series| series.iter().try_for_each(|key| self.begin_to_leave(key)));
            if let Err(fault) = left {
                return self.not_left(&fault);
            }
        }
    }

    fn not_left(&self, fault: &Fault) {
        self.metrics.fault(fault.code);
        tracing::warn!(code = %fault.code, "files stay in their watched folder for now: {}", fault.detail);
    }

    /// What is to happen to files in a folder, unless they stay.
    fn rule_of(&self, path: &Path) -> Option<&Watch> {
        self.config.watch.iter().find(|watch| watch.after != After::Keep && path.starts_with(&watch.path))
    }

    /// The series of a study that results were made from, when all is done that there is to do of the study, and everybody has it.
    fn done_with(&self, study: &str) -> Result<Vec<SeriesKey>, Fault> {
        let ledger = self.jobs.ledger();
        let there: Vec<&SeriesKey> = self.settle.known().map(|(key, _)| key).filter(|key| key.study == study).collect();
        // The ledger has to have judged all that lies there, as it lies there.
        if is_open(&self.settle, study) || !there.iter().all(|key| self.jobs.is_closed(key, &self.print(key))) {
            return Ok(Vec::new());
        }
        let mut used = BTreeSet::new();
        for job in ledger.jobs(&Which { uid: Some(study.into()), ..Which::default() })?.iter().filter(|job| job.series.study == study) {
            match job.progress.state {
                State::Superseded => continue,
                State::Done => {}
                _ => return Ok(Vec::new()),
            }
            let over = |state| matches!(state, DeliveryState::Delivered | DeliveryState::Cancelled);
            if !ledger.deliveries(job.id)?.iter().all(|delivery| over(delivery.state)) {
                return Ok(Vec::new());
            }
            let Some(result) = &job.result else { continue };
            let manifest = delivery::published(&self.config.output.path.join(&result.folder))?;
            if let Some(Input::Dicom { series, .. }) = manifest.map(|manifest| manifest.source) {
                used.extend(series.into_iter().map(|channel| channel.uid));
            }
        }
        // Somebody may want to look at what was refused.
        let refused: BTreeSet<SeriesKey> =
            ledger.series(study)?.into_iter().filter(|record| !record.refusals.is_empty()).map(|record| record.series).collect();
        Ok(there.into_iter().filter(|key| used.contains(&key.series) && !refused.contains(key)).cloned().collect())
    }

    fn begin_to_leave(&mut self, key: &SeriesKey) -> Result<(), Fault> {
        let ledger = self.jobs.ledger();
        let instance = ledger.instance()?;
        let files = self.tree.files_of(key).into_iter().filter(|(path, _)| self.rule_of(path).is_some());
        let names: Vec<String> = files.map(|(path, state)| format!("{} {state}", place(&instance, &path))).collect();
        if names.is_empty() {
            return Ok(());
        }
        let count = names.len();
        ledger.commit(vec![Change::Leave { series: key.clone(), files: names }])?;
        crash::point(Point::LeavingBegun);
        self.leave(key, |_| true)?;
        tracing::info!(series = keyed_hash(&key.series), files = count, "left the watched folder: its results are where they belong");
        Ok(())
    }

    /// Has the files leave whose names are among those that do.
    fn leave(&mut self, key: &SeriesKey, does: impl Fn(&str) -> bool) -> Result<(), Fault> {
        let instance = self.jobs.ledger().instance()?;
        let mut folders = BTreeSet::new();
        for (path, state) in self.tree.files_of(key) {
            let Some(watch) = self.rule_of(&path) else { continue };
            // Written anew in this moment: that is another file.
            if !does(&format!("{} {state}", place(&instance, &path))) || state_of(&path).as_ref() != Some(&state) {
                continue;
            }
            match watch.after {
                After::Keep => continue,
                After::Delete => fs::remove_file(&path).map_err(StorageError::at(Step::Remove, &path))?,
                After::Move => move_file(&path, &watch.move_to.join(path.strip_prefix(&watch.path).unwrap_or(&path)))?,
            }
            crash::point(Point::FileLeft);
            folders.insert(durable::parent(&path).to_path_buf());
        }
        for folder in &folders {
            durable::sync_dir(folder)?;
            self.dirty.add(folder.clone());
        }
        crash::point(Point::LeavingEnded);
        if self.unreadable.is_empty() {
            self.jobs.ledger().commit(vec![Change::Left { series: key.clone() }])?;
        }
        // The tree is to know before anything is decided about what is left.
        let (found, _) = self.tree.look(Dirty::Folders(folders));
        self.metrics.scanned(Duration::ZERO, found.files, found.bytes);
        self.unusable.extend(found.unusable);
        Ok(())
    }
}

/// Moves a file, to another disk too. What lies at its new place already, with the same bytes, was brought there before; anything else there
/// stays, and the file gets a number.
fn move_file(from: &Path, to: &Path) -> Result<(), Fault> {
    durable::create_dir_all(durable::parent(to))?;
    let numbered = |n: u32| {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for place in std::iter::once(to.to_path_buf()).chain((2..1000).map(numbered)) {
        if place.symlink_metadata().is_err() {
            return bring(from, &place);
        }
        if file_digest(&place).ok() == Some(file_digest(from)?) {
            return Ok(fs::remove_file(from).map_err(StorageError::at(Step::Remove, from))?);
        }
    }
    Err(Fault::new(Code::DiskUnwritable, "A file has no free name where it is moved to."))
}

fn bring(from: &Path, to: &Path) -> Result<(), Fault> {
    let renamed = durable::rename(from, to);
    if !renamed.as_ref().is_err_and(StorageError::is_other_disk) {
        return Ok(renamed?);
    }
    let mut source = fs::File::open(from).map_err(StorageError::at(Step::Read, from))?;
    durable::write_file_with(to, |file| std::io::copy(&mut source, file).map_err(StorageError::at(Step::Write, to)))?;
    Ok(fs::remove_file(from).map_err(StorageError::at(Step::Remove, from))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_before_is_not_there_twice_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("folder");
        let (from, to) = (dir.path().join("a.dcm"), dir.path().join("b/c/a.dcm"));
        let moved = |bytes: &[u8]| {
            fs::write(&from, bytes).expect("file");
            move_file(&from, &to).expect("moved");
            assert!(!from.exists());
        };
        moved(b"one");
        // Copied, and killed before the source was removed.
        moved(b"one");
        moved(b"two");
        moved(b"two");
        let names: BTreeSet<_> =
            fs::read_dir(to.parent().expect("folder")).expect("folder").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names, BTreeSet::from(["a.dcm".into(), "a.dcm.2".into()]));
        assert_eq!((fs::read(&to).expect("file"), fs::read(to.with_extension("dcm.2")).expect("file")), (b"one".to_vec(), b"two".to_vec()));
    }
}
