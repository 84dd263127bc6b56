//! What comes before the data set: preamble, file meta group, or neither.

use super::walk::{Encoding, is_vr, vr_has_long_length};
use super::{DicomError, Limits, Source};
use crate::dicom::error::printable_uid;

/// Where the data set starts and how it is encoded.
pub(super) struct Prelude {
    pub data_offset: u64,
    /// Transfer syntax, without padding.
    pub transfer_syntax: String,
    pub encoding: Encoding,
    /// The data set is a raw deflate stream.
    pub deflated: bool,
    /// Neither preamble nor meta group: the data set starts at byte 0.
    pub bare: bool,
}

const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
const EXPLICIT_LE: &str = "1.2.840.10008.1.2.1";
const EXPLICIT_BE: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const DICOMDIR_CLASS: &str = "1.2.840.10008.1.3.10";
/// Elements of group 0008 with which a data set plausibly starts.
const FIRST_ELEMENTS: std::ops::RangeInclusive<u16> = 0x0000..=0x0018;

/// Reads the preamble and the file meta group (PS3.10 section 7.1), tolerating that either is missing.
pub(super) fn read(source: &mut Source, limits: &Limits) -> Result<Prelude, DicomError> {
    let head = source.at(0, 140)?;
    if head.is_empty() {
        return Err(DicomError::Empty);
    }
    if head.get(128..132) == Some(b"DICM".as_slice()) {
        if source.end() <= 132 {
            return Err(DicomError::Corrupt("nothing follows the prefix `DICM`".into()));
        }
        return with_meta(source, 132, limits);
    }
    if head.len() >= 8 && head[..2] == [2, 0] && is_vr([head[4], head[5]]) {
        return with_meta(source, 0, limits);
    }
    let encoding = sniff(head).ok_or(DicomError::NotDicom)?;
    Ok(Prelude { data_offset: 0, transfer_syntax: default_syntax(encoding).into(), encoding, deflated: false, bare: true })
}

fn with_meta(source: &mut Source, start: u64, limits: &Limits) -> Result<Prelude, DicomError> {
    let mut position = start;
    let mut syntax = None;
    let mut elements = 0;
    loop {
        let head = source.at(position, 12)?;
        if head.len() < 8 {
            return Err(DicomError::Truncated("the file ends inside its meta header".into()));
        }
        if head[..2] != [2, 0] {
            break;
        }
        let (element, vr) = (u16::from_le_bytes([head[2], head[3]]), [head[4], head[5]]);
        if !is_vr(vr) {
            return Err(DicomError::Corrupt(format!("(0002,{element:04X}) has no value representation")));
        }
        let (length, value) = if !vr_has_long_length(vr) {
            (u64::from(u16::from_le_bytes([head[6], head[7]])), position + 8)
        } else if let Some(&[a, b, c, d]) = head.get(8..12) {
            (u64::from(u32::from_le_bytes([a, b, c, d])), position + 12)
        } else {
            return Err(DicomError::Truncated("the file ends inside its meta header".into()));
        };
        if length > limits.value_bytes {
            return Err(DicomError::Corrupt(format!("(0002,{element:04X}) claims {length} bytes")));
        }
        if length > source.end().saturating_sub(value) {
            return Err(DicomError::Truncated(format!("the file ends inside (0002,{element:04X})")));
        }
        elements += 1;
        if elements > 1000 {
            return Err(DicomError::Corrupt("the meta header has more than 1000 elements".into()));
        }
        if length <= 128 && (element == 0x0002 || element == 0x0010) {
            let text = String::from_utf8_lossy(source.at(value, length as usize)?);
            let text = text.trim_matches(|c| c == '\0' || c == ' ');
            match element {
                0x0002 if text == DICOMDIR_CLASS => return Err(DicomError::Dicomdir),
                0x0010 if !text.is_empty() => syntax = Some(text.to_owned()),
                _ => {}
            }
        }
        position = value + length;
    }
    let first = source.at(position, 8)?;
    let sniffed = sniff(first);
    let Some(syntax) = syntax else {
        // Rare writers leave the syntax out; only a plausible start of a data set is taken.
        let encoding = sniffed.ok_or_else(|| DicomError::Corrupt("no transfer syntax, and no data set follows".into()))?;
        return Ok(Prelude {
            data_offset: position,
            transfer_syntax: default_syntax(encoding).into(),
            encoding,
            deflated: false,
            bare: false,
        });
    };
    let encoding = match syntax.as_str() {
        IMPLICIT_LE => Encoding::ImplicitLe,
        EXPLICIT_BE => Encoding::ExplicitBe,
        other if other.starts_with("1.2.840.10008.1.2.") => Encoding::ExplicitLe,
        other => return Err(DicomError::TransferSyntax(printable_uid(other))),
    };
    if encoding == Encoding::ImplicitLe && sniffed == Some(Encoding::ExplicitLe) {
        return Err(DicomError::Corrupt("the data set is in explicit VR although the header says implicit".into()));
    }
    Ok(Prelude { data_offset: position, deflated: syntax == DEFLATED, transfer_syntax: syntax, encoding, bare: false })
}

/// How the data set that starts with these bytes is encoded, if it plausibly is one: it starts in group 0008 with a short value.
fn sniff(head: &[u8]) -> Option<Encoding> {
    let &[a, b, c, d, v, w, x, y] = head.get(..8)? else { return None };
    let little = u16::from_le_bytes([a, b]) == 8 && FIRST_ELEMENTS.contains(&u16::from_le_bytes([c, d]));
    let big = u16::from_be_bytes([a, b]) == 8 && FIRST_ELEMENTS.contains(&u16::from_be_bytes([c, d]));
    match () {
        () if little && is_vr([v, w]) => Some(Encoding::ExplicitLe),
        () if little && u32::from_le_bytes([v, w, x, y]) <= 1024 => Some(Encoding::ImplicitLe),
        () if big && is_vr([v, w]) => Some(Encoding::ExplicitBe),
        () => None,
    }
}

fn default_syntax(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::ImplicitLe => IMPLICIT_LE,
        Encoding::ExplicitLe => EXPLICIT_LE,
        Encoding::ExplicitBe => EXPLICIT_BE,
    }
}
