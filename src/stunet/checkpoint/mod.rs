//! PyTorch checkpoints, read safely: nothing in them is run, everything is checked against a limit, and of a mapped file
//! only the index and the tensors asked for are touched (a training checkpoint holds an optimizer as large as the weights).
//!
//! * [`Checkpoint`]: what `torch.save` wrote, as a zip archive (torch 1.6 and later) or as the older stream.
//! * [`Graph`] and [`Value`]: what a pickle describes; [`read_pickle`] reads a plain one (nnU-Net's `.model.pkl`).
//!
//! The formats: `torch/serialization.py` and `caffe2/serialize/inline_container.h` of PyTorch, Python's `pickletools`.

mod error;
mod globals;
mod legacy;
mod literals;
mod numpy;
mod pickle;
mod tensor;
mod value;
mod zip;

pub use error::CheckpointError;
pub use tensor::{ElementType, Tensor};
pub use value::{Graph, Value};

use error::{malformed, shown};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

/// Most weights in a state dict: STU-Net-H has 306.
const MAX_WEIGHTS: usize = 10_000;
/// Longest name of a weight.
const MAX_NAME: usize = 256;

/// An opened checkpoint: its pickle in memory, its numbers still in the file.
pub struct Checkpoint {
    file: memmap2::Mmap,
    graph: Graph,
    index: Vec<u8>,
    storages: Storages,
    big_endian: bool,
    /// Storages whose checksum has been compared.
    verified: RefCell<HashSet<Box<str>>>,
}

/// Where the numbers are.
enum Storages {
    Zip { archive: zip::Archive, root: String },
    Stream(legacy::Ranges),
}

impl Checkpoint {
    /// Maps a file and reads its pickle.
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(CheckpointError::NotOne("it is not a file".into()));
        }
        // SAFETY: the map is private and read-only, and lives as long as every slice taken from it. The bytes are only
        // ever interpreted as integers, so a change by another process yields a refused or a wrong import (the digest of
        // what was written is taken from memory), not undefined values. Truncation by another process ends this one with SIGBUS;
        // it is the short-lived `model import` that reads checkpoints, never the daemon.
        let file = unsafe { memmap2::Mmap::map(&file)? };
        refuse_other_files(&file)?;
        let opened = if file.starts_with(b"PK") || *file == *b"P" { open_zip(&file)? } else { open_stream(&file)? };
        let Opened { graph, index, storages, big_endian } = opened;
        Ok(Checkpoint { file, graph, index, storages, big_endian, verified: RefCell::default() })
    }

    /// The object that was saved: a dict.
    pub fn root(&self) -> Value<'_> {
        self.graph.root()
    }

    /// The bytes of the pickle: what the file says about its tensors.
    pub fn index(&self) -> &[u8] {
        &self.index
    }

    /// The network's weights by name, in the order of the file: the dict under `state_dict` (nnU-Net v1) or
    /// `network_weights` (v2). Prefixes that wrappers add to every name (`module.`, `_orig_mod.`) are taken off.
    pub fn weights(&self) -> Result<Vec<(String, &Tensor)>, CheckpointError> {
        let dict = ["state_dict", "network_weights"].iter().find_map(|key| self.root().get(key));
        let dict = dict.ok_or_else(|| {
            CheckpointError::NoWeights("the checkpoint has neither `state_dict` (nnU-Net v1) nor `network_weights` (v2)".into())
        })?;
        let items = dict.items().ok_or_else(|| CheckpointError::NoWeights(format!("the weights are {} instead of a dict", dict.kind())))?;
        let mut weights = Vec::new();
        for (key, value) in items {
            let name = key.as_str().ok_or_else(|| malformed(format!("the name of a weight is {}", key.kind())))?;
            if name.len() > MAX_NAME || weights.len() == MAX_WEIGHTS {
                return Err(CheckpointError::Limit(format!("more than {MAX_WEIGHTS} weights, or a name longer than {MAX_NAME}")));
            }
            let tensor = value.as_tensor().ok_or_else(|| malformed(format!("the weight {} is {}", shown(name), value.kind())))?;
            weights.push((name.to_string(), tensor));
        }
        if weights.is_empty() {
            return Err(CheckpointError::NoWeights("the dict of weights is empty".into()));
        }
        strip_prefixes(&mut weights);
        let mut seen = HashSet::new();
        if let Some((name, _)) = weights.iter().find(|(name, _)| !seen.insert(name.as_str())) {
            return Err(malformed(format!("the weight {} is there twice", shown(name))));
        }
        Ok(weights)
    }

    /// A tensor's elements in row-major order, as f32; each must be finite. Reads the tensor's storage and no other.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<f32>, CheckpointError> {
        let key = &tensor.storage.key;
        let bytes = match &self.storages {
            Storages::Zip { archive, root } => {
                let name = format!("{root}/data/{key}");
                let bytes = archive.stored(&self.file, &name)?;
                self.will_read(bytes)?;
                if !self.verified.borrow().contains(key) {
                    archive.verify(&name, bytes)?;
                    self.verified.borrow_mut().insert(key.clone());
                }
                bytes
            }
            Storages::Stream(ranges) => {
                let range = ranges.get(key).ok_or_else(|| CheckpointError::Truncated(format!("the storage {} is missing", shown(key))))?;
                let bytes = &self.file[range.clone()];
                self.will_read(bytes)?;
                bytes
            }
        };
        let values = tensor.gather(bytes, self.big_endian)?;
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(CheckpointError::NotFinite(format!("element {at} of a weight is {} as f32", values[at]))),
            None => Ok(values),
        }
    }
}

impl Checkpoint {
    /// Tells the system that these bytes of the map are wanted next, all of them: else they come page by page.
    fn will_read(&self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let start = bytes.as_ptr() as usize - self.file.as_ptr() as usize;
        Ok(self.file.advise_range(memmap2::Advice::WillNeed, start, bytes.len())?)
    }
}

/// Reads a plain pickle, such as nnU-Net's `.model.pkl`. Nothing in it is run.
pub fn read_pickle(bytes: &[u8]) -> Result<Graph, CheckpointError> {
    refuse_other_files(bytes)?;
    if bytes.len() > pickle::MAX_PICKLE {
        return Err(CheckpointError::Limit(format!("the pickle has {} bytes; {} are allowed", bytes.len(), pickle::MAX_PICKLE)));
    }
    Ok(pickle::read(bytes, false)?.0)
}

/// What a container holds besides its numbers.
struct Opened {
    graph: Graph,
    index: Vec<u8>,
    storages: Storages,
    big_endian: bool,
}

fn open_zip(file: &[u8]) -> Result<Opened, CheckpointError> {
    let archive = zip::Archive::open(file)?;
    let root = archive.root()?;
    let entry = |name: &str, limit| archive.small(file, &format!("{root}/{name}"), limit);
    let index = entry("data.pkl", pickle::MAX_PICKLE)?.ok_or_else(|| malformed("`data.pkl` is missing"))?.into_owned();
    let big_endian = match entry("byteorder", 16)?.as_deref() {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(_) => return Err(malformed("`byteorder` is neither `little` nor `big`")),
    };
    let (graph, _) = pickle::read(&index, true)?;
    Ok(Opened { graph, index, storages: Storages::Zip { archive, root }, big_endian })
}

fn open_stream(file: &[u8]) -> Result<Opened, CheckpointError> {
    if !file.starts_with(legacy::PREFIX) {
        // A cut-off beginning of a stream is a truncated stream.
        return Err(if legacy::PREFIX.starts_with(file) {
            CheckpointError::Truncated("the file ends within its first bytes".into())
        } else {
            CheckpointError::NotOne("the file begins neither like a zip archive (PK) nor like an older PyTorch stream".into())
        });
    }
    let (graph, ranges, len) = legacy::open(file)?;
    Ok(Opened { graph, index: file[..len].to_vec(), storages: Storages::Stream(ranges), big_endian: false })
}

/// Files that are often found in the place of weights.
fn refuse_other_files(file: &[u8]) -> Result<(), CheckpointError> {
    if file.is_empty() {
        return Err(CheckpointError::Truncated("the file is empty".into()));
    }
    let head = file[..file.len().min(1024)].trim_ascii_start();
    let starts = |text: &[u8]| head.len() >= text.len() && head[..text.len()].eq_ignore_ascii_case(text);
    if starts(b"<!doctype") || starts(b"<html") || starts(b"<?xml") || starts(b"<head") || starts(b"<!--") {
        return Err(CheckpointError::Html);
    }
    if starts(b"version https://git-lfs") {
        return Err(CheckpointError::NotOne("the file is a Git LFS pointer; fetch the real file with `git lfs pull`".into()));
    }
    if starts(b"%PDF") || starts(b"{\"") {
        return Err(CheckpointError::NotOne("the file is a document or an error message".into()));
    }
    Ok(())
}

/// Takes wrappers' prefixes off, as long as every name has them.
fn strip_prefixes(weights: &mut [(String, &Tensor)]) {
    while let Some(prefix) = ["module.", "_orig_mod."].into_iter().find(|p| weights.iter().all(|(name, _)| name.starts_with(p))) {
        for (name, _) in weights.iter_mut() {
            name.drain(..prefix.len());
        }
    }
}
