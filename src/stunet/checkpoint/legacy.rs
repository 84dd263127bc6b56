//! The stream that `torch.save` wrote before 1.6: five pickles, then the storages one after the other.

use super::error::{CheckpointError, malformed, shown};
use super::pickle;
use super::tensor::Storage;
use super::value::{Graph, Object};
use std::collections::HashMap;
use std::ops::Range;

/// The number that the first pickle holds.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The only version of this format that was ever written.
const VERSION: i64 = 1001;
/// How such a file begins: protocol 2 and the magic number as a 10-byte integer.
pub(super) const PREFIX: &[u8] = &[0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc];

/// Where each storage's elements lie in the file.
pub(super) type Ranges = HashMap<Box<str>, Range<usize>>;

/// The main pickle, the ranges, and the length of the pickles together.
pub(super) fn open(file: &[u8]) -> Result<(Graph, Ranges, usize), CheckpointError> {
    let mut at = 0;
    let mut next = |persistent| -> Result<Graph, CheckpointError> {
        let window = &file[at..file.len().min(at + pickle::MAX_PICKLE)];
        let (graph, len) = pickle::read(window, persistent)?;
        at += len;
        Ok(graph)
    };
    if next(false)?.root().as_i128() != Some(MAGIC) {
        return Err(CheckpointError::NotOne("the file does not hold PyTorch's magic number".into()));
    }
    if next(false)?.root().as_i64() != Some(VERSION) {
        return Err(malformed("the stream has an unknown protocol version"));
    }
    if next(false)?.root().get("little_endian").and_then(|v| v.as_bool()) != Some(true) {
        return Err(CheckpointError::Unsupported("the stream was written on a big-endian machine".into()));
    }
    let main = next(true)?;
    let keys = next(false)?;
    let pickles = at;
    let storages = storages(&main)?;
    let mut ranges = HashMap::new();
    for key in keys.root().elements().ok_or_else(|| malformed("the list of storages is missing"))? {
        let key = key.as_str().ok_or_else(|| malformed("the key of a storage is no string"))?;
        let storage = storages.get(key).ok_or_else(|| malformed(format!("the storage {} belongs to no tensor", shown(key))))?;
        let cut = || CheckpointError::Truncated(format!("the file ends before the storage {}", shown(key)));
        let count: [u8; 8] = file.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or_else(cut)?;
        if u64::from_le_bytes(count) != storage.numel as u64 {
            return Err(malformed(format!("the storage {} has another size than its tensors say", shown(key))));
        }
        let start = at + 8;
        let end = storage.numel.checked_mul(storage.element.size()).and_then(|n| start.checked_add(n)).ok_or_else(cut)?;
        if end > file.len() {
            return Err(cut());
        }
        if ranges.insert(key.into(), start..end).is_some() {
            return Err(malformed(format!("the storage {} is there twice", shown(key))));
        }
        at = end;
    }
    Ok((main, ranges, pickles))
}

/// Every storage that the main pickle names; the same key always with the same type and size.
fn storages(graph: &Graph) -> Result<HashMap<&str, &Storage>, CheckpointError> {
    let mut found = HashMap::new();
    for object in &graph.objects {
        if let Object::Storage(storage) = object
            && let Some(before) = found.insert(&*storage.key, &**storage)
            && before != &**storage
        {
            return Err(malformed(format!("the storage {} is described in two ways", shown(&storage.key))));
        }
    }
    Ok(found)
}
