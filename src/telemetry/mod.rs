//! What the daemon tells about itself: every metric name in one file (`names.rs`), log lines without patient data.

mod labels;
pub mod log;
pub mod metrics;
pub mod names;
pub mod reading;
pub mod words;

pub use labels::{
    Association, AuditFate, AuditKind, ClassGroup, Ended, Evaluation, Evidence, JobState, Place, Post, Received, Stage, Transport, Urgency,
    Watermark,
};
pub use metrics::Metrics;
