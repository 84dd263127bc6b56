//! The durable memory of the daemon: which instances were acknowledged, which series are complete, where every job and every delivery is,
//! and a journal of every transition.
//!
//! Work is handed out by *claims*. A claim counts the attempt before the work begins and carries a token; whoever lost the claim (the
//! lease ran out, the job was cancelled) is refused with everything it reports. After a crash the next opening puts running jobs back; one
//! that was there at several crashes goes to the end of the line and runs alone, and is parked when that kills the process too.
//!
//! Beside them stand which generation of each model serves, the curated cases, the patients' sides of the split and the training runs
//! ([`TrainingChange`]); every change of those has a line in the audit, whose lines are chained by digests and never removed.
//!
//! [`Reader`] and [`Ledger`] say what every ledger does; [`SqliteLedger`] is the one for a single machine. No SQL, connection or
//! closure crosses this boundary.

mod change;
mod contract;
mod error;
mod names;
mod records;
mod rules;
mod sqlite;
mod training;

pub use crate::telemetry::Evidence;
pub use change::{Change, Claim, Closing, DeliveryClaim, Lease, MOST_REFUSED, NewVolume};
pub use contract::{Ledger, Limits, Opening, Reader, Which};
pub use error::LedgerError;
pub use names::{AuditEvent, CaseKind, CaseState, DeliveryState, Event, Origin, PatientRole, Priority, RunState, State};
pub use records::{
    Delivery, DeliveryId, Entry, Held, Job, JobId, Moment, Object, Outbox, Problem, Progress, Published, Received, RefusedFile, Seq,
    SeriesRecord, Token, Transition,
};
pub use sqlite::{FILE, Options, SqliteLedger, SqliteReader, remove_copies, set_aside};
pub use training::{Active, AuditEntry, CaseRow, NewCaseRow, Patient, RunId, RunRow, TrainingChange, chain, first_broken};
