//! The stored bytes of pixel data, frame by frame, as they lie in the file: native values or codestreams, nothing decoded.

use super::error::DicomError;
use super::guard::{self, Limits, Source, Walked, read_fully_at};
use super::pixel_location::{Encapsulated, Fragment, PixelLocation};
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

/// What a codestream may have beyond twice the size of the frame that it holds: no sane encoder comes near.
const CODESTREAM_SLACK: u64 = 1 << 20;

/// An open file whose pixel data was located by the guard.
pub struct PixelData {
    file: File,
    /// The inflated value, for the deflated transfer syntax.
    inflated: Option<Vec<u8>>,
    location: PixelLocation,
    transfer_syntax: String,
    big_endian: bool,
    /// For a number of frames: the first fragment of each, if they can be told apart.
    starts: OnceLock<(u32, Option<Vec<usize>>)>,
}

impl PixelData {
    /// Walks the file again (it may have changed since its header was read) and keeps it open. A regular file is expected.
    pub fn open(path: &Path, limits: &Limits) -> Result<PixelData, DicomError> {
        let Walked { data, error, .. } = guard::walk_file(path, limits, &|_| Ok(()));
        if let Some(error) = error {
            return Err(error);
        }
        let file = guard::open_regular(path)?;
        let big_endian = data.root_is_big_endian();
        let location = data.pixels.ok_or_else(|| DicomError::Truncated("there is no pixel data".into()))?;
        let inflated = data.deflated_at.map(|start| inflate(&file, start, &location, limits)).transpose()?;
        Ok(PixelData { file, inflated, location, transfer_syntax: data.transfer_syntax, big_endian, starts: OnceLock::new() })
    }

    /// Transfer Syntax UID of the file.
    pub fn transfer_syntax(&self) -> &str {
        &self.transfer_syntax
    }

    /// Whether frames are codestreams.
    pub fn is_encapsulated(&self) -> bool {
        self.location.encapsulated.is_some()
    }

    /// The two letters of the value representation.
    pub fn vr(&self) -> [u8; 2] {
        self.location.vr
    }

    /// Whether native values of more than one byte are big endian.
    pub fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    /// Replaces `out` by the stored bytes of frame `index` (from 0) of `frames`: of native data exactly `frame_bytes`, of encapsulated data the
    /// frame's codestream with the padding that its last fragment may have.
    pub fn frame(&self, index: u32, frames: u32, frame_bytes: u64, out: &mut Vec<u8>) -> Result<(), DicomError> {
        out.clear();
        let Some(parts) = &self.location.encapsulated else {
            let start = u64::from(index).saturating_mul(frame_bytes);
            let have = self.location.length.saturating_sub(start);
            if have < frame_bytes {
                return Err(DicomError::PixelDataShort { have, need: frame_bytes });
            }
            return self.append(self.location.offset + start, frame_bytes, out);
        };
        let fragments = self.fragments(parts, index, frames)?;
        let length = fragments.iter().map(|f| u64::from(f.length)).sum::<u64>();
        if length > frame_bytes.saturating_mul(2).saturating_add(CODESTREAM_SLACK) {
            return Err(DicomError::Implausible(format!("{length} bytes of codestream for a frame of {frame_bytes}")));
        }
        for fragment in fragments {
            self.append(fragment.offset, fragment.length.into(), out)?;
        }
        Ok(())
    }

    /// The fragments of one frame.
    fn fragments<'p>(&self, parts: &'p Encapsulated, index: u32, frames: u32) -> Result<&'p [Fragment], DicomError> {
        let unclear = || DicomError::Corrupt(format!("{} fragments can not be assigned to {frames} frames", parts.fragments.len()));
        let find = || (frames, frame_starts(parts, frames as usize, |f| self.starts_codestream(f)));
        let (counted, starts) = self.starts.get_or_init(find);
        let starts = starts.as_ref().filter(|_| *counted == frames).ok_or_else(unclear)?;
        let start = *starts.get(index as usize).ok_or_else(unclear)?;
        let end = starts.get(index as usize + 1).copied().unwrap_or(parts.fragments.len());
        Ok(&parts.fragments[start..end])
    }

    /// Appends `length` bytes at `offset`; the guard has seen that they are there.
    fn append(&self, offset: u64, length: u64, out: &mut Vec<u8>) -> Result<(), DicomError> {
        let gone = || DicomError::Truncated("the file has shrunk while it was read".into());
        if let Some(value) = &self.inflated {
            let start = (offset - self.location.offset) as usize;
            out.extend_from_slice(value.get(start..start + length as usize).ok_or_else(gone)?);
            return Ok(());
        }
        let held = out.len();
        out.resize(held + length as usize, 0);
        if read_fully_at(&self.file, &mut out[held..], offset)? < length as usize {
            return Err(gone());
        }
        Ok(())
    }

    fn starts_codestream(&self, fragment: Fragment) -> bool {
        let mut head = Vec::new();
        let read = self.append(fragment.offset, fragment.length.min(4).into(), &mut head);
        read.is_ok() && matches!(head.as_slice(), [0xFF, 0xD8, ..] | [0xFF, 0x4F, 0xFF, 0x51])
    }
}

/// Reads the pixel data value out of the deflate stream.
fn inflate(file: &File, start: u64, location: &PixelLocation, limits: &Limits) -> Result<Vec<u8>, DicomError> {
    const STEP: usize = 64 << 10;
    if location.length > limits.decoded_bytes {
        return Err(DicomError::Implausible(format!("{} bytes of pixel data, the limit is {}", location.length, limits.decoded_bytes)));
    }
    let mut source = Source::file(file, file.metadata()?.len()).inflate_from(start, limits.inflated_bytes);
    let mut value = Vec::new();
    while (value.len() as u64) < location.length {
        let want = (location.length - value.len() as u64).min(STEP as u64) as usize;
        let bytes = source.at(location.offset + value.len() as u64, want)?;
        if bytes.is_empty() {
            return Err(DicomError::Truncated("the deflated data set ends inside its pixel data".into()));
        }
        value.extend_from_slice(bytes);
    }
    Ok(value)
}

/// The first fragment of each frame (PS3.5 annex A.4): the first one for a single frame, one each where the numbers agree, else by the
/// offset table, else, where that is missing or wrong, by where codestreams start. `None` if none of these fits.
fn frame_starts(parts: &Encapsulated, frames: usize, starts_codestream: impl Fn(Fragment) -> bool) -> Option<Vec<usize>> {
    let fragments = parts.fragments.as_slice();
    let first = fragments.first()?.offset;
    if frames == 1 {
        return Some(vec![0]);
    }
    if fragments.len() == frames {
        return Some((0..frames).collect());
    }
    let fits = |starts: &Vec<usize>| starts.len() == frames && starts.first() == Some(&0) && starts.is_sorted_by(|a, b| a < b);
    let at = |offset: &u64| fragments.binary_search_by_key(&first.saturating_add(*offset), |f| f.offset).ok();
    let by_table = parts.offsets.iter().map(at).collect::<Option<Vec<usize>>>().filter(fits);
    by_table.or_else(|| {
        let starts = fragments.iter().enumerate().filter(|(_, f)| starts_codestream(**f)).map(|(at, _)| at);
        Some(starts.collect()).filter(fits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_go_to_frames_by_every_rule() {
        let fragment = |i: u64| Fragment { offset: 100 + 18 * i, length: 10 };
        let parts =
            |offsets: &[u64], n: u64| Encapsulated { offsets: offsets.to_vec(), fragments: (0..n).map(fragment).collect(), head: vec![] };
        let never = |_: Fragment| false;
        assert_eq!(frame_starts(&parts(&[], 3), 1, never), Some(vec![0]));
        assert_eq!(frame_starts(&parts(&[], 2), 2, never), Some(vec![0, 1]));
        assert_eq!(frame_starts(&parts(&[0, 36], 3), 2, never), Some(vec![0, 2]));
        assert_eq!(frame_starts(&parts(&[0, 35], 3), 2, never), None, "offset between two fragments");
        assert_eq!(frame_starts(&parts(&[36, 0], 3), 2, never), None, "frames out of order");
        assert_eq!(frame_starts(&parts(&[0, 0], 3), 2, never), None, "a frame without fragments");
        let second = |f: Fragment| f.offset != 118;
        for table in [&[][..], &[0, 35], &[0, 0], &[0], &[0, u64::MAX]] {
            assert_eq!(frame_starts(&parts(table, 3), 2, second), Some(vec![0, 2]), "by codestreams, table {table:?}");
        }
        assert_eq!(frame_starts(&parts(&[], 3), 2, never), None);
        assert_eq!(frame_starts(&parts(&[], 0), 1, never), None);
    }
}
