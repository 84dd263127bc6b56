//! `weights.safetensors`: f32, tensors in the order of the state dict (<https://github.com/huggingface/safetensors>, format section).

use super::error::ModelError;
use crate::sys::durable::{Step, StorageError};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Longest header that is read; STU-Net-H has 40 KB.
const MAX_HEADER: u64 = 16 << 20;
/// Bytes that are converted, hashed and written at a time.
const CHUNK: usize = 1 << 20;

/// Writes the file; `next` gives the numbers of each tensor in turn. Returns the file's SHA-256, hexadecimal.
pub(super) fn write<E: From<ModelError>>(
    file: &mut File,
    path: &Path,
    tensors: &[(String, Vec<i64>)],
    mut next: impl FnMut(&str) -> Result<Vec<f32>, E>,
) -> Result<String, E> {
    let unwritable = |e| ModelError::from(StorageError::at(Step::Write, path)(e));
    let mut digest = Sha256::new();
    let mut put = |bytes: &[u8]| -> Result<(), E> {
        digest.update(bytes);
        Ok(file.write_all(bytes).map_err(unwritable)?)
    };
    let header = header_bytes(tensors).map_err(|detail| ModelError::Mismatch { path: path.into(), detail })?;
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut bytes = Vec::with_capacity(CHUNK);
    for (name, _) in tensors {
        for values in next(name)?.chunks(CHUNK / 4) {
            bytes.clear();
            values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
            put(&bytes)?;
        }
    }
    Ok(hex(&digest.finalize()))
}

/// The JSON header, padded to 8 bytes.
fn header_bytes(tensors: &[(String, Vec<i64>)]) -> Result<Vec<u8>, String> {
    let mut at = 0;
    let infos = tensors
        .iter()
        .map(|(name, shape)| {
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let start = at;
            at += 4 * shape.iter().product::<usize>();
            (name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, at) })
        })
        .collect();
    let about = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(about), infos).map_err(|e| e.to_string())?;
    let mut header = serde_json::to_vec(&metadata).map_err(|e| e.to_string())?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// The size of the file and the length of its header, as it declares it; both 0 for what is no file.
pub(super) fn sizes(path: &Path) -> Result<(u64, u64), ModelError> {
    let unreadable = |e| ModelError::from(StorageError::at(Step::Read, path)(e));
    let mut file = open(path)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() || meta.len() < 8 {
        return Ok((0, 0));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(unreadable)?;
    Ok((meta.len(), u64::from_le_bytes(length)))
}

/// Names and shapes in the file, in the order of the data; the data must fill the file exactly and be f32.
pub(super) fn names_and_shapes(path: &Path) -> Result<Vec<(String, Vec<i64>)>, ModelError> {
    let wrong = |detail: String| ModelError::Mismatch { path: path.into(), detail };
    let unreadable = |e| ModelError::from(StorageError::at(Step::Read, path)(e));
    let (size, length) = sizes(path)?;
    if length > MAX_HEADER.min(size.saturating_sub(8)) {
        return Err(wrong(format!("declares a header of {length} bytes")));
    }
    let mut header = vec![0; 8 + length as usize];
    open(path)?.read_exact(&mut header).map_err(unreadable)?;
    let header = &header[8..];
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| wrong(format!("its header can not be read: {e}")))?;
    let data = metadata.data_len() as u64;
    if 8 + length + data != size {
        return Err(wrong(format!("has {size} bytes; its header describes {}", 8 + length + data)));
    }
    metadata
        .offset_keys()
        .into_iter()
        .map(|name| match metadata.info(&name) {
            Some(info) if info.dtype == Dtype::F32 => Ok((name, info.shape.iter().map(|&n| n as i64).collect())),
            Some(info) => Err(wrong(format!("{name:?} holds {:?} instead of F32", info.dtype))),
            None => Err(wrong(format!("{name:?} is not described"))),
        })
        .collect()
}

/// SHA-256 of a file, hexadecimal. `progress` gets the bytes done and the size.
pub(super) fn sha256(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<String, ModelError> {
    let unreadable = |e| ModelError::from(StorageError::at(Step::Read, path)(e));
    let mut file = open(path)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(hex(&digest.finalize())),
            n => {
                digest.update(&buffer[..n]);
                done += n as u64;
                progress(done, size);
            }
        }
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn open(path: &Path) -> Result<File, ModelError> {
    File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => ModelError::Missing(path.into()),
        _ => StorageError::at(Step::Read, path)(e).into(),
    })
}
