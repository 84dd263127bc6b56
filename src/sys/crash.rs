//! Named points at which a test kills the process: every sync, rename, commit and hand-over of work.
//!
//! They are in every build, so that what is tested is what is shipped. A point that is not armed costs one relaxed load.
//! `STUNETD_CRASH_AT=NAME` has the process killed (SIGKILL: nothing is unwound, nothing flushed) when it first comes to the
//! point of that name, `NAME:3` when it comes there for the third time.

use crate::fault::{Code, Fault};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// The environment variable that arms a point.
pub const VARIABLE: &str = "STUNETD_CRASH_AT";

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A place where a crash must do no harm.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[$doc])* $variant,)* }

        impl Point {
            /// Every point.
            pub const ALL: &'static [Point] = &[$(Point::$variant,)*];

            /// The name that arms it.
            pub fn name(self) -> &'static str { match self { $(Point::$variant => $name,)* } }
        }
    };
}

points! {
    /// A file's bytes are written under a temporary name, not synced.
    FileWritten = "file.written",
    /// They are synced.
    FileSynced = "file.synced",
    /// The file has its name; the folder is not synced.
    FileRenamed = "file.renamed",
    /// A folder's entries are synced.
    FolderSynced = "folder.synced",
    /// A folder was created, not yet synced into its parent.
    FolderCreated = "folder.created",
    /// A finished folder is synced under its temporary name.
    StagingSynced = "staging.synced",
    /// It has its name; the folder it is in is not synced.
    StagingRenamed = "staging.renamed",
    /// It is published.
    StagingPublished = "staging.published",
    /// The bytes of an instance of the network are written, not synced.
    InstanceReceived = "instance.received",
    /// They are synced; the instance has not its place.
    InstanceSynced = "instance.synced",
    /// The instance is on disk and in the ledger; its sender has not been told.
    Acknowledging = "instance.acknowledging",
    /// A job is claimed, its files not yet found.
    JobClaimed = "job.claimed",
    /// Before a job is handed to the prepare stage.
    HandedToPrepare = "handed.prepare",
    /// Before a job is handed to the device.
    HandedToDevice = "handed.device",
    /// Before a job is handed to the finish stage.
    HandedToFinish = "handed.finish",
    /// Before a job is handed to delivery.
    HandedToDeliver = "handed.deliver",
    /// A job has ended; its outcome is not told.
    OutcomeTold = "outcome.told",
    /// Its outcome is taken, not written into the ledger.
    OutcomeTaken = "outcome.taken",
    /// A delivery is claimed; nothing is sent.
    DeliveryClaimed = "delivery.claimed",
    /// Its end is known, not written into the ledger.
    DeliveryEnded = "delivery.ended",
    /// The files of a series may leave their watched folder, says the ledger; none has.
    LeavingBegun = "leaving.begun",
    /// One of them has.
    FileLeft = "leaving.file",
    /// All have; the ledger does not know.
    LeavingEnded = "leaving.ended",
    /// The lock of the ledger is taken, nothing is read.
    LedgerLocked = "ledger.locked",
    /// The tables are there; running jobs are not put back.
    LedgerMigrated = "ledger.migrated",
    /// Running jobs are put back; the mark beside the ledger is not written.
    LedgerRecovered = "ledger.recovered",
    /// Changes are made, not committed.
    LedgerChanged = "ledger.changed",
    /// Changes are on disk; nobody has been told.
    LedgerCommitted = "ledger.committed",
    /// Who asked has been told.
    LedgerAnswered = "ledger.answered",
    /// The ledger's log is folded back into its file at a clean end; the mark is not written.
    LedgerFolded = "ledger.folded",
}

/// The armed point as its index + 1; 0: none.
static ARMED: AtomicUsize = AtomicUsize::new(0);
/// How often the armed point is still passed unharmed.
static PASSES: AtomicU32 = AtomicU32::new(0);

/// Ends the process here if the point is armed.
#[inline]
pub fn point(point: Point) {
    if ARMED.load(Ordering::Relaxed) == point as usize + 1 {
        reached();
    }
}

#[cold]
fn reached() {
    let spared = PASSES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    if spared.is_ok() {
        return;
    }
    // SAFETY: sends a signal to this very process; no memory is involved.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    // Not reached: SIGKILL is delivered before kill returns to its sender.
    std::process::abort();
}

/// Arms the point that [`VARIABLE`] names, if it is set. A name that does not exist is `config.usage`.
pub fn arm() -> Result<(), Fault> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => {
            let (point, time) =
                parse(&text).ok_or_else(|| Fault::new(Code::ConfigUsage, format!("{VARIABLE}={text}: there is no such point")))?;
            PASSES.store(time - 1, Ordering::Relaxed);
            ARMED.store(point as usize + 1, Ordering::Relaxed);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The point, and at which visit, counted from 1.
fn parse(text: &str) -> Option<(Point, u32)> {
    let (name, time) = match text.split_once(':') {
        Some((name, time)) => (name, time.parse().ok().filter(|n| *n > 0)?),
        None => (text, 1),
    };
    Some((*Point::ALL.iter().find(|p| p.name() == name)?, time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_can_be_armed() {
        let names: BTreeSet<_> = Point::ALL.iter().map(|p| p.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for &point in Point::ALL {
            assert_eq!(parse(point.name()), Some((point, 1)));
            assert_eq!(parse(&format!("{}:7", point.name())), Some((point, 7)));
        }
        for wrong in ["", "nowhere", "file.synced:", "file.synced:0", "file.synced:x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
