//! Named tensors in safetensors files, for weights and checkpoints of training.

use crate::stunet::{ArchitectureError, Error, tensor_file};
use std::collections::HashMap;
use std::path::Path;
use tch::Tensor;

/// Reads all tensors of a file, in the kind in which they are stored. `accept` sees names and shapes before memory is
/// reserved, and refuses with a sentence what does not fit.
pub fn read_tensors(
    path: &Path,
    accept: impl FnOnce(&[(String, Vec<i64>)]) -> Result<(), String>,
) -> Result<HashMap<String, Tensor>, Error> {
    tensor_file::read(path, |found| accept(found).map_err(ArchitectureError))
}

/// What a file says about itself beside its tensors.
pub fn read_notes(path: &Path) -> Result<HashMap<String, String>, Error> {
    tensor_file::notes(path)
}

/// Writes f32 or f64 tensors in this order, and notes about them, whole or not at all.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)], notes: HashMap<String, String>) -> Result<(), Error> {
    tensor_file::write(path, tensors, Some(notes))
}
