//! Reports of storage commitment from destinations: on the association on which they were asked, or on one of their own (role reversal).

use crate::dicom::commitment::Report;
use crate::fault::{Code, Fault};
use crate::ledger::{Change, DeliveryState, Ledger, Problem};
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

/// How metrics name what a destination committed itself to keep.
pub const COMMITMENT: &str = "commitment";

/// How long something that a destination does not keep waits before it is asked what it has, the first time; twice as long each time.
const PAUSE: Duration = Duration::from_secs(2);

/// Takes reports into the ledger.
#[derive(Clone)]
pub struct Commitments {
    ledger: Arc<dyn Ledger>,
    metrics: Arc<Metrics>,
}

impl Commitments {
    /// For this ledger.
    pub fn new(ledger: Arc<dyn Ledger>, metrics: Arc<Metrics>) -> Commitments {
        Commitments { ledger, metrics }
    }

    /// Writes down what a destination reported. False when nobody was asked in that transaction. Returns once it is durable.
    pub fn take(&self, report: &Report) -> Result<bool, Fault> {
        let Some(delivery) = self.ledger.transaction(&report.transaction)? else { return Ok(false) };
        let fault = Fault::new(Code::DeliveryUncommitted, "It reported that it does not keep it.");
        let problem = Problem { code: fault.code.name().into(), detail: fault.detail };
        let (transaction, pause) = (report.transaction.clone(), PAUSE.saturating_mul(1 << delivery.refusals.min(8)));
        self.ledger.commit(vec![Change::Committed { transaction, kept: report.kept, pause, problem }])?;
        let (job, destination) = (delivery.job, &delivery.destination);
        match delivery.state {
            // Told before, or not wanted any more.
            DeliveryState::Delivered | DeliveryState::Cancelled => {}
            _ if report.kept => {
                self.metrics.delivery.verified(destination, COMMITMENT);
                tracing::info!(%job, destination, "storage commitment: the destination keeps it");
            }
            _ => {
                self.metrics.fault(Code::DeliveryUncommitted);
                tracing::warn!(%job, destination, code = %Code::DeliveryUncommitted, "storage commitment failed: the destination is asked what it has");
            }
        }
        Ok(true)
    }
}
