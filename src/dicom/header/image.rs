//! The Image Pixel module: its values within the limits, its pixel data long enough.

use super::super::codestream;
use super::super::elements::{DataSet, Level};
use super::super::error::{DicomError, printable_uid};
use super::super::guard::Limits;
use super::super::instance::PixelFormat;
use super::super::{Uid, syntax};
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// Whether the image has one sample per pixel, MONOCHROME1 or MONOCHROME2.
pub(super) fn is_monochrome(root: Level) -> bool {
    root.count(tags::SAMPLES_PER_PIXEL).unwrap_or(1) == 1
        && root.text(tags::PHOTOMETRIC_INTERPRETATION).is_none_or(|p| p == "MONOCHROME1" || p == "MONOCHROME2")
}

/// The layout of the stored values, checked against the limits and against the pixel data that is there.
pub(super) fn pixel_format(data: &DataSet, limits: &Limits) -> Result<PixelFormat, DicomError> {
    let root = data.root();
    if !syntax::is_readable(&data.transfer_syntax) {
        return Err(DicomError::TransferSyntax(printable_uid(&data.transfer_syntax)));
    }
    let transfer_syntax = Uid::parse(&data.transfer_syntax).map_err(|_| DicomError::InvalidUid("Transfer Syntax UID"))?;
    let rows = side(root, tags::ROWS, "Rows", limits)?;
    let columns = side(root, tags::COLUMNS, "Columns", limits)?;
    let frames = match root.text(tags::NUMBER_OF_FRAMES) {
        None => 1,
        Some(_) => match root.count(tags::NUMBER_OF_FRAMES) {
            Some(n) if (1..=limits.frames).contains(&n) => n,
            Some(n) => return Err(DicomError::Implausible(format!("{n} frames, the limit is {}", limits.frames))),
            None => return Err(DicomError::Implausible("Number of Frames is not a number".into())),
        },
    };
    let small = |tag, default: u16| root.count(tag).map_or(default, |n| n.min(u32::from(u16::MAX)) as u16);
    let bits_allocated = small(tags::BITS_ALLOCATED, 0);
    let bits_stored = small(tags::BITS_STORED, bits_allocated);
    let high_bit = small(tags::HIGH_BIT, bits_stored.saturating_sub(1));
    if !matches!(bits_allocated, 8 | 16 | 32)
        || !(1..=bits_allocated).contains(&bits_stored)
        || high_bit >= bits_allocated
        || high_bit + 1 < bits_stored
    {
        return Err(DicomError::PixelFormat(format!("{bits_stored} of {bits_allocated} bits, high bit {high_bit}")));
    }
    let samples = u64::from(root.count(tags::SAMPLES_PER_PIXEL).unwrap_or(1).clamp(1, 4));
    let signed = root.count(tags::PIXEL_REPRESENTATION) == Some(1);
    let need = u64::from(rows) * u64::from(columns) * u64::from(frames) * u64::from(bits_allocated / 8) * samples;
    if need > limits.decoded_bytes {
        return Err(DicomError::Implausible(format!(
            "{rows} x {columns} x {frames} pixels are {need} bytes, the limit is {}",
            limits.decoded_bytes
        )));
    }
    pixel_data_fits(data, need, frames, (u32::from(columns), u32::from(rows)))?;
    Ok(PixelFormat {
        transfer_syntax,
        frames,
        rows,
        columns,
        bits_allocated,
        bits_stored,
        high_bit,
        signed,
        padding: padding(root, bits_allocated, signed),
    })
}

fn side(root: Level, tag: Tag, name: &str, limits: &Limits) -> Result<u16, DicomError> {
    match root.count(tag) {
        Some(n) if (1..=u32::from(limits.rows_columns)).contains(&n) => Ok(n as u16),
        Some(n) => Err(DicomError::Implausible(format!("{name} is {n}, the limit is {}", limits.rows_columns))),
        None => Err(DicomError::Implausible(format!("{name} is missing"))),
    }
}

/// Native pixel data has to cover `need` bytes (more is tolerated), encapsulated data a fragment for each frame of the stated size.
fn pixel_data_fits(data: &DataSet, need: u64, frames: u32, size: (u32, u32)) -> Result<(), DicomError> {
    let Some(location) = &data.pixels else {
        return Err(DicomError::Truncated("there is no pixel data".into()));
    };
    if location.tag != tags::PIXEL_DATA {
        return Err(DicomError::PixelFormat("floating point pixel data".into()));
    }
    match (&location.encapsulated, syntax::is_encapsulated(&data.transfer_syntax)) {
        (None, false) if location.length < need => Err(DicomError::PixelDataShort { have: location.length, need }),
        (None, false) => Ok(()),
        (None, true) => Err(DicomError::Corrupt("pixel data is not encapsulated although the transfer syntax asks for it".into())),
        (Some(_), false) => Err(DicomError::Corrupt("pixel data is encapsulated although the transfer syntax is not".into())),
        (Some(parts), true) => {
            if parts.fragments.len() < frames as usize {
                return Err(DicomError::PixelDataShort { have: parts.fragments.len() as u64, need: u64::from(frames) });
            }
            match codestream::dimensions(&parts.head) {
                Some(found) if found != size => Err(DicomError::Codestream(format!(
                    "the codestream is {} x {}, the data set says {} x {}",
                    found.0, found.1, size.0, size.1
                ))),
                _ => Ok(()),
            }
        }
    }
}

/// Pixel Padding Value and Range Limit as stored values, low end first. Their VR may be the wrong one of US and SS: the bits count.
fn padding(root: Level, bits_allocated: u16, signed: bool) -> Option<(i32, i32)> {
    let stored = |tag| {
        let value = root.number(tag)? as i64;
        Some(match (bits_allocated, signed) {
            (8, true) => i32::from(value as i8),
            (8, false) => i32::from(value as u8),
            (16, true) => i32::from(value as i16),
            (16, false) => i32::from(value as u16),
            _ => value as i32,
        })
    };
    let value = stored(tags::PIXEL_PADDING_VALUE)?;
    let limit = stored(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(value);
    Some((value.min(limit), value.max(limit)))
}
