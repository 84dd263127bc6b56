//! numpy's scalars and arrays inside a pickle, decoded from their bytes.

use super::error::{CheckpointError, malformed, shown};
use super::value::Object;

/// The dtypes that plans and logs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    pub kind: Kind,
    /// Bytes of one element.
    pub size: usize,
    pub big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    UInt,
    Float,
    /// Python objects: the state holds a list.
    Objects,
    /// Strings, records, dates: kept unread.
    Other,
}

/// A numeric array, row-major whatever the order in the file; every element widened to `f64`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// Most axes of an array: numpy's own limit.
const MAX_RANK: usize = 32;

impl Dtype {
    /// From the first argument of `numpy.dtype(...)`: `f8`, `i4`, `b1`, `O8`, `U7`, …
    pub fn parse(code: &str) -> Result<Dtype, CheckpointError> {
        let bad = || malformed(format!("{} is no numpy dtype", shown(code)));
        let (big_endian, code) = match code.as_bytes().first() {
            Some(b'<' | b'|' | b'=') => (false, &code[1..]),
            Some(b'>') => (true, &code[1..]),
            _ => (false, code),
        };
        let letter = *code.as_bytes().first().ok_or_else(bad)?;
        let size = code.get(1..).ok_or_else(bad)?.parse().unwrap_or(0);
        let kind = match (letter, size) {
            (b'b', 1) => Kind::Bool,
            (b'i', 1 | 2 | 4 | 8) => Kind::Int,
            (b'u', 1 | 2 | 4 | 8) => Kind::UInt,
            (b'f', 2 | 4 | 8) => Kind::Float,
            (b'O', _) => Kind::Objects,
            (c, _) if c.is_ascii_alphabetic() => Kind::Other,
            _ => return Err(bad()),
        };
        Ok(Dtype { kind, size, big_endian })
    }

    /// A scalar from its bytes.
    pub fn scalar(self, bytes: &[u8]) -> Result<Object, CheckpointError> {
        if matches!(self.kind, Kind::Objects | Kind::Other) {
            return Ok(Object::Opaque("a numpy scalar"));
        }
        if bytes.len() != self.size {
            return Err(malformed(format!("a numpy scalar has {} bytes instead of {}", bytes.len(), self.size)));
        }
        let low = self.bits(bytes);
        Ok(match self.kind {
            Kind::Bool => Object::Bool(bytes[0] != 0),
            Kind::Int => Object::Int(sign_extended(low, self.size)),
            Kind::UInt => i64::try_from(low).map_or_else(|_| Object::Float(low as f64), Object::Int),
            _ => Object::Float(self.number(bytes)),
        })
    }

    /// An array from its bytes; the count must be that of the shape.
    pub fn array(self, shape: Vec<usize>, bytes: &[u8], fortran: bool) -> Result<Object, CheckpointError> {
        if matches!(self.kind, Kind::Objects | Kind::Other) {
            return Ok(Object::Opaque("a numpy array"));
        }
        if shape.len() > MAX_RANK {
            return Err(CheckpointError::Limit(format!("a numpy array has {} axes", shape.len())));
        }
        let count = shape.iter().try_fold(self.size, |n, &s| n.checked_mul(s));
        if count != Some(bytes.len()) {
            return Err(malformed(format!("a numpy array of shape {shape:?} has {} bytes", bytes.len())));
        }
        let mut values: Vec<f64> = bytes.chunks_exact(self.size).map(|c| self.number(c)).collect();
        if fortran && shape.len() > 1 {
            values = to_row_major(&shape, &values);
        }
        Ok(Object::Array(Box::new(Array { shape, values })))
    }

    /// One element as a number.
    fn number(self, bytes: &[u8]) -> f64 {
        let low = self.bits(bytes);
        match (self.kind, self.size) {
            (Kind::Bool, _) => (low != 0) as u8 as f64,
            (Kind::Int, size) => sign_extended(low, size) as f64,
            (Kind::Float, 2) => half::f16::from_bits(low as u16).to_f64(),
            (Kind::Float, 4) => f32::from_bits(low as u32) as f64,
            (Kind::Float, _) => f64::from_bits(low),
            _ => low as f64,
        }
    }

    /// The element's bits, at most 8 bytes.
    fn bits(self, bytes: &[u8]) -> u64 {
        let join = |n: u64, b: &u8| n << 8 | *b as u64;
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }
}

fn sign_extended(low: u64, size: usize) -> i64 {
    let shift = 64 - 8 * size as u32;
    (low << shift) as i64 >> shift
}

/// Column-major (first axis fastest) to row-major.
fn to_row_major(shape: &[usize], values: &[f64]) -> Vec<f64> {
    let mut index = vec![0; shape.len()];
    (0..values.len())
        .map(|_| {
            let at = index.iter().zip(shape).rev().fold(0, |at, (i, n)| at * n + i);
            for (i, n) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
            values[at]
        })
        .collect()
}
