//! Attributes of the source that results repeat byte for byte.

use super::elements::{DataSet, Level, Value};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// Attributes of the source that results repeat byte for byte: raw values with their tag and VR, so that names in any
/// character set survive. Has neither `Display` nor a `Debug` that prints: patient data never reaches a log.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CopiedAttributes {
    /// Ascending by tag.
    pub elements: Vec<RawElement>,
}

/// One raw attribute.
#[derive(Clone, PartialEq, Eq)]
pub struct RawElement {
    /// Group and element.
    pub tag: (u16, u16),
    /// The two letters of the value representation.
    pub vr: [u8; 2],
    /// The value as it would stand in an Explicit VR Little Endian file: text as in the source, padding included; numbers little endian;
    /// for `SQ` the items and their elements, all lengths defined.
    pub value: Vec<u8>,
}

impl std::fmt::Debug for CopiedAttributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CopiedAttributes({} elements)", self.elements.len())
    }
}

/// What is copied: patient, study, clinical trial, frame of reference, lossy compression, and the character set that their text is in.
const COPIED: &[Tag] = &[
    tags::SPECIFIC_CHARACTER_SET,
    tags::STUDY_DATE,
    tags::STUDY_TIME,
    tags::ACCESSION_NUMBER,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::TIMEZONE_OFFSET_FROM_UTC,
    tags::STUDY_DESCRIPTION,
    tags::REFERENCED_STUDY_SEQUENCE,
    tags::PATIENT_NAME,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::TYPE_OF_PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID_QUALIFIERS_SEQUENCE,
    tags::PATIENT_BIRTH_DATE,
    tags::PATIENT_BIRTH_TIME,
    tags::PATIENT_SEX,
    tags::OTHER_PATIENT_I_DS_SEQUENCE,
    tags::PATIENT_AGE,
    tags::PATIENT_SIZE,
    tags::PATIENT_WEIGHT,
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
    tags::STUDY_INSTANCE_UID,
    tags::STUDY_ID,
    tags::FRAME_OF_REFERENCE_UID,
    tags::POSITION_REFERENCE_INDICATOR,
    tags::REQUEST_ATTRIBUTES_SEQUENCE,
    // How much was lost, if it was: an object made from lossy images has to repeat it.
    tags::LOSSY_IMAGE_COMPRESSION_RATIO,
    tags::LOSSY_IMAGE_COMPRESSION_METHOD,
];

/// Group 0012 belongs to the Clinical Trial modules as a whole.
fn is_copied(tag: Tag) -> bool {
    tag.0 == 0x0012 && tag.1 != 0 || COPIED.contains(&tag)
}

impl CopiedAttributes {
    /// The attributes of a data set. A value too long to be kept (beyond 4096 bytes) is left out.
    pub(super) fn of(data: &DataSet) -> CopiedAttributes {
        let mut elements: Vec<RawElement> = data.root().elements().filter(|v| is_copied(v.tag())).filter_map(raw).collect();
        elements.sort_by_key(|e| e.tag);
        CopiedAttributes { elements }
    }

    /// The raw value of an attribute, if the source has it.
    pub fn get(&self, group: u16, element: u16) -> Option<&RawElement> {
        self.elements.iter().find(|e| e.tag == (group, element))
    }

    /// The value of a text attribute without padding, if it is there and not empty; bytes in the source's character set.
    pub fn trimmed(&self, group: u16, element: u16) -> Option<&[u8]> {
        let value = self.get(group, element)?.value.as_slice();
        let end = value.iter().rposition(|b| !matches!(b, b' ' | 0))? + 1;
        let start = value.iter().position(|b| *b != b' ')?;
        Some(&value[start..end])
    }
}

fn raw(value: Value<'_>) -> Option<RawElement> {
    let (tag, vr) = (value.tag(), value.vr());
    let bytes = if &vr == b"SQ" { sequence(value) } else { little_endian(value)? };
    Some(RawElement { tag: (tag.0, tag.1), vr, value: bytes })
}

/// The items of a sequence with defined lengths. The depth is bounded by the guard.
fn sequence(value: Value<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for item in value.items() {
        let content = item_content(item);
        out.extend_from_slice(&[0xFE, 0xFF, 0x00, 0xE0]);
        out.extend_from_slice(&(content.len() as u32).to_le_bytes());
        out.extend_from_slice(&content);
    }
    out
}

fn item_content(item: Level<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for element in item.elements().filter_map(raw) {
        out.extend_from_slice(&element.tag.0.to_le_bytes());
        out.extend_from_slice(&element.tag.1.to_le_bytes());
        out.extend_from_slice(&element.vr);
        let padded = element.value.len().next_multiple_of(2);
        if super::guard::vr_has_long_length(element.vr) {
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(&(padded as u32).to_le_bytes());
        } else {
            out.extend_from_slice(&(padded as u16).to_le_bytes());
        }
        out.extend_from_slice(&element.value);
        if padded > element.value.len() {
            out.push(if matches!(&element.vr, b"UI" | b"OB" | b"UN") { 0 } else { b' ' });
        }
    }
    out
}

/// The bytes of a value that is not a sequence, numbers turned to little endian.
fn little_endian(value: Value<'_>) -> Option<Vec<u8>> {
    let mut bytes = value.bytes()?.to_vec();
    let width = match &value.vr() {
        b"US" | b"SS" | b"OW" | b"AT" => 2,
        b"UL" | b"SL" | b"FL" | b"OF" | b"OL" => 4,
        b"UV" | b"SV" | b"FD" | b"OD" | b"OV" => 8,
        _ => 1,
    };
    if value.big_endian() && width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    Some(bytes)
}
