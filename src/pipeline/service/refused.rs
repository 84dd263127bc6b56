//! Files in watched folders that can not be used are written down, each with its code. They stay where they are.

use super::Service;
use crate::dicom::SeriesKey;
use crate::fault::Code;
use crate::intake::tree::MOST_TOLD;
use crate::intake::unusable::{Unusable, place};
use crate::ledger::{Change, LedgerError, Moment, Origin, Problem, RefusedFile};
use std::collections::BTreeMap;

impl Service {
    /// What a look found beside images. What the ledger can not take now is told with what the next look finds.
    pub(super) fn write_down(&mut self, unusable: Vec<Unusable>, others: BTreeMap<SeriesKey, Code>) {
        self.refuse(unusable);
        self.note_others(others);
    }

    fn refuse(&mut self, found: Vec<Unusable>) {
        self.unusable.extend(found);
        let over = self.unusable.len().saturating_sub(MOST_TOLD);
        self.unusable.drain(..over);
        if self.unusable.is_empty() {
            return;
        }
        match self.write_refused() {
            Ok(()) => {
                tracing::info!(files = self.unusable.len(), "can not be used; `stunetd jobs refused` says which, and why");
                self.unusable.clear();
            }
            Err(error) => tracing::warn!("files that can not be used are not written down yet: {error}"),
        }
    }

    /// Series of objects that are never segmented, so that who asks for one is told so. What the ledger can not take now is found again by
    /// the next process.
    fn note_others(&self, others: BTreeMap<SeriesKey, Code>) {
        let problem = |code: Code| Problem { code: code.name().into(), detail: String::new() };
        let changes: Vec<Change> = others.into_iter().map(|(series, code)| Change::Other { series, problem: problem(code) }).collect();
        if !changes.is_empty()
            && let Err(error) = self.jobs.ledger().commit(changes)
        {
            tracing::warn!("series that are never segmented are not written down: {error}");
        }
    }

    fn write_refused(&self) -> Result<(), LedgerError> {
        let ledger = self.jobs.ledger();
        let (key, now) = (ledger.instance()?, ledger.now());
        let files = self.unusable.iter().map(|file| RefusedFile {
            origin: Origin::Folder,
            place: place(&key, &file.path),
            bytes: file.bytes,
            modified: Moment(file.modified),
            code: file.code.name().into(),
            first: now,
            last: now,
        });
        ledger.commit(vec![Change::Refuse(files.collect())]).map(|_| ())
    }
}
