//! DICOM vocabulary: UIDs, raw attributes, character sets, the code dictionary, and the guard that looks at a file
//! before the parser does.

pub mod charset;
mod codestream;
pub mod command;
pub mod commitment;
mod copied;
pub mod ct_image;
mod elements;
pub mod encode;
mod error;
pub mod guard;
mod header;
mod instance;
mod patient;
mod pixel_data;
mod pixel_location;
pub mod query;
pub mod rle;
pub mod rtstruct;
pub mod seg;
pub mod syntax;
mod time;
mod uid;

pub use copied::{CopiedAttributes, RawElement};
pub use elements::{DataSet, Level, Value};
pub use error::DicomError;
pub use header::{Identity, read_identity, read_instance};
pub use instance::{
    Announced, Frame, ImageObject, Instance, PetHeader, PhaseKey, PhaseKeys, PhaseValue, PixelFormat, PlaneTiming, RefusedFile, Rescale,
    SelectionTags, SeriesKey,
};
pub use patient::{Patient, is_of_patient, patient_of};
pub use pixel_data::PixelData;
pub use pixel_location::{Encapsulated, Fragment, PixelLocation};
pub use uid::{Uid, UidError};
