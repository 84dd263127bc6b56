//! Tensors in safetensors files: memory-mapped and checked on the way in, written whole or not at all on the way out.

use super::{ArchitectureError, Error};
use crate::sys::durable::{self, Step, StorageError};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use tch::{Kind, Tensor};

/// Numbers that are brought from the device and written at a time.
const CHUNK: i64 = 4 << 20;
/// Largest header that is read for its notes alone.
const MAX_HEADER: u64 = 16 << 20;

/// Reads all tensors of a file, in the kind in which they are stored (f64, f32, f16, bf16). `accept` sees the names and
/// shapes, and may refuse the file before memory is reserved for any tensor.
pub(super) fn read(
    path: &Path,
    accept: impl FnOnce(&[(String, Vec<i64>)]) -> Result<(), ArchitectureError>,
) -> Result<HashMap<String, Tensor>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let wrong = |detail: String| Error::Weights { path: path.into(), detail };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the mapping is read only and lives in this function. A model folder is immutable once imported; a file that
    // somebody changes or cuts short while it is being read can at worst end this process with SIGBUS, never run as code,
    // and a digest that no longer fits is found by `model verify`.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(&map).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
    let shape = |view: &safetensors::tensor::TensorView| view.shape().iter().map(|&n| n as i64).collect::<Vec<_>>();
    let found: Vec<_> = tensors.iter().map(|(name, view)| (name.to_string(), shape(&view))).collect();
    accept(&found).map_err(|e| wrong(e.to_string()))?;
    tensors
        .iter()
        .map(|(name, view)| {
            let kind = match view.dtype() {
                Dtype::F64 => Kind::Double,
                Dtype::F32 => Kind::Float,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                other => return Err(wrong(format!("tensor {name} holds {other:?}; floating point numbers were expected"))),
            };
            Ok((name.to_string(), Tensor::f_from_data_size(view.data(), &shape(&view), kind)?))
        })
        .collect()
}

/// What a file says about itself beside its tensors.
pub(super) fn notes(path: &Path) -> Result<HashMap<String, String>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let wrong = |detail: String| Error::Weights { path: path.into(), detail };
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(unreadable)?;
    let length = u64::from_le_bytes(size);
    if length > MAX_HEADER {
        return Err(wrong(format!("a header of {length} bytes; at most {MAX_HEADER} are accepted")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(unreadable)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
    Ok(metadata.metadata().clone().unwrap_or_default())
}

/// Writes f32 or f64 tensors, in this order, each in row-major order, and what is to be said about them.
pub(super) fn write(path: &Path, tensors: &[(String, Tensor)], notes: Option<HashMap<String, String>>) -> Result<(), Error> {
    let mut end = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (dtype, size) = match tensor.f_kind()? {
            Kind::Float => (Dtype::F32, 4),
            Kind::Double => (Dtype::F64, 8),
            other => return Err(Error::Torch(format!("tensor {name} of kind {other:?} can not be written"))),
        };
        let start = end;
        end += tensor.numel() * size;
        infos.push((
            name.clone(),
            TensorInfo { dtype, shape: tensor.size().iter().map(|&n| n as usize).collect(), data_offsets: (start, end) },
        ));
    }
    let broken = |e: String| Error::Torch(format!("{}: {e}", path.display()));
    let metadata = Metadata::new(notes, infos).map_err(|e| broken(e.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| broken(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    durable::write_file_with(path, |file| {
        let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(StorageError::at(Step::Write, path));
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        for (_, tensor) in tensors {
            let flat = tensor.f_contiguous()?.f_reshape([-1])?;
            let (count, size) = (flat.size()[0], flat.f_kind()?.elt_size_in_bytes());
            let mut bytes = Vec::new();
            for start in (0..count).step_by(CHUNK as usize) {
                let part = flat.f_narrow(0, start, CHUNK.min(count - start))?;
                bytes.resize(part.numel() * size, 0);
                part.f_copy_data_u8(&mut bytes, part.numel())?;
                put(&bytes)?;
            }
        }
        Ok(())
    })
}
