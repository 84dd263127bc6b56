//! What can go wrong in this room.

use crate::fault::{Code, Fault};
use crate::volume::LabelMapError;

/// Why a study can not be segmented.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The network or libtorch.
    #[error(transparent)]
    Network(#[from] crate::stunet::Error),
    /// A grid or patch without voxels.
    #[error("a grid of {shape:?} voxels and a patch of {patch:?} make no windows")]
    EmptyGrid {
        /// Grid.
        shape: [usize; 3],
        /// Patch.
        patch: [usize; 3],
    },
    /// The window distance is out of range.
    #[error("a window distance of {step} patches is not in (0, 1], or is less than a voxel of the patch {patch:?}")]
    Step {
        /// Share of the patch.
        step: f64,
        /// Patch.
        patch: [usize; 3],
    },
    /// Image and model have different channels.
    #[error("the image has {got} channels, the model takes {expected}")]
    Channels {
        /// The model's.
        expected: usize,
        /// The image's.
        got: usize,
    },
    /// Air can not be told from the rest.
    #[error("skip_air: the model's first channel is not normalised by HU alone, so air can not be told")]
    NotHu,
    /// The prepared grid contradicts itself or the model.
    #[error("{0}")]
    Inconsistent(String),
    /// The study does not fit the memory that may be used.
    #[error("{what}: {needed} MiB are needed, {limit} MiB may be used")]
    TooLarge {
        /// Host or device, and which grid.
        what: String,
        /// Bytes needed, in MiB.
        needed: u64,
        /// Bytes allowed, in MiB.
        limit: u64,
    },
    /// The device ran out of memory in the most frugal way too.
    #[error(
        "one window at a time with all sums on the host needs about {needed} MiB of the device, and {}: {source}",
        limit.map_or("that was not free".into(), |limit| format!("{limit} MiB may be used"))
    )]
    Exhausted {
        /// Bytes needed, in MiB.
        needed: u64,
        /// Bytes that were free or are allowed, in MiB, where that is known.
        limit: Option<u64>,
        /// What libtorch said.
        source: crate::stunet::Error,
    },
    /// The network's output is not a number.
    #[error("the network's output is not finite in slice {0} of its grid")]
    NotFinite(usize),
    /// Asked to stop by the progress callback.
    #[error("stopped after {done} of {of} windows")]
    Stopped {
        /// Windows done.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// The labels do not make a label map.
    #[error(transparent)]
    Labels(#[from] LabelMapError),
}

impl From<tch::TchError> for SegmentError {
    fn from(error: tch::TchError) -> SegmentError {
        SegmentError::Network(error.into())
    }
}

impl From<SegmentError> for Fault {
    fn from(error: SegmentError) -> Fault {
        let code = match error {
            SegmentError::Network(error) => return error.into(),
            SegmentError::Step { .. } | SegmentError::NotHu => Code::ConfigUsage,
            SegmentError::Channels { .. } => Code::ModelChannels,
            SegmentError::TooLarge { .. } => Code::MemoryTooLarge,
            SegmentError::Exhausted { .. } => Code::DeviceOutOfMemory,
            SegmentError::NotFinite(_) => Code::ModelNotFinite,
            SegmentError::Stopped { .. } => Code::InternalShutdown,
            SegmentError::EmptyGrid { .. } | SegmentError::Inconsistent(_) | SegmentError::Labels(_) => Code::InternalBug,
        };
        Fault::new(code, error.to_string()).caused_by(error)
    }
}
