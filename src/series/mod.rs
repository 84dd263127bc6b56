//! From instances to series: grouping, ordering, gaps, tilt, duplicates, splits, candidate pairs.
//!
//! Knows headers, not pixels. Positions are DICOM patient LPS millimetres; slices are ordered along
//! `row × column` (the normal), never by InstanceNumber or file name.

mod duplicates;
mod eligible;
mod geometry;
mod grids;
mod group;
mod phases;
mod types;
mod wholeness;

pub use crate::config::Irregular;
pub use crate::dicom::{PetHeader, PixelFormat, PlaneTiming, Rescale};
pub use group::{Candidates, candidate_cases, group};
pub use types::{
    Case, DOSE_ASSUMED, Geometry, Grouped, MOST_PLANES, PixelSpacing, Plane, PlaneDigest, Policy, Refusal, RejectedSeries, Series,
};
pub use wholeness::{Trace, Wholeness, trace, wholeness};
