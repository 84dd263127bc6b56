//! The outbox, inside the writer's transaction.

use super::apply::{Desk, Note, check, short};
use super::rows::{self, Count};
use crate::ledger::change::{Change, DeliveryClaim, Lease};
use crate::ledger::error::LedgerError;
use crate::ledger::names::{DeliveryState, Event};
use crate::ledger::records::{Delivery, Held, JobId, Problem, Token};
use crate::ledger::rules::NotPossible;
use rusqlite::params;
use std::time::Duration;

/// What a report does to a delivery.
type Step = Box<dyn FnOnce(&mut Delivery) -> Event>;

impl Desk<'_> {
    /// Puts a result into the outbox for a destination, unless it is there.
    pub fn send_to(&self, job: JobId, destination: &str, doubtful: bool) -> Result<(), LedgerError> {
        check("destination", destination, 256)?;
        let insert = "INSERT INTO outbox (job_id, destination, state, attempts, doubtful, created, changed) VALUES (?1, ?2, 'pending', 0, ?3, ?4, ?4) \
                      ON CONFLICT DO NOTHING";
        if self.run(insert, params![job, destination, doubtful, self.date])? == 1 {
            let after = Some(DeliveryState::Pending.name());
            self.note(Note { job: Some(job), destination: Some(destination), after, ..Note::of(Event::Queued, "outbox") })?;
        }
        Ok(())
    }

    /// Gives out the next delivery to a destination.
    pub fn claim_delivery(&self, destination: &str, lease: &Lease) -> Result<Option<DeliveryClaim>, LedgerError> {
        self.put_back_deliveries(Some(lease))?;
        let query = format!(
            "{} WHERE destination = ?1 AND state IN ('pending', 'waiting') AND (state = 'pending' OR not_before <= ?2) ORDER BY id LIMIT 1",
            rows::DELIVERY
        );
        let Some(mut delivery) = self.maybe(&query, params![destination, self.now], rows::delivery)? else { return Ok(None) };
        let token = Token(self.next("token")?);
        let held = Held { owner: lease.owner.clone(), token, until: self.now.plus(lease.hold), alone: false };
        let before = delivery.state;
        let event = delivery.claim(held);
        self.store_delivery(&delivery, before, event, &lease.owner)?;
        delivery.changed = self.date;
        Ok(Some(DeliveryClaim { token, delivery }))
    }

    /// What a worker reports of a delivery.
    pub fn apply_to_delivery(&self, change: Change) -> Result<(), LedgerError> {
        let (token, step): (Token, Step) = match change {
            Change::Delivered { token, warning } => (token, Box::new(|d| d.deliver(warning))),
            Change::PostponeDelivery { token, pause, doubtful, refused, problem } => {
                let until = self.now.plus(pause);
                (token, Box::new(move |d| d.postpone(until, doubtful, refused, problem)))
            }
            Change::Resend { token } => (token, Box::new(Delivery::resend)),
            Change::AskCommitment { token, transaction } => {
                check("transaction", &transaction, 64)?;
                (token, Box::new(move |d| d.ask(transaction)))
            }
            Change::AwaitCommitment { token, pause, problem } => {
                let (now, until) = (self.now, self.now.plus(pause));
                (token, Box::new(move |d| d.await_commitment(now, until, problem)))
            }
            Change::ParkDelivery { token, doubtful, problem } => (token, Box::new(move |d| d.park(doubtful, problem))),
            other => return Err(LedgerError::Bug(format!("{other:?} is not about a delivery"))),
        };
        let found = self.maybe(&format!("{} WHERE token = ?1", rows::DELIVERY), [token], rows::delivery)?;
        let mut delivery = found.ok_or(LedgerError::Stale(token))?;
        let who = delivery.held.as_ref().map(|h| h.owner.clone()).unwrap_or_default();
        let before = delivery.state;
        let event = step(&mut delivery);
        self.store_delivery(&delivery, before, event, &who)
    }

    /// What a destination answered when it was asked to keep something.
    pub fn committed(&self, transaction: &str, kept: bool, pause: Duration, problem: Problem) -> Result<(), LedgerError> {
        let query = format!("{} WHERE transaction_uid = ?1 ORDER BY id LIMIT 1", rows::DELIVERY);
        let Some(mut delivery) = self.maybe(&query, [transaction], rows::delivery)? else { return Ok(()) };
        let (before, who) = (delivery.state, delivery.destination.clone());
        match delivery.commit(kept, self.now.plus(pause), problem) {
            Ok(event) => self.store_delivery(&delivery, before, event, &who),
            // It has said so before, or it is not wanted any more.
            Err(NotPossible) => Ok(()),
        }
    }

    /// Puts back deliveries whose worker is lost: all, or those of others than the one who asks whose lease ran out. How many.
    pub fn put_back_deliveries(&self, asking: Option<&Lease>) -> Result<u64, LedgerError> {
        let lost = match asking {
            None => self.list(&format!("{} WHERE state = 'sending' ORDER BY id", rows::DELIVERY), [], rows::delivery)?,
            Some(lease) => self.list(
                &format!("{} WHERE state = 'sending' AND until < ?1 AND owner <> ?2 ORDER BY id", rows::DELIVERY),
                params![self.now, lease.owner],
                rows::delivery,
            )?,
        };
        for mut delivery in lost.iter().cloned() {
            let who = delivery.held.as_ref().map(|h| h.owner.clone()).unwrap_or_default();
            let event = delivery.crash();
            self.store_delivery(&delivery, DeliveryState::Sending, event, &who)?;
        }
        Ok(lost.len() as u64)
    }

    /// Has the parked, waiting and cancelled deliveries of a job tried again; how many.
    pub fn retry_deliveries(&self, job: JobId, who: &str) -> Result<u64, LedgerError> {
        self.each_delivery(job, who, Delivery::retry)
    }

    /// Cancels the deliveries of a job that are not being sent; how many.
    pub fn cancel_deliveries(&self, job: JobId, who: &str) -> Result<u64, LedgerError> {
        self.each_delivery(job, who, Delivery::cancel)
    }

    /// Deliveries of a job that may still be sent by themselves.
    pub fn open_deliveries(&self, job: JobId) -> Result<u64, LedgerError> {
        let query = "SELECT count(*) FROM outbox WHERE job_id = ?1 AND state IN ('pending', 'sending', 'waiting')";
        self.one(query, [job], |row| row.get::<_, Count>(0)).map(|count| count.0)
    }

    fn each_delivery(&self, job: JobId, who: &str, step: impl Fn(&mut Delivery) -> Result<Event, NotPossible>) -> Result<u64, LedgerError> {
        let mut changed = 0;
        for mut delivery in self.list(&format!("{} WHERE job_id = ?1 ORDER BY id", rows::DELIVERY), [job], rows::delivery)? {
            let before = delivery.state;
            if let Ok(event) = step(&mut delivery) {
                self.store_delivery(&delivery, before, event, who)?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    fn store_delivery(&self, d: &Delivery, before: DeliveryState, event: Event, who: &str) -> Result<(), LedgerError> {
        let (held, problem) = (d.held.as_ref(), d.problem.as_ref());
        let (before, after) = (Some(before.name()), Some(d.state.name()));
        self.note(Note { job: Some(d.job), destination: Some(&d.destination), before, after, problem, ..Note::of(event, who) })?;
        let update = "UPDATE outbox SET state = ?2, attempts = ?3, doubtful = ?4, not_before = ?5, owner = ?6, token = ?7, until = ?8, code = ?9, \
                      detail = ?10, changed = ?11, refusals = ?12, resends = ?13, transaction_uid = ?14, committed = ?15 WHERE id = ?1";
        let values = params![
            d.id,
            d.state,
            d.attempts,
            d.doubtful,
            d.not_before,
            held.map(|h| &h.owner),
            held.map(|h| h.token),
            held.map(|h| h.until),
            problem.map(|p| &p.code),
            problem.map(|p| short(&p.detail)),
            self.date,
            d.refusals,
            d.resends,
            d.transaction,
            d.committed
        ];
        self.run(update, values).map(|_| ())
    }
}
