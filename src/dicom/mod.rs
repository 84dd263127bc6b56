//! DICOM vocabulary: UIDs, raw attributes, character sets, the code dictionary, and the guard that looks at a file
//! before the parser does.

mod instance;
mod uid;

pub use instance::{
    Announced, Frame, ImageObject, Instance, PetHeader, PhaseKey, PhaseKeys, PhaseValue, PixelFormat, PlaneTiming, RefusedFile, Rescale,
    SelectionTags, SeriesKey,
};
pub use uid::{Uid, UidError};

/// Attributes of the source that results repeat byte for byte: raw values with their tag and VR, so that names in any
/// character set survive. Has neither `Display` nor a `Debug` that prints: patient data never reaches a log.
#[derive(Clone, Default)]
pub struct CopiedAttributes {
    /// `(group, element)`, VR, raw value bytes without padding rules applied; ascending by tag.
    pub elements: Vec<RawElement>,
}

/// One raw attribute.
#[derive(Clone)]
pub struct RawElement {
    /// Group and element.
    pub tag: (u16, u16),
    /// The two letters of the value representation.
    pub vr: [u8; 2],
    /// The value as it stands in the file. Sequences are not kept here.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for CopiedAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CopiedAttributes({} elements)", self.elements.len())
    }
}
