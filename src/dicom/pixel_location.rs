//! Where the pixel data of a file lies.

use dicom_core::Tag;

/// Where the pixel data lies, in bytes of the file, or of the inflated data set when the transfer syntax is the deflated one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelLocation {
    /// (7FE0,0010), or float pixel data (7FE0,0008), (7FE0,0009).
    pub tag: Tag,
    /// The two letters of the value representation.
    pub vr: [u8; 2],
    /// First byte of the value.
    pub offset: u64,
    /// Length of the value, fragment headers and delimiter included.
    pub length: u64,
    /// The fragments, when the value is encapsulated.
    pub encapsulated: Option<Encapsulated>,
}

impl PixelLocation {
    /// The offset behind the value.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// The parts of an encapsulated value (PS3.5 annex A.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encapsulated {
    /// Basic offset table: where each frame's first fragment header lies, from the first fragment header on. Often empty.
    pub offsets: Vec<u64>,
    /// The fragments, offset table excluded.
    pub fragments: Vec<Fragment>,
    /// The first bytes of the first fragment.
    pub head: Vec<u8>,
}

/// One fragment of encapsulated pixel data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// First byte of the content.
    pub offset: u64,
    /// Length of the content.
    pub length: u32,
}
