//! What the daemon tells about itself: every metric name in one file, log lines without patient data.

pub mod log;
pub mod metrics;
mod names;

pub use metrics::Metrics;
pub use names::{Evidence, JobState, Post, Stage};
