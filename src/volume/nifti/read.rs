//! From a file to a [`Volume`], in one pass.

use super::NiftiError;
use super::header::{self, Header, Number};
use crate::fault::Fault;
use crate::volume::{Limits, Quantity, Source, Volume};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Voxels that are converted at a time.
const BATCH: usize = 1 << 16;

/// Reads `.nii` or `.nii.gz` (told by its content). The fourth axis becomes channels; the values are what the file means after its own scaling,
/// in a unit that it does not state. NaN voxels are kept as they are.
///
/// # Errors
/// `input.bad_nifti` for a file that is not NIfTI-1, is truncated, or has fields that are not supported; `memory.volume_too_large` when the header
/// asks for more voxels than `limits` allows, before any are read; `disk.unreadable`.
pub fn read(path: &Path, limits: &Limits) -> Result<Volume, Fault> {
    Ok(read_file(path, limits)?)
}

/// Channels, shape `[z, y, x]` and spacing `[z, y, x]` in mm, from the header alone. Errors as for [`read`], but for those in the voxels.
pub fn peek(path: &Path) -> Result<(usize, [usize; 3], [f64; 3]), Fault> {
    Ok(peek_file(path)?)
}

fn peek_file(path: &Path) -> Result<(usize, [usize; 3], [f64; 3]), NiftiError> {
    let mut file = BufReader::new(File::open(path).map_err(NiftiError::Io)?);
    let mut bytes = [0u8; header::SIZE];
    exact(&mut file, &mut bytes[..2])?;
    let (first, rest) = bytes.split_at_mut(2);
    if first == [0x1f, 0x8b] {
        let mut inflated = [0u8; header::SIZE];
        exact(&mut MultiGzDecoder::new((&*first).chain(file)), &mut inflated)?;
        bytes = inflated;
    } else {
        exact(&mut file, rest)?;
    }
    let header = Header::parse(&bytes)?;
    let [x, y, z] = header.geometry.affine().ok_or(NiftiError::NoGeometry)?.spacing();
    Ok((header.channels, header.shape(), [z, y, x]))
}

fn read_file(path: &Path, limits: &Limits) -> Result<Volume, NiftiError> {
    let mut file = Hashed { inner: BufReader::with_capacity(1 << 18, File::open(path).map_err(NiftiError::Io)?), hash: Sha256::new() };
    let mut first = [0u8; 2];
    exact(&mut file, &mut first)?;
    let volume = if first == [0x1f, 0x8b] {
        // never more is inflated than the header, checked against the limit, asks for
        decode(MultiGzDecoder::new(first.chain(&mut file)), limits)
    } else {
        decode(first.chain(&mut file), limits)
    };
    let (header, data) = volume?;
    std::io::copy(&mut file, &mut std::io::sink()).map_err(NiftiError::Io)?;
    let affine = match header.geometry.affine() {
        Some(affine) => affine,
        None if header.geometry.sform_code <= 0 && header.geometry.qform_code <= 0 => return Err(NiftiError::NoGeometry),
        None => return Err(NiftiError::Field { field: "sform or qform", why: "not an invertible map" }),
    };
    let digest = file.hash.finalize().into();
    Ok(Volume {
        data,
        channels: header.channels,
        shape: header.shape(),
        affine,
        quantity: vec![Quantity::Unknown; header.channels],
        source: Source::Nifti { path: path.to_path_buf(), digest, geometry: Box::new(header.geometry) },
    })
}

/// Header and voxels, `[c, z, y, x]`.
fn decode(mut stream: impl Read, limits: &Limits) -> Result<(Header, Vec<f32>), NiftiError> {
    let mut bytes = [0u8; header::SIZE];
    exact(&mut stream, &mut bytes)?;
    let header = Header::parse(&bytes)?;
    let voxels = limits.voxels(header.channels, header.shape()).ok_or_else(|| NiftiError::TooLarge {
        voxels: header.size.iter().fold(header.channels as u128, |n, &s| n * s as u128),
        limit: limits.max_voxels,
    })?;
    let skipped = (header.offset - header::SIZE) as u64;
    if std::io::copy(&mut stream.by_ref().take(skipped), &mut std::io::sink()).map_err(torn)? != skipped {
        return Err(NiftiError::Truncated);
    }
    let size = header.number.size();
    let mut buffer = vec![0u8; BATCH * size];
    let mut data = Vec::with_capacity(voxels);
    while data.len() < voxels {
        let batch = &mut buffer[..size * BATCH.min(voxels - data.len())];
        exact(&mut stream, batch)?;
        if header.big_endian {
            batch.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        convert(batch, header.number, header.scale, &mut data);
    }
    // a read beyond the last voxel makes gzip check its sum
    if stream.read(&mut [0u8]).map_err(torn)? > 0 {
        return Err(NiftiError::Longer);
    }
    Ok((header, data))
}

/// Appends little-endian numbers as f32, scaled in f64.
fn convert(bytes: &[u8], number: Number, scale: Option<(f64, f64)>, data: &mut Vec<f32>) {
    macro_rules! append {
        ($t:ty, $n:literal) => {{
            let values = bytes.as_chunks::<$n>().0.iter().map(|b| <$t>::from_le_bytes(*b));
            match scale {
                None => data.extend(values.map(|v| v as f32)),
                Some((slope, intercept)) => data.extend(values.map(|v| (v as f64 * slope + intercept) as f32)),
            }
        }};
    }
    match number {
        Number::U8 => append!(u8, 1),
        Number::I8 => append!(i8, 1),
        Number::I16 => append!(i16, 2),
        Number::U16 => append!(u16, 2),
        Number::I32 => append!(i32, 4),
        Number::U32 => append!(u32, 4),
        Number::F32 => append!(f32, 4),
        Number::I64 => append!(i64, 8),
        Number::U64 => append!(u64, 8),
        Number::F64 => append!(f64, 8),
    }
}

fn exact(stream: &mut impl Read, buffer: &mut [u8]) -> Result<(), NiftiError> {
    stream.read_exact(buffer).map_err(torn)
}

/// What a failed read means: the end came early, the compressed stream is broken, or the disk failed.
fn torn(error: std::io::Error) -> NiftiError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | InvalidData | InvalidInput => NiftiError::Truncated,
        _ => NiftiError::Io(error),
    }
}

/// Passes a file through while taking its digest.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}
