//! From instances to series: grouping, ordering, gaps, tilt, duplicates, splits, candidate pairs.
//!
//! Knows headers, not pixels. Positions are DICOM patient LPS millimetres; slices are ordered along
//! `row × column` (the normal), never by InstanceNumber or file name.

mod types;

pub use crate::dicom::{PetHeader, PixelFormat, PlaneTiming, Rescale};
pub use types::{Case, Geometry, Grouped, Irregular, PixelSpacing, Plane, Policy, Refusal, RejectedSeries, Series};
