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
