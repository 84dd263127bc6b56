//! From complete series to jobs in the ledger, and from a claimed job back to the files of its case.

use super::super::choice::{Chosen, Complete, Decided};
use super::super::jobs::{PAUSE_FIRST, urgency};
use super::super::stages::Input;
use super::super::work::Ticket;
use super::{BUSY, KEPT, Service};
use crate::delivery;
use crate::dicom::{PixelFormat, SeriesKey};
use crate::fault::{Code, Fault};
use crate::intake::scan::ScanLimits;
use crate::intake::tree::Loaded;
use crate::ledger::{Closing, Evidence, Job, NewVolume, Problem};
use crate::results::Replaced;
use crate::series::{self, Refusal, Series};
use crate::sys::crash::{self, Point};
use crate::telemetry::log::keyed_hash;
use crate::volume::decode::plane_digest;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Instant;

impl Service {
    /// Writes a complete series into the ledger: its volumes become jobs, and of the rest it is told why not. One that the rules can not
    /// judge alone waits for its study; should the daemon end before, it is complete once more after the next start.
    pub(super) fn take(&mut self, key: &SeriesKey, evidence: Evidence) {
        // One job of a series at a time: what it publishes may be all that there is to do.
        if self.jobs.works_on(key) {
            return self.settle.again(key, self.clock.monotonic() + BUSY);
        }
        if self.jobs.is_closed(key, &self.print(key)) {
            // By an earlier process: nothing has changed since.
            self.settle.take(key);
            self.metrics.series_closed(evidence);
            tracing::debug!(series = keyed_hash(&key.series), "is as it was");
            return;
        }
        // Changed since the look: the next look sees it.
        let Some(loaded) = self.tree.load(key) else { return };
        let Some(since) = self.settle.take(key) else { return };
        let complete = self.complete(key, loaded);
        if self.choice.needs_study(&complete) {
            self.metrics.series_closed(evidence);
            return self.choice.wait(key, evidence, self.clock.monotonic(), since);
        }
        let decided = self.choice.decide(vec![complete]);
        if self.close(decided.into_iter().map(|d| (d, evidence)).collect(), since) {
            self.metrics.series_closed(evidence);
        } else {
            self.settle.again(key, self.clock.monotonic() + PAUSE_FIRST);
        }
    }

    /// Decides about the series of a study that had to wait for each other, from all that is complete of it.
    pub(super) fn take_study(&mut self, study: &str, since: Instant) {
        let now = self.clock.monotonic();
        let mut all = Vec::new();
        for (key, _) in self.settle.known().filter(|(key, taken)| *taken && key.study == study) {
            // In work, or changed since the look: the study waits once more.
            let loaded = self.tree.load(key).filter(|_| !self.jobs.works_on(key));
            let Some(loaded) = loaded else { return self.choice.studies.wait(study, now, since) };
            all.push(self.complete(key, loaded));
        }
        let waited: Vec<bool> = all.iter().map(|complete| self.choice.needs_study(complete)).collect();
        let decided = self.choice.decide(all).into_iter().zip(waited).filter_map(|(decided, waited)| waited.then_some(decided)).collect();
        let news = self.choice.news(study, decided);
        if !self.close(news, since) {
            self.choice.studies.wait(study, now, since);
        }
    }

    /// Has the ledger know what becomes of series, all at once; false when it can not now.
    fn close(&mut self, decided: Vec<(Decided, Evidence)>, since: Instant) -> bool {
        let closing = |(d, evidence): &(Decided, Evidence)| Closing {
            series: d.key.clone(),
            evidence: *evidence,
            print: self.print(&d.key),
            volumes: d.chosen.iter().map(|case| self.wanted(case)).collect(),
            refusals: d.refusals.iter().map(|r| Problem { code: r.code.name().into(), detail: r.detail.clone() }).collect(),
        };
        if let Err(fault) = self.jobs.close(decided.iter().map(closing).collect()) {
            self.metrics.fault(fault.code);
            tracing::warn!(code = %fault.code, "series are not taken yet: {}", fault.detail);
            return false;
        }
        for (decided, evidence) in decided {
            self.choice.told(&decided, evidence);
            self.kept.retain(|(series, _), _| *series != decided.key);
            self.since.retain(|(series, _), _| *series != decided.key);
            for case in decided.chosen {
                let name = (decided.key.clone(), case.input.clone());
                self.since.insert(name.clone(), since);
                if self.kept.len() < KEPT {
                    self.kept.insert(name, case);
                }
            }
        }
        true
    }

    fn wanted(&self, case: &Chosen) -> NewVolume {
        let rule = self.choice.rule(case.rule).map(str::to_owned);
        NewVolume { input: case.input.clone(), priority: self.choice.priority(case.rule), rule, result: None, destinations: Vec::new() }
    }

    /// Names the state of a series: its files, and the rules by which they are judged.
    fn print(&self, key: &SeriesKey) -> String {
        let hash = Sha256::new_with_prefix(self.tree.print(key).unwrap_or_default().to_le_bytes()).chain_update(&self.rules).finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The volumes of a series, each with the name of its content, and why other parts give none.
    fn complete(&self, key: &SeriesKey, loaded: Loaded) -> Complete {
        let Loaded { instances, refused, stamps } = loaded;
        let files = ScanLimits::default().file;
        let digest = |path: &Path, frame: u32, format: &PixelFormat| plane_digest(path, frame, format, &files, &self.decoder);
        let grouped = series::group(instances, refused, &self.policy, &digest);
        let refusals: Vec<Refusal> = grouped.rejected.into_iter().map(|r| r.refusal).collect();
        let volumes = grouped.series.into_iter().map(|series| (stamps.name(&series), series)).collect();
        Complete { key: key.clone(), volumes, refusals }
    }

    /// Sends a claimed job down the street.
    pub(super) fn send(&mut self, job: Job) {
        crash::point(Point::JobClaimed);
        let name = (job.series.clone(), job.input.clone());
        let case = match self.kept.remove(&name) {
            Some(case) => Some(case),
            None => self.find(&job),
        };
        let order = case.as_ref().and_then(|case| self.choice.order(case.rule)).cloned();
        let (Some(case), Some(order)) = (case, order) else { return self.gone(&job) };
        let since = self.since.remove(&name).unwrap_or_else(|| self.clock.monotonic());
        let token = self.jobs.claimed(job.id).map(|claimed| claimed.token);
        let Some(grid) = case.channels.get(order.model.manifest.preprocessing.grid_channel) else { return self.gone(&job) };
        let replaces = match self.jobs.pin(job.id, &order.model.digest).and_then(|()| self.replaced_by(&job, grid)) {
            Ok(replaces) => replaces,
            // Its model was rolled back a moment ago.
            Err(fault) if fault.code == Code::LedgerStaleToken => {
                self.jobs.release(job.id);
                return self.adopt();
            }
            Err(fault) => {
                self.metrics.fault(fault.code);
                self.jobs.postpone(job.id, &fault);
                return;
            }
        };
        self.tell_read(grid);
        let urgency = urgency(job.priority);
        let ticket = Ticket { job: job.id, since, dated: job.created.into(), urgency, token };
        if self.street.submit(ticket, Input::Series(case.channels), &order, replaces).is_err() {
            // The street has been closed.
            self.jobs.release(job.id);
        }
    }

    /// The case of a job, from its files as they are now; none when the rules make no such case of them.
    fn find(&self, job: &Job) -> Option<Chosen> {
        let mut all = vec![self.complete(&job.series, self.tree.load(&job.series)?)];
        if self.choice.needs_study(&all[0]) {
            let others = self.settle.known().map(|(key, _)| key).filter(|key| key.study == job.series.study && **key != job.series);
            all.extend(others.filter_map(|key| Some(self.complete(key, self.tree.load(key)?))));
        }
        let decided = self.choice.decide(all).into_iter().next()?;
        decided.chosen.into_iter().find(|case| case.input == job.input)
    }

    /// The latest result of the same volume of the series, which this one takes the place of.
    fn replaced_by(&self, job: &Job, series: &Series) -> Result<Option<Replaced>, Fault> {
        let mut latest: Option<Replaced> = None;
        for folder in self.jobs.results_of(&job.series)? {
            let Some(manifest) = delivery::published(&self.config.output.path.join(folder))? else { continue };
            let earlier = manifest.as_replaced(series);
            latest = [latest, earlier].into_iter().flatten().max_by_key(|r| r.revision);
        }
        Ok(latest)
    }

    /// The files are not what the job was queued for, or are not there.
    fn gone(&mut self, job: &Job) {
        let series = keyed_hash(&job.series.series);
        if self.unreadable.is_empty() {
            tracing::info!(job = %job.id, series, "its files have changed or are gone");
            self.jobs.outdate(job.id);
            // Should they be there after all, the series is closed once more.
            self.settle.again(&job.series, self.clock.monotonic() + PAUSE_FIRST);
        } else {
            let fault = Fault::new(Code::DiskUnreadable, "A watched folder can not be read, and these files may lie in it.");
            self.metrics.fault(fault.code);
            self.jobs.postpone(job.id, &fault);
        }
    }
}
