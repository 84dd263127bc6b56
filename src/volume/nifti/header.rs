//! The 348 bytes in front.

use super::{NiftiError, NiftiGeometry};

/// Bytes of a NIfTI-1 header.
pub(super) const SIZE: usize = 348;

/// Where the voxels of a single file begin at the earliest: after the header and the four bytes that announce extensions.
pub(super) const FIRST_VOXEL: usize = 352;

/// Most bytes of extensions that are skipped.
const MAX_EXTENSIONS: usize = 64 << 20;

/// What the reader needs of a header, checked.
#[derive(Debug, PartialEq)]
pub(super) struct Header {
    pub big_endian: bool,
    /// `(nx, ny, nz)`.
    pub size: [usize; 3],
    pub channels: usize,
    pub number: Number,
    /// Bytes before the first voxel.
    pub offset: usize,
    /// Slope and intercept, if values are scaled.
    pub scale: Option<(f64, f64)>,
    pub geometry: NiftiGeometry,
}

/// How a voxel is stored: the `datatype` codes that are supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Number {
    U8 = 2,
    I16 = 4,
    I32 = 8,
    F32 = 16,
    F64 = 64,
    I8 = 256,
    U16 = 512,
    U32 = 768,
    I64 = 1024,
    U64 = 1280,
}

impl Number {
    const ALL: [Number; 10] = {
        use Number::*;
        [U8, I16, I32, F32, F64, I8, U16, U32, I64, U64]
    };

    /// Bytes of one voxel.
    pub(super) fn size(self) -> usize {
        match self {
            Number::U8 | Number::I8 => 1,
            Number::I16 | Number::U16 => 2,
            Number::I32 | Number::U32 | Number::F32 => 4,
            Number::I64 | Number::U64 | Number::F64 => 8,
        }
    }
}

/// Reads numbers at fixed places in either byte order.
struct Fields<'a> {
    bytes: &'a [u8; SIZE],
    big_endian: bool,
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut value: [u8; N] = std::array::from_fn(|i| self.bytes[at + i]);
        if self.big_endian {
            value.reverse();
        }
        value
    }

    fn i16(&self, at: usize) -> i16 {
        i16::from_le_bytes(self.array(at))
    }

    fn f32(&self, at: usize) -> f32 {
        f32::from_le_bytes(self.array(at))
    }

    fn f32s<const N: usize>(&self, at: usize) -> [f32; N] {
        std::array::from_fn(|i| self.f32(at + 4 * i))
    }
}

fn bad(field: &'static str, why: &'static str) -> NiftiError {
    NiftiError::Field { field, why }
}

impl Header {
    /// Checks everything but the number of voxels against the limit.
    pub(super) fn parse(bytes: &[u8; SIZE]) -> Result<Header, NiftiError> {
        let size_of_header = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let big_endian = match (i32::from_le_bytes(size_of_header), i32::from_be_bytes(size_of_header)) {
            (348, _) => false,
            (_, 348) => true,
            (540, _) | (_, 540) => return Err(NiftiError::NotNifti("it is NIfTI-2")),
            _ => return Err(NiftiError::NotNifti("its first number is not 348")),
        };
        match &bytes[344..348] {
            b"n+1\0" => {}
            b"ni1\0" => return Err(NiftiError::NotNifti("its voxels are in another file (.img)")),
            _ => return Err(NiftiError::NotNifti("the mark at its end is missing")),
        }
        let fields = Fields { bytes, big_endian };
        let (size, channels) = dimensions(std::array::from_fn(|i| fields.i16(40 + 2 * i)))?;
        let code = fields.i16(70);
        let number = Number::ALL.into_iter().find(|n| *n as i16 == code).ok_or(bad("datatype", "not a plain integer or float"))?;
        if fields.i16(72) as usize != 8 * number.size() {
            return Err(bad("bitpix", "does not fit datatype"));
        }
        let geometry = NiftiGeometry {
            pixdim: fields.f32s(76),
            units: bytes[123],
            qform_code: fields.i16(252),
            sform_code: fields.i16(254),
            quaternion: fields.f32s(256),
            offset: fields.f32s(268),
            rows: [fields.f32s(280), fields.f32s(296), fields.f32s(312)],
        };
        if !matches!(geometry.units & 7, 0 | 2) {
            return Err(bad("xyzt_units", "lengths are not in millimetres"));
        }
        Ok(Header {
            big_endian,
            size,
            channels,
            number,
            offset: offset(fields.f32(108))?,
            scale: scale(fields.f32(112), fields.f32(116))?,
            geometry,
        })
    }

    /// `[nz, ny, nx]`.
    pub(super) fn shape(&self) -> [usize; 3] {
        let [nx, ny, nz] = self.size;
        [nz, ny, nx]
    }
}

/// `dim[0..8]` to the three sizes and the number of channels.
fn dimensions(dim: [i16; 8]) -> Result<([usize; 3], usize), NiftiError> {
    let used = usize::try_from(dim[0]).ok().filter(|n| (2..=7).contains(n)).ok_or(bad("dim[0]", "must be 2 to 7"))?;
    let mut sizes = [1; 7];
    for (size, &d) in sizes.iter_mut().zip(&dim[1..=used]) {
        *size = usize::try_from(d).ok().filter(|&n| n > 0).ok_or(bad("dim", "sizes must be positive"))?;
    }
    if sizes[4..].iter().any(|&n| n != 1) {
        return Err(bad("dim", "more than four dimensions"));
    }
    Ok(([sizes[0], sizes[1], sizes[2]], sizes[3]))
}

/// `vox_offset`; 0, which some writers leave, means right after the header.
fn offset(value: f32) -> Result<usize, NiftiError> {
    if value == 0.0 {
        return Ok(FIRST_VOXEL);
    }
    let range = FIRST_VOXEL as f32..=(FIRST_VOXEL + MAX_EXTENSIONS) as f32;
    if range.contains(&value) && value.fract() == 0.0 { Ok(value as usize) } else { Err(bad("vox_offset", "not a sensible place")) }
}

/// `scl_slope` and `scl_inter`; a slope of 0 or NaN means that values are not scaled.
fn scale(slope: f32, intercept: f32) -> Result<Option<(f64, f64)>, NiftiError> {
    if slope == 0.0 || !slope.is_finite() || (slope == 1.0 && intercept == 0.0) {
        Ok(None)
    } else if intercept.is_finite() {
        Ok(Some((slope.into(), intercept.into())))
    } else {
        Err(bad("scl_inter", "not a number"))
    }
}

/// The bytes of a header for `shape` (`[nz, ny, nx]`) with `channels` as a fourth axis if there are several, up to the first voxel.
pub(super) fn encode(shape: [usize; 3], channels: usize, number: Number, geometry: &NiftiGeometry) -> Option<[u8; FIRST_VOXEL]> {
    let mut bytes = [0u8; FIRST_VOXEL];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348i32.to_le_bytes());
    put(38, b"r");
    let [nz, ny, nx] = shape;
    let axes = if channels > 1 { 4 } else { 3 };
    for (i, n) in [axes, nx, ny, nz, channels, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * i, &i16::try_from(n).ok()?.to_le_bytes());
    }
    put(70, &(number as i16).to_le_bytes());
    put(72, &(8 * number.size() as i16).to_le_bytes());
    let floats = |at: usize, values: &[f32], put: &mut dyn FnMut(usize, &[u8])| {
        values.iter().enumerate().for_each(|(i, v)| put(at + 4 * i, &v.to_le_bytes()));
    };
    floats(76, &geometry.pixdim, &mut put);
    floats(108, &[FIRST_VOXEL as f32, 1.0, 0.0], &mut put);
    put(123, &[geometry.units]);
    put(252, &geometry.qform_code.to_le_bytes());
    put(254, &geometry.sform_code.to_le_bytes());
    floats(256, &geometry.quaternion, &mut put);
    floats(268, &geometry.offset, &mut put);
    geometry.rows.iter().enumerate().for_each(|(r, row)| floats(280 + 16 * r, row, &mut put));
    put(344, b"n+1\0");
    Some(bytes)
}
