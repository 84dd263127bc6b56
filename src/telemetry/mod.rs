//! What the daemon tells about itself: every metric name in one file, log lines without patient data.

pub mod log;
pub mod metrics;
mod names;
pub mod reading;
pub mod words;

pub use metrics::Metrics;
pub use names::{Association, Ended, Evidence, JobState, Place, Post, Received, Stage, Transport, Urgency, Watermark};
