//! Streams a segmentation object to a file: the data set first, then each slice's frames to their places, slices in
//! parallel.

use super::bits::{self, Voxel};
use super::description::{Description, Kind, LabelValues};
use super::header::{self, FrameSpec};
use crate::dicom::encode::{Encoder, file_meta};
use crate::sys::durable::{self, Step, StorageError};
use rayon::prelude::*;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

/// Frames that one object may have; with it every length in the data set stays far below 4 GiB.
const MAX_FRAMES: usize = 2_000_000;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Size of the file.
    pub bytes: u64,
    /// Number of frames.
    pub frames: usize,
}

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Labels, planes and frame size do not belong together, or segment numbers are not 1, 2, 3 …
    #[error("the description does not fit the labels: {0}")]
    Description(&'static str),
    /// Native pixel data end at 4 GiB.
    #[error("{frames} frames of {rows} x {columns} pixels do not fit into one object")]
    TooLarge {
        /// Frames.
        frames: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// The file.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Writes an object, explicit VR little endian, whole or not at all. `base` holds the patient, study, series, equipment
/// and SOP common attributes; the modules of a segmentation are added to it.
///
/// Frames that are all background are left out. Labels without any foreground give one empty frame, on the first
/// plane: an object needs a frame, and one that says "looked for, nothing found" is better than none.
pub fn write(path: &Path, base: Encoder, d: &Description<'_>, labels: LabelValues<'_>) -> Result<Written, WriteError> {
    if d.rows == 0 || d.columns == 0 || d.rows > u16::MAX.into() || d.columns > u16::MAX.into() {
        return Err(WriteError::Description("rows and columns have to be 1 to 65535"));
    }
    if d.planes.is_empty() || labels.len() != d.planes.len() * d.rows * d.columns {
        return Err(WriteError::Description("there has to be one plane for each slice"));
    }
    let numbers_fit = match d.kind {
        Kind::Binary => d.segments.iter().enumerate().all(|(i, s)| usize::from(s.number) == i + 1),
        Kind::LabelMap => d.segments.iter().all(|s| s.number == s.value),
    };
    if d.segments.is_empty() || !numbers_fit {
        return Err(WriteError::Description("segment numbers have to be 1, 2, 3 … (BINARY) or the label values (LABELMAP)"));
    }
    match labels {
        LabelValues::U8(v) => write_labels(path, base, d, v),
        LabelValues::U16(v) => write_labels(path, base, d, v),
    }
}

fn write_labels<T: Stored>(path: &Path, mut base: Encoder, d: &Description<'_>, labels: &[T]) -> Result<Written, WriteError> {
    let area = d.rows * d.columns;
    let frames = plan(d, labels);
    let bits = if d.kind == Kind::Binary { 1 } else { T::BYTES as u64 * 8 };
    let pixel_bytes = bits::bytes_for((frames.len() as u64).saturating_mul(area as u64).saturating_mul(bits));
    let padded = pixel_bytes + pixel_bytes % 2;
    if frames.len() > MAX_FRAMES || padded >= u64::from(u32::MAX) {
        return Err(WriteError::TooLarge { frames: frames.len(), rows: d.rows, columns: d.columns });
    }
    header::modules(&mut base, d, &frames, bits as u16);
    let mut head = file_meta(d.kind.sop_class(), &d.sop_instance, dicom_dictionary_std::uids::EXPLICIT_VR_LITTLE_ENDIAN);
    head.extend_from_slice(&base.into_data_set());
    head.extend_from_slice(&[0xE0, 0x7F, 0x10, 0x00]);
    head.extend_from_slice(if bits > 8 { b"OW\0\0" } else { b"OB\0\0" });
    head.extend_from_slice(&(padded as u32).to_le_bytes());
    let start = head.len() as u64;

    durable::write_file_with(path, |file| {
        file.write_all(&head).map_err(StorageError::at(Step::Write, path))?;
        let sink = Sink { file, path, start };
        match d.kind {
            Kind::Binary => write_planes(&sink, d, &frames, labels, area)?,
            Kind::LabelMap => write_slices(&sink, d, &frames, labels, area)?,
        }
        if padded > pixel_bytes {
            sink.put(pixel_bytes, &[0])?;
        }
        Ok::<(), WriteError>(())
    })?;
    Ok(Written { bytes: start + padded, frames: frames.len() })
}

/// The frames in the order of the file: by segment, then by slice.
fn plan<T: Voxel>(d: &Description<'_>, labels: &[T]) -> Vec<FrameSpec> {
    let values = d.segments.iter().map(|s| usize::from(s.value)).max().unwrap_or(0) + 1;
    let present: Vec<Vec<bool>> = labels
        .par_chunks(d.rows * d.columns)
        .map(|slice| {
            let mut present = vec![false; values];
            bits::mark_present(slice, &mut present);
            present
        })
        .collect();
    let slices = 0..present.len();
    let frames: Vec<FrameSpec> = match d.kind {
        Kind::Binary => {
            let pairs = d.segments.iter().enumerate().flat_map(|(i, s)| slices.clone().map(move |z| (i, z, usize::from(s.value))));
            pairs.filter(|&(_, z, v)| present[z][v]).map(|(i, z, _)| FrameSpec { segment: Some(i), slice: z }).collect()
        }
        Kind::LabelMap => {
            let any = |z: &usize| d.segments.iter().any(|s| present[*z][usize::from(s.value)]);
            slices.filter(any).map(|z| FrameSpec { segment: None, slice: z }).collect()
        }
    };
    if frames.is_empty() {
        return vec![FrameSpec { segment: (d.kind == Kind::Binary).then_some(0), slice: 0 }];
    }
    frames
}

/// The open file from the first pixel on.
struct Sink<'a> {
    file: &'a File,
    path: &'a Path,
    start: u64,
}

impl Sink<'_> {
    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_all_at(bytes, self.start + offset).map_err(StorageError::at(Step::Write, self.path))
    }
}

/// BINARY: one pass over each slice makes the bit planes of all its segments, which go to their places in the file.
fn write_planes<T: Voxel>(
    sink: &Sink<'_>,
    d: &Description<'_>,
    frames: &[FrameSpec],
    labels: &[T],
    area: usize,
) -> Result<(), StorageError> {
    let mut by_slice: Vec<Vec<(usize, usize)>> = vec![Vec::new(); d.planes.len()];
    for (number, frame) in frames.iter().enumerate() {
        by_slice[frame.slice].extend(frame.segment.map(|segment| (number, segment)));
    }
    let stride = bits::bytes_for(area as u64) as usize;
    let values = d.segments.iter().map(|s| usize::from(s.value)).max().unwrap_or(0) + 1;
    // Bytes that two frames share, when the frame size is no multiple of 8.
    let shared = Mutex::new(std::collections::BTreeMap::<u64, u8>::new());
    labels.par_chunks(area).zip(&by_slice).filter(|(_, frames)| !frames.is_empty()).try_for_each_init(
        || (vec![u16::MAX; values], Vec::new(), Vec::new()),
        |(slots, planes, shifted), (slice, frames)| {
            slots.fill(u16::MAX);
            for (slot, &(_, segment)) in frames.iter().enumerate() {
                slots[usize::from(d.segments[segment].value)] = slot as u16;
            }
            planes.clear();
            planes.resize(frames.len() * stride, 0u8);
            bits::split(slice, slots, planes);
            for (plane, &(number, _)) in planes.chunks_exact(stride).zip(frames) {
                let first_bit = number as u64 * area as u64;
                if area.is_multiple_of(8) {
                    sink.put(first_bit / 8, plane)?;
                    continue;
                }
                bits::shift_into(plane, area as u64, (first_bit % 8) as u32, shifted);
                let (offset, last) = (first_bit / 8, shifted.len() - 1);
                {
                    let mut shared = shared.lock().unwrap_or_else(|e| e.into_inner());
                    *shared.entry(offset).or_default() |= shifted[0];
                    *shared.entry(offset + last as u64).or_default() |= shifted[last];
                }
                if last > 1 {
                    sink.put(offset + 1, &shifted[1..last])?;
                }
            }
            Ok(())
        },
    )?;
    let shared = shared.into_inner().unwrap_or_else(|e| e.into_inner());
    shared.into_iter().try_for_each(|(offset, byte)| sink.put(offset, &[byte]))
}

/// LABELMAP: slices as they are, or with the values alone that segments name.
fn write_slices<T: Stored>(
    sink: &Sink<'_>,
    d: &Description<'_>,
    frames: &[FrameSpec],
    labels: &[T],
    area: usize,
) -> Result<(), StorageError> {
    let mut named = vec![false; d.segments.iter().map(|s| usize::from(s.value)).max().unwrap_or(0) + 1];
    d.segments.iter().for_each(|s| named[usize::from(s.value)] = true);
    frames.par_iter().enumerate().try_for_each_init(
        || (Vec::new(), Vec::new()),
        |(buffer, kept), (number, frame)| {
            let mut slice = &labels[frame.slice * area..][..area];
            if d.partial {
                kept.clear();
                kept.extend(slice.iter().map(|&v| if named.get(v.index()).is_some_and(|n| *n) { v } else { T::BACKGROUND }));
                slice = kept.as_slice();
            }
            sink.put((number * area * T::BYTES) as u64, T::little_endian(slice, buffer))
        },
    )
}

/// In how many slices of `area` pixels each label value below `values` occurs.
pub fn slices_with(labels: LabelValues<'_>, area: usize, values: usize) -> Vec<usize> {
    fn count<T: Voxel>(labels: &[T], area: usize, values: usize) -> Vec<usize> {
        let of = |slice: &[T]| {
            let mut present = vec![false; values];
            bits::mark_present(slice, &mut present);
            present.into_iter().map(usize::from).collect::<Vec<_>>()
        };
        let sum = |a: Vec<usize>, b: Vec<usize>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
        labels.par_chunks(area.max(1)).map(of).reduce(|| vec![0; values], sum)
    }
    match labels {
        LabelValues::U8(v) => count(v, area, values),
        LabelValues::U16(v) => count(v, area, values),
    }
}

/// A label value as the file stores it.
trait Stored: Voxel {
    /// Bytes of a value.
    const BYTES: usize;
    /// The value of no label.
    const BACKGROUND: Self;

    /// The values as little endian bytes, in `buffer` if need be.
    fn little_endian<'a>(values: &'a [Self], buffer: &'a mut Vec<u8>) -> &'a [u8];
}

impl Stored for u8 {
    const BYTES: usize = 1;
    const BACKGROUND: u8 = 0;

    fn little_endian<'a>(values: &'a [u8], _: &'a mut Vec<u8>) -> &'a [u8] {
        values
    }
}

impl Stored for u16 {
    const BYTES: usize = 2;
    const BACKGROUND: u16 = 0;

    fn little_endian<'a>(values: &'a [u16], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        buffer.clear();
        buffer.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        buffer
    }
}
