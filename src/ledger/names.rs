//! The closed sets of the ledger, each word as it stands in the tables and in `--json`.

/// An enum whose variants have stable names.
macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every one.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The stable name.
            pub fn name(self) -> &'static str { match self { $($name::$variant => $text,)* } }

            /// The one of this name.
            pub fn from_name(name: &str) -> Option<$name> { $name::ALL.iter().copied().find(|n| n.name() == name) }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.name()) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(self.name()) }
        }
    };
}

names! {
    /// Where a job is.
    State {
        /// Waits for its turn.
        Queued = "queued",
        /// A worker has it.
        Running = "running",
        /// Failed for now; its turn comes again after a pause.
        Waiting = "waiting",
        /// Can not be done; told why, files untouched.
        Parked = "parked",
        /// Its result is published.
        Done = "done",
        /// A person ended it.
        Cancelled = "cancelled",
        /// Its series changed before it was done: a later job has the whole series.
        Superseded = "superseded",
    }
}

impl State {
    /// Whether nothing more happens to the job by itself.
    pub fn is_final(self) -> bool {
        matches!(self, State::Parked | State::Done | State::Cancelled | State::Superseded)
    }
}

names! {
    /// Where the delivery of a result to one destination is.
    DeliveryState {
        /// Waits for its turn.
        Pending = "pending",
        /// A worker sends it.
        Sending = "sending",
        /// Failed for now; its turn comes again after a pause.
        Waiting = "waiting",
        /// The destination has it.
        Delivered = "delivered",
        /// The destination refuses it.
        Parked = "parked",
        /// Not wanted any more.
        Cancelled = "cancelled",
    }
}

impl DeliveryState {
    /// Whether it may still be sent by itself.
    pub fn is_open(self) -> bool {
        matches!(self, DeliveryState::Pending | DeliveryState::Sending | DeliveryState::Waiting)
    }
}

names! {
    /// What comes first.
    Priority {
        /// Whenever there is time.
        Batch = "batch",
        /// The usual.
        Routine = "routine",
        /// Before all others.
        Stat = "stat",
    }
}

names! {
    /// Where a file came from.
    Origin {
        /// A watched folder.
        Folder = "folder",
        /// The network.
        Network = "network",
    }
}

names! {
    /// What the journal tells.
    Event {
        /// A process opened the ledger.
        Opened = "opened",
        /// A process ended well.
        Ended = "ended",
        /// The ledger turned out to be an older copy.
        Restored = "restored",
        /// A series was found complete.
        Closed = "closed",
        /// A job came into the line.
        Queued = "queued",
        /// A result that was there already was taken into the ledger.
        Adopted = "adopted",
        /// A worker took the job.
        Claimed = "claimed",
        /// The process died while it worked on the job, or its lease ran out.
        Crashed = "crashed",
        /// It failed for now.
        Postponed = "postponed",
        /// It can not be done.
        Parked = "parked",
        /// A worker gave it back undone, at its own end.
        Released = "released",
        /// Its model was rolled back while it was in work: it is done with the one that serves now.
        Repinned = "repinned",
        /// The result is published, or the delivery confirmed.
        Finished = "finished",
        /// It is sent again although nobody can tell whether it is there.
        Resent = "resent",
        /// The destination is asked to commit itself to keeping it.
        Asked = "asked",
        /// The destination answered that while it was still being sent to.
        Answered = "answered",
        /// A person had it tried again.
        Retried = "retried",
        /// A person ended it.
        Cancelled = "cancelled",
        /// The series changed.
        Superseded = "superseded",
        /// The result was found damaged and is made again.
        Reopened = "reopened",
        /// The instances that were received for it were removed: their time is over.
        Discarded = "discarded",
        /// A person had all removed that there was of a study.
        Purged = "purged",
        /// The job's row was removed: its files are gone and its time is over.
        Forgotten = "forgotten",
    }
}

names! {
    /// What a case of the curated store is good for.
    CaseKind {
        /// A person signed for its labels.
        Labelled = "labelled",
        /// A local study without labels: rehearsal, and agreement of models.
        Unlabelled = "unlabelled",
    }
}

names! {
    /// Where a case of the curated store is.
    CaseState {
        /// Waits for a reader.
        Pending = "pending",
        /// May be used.
        Accepted = "accepted",
        /// A reader does not want it.
        Refused = "refused",
        /// A person took it out again; for good.
        Withdrawn = "withdrawn",
        /// It did not pass admission.
        Rejected = "rejected",
    }
}

impl CaseState {
    /// Whether a case may go from here to there.
    pub fn may_become(self, to: CaseState) -> bool {
        use CaseState::{Accepted, Pending, Refused, Rejected, Withdrawn};
        match self {
            Pending => to != Pending,
            Accepted => matches!(to, Refused | Withdrawn | Rejected),
            Refused | Rejected => to != self,
            Withdrawn => false,
        }
    }
}

names! {
    /// Which side of the split a patient is on, for ever.
    PatientRole {
        /// Learned from.
        Training = "training",
        /// Only ever measured on.
        Locked = "locked",
    }
}

names! {
    /// Where a training run is.
    RunState {
        /// Waits for its window.
        Queued = "queued",
        /// Its folder is being made.
        Preparing = "preparing",
        /// The trainer works, or is paused.
        Training = "training",
        /// The candidate is being measured.
        Evaluating = "evaluating",
        /// The candidate passed its gates; a person decides.
        Passed = "passed",
        /// The candidate runs beside the serving model.
        Shadow = "shadow",
        /// The gates refused the candidate.
        Refused = "refused",
        /// It could not go on.
        Failed = "failed",
        /// A person ended it.
        Stopped = "stopped",
        /// The candidate serves, or did.
        Promoted = "promoted",
    }
}

impl RunState {
    /// Whether it needs the machine, now or in its window. One run at a time does.
    pub fn is_open(self) -> bool {
        matches!(self, RunState::Queued | RunState::Preparing | RunState::Training | RunState::Evaluating)
    }

    /// Whether nothing more happens to it.
    pub fn is_final(self) -> bool {
        matches!(self, RunState::Refused | RunState::Failed | RunState::Stopped | RunState::Promoted)
    }

    /// Whether a run may go from here to there. An open one may go back, as when its folder is made anew.
    pub fn may_become(self, to: RunState) -> bool {
        match self {
            open if open.is_open() => to != RunState::Promoted && to != RunState::Shadow,
            RunState::Passed => matches!(to, RunState::Shadow | RunState::Promoted | RunState::Stopped | RunState::Failed),
            RunState::Shadow => matches!(to, RunState::Passed | RunState::Promoted | RunState::Stopped | RunState::Failed),
            _ => false,
        }
    }
}

names! {
    /// What the audit of models and cases tells.
    AuditEvent {
        /// A case came into the store, or its labels were replaced.
        CaseAdded = "case_added",
        /// A case was accepted, refused, withdrawn or rejected.
        CaseDecided = "case_decided",
        /// A case was removed from the store.
        CaseRemoved = "case_removed",
        /// Patients were given their side of the split.
        RolesAssigned = "roles_assigned",
        /// Patients were found to be one person.
        PatientsLinked = "patients_linked",
        /// A training run was wished for.
        RunBegun = "run_begun",
        /// A training run went on to another state.
        RunMoved = "run_moved",
        /// The locked cases were looked at to judge a candidate.
        GatesOpened = "gates_opened",
        /// A generation came into the store.
        Published = "published",
        /// A person approved a generation for clinical use.
        Approved = "approved",
        /// A generation serves from now on.
        Activated = "activated",
        /// The generation before serves again.
        RolledBack = "rolled_back",
        /// A generation runs beside the serving one, or no longer does.
        ShadowSet = "shadow_set",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        let names: Vec<&str> = State::ALL.iter().map(|s| s.name()).collect();
        assert!(names.iter().all(|n| State::from_name(n).is_some_and(|s| s.name() == *n)));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert_eq!(State::from_name("nothing"), None);
        assert!(Priority::Stat > Priority::Routine && Priority::Routine > Priority::Batch);
    }
}
