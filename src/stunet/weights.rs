//! `weights.safetensors`: memory-mapped, compared with the architecture name by name, handed out as tensors.

use super::{Architecture, Error};
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Reads all parameters of an architecture from a safetensors file, in the kind in which they are stored (f64, f32, f16, bf16).
///
/// Nothing is reserved before the file's names, shapes and kinds are found to be exactly the architecture's.
pub(super) fn read(path: &Path, architecture: &Architecture) -> Result<HashMap<String, Tensor>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    let wrong = |detail: String| Error::Weights { path: path.into(), detail };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the mapping is read only and lives in this function. A model folder is immutable once imported; a file that
    // somebody changes or cuts short while it is being read can at worst end this process with SIGBUS, never run as code,
    // and a digest that no longer fits is found by `model verify`.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(&map).map_err(|e| wrong(format!("not a safetensors file: {e}")))?;
    let found: Vec<_> = tensors.iter().map(|(name, view)| (name.to_string(), view.shape().iter().map(|&n| n as i64).collect())).collect();
    architecture.check_tensors(&found).map_err(|e| wrong(e.to_string()))?;
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
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            Ok((name.to_string(), Tensor::f_from_data_size(view.data(), &shape, kind)?))
        })
        .collect()
}
