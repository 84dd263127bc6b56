//! Reads segmentation objects of any maker: BINARY, FRACTIONAL and LABELMAP, native, RLE or deflated frames.

use super::{bits, rle};
use crate::dicom::Uid;
use dicom_core::value::Value;
use dicom_core::{DataDictionary, Tag};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use std::io::Read;
use std::path::Path;

/// Limits on what an object may declare.
const MAX_FRAMES: usize = 200_000;
const MAX_SEGMENTS: usize = 65_535;
const MAX_SIDE: u16 = 8192;
const MAX_SOURCES: usize = 4096;

/// Why an object could not be read. Values are never printed: they may identify a patient.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not DICOM, or damaged.
    #[error("the file can not be read as DICOM")]
    Parse,
    /// Another SOP class.
    #[error("the object is no segmentation")]
    NotSegmentation,
    /// An attribute is absent or can not be understood.
    #[error("{} is missing or malformed", name(*.0))]
    Attribute(Tag),
    /// More than the limits allow.
    #[error("{} exceeds the limit of {limit}", name(*.tag))]
    Limit {
        /// Which attribute.
        tag: Tag,
        /// The limit.
        limit: usize,
    },
    /// A transfer syntax or kind of segmentation that is not read.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// Fewer pixels than the header says, or a frame that can not be decoded.
    #[error("the pixel data are shorter than the header says, or damaged")]
    Pixels,
}

fn name(tag: Tag) -> &'static str {
    dicom_dictionary_std::StandardDataDictionary.by_tag(tag).map_or("an attribute", |e| e.alias)
}

/// How an object stores its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// Frame values are 0 and 1.
    Binary,
    /// Frame values are 0 to Maximum Fractional Value: a probability or an occupancy.
    Fractional {
        /// Maximum Fractional Value (0062,000E).
        maximum: u16,
    },
    /// Frame values are segment numbers.
    LabelMap {
        /// Pixel Padding Value (0028,0120): pixels that say nothing.
        padding: Option<u16>,
    },
}

/// A code sequence item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodedItem {
    /// Code Value.
    pub value: String,
    /// Coding Scheme Designator.
    pub scheme: String,
    /// Code Meaning.
    pub meaning: String,
}

/// A segment as the object describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Segment Number.
    pub number: u16,
    /// Segment Label.
    pub label: String,
    /// Segmented Property Category.
    pub category: Option<CodedItem>,
    /// Segmented Property Type.
    pub property_type: Option<CodedItem>,
    /// Segmented Property Type Modifier.
    pub modifier: Option<CodedItem>,
    /// Segment Algorithm Type: `AUTOMATIC`, `SEMIAUTOMATIC` or `MANUAL`.
    pub algorithm_type: String,
    /// Tracking UID.
    pub tracking_uid: Option<Uid>,
}

/// A source image that a frame was derived from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceReference {
    /// Referenced SOP Instance UID.
    pub sop_instance: Uid,
    /// Referenced Frame Number, for a multi-frame source.
    pub frames: Vec<u32>,
}

/// One frame's place and segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Referenced Segment Number; none in a label map.
    pub segment: Option<u16>,
    /// Image Position (Patient), LPS mm.
    pub position: [f64; 3],
    /// Unit vector of increasing column index.
    pub row_direction: [f64; 3],
    /// Unit vector of increasing row index.
    pub column_direction: [f64; 3],
    /// Pixel Spacing: between rows, between columns, mm.
    pub pixel_spacing: [f64; 2],
    /// Source images, as far as they are given.
    pub sources: Vec<SourceReference>,
}

/// A segmentation object.
#[derive(Clone, Debug)]
pub struct SegObject {
    /// How the frames are to be understood.
    pub kind: ReadKind,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Study Instance UID.
    pub study: Uid,
    /// Frame of Reference UID.
    pub frame_of_reference: Option<Uid>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Segments in the order of the object.
    pub segments: Vec<SegmentInfo>,
    /// Frames in the order of the object.
    pub frames: Vec<Frame>,
    bits_allocated: u16,
    pixels: Pixels,
}

#[derive(Clone, Debug)]
enum Pixels {
    /// All frames, one after the other.
    Native(Vec<u8>),
    /// One RLE fragment a frame.
    Rle(Vec<Vec<u8>>),
    /// One deflated fragment a frame.
    Deflated(Vec<Vec<u8>>),
}

impl SegObject {
    /// The values of a frame, row by row.
    pub fn frame(&self, index: usize) -> Result<Vec<u16>, ReadError> {
        let area = self.rows * self.columns;
        let frame_bytes = bits::bytes_for(area as u64 * u64::from(self.bits_allocated)) as usize;
        let widen = |bytes: &[u8], first_bit: u64| match self.bits_allocated {
            1 => bits::unpack(bytes, first_bit, area),
            8 => Some(bytes.get((first_bit / 8) as usize..)?.get(..area)?.iter().map(|&v| v.into()).collect()),
            _ => {
                Some(bytes.get((first_bit / 8) as usize..)?.get(..area * 2)?.as_chunks().0.iter().map(|&v| u16::from_le_bytes(v)).collect())
            }
        };
        let values = match &self.pixels {
            Pixels::Native(bytes) => widen(bytes, index as u64 * area as u64 * u64::from(self.bits_allocated)),
            Pixels::Rle(frames) => {
                let sample = if self.bits_allocated == 16 { 2 } else { 1 };
                frames.get(index).and_then(|f| rle::decode(f, frame_bytes / sample, sample)).and_then(|b| widen(&b, 0))
            }
            Pixels::Deflated(frames) => frames.get(index).and_then(|f| inflate(f, frame_bytes)).and_then(|b| widen(&b, 0)),
        };
        values.ok_or(ReadError::Pixels)
    }
}

fn inflate(data: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::DeflateDecoder::new(data).take(length as u64).read_to_end(&mut out).ok()?;
    Some(out).filter(|o| o.len() == length)
}

/// Reads an object from a file.
pub fn read(path: &Path) -> Result<SegObject, ReadError> {
    from_object(dicom_object::open_file(path).map_err(|_| ReadError::Parse)?)
}

/// Reads an object from memory.
pub fn read_bytes(bytes: &[u8]) -> Result<SegObject, ReadError> {
    from_object(dicom_object::from_reader(bytes).map_err(|_| ReadError::Parse)?)
}

fn from_object(object: dicom_object::DefaultDicomObject) -> Result<SegObject, ReadError> {
    let transfer_syntax = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']).to_owned();
    let mut d = object.into_inner();
    let class = uid(&d, tags::SOP_CLASS_UID).ok_or(ReadError::NotSegmentation)?;
    let kind = match (class.as_str(), text(&d, tags::SEGMENTATION_TYPE).as_deref()) {
        (uids::SEGMENTATION_STORAGE, Some("BINARY")) => ReadKind::Binary,
        (uids::SEGMENTATION_STORAGE, Some("FRACTIONAL")) => {
            ReadKind::Fractional { maximum: short(&d, tags::MAXIMUM_FRACTIONAL_VALUE).unwrap_or(255) }
        }
        (uids::LABEL_MAP_SEGMENTATION_STORAGE, _) => ReadKind::LabelMap { padding: short(&d, tags::PIXEL_PADDING_VALUE) },
        (uids::SEGMENTATION_STORAGE, _) => return Err(ReadError::Attribute(tags::SEGMENTATION_TYPE)),
        _ => return Err(ReadError::NotSegmentation),
    };
    let bits_allocated = short(&d, tags::BITS_ALLOCATED).ok_or(ReadError::Attribute(tags::BITS_ALLOCATED))?;
    match (kind, bits_allocated) {
        (ReadKind::Binary, 1) | (ReadKind::Fractional { .. }, 8) | (ReadKind::LabelMap { .. }, 8 | 16) => {}
        _ => return Err(ReadError::Attribute(tags::BITS_ALLOCATED)),
    }
    let side = |tag| match short(&d, tag) {
        Some(0) | None => Err(ReadError::Attribute(tag)),
        Some(n) if n > MAX_SIDE => Err(ReadError::Limit { tag, limit: MAX_SIDE.into() }),
        Some(n) => Ok(usize::from(n)),
    };
    let (rows, columns) = (side(tags::ROWS)?, side(tags::COLUMNS)?);
    let groups = items(&d, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, MAX_FRAMES)?;
    let declared = d.get(tags::NUMBER_OF_FRAMES).and_then(|e| e.to_int::<u32>().ok()).unwrap_or(1);
    if groups.is_empty() || declared as usize != groups.len() {
        return Err(ReadError::Attribute(tags::NUMBER_OF_FRAMES));
    }
    let shared = items(&d, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, 1)?.first();
    let frames = groups.iter().map(|g| frame(g, shared, kind)).collect::<Result<Vec<_>, _>>()?;
    let segments = items(&d, tags::SEGMENT_SEQUENCE, MAX_SEGMENTS)?.iter().map(segment).collect::<Result<Vec<_>, _>>()?;
    let sop_instance = uid(&d, tags::SOP_INSTANCE_UID).ok_or(ReadError::Attribute(tags::SOP_INSTANCE_UID))?;
    let study = uid(&d, tags::STUDY_INSTANCE_UID).ok_or(ReadError::Attribute(tags::STUDY_INSTANCE_UID))?;
    let frame_of_reference = uid(&d, tags::FRAME_OF_REFERENCE_UID);

    let element = d.take(tags::PIXEL_DATA).ok_or(ReadError::Attribute(tags::PIXEL_DATA))?;
    let pixels = match (element.into_value(), transfer_syntax.as_str()) {
        (Value::Primitive(bytes), _) => Pixels::Native(bytes.to_bytes().into_owned()),
        (Value::PixelSequence(sequence), syntax) => {
            let fragments: Vec<Vec<u8>> = sequence.into_fragments().into_iter().collect();
            if fragments.len() != frames.len() {
                return Err(ReadError::Unsupported("a frame in several fragments"));
            }
            match syntax {
                uids::RLE_LOSSLESS => Pixels::Rle(fragments),
                uids::DEFLATED_IMAGE_FRAME_COMPRESSION => Pixels::Deflated(fragments),
                _ => return Err(ReadError::Unsupported("this compression of the frames")),
            }
        }
        (Value::Sequence(_), _) => return Err(ReadError::Attribute(tags::PIXEL_DATA)),
    };
    if let Pixels::Native(bytes) = &pixels {
        let needed = bits::bytes_for(frames.len() as u64 * rows as u64 * columns as u64 * u64::from(bits_allocated));
        if needed > bytes.len() as u64 {
            return Err(ReadError::Pixels);
        }
    }
    Ok(SegObject { kind, sop_instance, study, frame_of_reference, rows, columns, segments, frames, bits_allocated, pixels })
}

fn frame(own: &InMemDicomObject, shared: Option<&InMemDicomObject>, kind: ReadKind) -> Result<Frame, ReadError> {
    let group = |tag: Tag| first(own, tag).or_else(|| shared.and_then(|s| first(s, tag)));
    let numbers = |sequence: Tag, tag: Tag, count: usize| -> Result<Vec<f64>, ReadError> {
        let values = group(sequence).and_then(|g| g.get(tag)).and_then(|e| e.to_multi_float64().ok());
        values.filter(|v| v.len() == count && v.iter().all(|x| x.is_finite())).ok_or(ReadError::Attribute(tag))
    };
    let position = numbers(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT, 3)?;
    let orientation = numbers(tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT, 6)?;
    let spacing = numbers(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING, 2)?;
    let segment = match kind {
        ReadKind::LabelMap { .. } => None,
        _ => {
            let number = group(tags::SEGMENT_IDENTIFICATION_SEQUENCE).and_then(|g| short(g, tags::REFERENCED_SEGMENT_NUMBER));
            Some(number.ok_or(ReadError::Attribute(tags::REFERENCED_SEGMENT_NUMBER))?)
        }
    };
    let mut sources = Vec::new();
    if let Some(derivation) = group(tags::DERIVATION_IMAGE_SEQUENCE) {
        for source in items(derivation, tags::SOURCE_IMAGE_SEQUENCE, MAX_SOURCES)? {
            let frames = source.get(tags::REFERENCED_FRAME_NUMBER).and_then(|e| e.to_multi_int().ok()).unwrap_or_default();
            sources.extend(uid(source, tags::REFERENCED_SOP_INSTANCE_UID).map(|sop_instance| SourceReference { sop_instance, frames }));
        }
    }
    Ok(Frame {
        segment,
        position: [position[0], position[1], position[2]],
        row_direction: [orientation[0], orientation[1], orientation[2]],
        column_direction: [orientation[3], orientation[4], orientation[5]],
        pixel_spacing: [spacing[0], spacing[1]],
        sources,
    })
}

fn segment(item: &InMemDicomObject) -> Result<SegmentInfo, ReadError> {
    let property_type = first(item, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE);
    Ok(SegmentInfo {
        number: short(item, tags::SEGMENT_NUMBER).ok_or(ReadError::Attribute(tags::SEGMENT_NUMBER))?,
        label: text(item, tags::SEGMENT_LABEL).unwrap_or_default(),
        category: first(item, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE).and_then(code),
        property_type: property_type.and_then(code),
        modifier: property_type.and_then(|t| first(t, tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE)).and_then(code),
        algorithm_type: text(item, tags::SEGMENT_ALGORITHM_TYPE).unwrap_or_default(),
        tracking_uid: uid(item, tags::TRACKING_UID),
    })
}

fn code(item: &InMemDicomObject) -> Option<CodedItem> {
    Some(CodedItem {
        value: text(item, tags::CODE_VALUE).or_else(|| text(item, tags::LONG_CODE_VALUE))?,
        scheme: text(item, tags::CODING_SCHEME_DESIGNATOR).unwrap_or_default(),
        meaning: text(item, tags::CODE_MEANING).unwrap_or_default(),
    })
}

/// The items of a sequence; none when it is absent.
fn items(d: &InMemDicomObject, tag: Tag, limit: usize) -> Result<&[InMemDicomObject], ReadError> {
    let items = d.get(tag).and_then(|e| e.items()).unwrap_or_default();
    if items.len() > limit { Err(ReadError::Limit { tag, limit }) } else { Ok(items) }
}

fn first(d: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    d.get(tag).and_then(|e| e.items()).and_then(|i| i.first())
}

fn text(d: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = d.get(tag)?.to_str().ok()?;
    let text = text.trim_matches(['\0', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn uid(d: &InMemDicomObject, tag: Tag) -> Option<Uid> {
    Uid::parse(&text(d, tag)?).ok()
}

fn short(d: &InMemDicomObject, tag: Tag) -> Option<u16> {
    d.get(tag)?.to_int::<u16>().ok()
}
