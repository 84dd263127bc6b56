//! Where events become messages on disk.

use super::courier::Courier;
use super::event::Event;
use super::line::Line;
use super::message::Teller;
use super::spool::Spool;
use crate::config::Config;
use crate::dicom::guard::Limits;
use crate::dicom::{Patient, patient_of};
use crate::fault::{Code, Fault};
use crate::sys::clock::Clock;
use crate::telemetry::{AuditFate, AuditKind, Metrics};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The folder in the state folder.
const FOLDER: &str = "audit";
/// Alerts that are kept in a minute: whoever knocks at every door must not push out what others did.
const ALERTS: u32 = 60;
/// That minute.
const MINUTE: Duration = Duration::from_secs(60);

/// Takes events. Without a repository nothing is told, and nothing is done.
#[derive(Clone)]
pub struct Audit(Option<Arc<Office>>);

/// What all who tell share.
pub(super) struct Office {
    teller: Teller,
    desk: Mutex<Desk>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    bell: Sender<()>,
}

/// What one after the other touches.
struct Desk {
    spool: Spool,
    /// Messages that were lost since the last one that was kept.
    lost: u64,
    /// When the minute began, and alerts since.
    alerts: (Instant, u32),
}

impl Audit {
    /// Tells nobody.
    pub fn none() -> Audit {
        Audit(None)
    }

    /// Keeps messages for the repository that the configuration names; a daemon sends them. None without one. The caller has the state
    /// folder for itself.
    pub fn open(config: &Config, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Audit, Fault> {
        Ok(Audit::opened(config, clock, metrics)?.map_or(Audit::none(), |(audit, _)| audit))
    }

    /// The same, with a thread that sends; it ends when it is dropped.
    pub fn start(config: &Config, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<(Audit, Option<Courier>), Fault> {
        let Some((audit, rung)) = Audit::opened(config, clock, metrics)? else { return Ok((Audit::none(), None)) };
        let line = Line::new(&config.audit)?;
        let courier = audit.0.clone().map(|office| Courier::start(office, line, rung)).transpose()?;
        Ok((audit, courier))
    }

    fn opened(config: &Config, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Result<Option<(Audit, Receiver<()>)>, Fault> {
        if config.audit.repository.is_empty() {
            return Ok(None);
        }
        let spool = Spool::open(&config.state.join(FOLDER), config.audit.spool_limit.0)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let source = if config.audit.source.is_empty() { host.clone() } else { config.audit.source.clone() };
        let teller = Teller { host, source, title: config.dimse.ae_title.to_string(), process: std::process::id() };
        let (bell, rung) = bounded(1);
        let desk = Mutex::new(Desk { spool, lost: 0, alerts: (clock.monotonic(), 0) });
        metrics.audit.limit(config.audit.spool_limit.0);
        let office = Office { teller, desk, clock, metrics, bell };
        office.tell(&office.desk());
        // What an earlier process left is sent at once.
        let _ = office.bell.try_send(());
        Ok(Some((Audit(Some(Arc::new(office))), rung)))
    }

    /// Whether anybody is told.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a message of an event. It is on disk when this returns, or counted as lost.
    pub fn record(&self, event: &Event<'_>) {
        if let Some(office) = &self.0 {
            office.record(event);
        }
    }

    /// Whose object this is; none when nobody is told, or it can not be read.
    pub fn patient(&self, object: &Path) -> Option<Patient> {
        self.0.as_ref().and_then(|_| patient_of(object, &Limits::default()).ok())
    }
}

impl Office {
    fn record(&self, event: &Event<'_>) {
        let kind = event.kind();
        let mut desk = self.desk();
        if kind == AuditKind::SecurityAlert && !desk.takes_alert(self.clock.monotonic()) {
            return self.metrics.audit.event(kind, AuditFate::Suppressed);
        }
        if desk.lost > 0 {
            let gap = Event::Gap { lost: desk.lost };
            let message = self.teller.message(&gap, self.clock.wall());
            if desk.spool.push(&message).is_ok_and(|kept| kept) {
                desk.lost = 0;
                self.metrics.audit.event(gap.kind(), AuditFate::Recorded);
            }
        }
        let message = self.teller.message(event, self.clock.wall());
        let fate = match desk.spool.push(&message) {
            Ok(true) => AuditFate::Recorded,
            other => {
                desk.lost += 1;
                // Told once, not for every message.
                if desk.lost == 1 {
                    let fault = other.err().unwrap_or_else(|| Fault::new(Code::AuditSpoolFull, "`audit.spool_limit` is reached."));
                    self.metrics.fault(fault.code);
                    tracing::error!(code = %fault.code, "audit messages are lost: {} {}", fault.detail, fault.code.action());
                }
                AuditFate::Lost
            }
        };
        self.metrics.audit.event(kind, fate);
        self.tell(&desk);
        drop(desk);
        // Full: it has been rung already.
        let _ = self.bell.try_send(());
    }

    /// The oldest messages, at most so many.
    pub(super) fn oldest(&self, count: usize) -> Vec<(u64, Vec<u8>)> {
        self.desk().spool.oldest(count)
    }

    /// The repository has these.
    pub(super) fn sent(&self, numbers: &[u64]) {
        let mut desk = self.desk();
        desk.spool.remove(numbers);
        self.tell(&desk);
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn tell(&self, desk: &Desk) {
        self.metrics.audit.spooled(desk.spool.len() as u64, desk.spool.bytes());
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn takes_alert(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.alerts.0) >= MINUTE {
            self.alerts = (now, 0);
        }
        self.alerts.1 += 1;
        self.alerts.1 <= ALERTS
    }
}
