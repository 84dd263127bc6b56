//! Reads segmentation objects of any maker: BINARY, FRACTIONAL and LABELMAP, native, RLE or deflated frames. The guard walks the file
//! first; every count is checked before memory is reserved.

use super::bits;
use crate::dicom::guard::{self, Limits};
use crate::dicom::{DicomError, Level, PixelData, Uid, charset, rle};
use dicom_core::{DataDictionary, Tag};
use dicom_dictionary_std::{tags, uids};
use std::io::Read;
use std::path::Path;

/// What a segmentation object may ask for: many frames, each with a few dozen elements.
const LIMITS: Limits = Limits {
    file_bytes: 8 << 30,
    elements: 8_000_000,
    depth: 32,
    value_bytes: 64 << 20,
    kept_bytes: 512 << 20,
    inflated_bytes: 4 << 30,
    fragments: MAX_FRAMES,
    rows_columns: 8192,
    frames: MAX_FRAMES as u32,
    decoded_bytes: 4 << 30,
};
const MAX_FRAMES: usize = 200_000;
const MAX_SEGMENTS: usize = 65_535;
const MAX_SOURCES: usize = 4096;

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
    big_endian: bool,
    pixels: Pixels,
}

#[derive(Clone, Debug)]
enum Pixels {
    /// All frames, one after the other.
    Native(Vec<u8>),
    /// One RLE codestream a frame.
    Rle(Vec<Vec<u8>>),
    /// One deflate stream a frame.
    Deflated(Vec<Vec<u8>>),
}

impl SegObject {
    /// The values of a frame, row by row.
    pub fn frame(&self, index: usize) -> Result<Vec<u16>, DicomError> {
        let area = self.rows * self.columns;
        let bytes = frame_bytes(area, self.bits_allocated) as usize;
        let widen = |data: &[u8], first_bit: u64| match self.bits_allocated {
            1 => bits::unpack(data, first_bit, area),
            8 => Some(data.get((first_bit / 8) as usize..)?.get(..area)?.iter().map(|&v| v.into()).collect()),
            _ => {
                let words = data.get((first_bit / 8) as usize..)?.get(..2 * area)?.as_chunks().0;
                Some(words.iter().map(|&w| if self.big_endian { u16::from_be_bytes(w) } else { u16::from_le_bytes(w) }).collect())
            }
        };
        let values = match &self.pixels {
            Pixels::Native(data) => widen(data, index as u64 * area as u64 * u64::from(self.bits_allocated)),
            Pixels::Rle(frames) => {
                let sample = usize::from(self.bits_allocated.div_ceil(8));
                frames.get(index).and_then(|f| unpack(f, sample, bytes)).and_then(|b| widen(&b, 0))
            }
            Pixels::Deflated(frames) => frames.get(index).and_then(|f| inflate(f, bytes)).and_then(|b| widen(&b, 0)),
        };
        values.ok_or_else(|| DicomError::Codestream(format!("frame {} is damaged or too short", index + 1)))
    }
}

fn frame_bytes(area: usize, bits_allocated: u16) -> u64 {
    bits::bytes_for(area as u64 * u64::from(bits_allocated))
}

fn unpack(data: &[u8], sample: usize, length: usize) -> Option<Vec<u8>> {
    let mut out = vec![0; length];
    rle::decode(data, sample, &mut out).ok()?;
    Some(out)
}

fn inflate(data: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::DeflateDecoder::new(data).take(length as u64).read_to_end(&mut out).ok()?;
    Some(out).filter(|o| o.len() == length)
}

/// Reads an object from a file; its pixel data stay as they are until [`SegObject::frame`] asks for them.
pub fn read(path: &Path) -> Result<SegObject, DicomError> {
    let only_segmentations = |class: &str| match class {
        uids::SEGMENTATION_STORAGE | uids::LABEL_MAP_SEGMENTATION_STORAGE => Ok(()),
        other => Err(DicomError::SopClass(crate::dicom::error::printable_uid(other))),
    };
    let walked = guard::walk_file(path, &LIMITS, &only_segmentations);
    if let Some(error) = walked.error {
        return Err(error);
    }
    let d = walked.data.root();
    let class = d.text(tags::SOP_CLASS_UID).ok_or_else(|| wrong(tags::SOP_CLASS_UID))?;
    only_segmentations(&class)?;
    let kind = match (class.as_str(), d.text(tags::SEGMENTATION_TYPE).as_deref()) {
        (uids::LABEL_MAP_SEGMENTATION_STORAGE, _) => ReadKind::LabelMap { padding: short(d, tags::PIXEL_PADDING_VALUE) },
        (_, Some("BINARY")) => ReadKind::Binary,
        (_, Some("FRACTIONAL")) => ReadKind::Fractional { maximum: short(d, tags::MAXIMUM_FRACTIONAL_VALUE).unwrap_or(255) },
        _ => return Err(wrong(tags::SEGMENTATION_TYPE)),
    };
    let bits_allocated = short(d, tags::BITS_ALLOCATED).ok_or_else(|| wrong(tags::BITS_ALLOCATED))?;
    match (kind, bits_allocated) {
        (ReadKind::Binary, 1) | (ReadKind::Fractional { .. }, 8) | (ReadKind::LabelMap { .. }, 8 | 16) => {}
        _ => return Err(DicomError::PixelFormat(format!("{bits_allocated} bits allocated in a segmentation of this type"))),
    }
    let side = |tag| match short(d, tag) {
        Some(0) | None => Err(wrong(tag)),
        Some(n) if n > LIMITS.rows_columns => Err(beyond(tag, LIMITS.rows_columns.into())),
        Some(n) => Ok(usize::from(n)),
    };
    let (rows, columns) = (side(tags::ROWS)?, side(tags::COLUMNS)?);
    let groups = items(d, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, MAX_FRAMES)?;
    let declared = d.count(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    if groups.is_empty() || declared as usize != groups.len() {
        return Err(wrong(tags::NUMBER_OF_FRAMES));
    }
    let shared = d.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let frames = groups.into_iter().map(|g| frame(g, shared, kind)).collect::<Result<Vec<_>, _>>()?;
    let charset = d.text(tags::SPECIFIC_CHARACTER_SET);
    let segments = items(d, tags::SEGMENT_SEQUENCE, MAX_SEGMENTS)?;
    let segments = segments.into_iter().map(|s| segment(s, charset.as_deref())).collect::<Result<Vec<_>, _>>()?;
    let pixels = PixelData::open(path, &LIMITS)?;
    Ok(SegObject {
        kind,
        sop_instance: uid(d, tags::SOP_INSTANCE_UID).ok_or_else(|| wrong(tags::SOP_INSTANCE_UID))?,
        study: uid(d, tags::STUDY_INSTANCE_UID).ok_or_else(|| wrong(tags::STUDY_INSTANCE_UID))?,
        frame_of_reference: uid(d, tags::FRAME_OF_REFERENCE_UID),
        rows,
        columns,
        segments,
        bits_allocated,
        big_endian: pixels.is_big_endian(),
        pixels: load(&pixels, frames.len(), rows * columns, bits_allocated)?,
        frames,
    })
}

fn load(data: &PixelData, frames: usize, area: usize, bits_allocated: u16) -> Result<Pixels, DicomError> {
    let mut out = Vec::new();
    if !data.is_encapsulated() {
        let all = bits::bytes_for(frames as u64 * area as u64 * u64::from(bits_allocated));
        if all > LIMITS.decoded_bytes {
            return Err(DicomError::Implausible(format!("{all} bytes of pixel data, the limit is {}", LIMITS.decoded_bytes)));
        }
        data.frame(0, 1, all, &mut out)?;
        if bits_allocated < 16 && data.is_big_endian() && &data.vr() == b"OW" {
            // Words of 16 bits, whose bytes are swapped.
            out.resize(out.len().next_multiple_of(2), 0);
            out.as_chunks_mut::<2>().0.iter_mut().for_each(|w| w.reverse());
        }
        return Ok(Pixels::Native(out));
    }
    let codestreams: Result<Vec<_>, _> =
        (0..frames).map(|n| data.frame(n as u32, frames as u32, 0, &mut out).map(|()| std::mem::take(&mut out))).collect();
    match data.transfer_syntax() {
        uids::RLE_LOSSLESS => codestreams.map(Pixels::Rle),
        uids::DEFLATED_IMAGE_FRAME_COMPRESSION => codestreams.map(Pixels::Deflated),
        other => Err(DicomError::TransferSyntax(format!("{} for segmentations", crate::dicom::error::printable_uid(other)))),
    }
}

fn frame(own: Level<'_>, shared: Option<Level<'_>>, kind: ReadKind) -> Result<Frame, DicomError> {
    let group = |tag: Tag| own.item(tag).or_else(|| shared.and_then(|s| s.item(tag)));
    let geometry = |sequence: Tag, tag: Tag| group(sequence).ok_or_else(|| wrong(tag));
    let position = geometry(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT)?.numbers(tags::IMAGE_POSITION_PATIENT);
    let orientation = geometry(tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT)?.numbers(tags::IMAGE_ORIENTATION_PATIENT);
    let [r0, r1, r2, c0, c1, c2] = orientation.ok_or_else(|| wrong(tags::IMAGE_ORIENTATION_PATIENT))?;
    let spacing = geometry(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING)?.numbers(tags::PIXEL_SPACING);
    let segment = match kind {
        ReadKind::LabelMap { .. } => None,
        _ => {
            let number = group(tags::SEGMENT_IDENTIFICATION_SEQUENCE).and_then(|g| short(g, tags::REFERENCED_SEGMENT_NUMBER));
            Some(number.ok_or_else(|| wrong(tags::REFERENCED_SEGMENT_NUMBER))?)
        }
    };
    let mut sources = Vec::new();
    if let Some(derivation) = group(tags::DERIVATION_IMAGE_SEQUENCE) {
        for source in items(derivation, tags::SOURCE_IMAGE_SEQUENCE, MAX_SOURCES)? {
            let numbers = source.get(tags::REFERENCED_FRAME_NUMBER).and_then(|v| v.numbers()).unwrap_or_default();
            let frames = numbers.into_iter().map(|n| n as u32).collect();
            sources.extend(uid(source, tags::REFERENCED_SOP_INSTANCE_UID).map(|sop_instance| SourceReference { sop_instance, frames }));
        }
    }
    Ok(Frame {
        segment,
        position: position.ok_or_else(|| wrong(tags::IMAGE_POSITION_PATIENT))?,
        row_direction: [r0, r1, r2],
        column_direction: [c0, c1, c2],
        pixel_spacing: spacing.ok_or_else(|| wrong(tags::PIXEL_SPACING))?,
        sources,
    })
}

fn segment(item: Level<'_>, charset: Option<&str>) -> Result<SegmentInfo, DicomError> {
    let property_type = item.item(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE);
    let label = item.get(tags::SEGMENT_LABEL).and_then(|v| v.bytes());
    Ok(SegmentInfo {
        number: short(item, tags::SEGMENT_NUMBER).ok_or_else(|| wrong(tags::SEGMENT_NUMBER))?,
        label: label.map(|l| charset::decode(l, charset)).unwrap_or_default(),
        category: item.item(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE).and_then(code),
        property_type: property_type.and_then(code),
        modifier: property_type.and_then(|t| t.item(tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE)).and_then(code),
        algorithm_type: item.text(tags::SEGMENT_ALGORITHM_TYPE).unwrap_or_default(),
        tracking_uid: uid(item, tags::TRACKING_UID),
    })
}

fn code(item: Level<'_>) -> Option<CodedItem> {
    Some(CodedItem {
        value: item.text(tags::CODE_VALUE).or_else(|| item.text(tags::LONG_CODE_VALUE))?,
        scheme: item.text(tags::CODING_SCHEME_DESIGNATOR).unwrap_or_default(),
        meaning: item.text(tags::CODE_MEANING).unwrap_or_default(),
    })
}

/// The items of a sequence; none when it is absent.
fn items(level: Level<'_>, tag: Tag, limit: usize) -> Result<Vec<Level<'_>>, DicomError> {
    let items: Vec<_> = level.items(tag).take(limit + 1).collect();
    if items.len() > limit { Err(beyond(tag, limit)) } else { Ok(items) }
}

fn uid(level: Level<'_>, tag: Tag) -> Option<Uid> {
    Uid::parse(&level.text(tag)?).ok()
}

fn short(level: Level<'_>, tag: Tag) -> Option<u16> {
    level.count(tag).and_then(|n| u16::try_from(n).ok())
}

fn wrong(tag: Tag) -> DicomError {
    DicomError::Corrupt(format!("{} is missing or malformed", name(tag)))
}

fn beyond(tag: Tag, limit: usize) -> DicomError {
    DicomError::Implausible(format!("{} exceeds the limit of {limit}", name(tag)))
}

fn name(tag: Tag) -> &'static str {
    dicom_dictionary_std::StandardDataDictionary.by_tag(tag).map_or("an attribute", |e| e.alias)
}
