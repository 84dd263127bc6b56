//! The closed sets that metric labels and log fields come from.

/// The steps that a study goes through; what heartbeats, stage times and back-pressure are told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Pixels become a volume.
    Read,
    /// The volume becomes the network's grid.
    Prepare,
    /// The grid becomes labels.
    Segment,
    /// The labels become files in a staging folder.
    Finish,
    /// The files are published.
    Deliver,
}

impl Stage {
    /// In the order of the street.
    pub const ALL: [Stage; 5] = [Stage::Read, Stage::Prepare, Stage::Segment, Stage::Finish, Stage::Deliver];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Prepare => "prepare",
            Stage::Segment => "segment",
            Stage::Finish => "finish",
            Stage::Deliver => "deliver",
        }
    }
}

/// Where heartbeats come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Post {
    /// Folders are looked at, series closed, jobs claimed, the ledger written.
    Intake,
    /// A stage of the street.
    Stage(Stage),
    /// A result is brought to a destination.
    Outbox,
}

impl Post {
    /// Every post.
    pub fn all() -> impl Iterator<Item = Post> {
        [Post::Intake, Post::Outbox].into_iter().chain(Stage::ALL.into_iter().map(Post::Stage))
    }

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Post::Intake => "intake",
            Post::Stage(stage) => stage.name(),
            Post::Outbox => "outbox",
        }
    }
}

/// Where a job can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobState {
    /// Waits for its turn or for memory.
    Queued,
    /// In the street.
    Working,
    /// Failed for now; tried again by itself.
    Waiting,
    /// Can not be done; told why, files untouched.
    Parked,
}

impl JobState {
    /// Every state.
    pub const ALL: [JobState; 4] = [JobState::Queued, JobState::Working, JobState::Waiting, JobState::Parked];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Working => "working",
            JobState::Waiting => "waiting",
            JobState::Parked => "parked",
        }
    }
}

/// Why a series was taken for complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// As many instances as the headers announce, evenly spaced.
    Count,
    /// Its sender was done.
    Association,
    /// Nothing came for the quiet time.
    Timer,
    /// Something was missing or not readable, and did not come for several times the quiet time.
    Patience,
}

impl Evidence {
    /// Every kind.
    pub const ALL: [Evidence; 4] = [Evidence::Count, Evidence::Association, Evidence::Timer, Evidence::Patience];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Evidence::Count => "count",
            Evidence::Association => "association",
            Evidence::Timer => "timer",
            Evidence::Patience => "patience",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its result was published.
    Published,
    /// Its result had been published before.
    AlreadyPublished,
    /// It can not be done.
    Parked,
    /// It failed for now and waits for another try.
    Retried,
    /// It was given up because the daemon ends.
    Abandoned,
}

impl Ended {
    /// Every end and its name.
    pub(super) const ALL: [(Ended, &'static str); 5] = [
        (Ended::Published, "published"),
        (Ended::AlreadyPublished, "already_published"),
        (Ended::Parked, "parked"),
        (Ended::Retried, "retried"),
        (Ended::Abandoned, "abandoned"),
    ];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        Ended::ALL.iter().find(|(ended, _)| *ended == self).map_or("", |(_, name)| name)
    }
}

/// What became of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Association {
    /// It was accepted.
    Accepted,
    /// It was rejected: a title, calling or called, is none that is known here.
    RejectedTitle,
    /// It was dropped or rejected: the caller's address is none that may connect.
    RejectedAddress,
    /// It was dropped or rejected: too many are open, or there is no thread for it.
    RejectedResources,
    /// It never came about: TLS failed, or what came was no request.
    RejectedProtocol,
    /// It ended with a release.
    Released,
    /// It was lost or aborted.
    Aborted,
}

impl Association {
    /// Every end and beginning.
    pub const ALL: [Association; 7] = [
        Association::Accepted,
        Association::RejectedTitle,
        Association::RejectedAddress,
        Association::RejectedResources,
        Association::RejectedProtocol,
        Association::Released,
        Association::Aborted,
    ];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Association::Accepted => "accepted",
            Association::RejectedTitle => "rejected_ae",
            Association::RejectedAddress => "rejected_address",
            Association::RejectedResources => "rejected_resources",
            Association::RejectedProtocol => "rejected_protocol",
            Association::Released => "released",
            Association::Aborted => "aborted",
        }
    }
}

/// How an object came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// C-STORE.
    Dimse,
    /// STOW-RS.
    Stow,
    /// A file that appeared in a watched folder.
    Folder,
}

impl Transport {
    /// Every way.
    pub const ALL: [Transport; 3] = [Transport::Dimse, Transport::Stow, Transport::Folder];
    /// Those over the network.
    pub const NETWORK: [Transport; 2] = [Transport::Dimse, Transport::Stow];

    /// As it stands in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Dimse => "dimse",
            Transport::Stow => "stow",
            Transport::Folder => "folder",
        }
    }
}

/// What became of an object that came over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is on disk.
    Stored,
    /// It was on disk already.
    Duplicate,
    /// It was not kept.
    Refused,
}

impl Received {
    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Received::Stored => "stored",
            Received::Duplicate => "duplicate",
            Received::Refused => "refused",
        }
    }
}

/// How soon a study is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Before all others.
    Stat,
    /// As usual.
    Routine,
    /// When nothing else waits.
    Batch,
}

impl Urgency {
    /// Every kind.
    pub const ALL: [Urgency; 3] = [Urgency::Stat, Urgency::Routine, Urgency::Batch];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Urgency::Stat => "stat",
            Urgency::Routine => "routine",
            Urgency::Batch => "batch",
        }
    }
}

/// A folder whose file system is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The ledger's.
    State,
    /// That of what was received.
    Spool,
    /// That of results.
    Output,
}

impl Place {
    /// Every place.
    pub const ALL: [Place; 3] = [Place::State, Place::Spool, Place::Output];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Place::State => "state",
            Place::Spool => "spool",
            Place::Output => "output",
        }
    }
}

/// How little may be free on a disk before something is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Watermark {
    /// What is optional is not written.
    Low,
    /// Nothing is taken.
    Full,
}

impl Watermark {
    /// Both.
    pub const ALL: [Watermark; 2] = [Watermark::Low, Watermark::Full];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Watermark::Low => "low",
            Watermark::Full => "full",
        }
    }
}

/// What an audit message tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditKind {
    /// The daemon was started.
    ApplicationStart,
    /// It ended.
    ApplicationStop,
    /// A transfer begins.
    TransferBegun,
    /// A transfer has ended.
    Transferred,
    /// Instances were read, added or removed.
    Accessed,
    /// A study was deleted by a person.
    StudyDeleted,
    /// Somebody was refused.
    SecurityAlert,
    /// A person's command.
    UserAction,
}

impl AuditKind {
    /// Every kind.
    pub const ALL: [AuditKind; 8] = [
        AuditKind::ApplicationStart,
        AuditKind::ApplicationStop,
        AuditKind::TransferBegun,
        AuditKind::Transferred,
        AuditKind::Accessed,
        AuditKind::StudyDeleted,
        AuditKind::SecurityAlert,
        AuditKind::UserAction,
    ];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            AuditKind::ApplicationStart => "application_start",
            AuditKind::ApplicationStop => "application_stop",
            AuditKind::TransferBegun => "transfer_begun",
            AuditKind::Transferred => "transferred",
            AuditKind::Accessed => "accessed",
            AuditKind::StudyDeleted => "study_deleted",
            AuditKind::SecurityAlert => "security_alert",
            AuditKind::UserAction => "user_action",
        }
    }
}

/// What became of an event that is to be audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFate {
    /// Its message is on disk.
    Recorded,
    /// There was no room for it, or no disk.
    Lost,
    /// There were too many alerts in a minute.
    Suppressed,
}

impl AuditFate {
    /// Every fate.
    pub const ALL: [AuditFate; 3] = [AuditFate::Recorded, AuditFate::Lost, AuditFate::Suppressed];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            AuditFate::Recorded => "recorded",
            AuditFate::Lost => "lost",
            AuditFate::Suppressed => "suppressed",
        }
    }
}

/// What a rule says of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// It decides: the volume is segmented by it, or left alone.
    Match,
    /// It does not apply.
    Skip,
    /// It applies, and its model is not for this volume.
    Error,
}

impl Evaluation {
    /// Everything.
    pub const ALL: [Evaluation; 3] = [Evaluation::Match, Evaluation::Skip, Evaluation::Error];

    /// As labels say it.
    pub fn name(self) -> &'static str {
        match self {
            Evaluation::Match => "match",
            Evaluation::Skip => "skip",
            Evaluation::Error => "error",
        }
    }
}

/// Part of the body that a structure belongs to: a label of twelve values in the place of some hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassGroup {
    /// Vertebrae, sacrum, spinal cord.
    Spine,
    /// Ribs, sternum, costal cartilages.
    Ribs,
    /// Lungs and airways.
    Lungs,
    /// Heart.
    Heart,
    /// Arteries and veins.
    Vessels,
    /// Liver, spleen, pancreas, gallbladder.
    UpperAbdomen,
    /// Oesophagus to colon.
    Bowel,
    /// Kidneys, adrenal glands, bladder, prostate.
    Urogenital,
    /// Muscles.
    Muscles,
    /// Bones of the limbs and girdles.
    Bones,
    /// Brain, skull, face, neck.
    Head,
    /// All others.
    Other,
}

impl ClassGroup {
    /// Every group, its name, and words in the names of its structures; the first group of which one is there counts.
    const TABLE: [(ClassGroup, &'static str, &'static [&'static str]); 12] = [
        (ClassGroup::Spine, "spine", &["vertebra", "sacrum", "spinal"]),
        (ClassGroup::Ribs, "ribs", &["rib_", "ribs", "sternum", "costal"]),
        (ClassGroup::Lungs, "lungs", &["lung", "trachea", "bronch", "pleural"]),
        (ClassGroup::Heart, "heart", &["heart", "atrial", "atrium", "ventricle_left", "ventricle_right", "myocardium"]),
        (ClassGroup::Vessels, "vessels", &["aorta", "artery", "vein", "vena", "trunk", "vessel"]),
        (ClassGroup::UpperAbdomen, "upper_abdomen", &["liver", "spleen", "pancreas", "gallbladder", "gall_bladder"]),
        (ClassGroup::Bowel, "bowel", &["esophagus", "stomach", "duodenum", "bowel", "colon", "rectum"]),
        (ClassGroup::Urogenital, "urogenital", &["kidney", "adrenal", "bladder", "prostate", "uterus"]),
        (ClassGroup::Muscles, "muscles", &["gluteus", "autochthon", "iliopsoas", "muscle"]),
        (ClassGroup::Bones, "bones", &["humerus", "scapula", "clavicula", "femur", "hip", "tibia", "fibula", "bone"]),
        (ClassGroup::Head, "head", &["brain", "skull", "face", "thyroid"]),
        (ClassGroup::Other, "other", &[]),
    ];

    /// Every group.
    pub const ALL: [ClassGroup; 12] = [
        ClassGroup::Spine,
        ClassGroup::Ribs,
        ClassGroup::Lungs,
        ClassGroup::Heart,
        ClassGroup::Vessels,
        ClassGroup::UpperAbdomen,
        ClassGroup::Bowel,
        ClassGroup::Urogenital,
        ClassGroup::Muscles,
        ClassGroup::Bones,
        ClassGroup::Head,
        ClassGroup::Other,
    ];

    /// The group of a structure, by its name.
    pub fn of(structure: &str) -> ClassGroup {
        let row = ClassGroup::TABLE.iter().find(|(_, _, words)| words.iter().any(|word| structure.contains(word)));
        row.map_or(ClassGroup::Other, |(group, ..)| *group)
    }

    /// As labels say it.
    pub fn name(self) -> &'static str {
        ClassGroup::TABLE.iter().find(|(group, ..)| *group == self).map_or("other", |(_, name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_their_group() {
        for (structure, group) in [
            ("vertebrae_L5", "spine"),
            ("rib_left_1", "ribs"),
            ("lung_upper_lobe_left", "lungs"),
            ("pulmonary_artery", "vessels"),
            ("portal_vein_and_splenic_vein", "vessels"),
            ("heart_atrium_left", "heart"),
            ("gallbladder", "upper_abdomen"),
            ("small_bowel", "bowel"),
            ("urinary_bladder", "urogenital"),
            ("gluteus_maximus_right", "muscles"),
            ("hip_left", "bones"),
            ("brain", "head"),
            ("lesion", "other"),
        ] {
            assert_eq!(ClassGroup::of(structure).name(), group, "{structure}");
        }
        assert!(ClassGroup::ALL.iter().all(|group| !group.name().is_empty()));
    }
}
