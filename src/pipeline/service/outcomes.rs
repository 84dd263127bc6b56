//! What comes out of the street: results that are published, failures that may pass, and those that do not.

use super::super::jobs::finished;
use super::super::street::{End, Outcome};
use super::super::work::JobId;
use super::Service;
use crate::fault::{Class, Code, Fault};
use crate::sys::crash::{self, Point};
use crate::telemetry::Stage;
use crate::telemetry::log::keyed_hash;
use crossbeam::channel::RecvError;

/// A device that another program fills may be free again soon; what it ran out of memory for so often in a row does not fit.
const OUT_OF_MEMORY: u32 = 3;

impl Service {
    /// Handles the end of a job; a fault that the process can not go on with is returned.
    pub(super) fn outcome(&mut self, outcome: Result<Outcome, RecvError>) -> Result<(), Fault> {
        // The street's threads end only after it was closed.
        let Ok(Outcome { job, token, end, times }) = outcome else {
            return Err(Fault::new(Code::InternalBug, "the stages have ended by themselves"));
        };
        crash::point(Point::OutcomeTaken);
        // Of a claim that was taken back, and the job may be in work again: this one counts no more.
        if !self.jobs.is_current(job, token) {
            return Ok(());
        }
        let Some(claimed) = self.jobs.claimed(job) else { return Ok(()) };
        let (series, study) = (keyed_hash(&claimed.series.series), claimed.series.study.clone());
        let end = end.and_then(|end| match end {
            End::Published(receipt) => Ok((Some(receipt.dir.clone()), finished(&receipt.dir, self.outbox.destinations(), false)?)),
            End::AlreadyPublished(folder) => Ok((None, finished(&folder, self.outbox.destinations(), true)?)),
        });
        match end {
            Ok((new, ended)) => {
                let seconds = (times.iter().map(|(_, time)| time.as_secs_f64()).sum::<f64>() * 10.0).round() / 10.0;
                if let Some(dir) = &new {
                    self.tell_created(&study, dir, &ended.result);
                    self.count_outputs(dir);
                }
                let folder = ended.result.folder.clone();
                self.jobs.finish(job, ended);
                self.outbox.ring();
                tracing::info!(%job, series, folder, seconds, "{}", if new.is_some() { "published" } else { "has its result already" });
            }
            Err(fault) => {
                // A case that waited for memory got nowhere: its first stage stands for that.
                let stage = times.reached.unwrap_or(Stage::Read);
                return self.failed(job, &series, stage, fault);
            }
        }
        Ok(())
    }

    fn failed(&mut self, job: JobId, series: &str, stage: Stage, fault: Fault) -> Result<(), Fault> {
        match fault.code {
            Code::InternalShutdown => {
                tracing::info!(%job, series, "given up, to be done again after the next start");
                self.jobs.release(job);
                return Ok(());
            }
            Code::LedgerStaleToken => {
                tracing::info!(%job, series, "its end is not wanted any more");
                self.jobs.leave(job);
                return Ok(());
            }
            Code::ModelCanary => {
                self.metrics.fault(fault.code);
                tracing::error!(%job, series, code = %fault.code, "its model serves no more: {} {}", fault.detail, fault.code.action());
                self.withdraw_model(job, &fault);
                return Ok(());
            }
            _ => self.metrics.fault(fault.code),
        }
        let cause = fault.causes();
        let so_often = || self.jobs.claimed(job).is_some_and(|claimed| claimed.failures() + 1 >= OUT_OF_MEMORY);
        let class = if fault.code == Code::DeviceOutOfMemory && so_often() { Class::Poison } else { fault.class };
        match class {
            Class::Fatal => {
                self.jobs.leave(job);
                return Err(fault);
            }
            Class::Retryable => {
                self.metrics.flow.retried(stage, fault.code);
                let seconds = self.jobs.postpone(job, &fault).as_secs();
                tracing::warn!(%job, series, code = %fault.code, retry_in_s = seconds, "failed for now: {} {cause}", fault.detail);
            }
            Class::Poison => {
                tracing::warn!(%job, series, code = %fault.code, "parked: {} {cause} {}", fault.detail, fault.code.action());
                self.metrics.job_parked(fault.code);
                let study = self.jobs.claimed(job).map(|claimed| claimed.series.study.clone());
                self.jobs.park(job, &fault);
                study.iter().for_each(|study| self.reconsider(study));
            }
        }
        Ok(())
    }
}
