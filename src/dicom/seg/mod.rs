//! DICOM Segmentation objects (PS3.3 A.51 and A.90): bit packing, writing BINARY and LABELMAP, reading all kinds.
//!
//! Label values come in as `[z, y, x]` slices on the grid of the source planes and are packed straight into the file,
//! slice by slice in parallel: the memory used does not depend on the number of segments.

pub mod bits;
mod description;
mod header;
mod read;
mod write;

pub use description::{Algorithm, Description, Kind, LabelValues, Measures, Segment, SourcePlane, SourceSeries};
pub use read::{CodedItem, Frame, ReadKind, SegObject, SegmentInfo, SourceReference, read};
pub use write::{WriteError, Written, slices_with, write};
