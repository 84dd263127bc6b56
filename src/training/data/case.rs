//! A case on disk, ready for training: one safetensors file, of which only the patches asked for are read.

use super::Random;
use crate::stunet::learning::IGNORED;
use crate::sys::durable::{self, Step, StorageError};
use crate::training::Error;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The label of voxels outside the image or its mask: nnU-Net's -1. Becomes background after augmentation.
pub const OUTSIDE: u16 = u16::MAX - 1;
/// Largest header of a case file.
const MAX_HEADER: u64 = 1 << 20;
/// Largest number of voxels in a case: 2048 slices of 1024 by 1024.
const MAX_VOXELS: usize = 1 << 31;
/// Most channels.
const MAX_CHANNELS: usize = 64;
/// Voxels of a class that are remembered to force foreground: at most this many, but at least one in a hundred.
const REMEMBERED: usize = 10_000;

/// What goes into a case file.
pub struct NewCase<'a> {
    /// Normalised image on the network's grid, `[c, a0, a1, a2]`.
    pub image: &'a [f32],
    /// `[a0, a1, a2]`: classes, [`IGNORED`] or [`OUTSIDE`].
    pub labels: &'a [u16],
    /// Of one channel.
    pub shape: [usize; 3],
    /// The classes that a person reviewed, with the background; ascending.
    pub allowed: &'a [u16],
}

/// A case file that is open. Reading patches needs no memory but their own.
pub struct CaseFile {
    path: PathBuf,
    file: File,
    channels: usize,
    shape: [usize; 3],
    allowed: Vec<u16>,
    /// Where the image and the labels begin.
    image: u64,
    labels: u64,
    /// By class: where its remembered voxels begin, and how many there are.
    voxels: Vec<(u16, u64, u64)>,
}

/// A box in a case; it may hang over the ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Lower corner.
    pub start: [i64; 3],
    /// Edges.
    pub size: [usize; 3],
}

/// Numbers of a region: image 0 and label [`OUTSIDE`] where it hangs over.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// `[c, a0, a1, a2]`.
    pub image: Vec<f32>,
    /// `[a0, a1, a2]`.
    pub labels: Vec<u16>,
    /// Of one channel.
    pub size: [usize; 3],
}

impl NewCase<'_> {
    /// Writes the file, whole or not at all. The remembered voxels are drawn with `seed`.
    ///
    /// # Errors
    /// Arrays that do not fit each other, values that are not finite, labels outside `allowed`, or the disk.
    pub fn write(&self, path: &Path, seed: u64) -> Result<(), Error> {
        let voxels: usize = self.shape.iter().product();
        let bad = |what: String| Err(Error::Case { path: path.into(), detail: what });
        if voxels == 0
            || voxels > MAX_VOXELS
            || self.labels.len() != voxels
            || self.image.is_empty()
            || !self.image.len().is_multiple_of(voxels)
        {
            return bad(format!("{} values and {} labels for shape {:?}", self.image.len(), self.labels.len(), self.shape));
        }
        if self.image.iter().any(|v| !v.is_finite()) {
            return bad("the image has values that are not finite".into());
        }
        if self.allowed.first() != Some(&0) || !self.allowed.windows(2).all(|pair| pair[0] < pair[1]) {
            return bad("the reviewed classes have to begin with the background and ascend".into());
        }
        let mut places: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for (i, &label) in self.labels.iter().enumerate() {
            if label == IGNORED || label == OUTSIDE || label == 0 {
                continue;
            }
            if self.allowed.binary_search(&label).is_err() {
                return bad(format!("label {label} is not among the reviewed classes"));
            }
            places.entry(label).or_default().push(i as u32);
        }
        for (class, places) in &mut places {
            let keep = REMEMBERED.max(places.len().div_ceil(100)).min(places.len());
            let mut random = Random::new(seed, u64::from(*class));
            for i in 0..keep {
                let j = i + random.below((places.len() - i) as u64) as usize;
                places.swap(i, j);
            }
            places.truncate(keep);
        }
        self.store(path, &places)
    }

    fn store(&self, path: &Path, places: &BTreeMap<u16, Vec<u32>>) -> Result<(), Error> {
        let channels = self.image.len() / self.labels.len();
        let mut end = 0;
        let mut infos = Vec::new();
        let mut add = |name: String, dtype: Dtype, shape: Vec<usize>, bytes: usize| {
            infos.push((name, TensorInfo { dtype, shape, data_offsets: (end, end + bytes) }));
            end += bytes;
        };
        let [a, b, c] = self.shape;
        add("image".into(), Dtype::F32, vec![channels, a, b, c], self.image.len() * 4);
        add("labels".into(), Dtype::U16, vec![a, b, c], self.labels.len() * 2);
        for (class, places) in places {
            add(format!("voxels.{class}"), Dtype::U32, vec![places.len()], places.len() * 4);
        }
        let allowed = self.allowed.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
        let wrong = |e: String| Error::Case { path: path.into(), detail: e };
        let metadata = Metadata::new(Some(HashMap::from([("allowed".to_string(), allowed)])), infos).map_err(|e| wrong(e.to_string()))?;
        let mut header = serde_json::to_vec(&metadata).map_err(|e| wrong(e.to_string()))?;
        header.resize(header.len().next_multiple_of(8), b' ');
        durable::write_file_with(path, |file| {
            let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
            let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(StorageError::at(Step::Write, path));
            put(&(header.len() as u64).to_le_bytes())?;
            put(&header)?;
            self.image.iter().try_for_each(|v| put(&v.to_le_bytes()))?;
            self.labels.iter().try_for_each(|v| put(&v.to_le_bytes()))?;
            places.values().flatten().try_for_each(|v| put(&v.to_le_bytes()))?;
            file.flush().map_err(StorageError::at(Step::Write, path))
        })?;
        Ok(())
    }
}

impl CaseFile {
    /// Opens a file that [`NewCase::write`] made; everything in its header is checked.
    pub fn open(path: &Path) -> Result<CaseFile, Error> {
        let unreadable = |e| Error::Storage(StorageError { step: Step::Read, path: path.into(), source: e });
        let wrong = |detail: &str| Error::Case { path: path.into(), detail: detail.into() };
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut size = [0; 8];
        file.read_exact_at(&mut size, 0).map_err(unreadable)?;
        let header = u64::from_le_bytes(size);
        if header > MAX_HEADER || header + 8 > length {
            return Err(wrong("the header is longer than the file or the limit"));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact_at(&mut bytes, 8).map_err(unreadable)?;
        // Offsets that overlap, leave gaps or do not fit their shapes are refused here.
        let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|e| wrong(&e.to_string()))?;
        let begin = header + 8;
        let tensors = metadata.tensors();
        let find = |name: &str, dtype: Dtype| {
            tensors
                .get(name)
                .filter(|info| info.dtype == dtype)
                .ok_or_else(|| wrong(&format!("tensor {name} is missing or of another kind")))
        };
        let (image, labels) = (find("image", Dtype::F32)?, find("labels", Dtype::U16)?);
        let (&[channels, a, b, c], [la, lb, lc]) = (image.shape.as_slice(), labels.shape.as_slice()) else {
            return Err(wrong("image and labels need four and three axes"));
        };
        let voxels = [a, b, c].iter().try_fold(1usize, |n, &edge| n.checked_mul(edge)).unwrap_or(0);
        if [a, b, c] != [*la, *lb, *lc] || voxels == 0 || voxels > MAX_VOXELS || !(1..=MAX_CHANNELS).contains(&channels) {
            return Err(wrong("image and labels do not have the same shape, or one beyond the limits"));
        }
        if begin + metadata.data_len() as u64 != length {
            return Err(wrong("the file is not as long as its header says"));
        }
        let allowed =
            metadata.metadata().as_ref().and_then(|m| m.get("allowed")).ok_or_else(|| wrong("the reviewed classes are missing"))?;
        let allowed: Vec<u16> = allowed
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| wrong("the reviewed classes are no numbers"))?;
        if allowed.first() != Some(&0) || !allowed.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(wrong("the reviewed classes have to begin with the background and ascend"));
        }
        let mut found = Vec::new();
        for (name, info) in &tensors {
            let Some(class) = name.strip_prefix("voxels.") else { continue };
            let class: u16 = class.parse().map_err(|_| wrong("a list of voxels has no class"))?;
            if info.dtype != Dtype::U32 || info.shape.len() != 1 || info.shape[0] == 0 || allowed.binary_search(&class).is_err() {
                return Err(wrong("a list of voxels is empty or of a class that was not reviewed"));
            }
            found.push((class, begin + info.data_offsets.0 as u64, info.shape[0] as u64));
        }
        found.sort_unstable();
        let (image, labels) = (begin + image.data_offsets.0 as u64, begin + labels.data_offsets.0 as u64);
        Ok(CaseFile { path: path.into(), file, channels, shape: [a, b, c], allowed, image, labels, voxels: found })
    }

    /// Channels of the image.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Of one channel.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The reviewed classes, with the background; ascending.
    pub fn allowed(&self) -> &[u16] {
        &self.allowed
    }

    /// The foreground classes that occur, ascending.
    pub fn present(&self) -> impl ExactSizeIterator<Item = u16> {
        self.voxels.iter().map(|&(class, ..)| class)
    }

    /// A remembered voxel of a class that is drawn uniformly from those [`present`](Self::present); none without foreground.
    pub fn foreground(&self, random: &mut Random) -> Result<Option<[usize; 3]>, Error> {
        let Some(&(_, begin, count)) = self.voxels.get(random.below(self.voxels.len() as u64) as usize) else { return Ok(None) };
        let mut bytes = [0; 4];
        self.fill(&mut bytes, begin + 4 * random.below(count))?;
        let at = u32::from_le_bytes(bytes) as usize;
        let [a, b, c] = self.shape;
        if at >= a * b * c {
            return Err(Error::Case { path: self.path.clone(), detail: "a remembered voxel lies outside the image".into() });
        }
        Ok(Some([at / (b * c), at / c % b, at % c]))
    }

    /// Reads a region, row by row.
    pub fn read(&self, region: &Region) -> Result<Patch, Error> {
        let [a, b, c] = region.size;
        let volume = a * b * c;
        let mut patch = Patch { image: vec![0.0; self.channels * volume], labels: vec![OUTSIDE; volume], size: region.size };
        // The part of a row that lies inside.
        let (low, high) = (region.start[2].max(0), (region.start[2] + c as i64).min(self.shape[2] as i64));
        if low >= high {
            return Ok(patch);
        }
        let (skip, inside) = ((low - region.start[2]) as usize, (high - low) as usize);
        let mut bytes = vec![0u8; inside * 4];
        for i in 0..a {
            for j in 0..b {
                let (z, y) = (region.start[0] + i as i64, region.start[1] + j as i64);
                if !(0..self.shape[0] as i64).contains(&z) || !(0..self.shape[1] as i64).contains(&y) {
                    continue;
                }
                let from = (z as usize * self.shape[1] + y as usize) * self.shape[2] + low as usize;
                let to = (i * b + j) * c + skip;
                for channel in 0..self.channels {
                    let at = channel * self.shape.iter().product::<usize>() + from;
                    self.fill(&mut bytes, self.image + 4 * at as u64)?;
                    let row = &mut patch.image[channel * volume + to..][..inside];
                    row.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
                }
                let bytes = &mut bytes[..inside * 2];
                self.fill(bytes, self.labels + 2 * from as u64)?;
                let row = &mut patch.labels[to..][..inside];
                row.iter_mut().zip(bytes.as_chunks().0).for_each(|(value, bytes)| *value = u16::from_le_bytes(*bytes));
            }
        }
        Ok(patch)
    }

    fn fill(&self, bytes: &mut [u8], at: u64) -> Result<(), Error> {
        let read = self.file.read_exact_at(bytes, at);
        read.map_err(|source| Error::Storage(StorageError { step: Step::Read, path: self.path.clone(), source }))
    }
}
