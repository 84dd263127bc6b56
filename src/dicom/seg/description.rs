//! What a segmentation object says, apart from its pixels and from patient, study, series and equipment.

use crate::dicom::Uid;
use crate::dicom::encode::Concept;

/// How labels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One bit a pixel and one frame for each segment and slice that it occurs in (Segmentation Storage, BINARY).
    Binary,
    /// The value itself and one frame for each slice that is not all background (Label Map Segmentation Storage).
    LabelMap,
}

impl Kind {
    /// SOP Class UID.
    pub fn sop_class(self) -> &'static str {
        use dicom_dictionary_std::uids;
        match self {
            Kind::Binary => uids::SEGMENTATION_STORAGE,
            Kind::LabelMap => uids::LABEL_MAP_SEGMENTATION_STORAGE,
        }
    }
}

/// Label values `[z, y, x]`; 0 is the background.
#[derive(Clone, Copy)]
pub enum LabelValues<'a> {
    /// 8 bits.
    U8(&'a [u8]),
    /// 16 bits.
    U16(&'a [u16]),
}

impl LabelValues<'_> {
    /// Number of voxels.
    pub fn len(&self) -> usize {
        match self {
            LabelValues::U8(v) => v.len(),
            LabelValues::U16(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A plane of the source: where it lies and which frame of which instance holds it.
#[derive(Clone, Copy, Debug)]
pub struct SourcePlane<'a> {
    /// Image Position (Patient), LPS mm.
    pub position: [f64; 3],
    /// SOP Class UID.
    pub sop_class: &'a Uid,
    /// SOP Instance UID.
    pub sop_instance: &'a Uid,
    /// Frame number from 1 in a multi-frame instance.
    pub frame: Option<u32>,
}

/// A series that the labels were computed from and that lies on another grid: referred to as a whole.
#[derive(Clone, Debug)]
pub struct SourceSeries<'a> {
    /// Series Instance UID.
    pub series: &'a Uid,
    /// SOP Class UID and SOP Instance UID of each instance.
    pub instances: Vec<(&'a Uid, &'a Uid)>,
}

/// The Pixel Measures and Plane Orientation that all frames share.
#[derive(Clone, Copy, Debug)]
pub struct Measures {
    /// Pixel Spacing: between rows, between columns, mm.
    pub pixel_spacing: [f64; 2],
    /// Slice Thickness, mm.
    pub slice_thickness: Option<f64>,
    /// Spacing Between Slices along the normal, mm; none when it differs from slice to slice.
    pub spacing_between_slices: Option<f64>,
    /// Unit vector of increasing column index, LPS.
    pub row_direction: [f64; 3],
    /// Unit vector of increasing row index, LPS.
    pub column_direction: [f64; 3],
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// The label value that it is made of.
    pub value: u16,
    /// Segment Number. BINARY: 1, 2, 3 … without gaps; LABELMAP: the value.
    pub number: u16,
    /// Segment Label, at most 64 characters.
    pub label: &'a str,
    /// Segment Description, at most 1024 characters.
    pub description: Option<&'a str>,
    /// Segmented Property Category.
    pub category: Concept<'a>,
    /// Segmented Property Type.
    pub property_type: Concept<'a>,
    /// Segmented Property Type Modifier.
    pub modifier: Option<Concept<'a>>,
    /// Anatomic Region.
    pub region: Option<Concept<'a>>,
    /// Anatomic Region Modifier.
    pub region_modifier: Option<Concept<'a>>,
    /// Recommended Display CIELab Value as DICOM scales it.
    pub cielab: [u16; 3],
    /// Tracking UID; the label is the Tracking ID.
    pub tracking_uid: Uid,
}

/// Name and version of what made the segments (Algorithm Identification macro).
#[derive(Clone, Copy, Debug)]
pub struct Algorithm<'a> {
    /// Algorithm Name, at most 64 characters.
    pub name: &'a str,
    /// Algorithm Version.
    pub version: &'a str,
}

/// A segmentation object without its pixels.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// BINARY or LABELMAP.
    pub kind: Kind,
    /// SOP Instance UID of the object.
    pub sop_instance: Uid,
    /// Dimension Organization UID.
    pub dimension: Uid,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// What all frames share.
    pub measures: Measures,
    /// Source planes, one per slice of the labels, ascending along `row × column`.
    pub planes: Vec<SourcePlane<'a>>,
    /// Series Instance UID of the source planes.
    pub series: &'a Uid,
    /// Further inputs.
    pub further: Vec<SourceSeries<'a>>,
    /// Label values that no segment names are left out; otherwise segments name every value but 0.
    pub partial: bool,
    /// Segments, ascending by number.
    pub segments: Vec<Segment<'a>>,
    /// What made them.
    pub algorithm: Algorithm<'a>,
}
