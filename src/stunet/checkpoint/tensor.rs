//! Tensors of a checkpoint: where their numbers lie, and their conversion to f32.

use super::error::{CheckpointError, malformed};

/// Most axes of a tensor.
const MAX_RANK: usize = 8;

/// The numeric type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// An integer or truth value of this many bytes; such tensors are not weights.
    Integer(u8),
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            ElementType::F16 | ElementType::BF16 => 2,
            ElementType::F32 => 4,
            ElementType::F64 => 8,
            ElementType::Integer(n) => n as usize,
        }
    }
}

/// A run of numbers in the file, named by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub key: Box<str>,
    pub element: ElementType,
    pub numel: usize,
}

/// A tensor whose numbers are still in the file: a view on a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Tensor {
    /// Checks that the view stays inside its storage and names no element more often than the storage has elements,
    /// so that memory for it is bounded by the file.
    pub(super) fn new(storage: Storage, offset: usize, shape: Vec<usize>, strides: Vec<usize>) -> Result<Tensor, CheckpointError> {
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
            return Err(malformed(format!("a tensor has {} dimensions and {} strides", shape.len(), strides.len())));
        }
        let count = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let last = shape.iter().zip(&strides).try_fold(offset, |at, (&n, &s)| at.checked_add(n.saturating_sub(1).checked_mul(s)?));
        match (count, last) {
            (Some(0), _) => Ok(Tensor { storage, offset, shape, strides }),
            (Some(count), Some(last)) if last < storage.numel && count <= storage.numel => Ok(Tensor { storage, offset, shape, strides }),
            _ => Err(malformed(format!("a tensor of shape {shape:?} does not lie inside its storage of {} elements", storage.numel))),
        }
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numeric type.
    pub fn element_type(&self) -> ElementType {
        self.storage.element
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements in row-major order as f32, from the bytes of the whole storage.
    pub(super) fn gather(&self, bytes: &[u8], big_endian: bool) -> Result<Vec<f32>, CheckpointError> {
        let size = self.storage.element.size();
        if self.storage.numel.checked_mul(size) != Some(bytes.len()) {
            return Err(malformed(format!("a storage of {} elements of {size} bytes has {} bytes", self.storage.numel, bytes.len())));
        }
        if self.numel() == 0 {
            return Ok(Vec::new());
        }
        let element = self.storage.element;
        Ok(match (element, big_endian) {
            (ElementType::F32, false) => self.collect(bytes, |c: [u8; 4]| f32::from_le_bytes(c)),
            (ElementType::F32, true) => self.collect(bytes, |c: [u8; 4]| f32::from_be_bytes(c)),
            (ElementType::F64, false) => self.collect(bytes, |c: [u8; 8]| f64::from_le_bytes(c) as f32),
            (ElementType::F64, true) => self.collect(bytes, |c: [u8; 8]| f64::from_be_bytes(c) as f32),
            (ElementType::F16, false) => self.collect(bytes, |c: [u8; 2]| half::f16::from_le_bytes(c).to_f32()),
            (ElementType::F16, true) => self.collect(bytes, |c: [u8; 2]| half::f16::from_be_bytes(c).to_f32()),
            (ElementType::BF16, false) => self.collect(bytes, |c: [u8; 2]| half::bf16::from_le_bytes(c).to_f32()),
            (ElementType::BF16, true) => self.collect(bytes, |c: [u8; 2]| half::bf16::from_be_bytes(c).to_f32()),
            (ElementType::Integer(_), _) => return Err(CheckpointError::Unsupported("a weight is an integer tensor".into())),
        })
    }

    fn collect<const N: usize>(&self, bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        let (elements, _) = bytes.as_chunks::<N>();
        let count = self.numel();
        if self.is_contiguous() {
            return elements[self.offset..self.offset + count].iter().map(|c| convert(*c)).collect();
        }
        let mut out = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let at: usize = self.offset + index.iter().zip(&self.strides).map(|(i, s)| i * s).sum::<usize>();
            out.push(convert(elements[at]));
            for (i, n) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        out
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &s)| {
            let fits = n == 1 || s == expected;
            expected *= n;
            fits
        })
    }
}
