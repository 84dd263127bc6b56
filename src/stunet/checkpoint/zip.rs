//! The zip container of PyTorch, read from a memory map: only the central directory and the entries asked for are touched.
//!
//! PyTorch stores its entries without compression and, for large files, with zip64 fields (APPNOTE.TXT 6.3.10,
//! sections 4.3 and 4.5.3). A small entry (the pickle) may be deflated, as re-packed files have it; tensor data may not.
//! No two entries may share bytes, none may reach into the directory, and sizes are checked before memory is reserved.

use super::error::{CheckpointError, malformed, shown};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;

/// Most entries: the largest official model with its optimizer has about 620.
const MAX_ENTRIES: u64 = 100_000;
/// Longest name of an entry.
const MAX_NAME: usize = 512;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const END64_LOCATOR: u32 = 0x0706_4b50;

/// Lengths of the fixed parts of the records.
const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const LOCATOR_LEN: usize = 20;

/// The directory of an archive; entries by name.
#[derive(Debug)]
pub(super) struct Archive {
    entries: HashMap<String, Entry>,
    directory_start: usize,
}

/// One entry of the central directory.
#[derive(Clone, Copy, Debug)]
struct Entry {
    deflated: bool,
    crc: u32,
    packed: usize,
    size: usize,
    header: usize,
}

impl Archive {
    /// Reads the central directory of a whole file.
    pub fn open(file: &[u8]) -> Result<Archive, CheckpointError> {
        let end = find_end(file)?;
        let directory = Directory::locate(file, end)?;
        let mut entries = HashMap::new();
        let mut at = directory.start;
        for _ in 0..directory.entries {
            let (name, entry, next) = central_entry(file, at, directory.start + directory.len)?;
            if entry.header + LOCAL_LEN + entry.packed > directory.start {
                return Err(CheckpointError::Truncated(format!("the entry {} reaches beyond the data of the file", shown(&name))));
            }
            if entries.insert(name.clone(), entry).is_some() {
                return Err(malformed(format!("the entry {} is there twice", shown(&name))));
            }
            at = next;
        }
        refuse_overlaps(&entries)?;
        Ok(Archive { entries, directory_start: directory.start })
    }

    /// The one root folder that holds `data.pkl`: `archive` or the file's stem.
    pub fn root(&self) -> Result<String, CheckpointError> {
        let mut roots = self.entries.keys().filter_map(|n| n.strip_suffix("/data.pkl")).filter(|r| !r.contains('/'));
        match (roots.next(), roots.next()) {
            (Some(root), None) => Ok(root.to_string()),
            (None, _) => Err(CheckpointError::NotOne("the zip archive holds no `data.pkl`, so torch.save did not write it".into())),
            (Some(_), Some(_)) => Err(malformed("the archive holds more than one `data.pkl`")),
        }
    }

    /// A small entry whole, inflated if need be; `None` when there is no such entry.
    pub fn small<'f>(&self, file: &'f [u8], name: &str, limit: usize) -> Result<Option<Cow<'f, [u8]>>, CheckpointError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if entry.size > limit || entry.packed > limit {
            return Err(CheckpointError::Limit(format!("{} has {} bytes, more than the limit of {limit}", shown(name), entry.size)));
        }
        let packed = self.data(file, name, entry)?;
        let bytes = if entry.deflated {
            let mut bytes = Vec::with_capacity(entry.size);
            flate2::read::DeflateDecoder::new(packed)
                .take(entry.size as u64 + 1)
                .read_to_end(&mut bytes)
                .map_err(|e| CheckpointError::Corrupt(format!("{} can not be inflated: {e}", shown(name))))?;
            if bytes.len() != entry.size {
                return Err(CheckpointError::Limit(format!("{} does not inflate to the {} bytes it declares", shown(name), entry.size)));
            }
            Cow::Owned(bytes)
        } else {
            Cow::Borrowed(packed)
        };
        check_crc(name, entry, &bytes)?;
        Ok(Some(bytes))
    }

    /// The bytes of a stored entry, still unread and unchecked.
    pub fn stored<'f>(&self, file: &'f [u8], name: &str) -> Result<&'f [u8], CheckpointError> {
        let entry = self.entries.get(name).ok_or_else(|| CheckpointError::Truncated(format!("the entry {} is missing", shown(name))))?;
        if entry.deflated {
            return Err(CheckpointError::Unsupported(format!(
                "{} is compressed; torch.save stores tensors uncompressed: unpack the archive and pack it again with `zip -0`",
                shown(name)
            )));
        }
        self.data(file, name, entry)
    }

    /// Compares the bytes of [`Archive::stored`] with the checksum of the directory.
    pub fn verify(&self, name: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        let entry = self.entries.get(name).ok_or_else(|| CheckpointError::Truncated(format!("the entry {} is missing", shown(name))))?;
        check_crc(name, entry, bytes)
    }

    /// The packed bytes of an entry, found through its local header.
    fn data<'f>(&self, file: &'f [u8], name: &str, entry: &Entry) -> Result<&'f [u8], CheckpointError> {
        let header = record(file, entry.header, LOCAL_LEN, LOCAL, "a local header")?;
        let name_len = u16_at(header, 26) as usize;
        let start = entry.header + LOCAL_LEN + name_len + u16_at(header, 28) as usize;
        if file.get(entry.header + LOCAL_LEN..entry.header + LOCAL_LEN + name_len) != Some(name.as_bytes()) {
            return Err(malformed(format!("the local header of {} has another name", shown(name))));
        }
        match start.checked_add(entry.packed) {
            Some(end) if end <= self.directory_start => Ok(&file[start..end]),
            _ => Err(malformed(format!("{} reaches into the directory", shown(name)))),
        }
    }
}

/// Where the central directory is.
struct Directory {
    start: usize,
    len: usize,
    entries: u64,
}

impl Directory {
    fn locate(file: &[u8], end: usize) -> Result<Directory, CheckpointError> {
        let record_end = record(file, end, END_LEN, END, "the end record")?;
        let mut numbers = (u16_at(record_end, 10) as u64, u32_at(record_end, 12) as u64, u32_at(record_end, 16) as u64);
        if u16_at(record_end, 4) != 0 || u16_at(record_end, 6) != 0 {
            return Err(CheckpointError::Unsupported("the zip archive spans several disks".into()));
        }
        let mut limit = end;
        if numbers.0 == 0xffff || numbers.1 == 0xffff_ffff || numbers.2 == 0xffff_ffff {
            let at = end.checked_sub(LOCATOR_LEN).ok_or_else(|| malformed("no room for the zip64 locator"))?;
            let locator = record(file, at, LOCATOR_LEN, END64_LOCATOR, "the zip64 locator")?;
            limit = to_usize(u64_at(locator, 8))?;
            let end64 = record(file, limit, END64_LEN, END64, "the zip64 end record")?;
            numbers = (u64_at(end64, 32), u64_at(end64, 40), u64_at(end64, 48));
        }
        let (entries, len, start) = (numbers.0, to_usize(numbers.1)?, to_usize(numbers.2)?);
        if entries > MAX_ENTRIES {
            return Err(CheckpointError::Limit(format!("the archive declares {entries} entries, more than {MAX_ENTRIES}")));
        }
        match start.checked_add(len) {
            Some(stop) if stop <= limit && entries.saturating_mul(CENTRAL_LEN as u64) <= len as u64 => {
                Ok(Directory { start, len, entries })
            }
            _ => Err(malformed("the central directory does not lie inside the file")),
        }
    }
}

/// The end record: the last place where its signature stands and its comment reaches exactly the end of the file.
fn find_end(file: &[u8]) -> Result<usize, CheckpointError> {
    let last =
        file.len().checked_sub(END_LEN).ok_or_else(|| CheckpointError::Truncated("the file has no room for a zip archive".into()))?;
    let first = last.saturating_sub(0xffff);
    (first..=last)
        .rev()
        .find(|&at| u32_at(file, at) == END && at + END_LEN + u16_at(file, at + 20) as usize == file.len())
        .ok_or_else(|| CheckpointError::Truncated("the zip archive has no end record".into()))
}

/// One central entry and the place of the next.
fn central_entry(file: &[u8], at: usize, limit: usize) -> Result<(String, Entry, usize), CheckpointError> {
    let outside = || malformed("the central directory is shorter than it says");
    if at + CENTRAL_LEN > limit {
        return Err(outside());
    }
    let fixed = record(file, at, CENTRAL_LEN, CENTRAL, "a central entry")?;
    let (name_len, extra_len) = (u16_at(fixed, 28) as usize, u16_at(fixed, 30) as usize);
    let name_at = at + CENTRAL_LEN;
    let next = name_at + name_len + extra_len + u16_at(fixed, 32) as usize;
    if next > limit {
        return Err(outside());
    }
    if name_len == 0 || name_len > MAX_NAME {
        return Err(CheckpointError::Limit(format!("an entry's name has {name_len} bytes; 1 to {MAX_NAME} are allowed")));
    }
    let name = std::str::from_utf8(&file[name_at..name_at + name_len]).map_err(|_| malformed("an entry's name is not UTF-8"))?.to_string();
    if u16_at(fixed, 8) & 1 != 0 {
        return Err(CheckpointError::Unsupported(format!("{} is encrypted", shown(&name))));
    }
    let deflated = match u16_at(fixed, 10) {
        0 => false,
        8 => true,
        method => return Err(CheckpointError::Unsupported(format!("{} uses compression method {method}", shown(&name)))),
    };
    let extra = &file[name_at + name_len..name_at + name_len + extra_len];
    let mut sizes = [u32_at(fixed, 24) as u64, u32_at(fixed, 20) as u64, u32_at(fixed, 42) as u64];
    fill_zip64(extra, &mut sizes).ok_or_else(|| malformed(format!("{} lacks its zip64 sizes", shown(&name))))?;
    let [size, packed, header] = sizes;
    let entry = Entry { deflated, crc: u32_at(fixed, 16), packed: to_usize(packed)?, size: to_usize(size)?, header: to_usize(header)? };
    if !deflated && entry.size != entry.packed {
        return Err(malformed(format!("{} is stored, but its two sizes differ", shown(&name))));
    }
    // Sums of these with small lengths can not overflow after this.
    if entry.header > file.len() || entry.packed > file.len() {
        return Err(CheckpointError::Truncated(format!("the entry {} reaches beyond the end of the file", shown(&name))));
    }
    Ok((name, entry, next))
}

/// Replaces the numbers that are `0xffffffff` by those of the zip64 field (id 1), which holds them in this order.
fn fill_zip64(mut extra: &[u8], numbers: &mut [u64; 3]) -> Option<()> {
    if numbers.iter().all(|&n| n != 0xffff_ffff) {
        return Some(());
    }
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let mut field = extra.get(4..4 + len)?;
        if id == 1 {
            for n in numbers.iter_mut().filter(|n| **n == 0xffff_ffff) {
                *n = u64::from_le_bytes(*field.first_chunk()?);
                field = &field[8..];
            }
            return Some(());
        }
        extra = &extra[4 + len..];
    }
    None
}

fn refuse_overlaps(entries: &HashMap<String, Entry>) -> Result<(), CheckpointError> {
    let mut ranges: Vec<(usize, usize)> =
        entries.iter().map(|(name, e)| (e.header, e.header + LOCAL_LEN + name.len() + e.packed)).collect();
    ranges.sort_unstable();
    match ranges.windows(2).find(|w| w[0].1 > w[1].0) {
        Some(w) => Err(malformed(format!("two entries of the archive share the bytes from {} on", w[1].0))),
        None => Ok(()),
    }
}

fn check_crc(name: &str, entry: &Entry, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    if crc.sum() == entry.crc {
        return Ok(());
    }
    Err(CheckpointError::Corrupt(format!(
        "the checksum of {} is {:08x}, its directory says {:08x} (a file written with torch.serialization.set_crc32_options(False) has no \
         usable checksums: save it again without that)",
        shown(name),
        crc.sum(),
        entry.crc
    )))
}

/// `len` bytes at `at` that begin with a signature.
fn record<'f>(file: &'f [u8], at: usize, len: usize, signature: u32, what: &str) -> Result<&'f [u8], CheckpointError> {
    match at.checked_add(len).and_then(|end| file.get(at..end)) {
        Some(bytes) if u32_at(bytes, 0) == signature => Ok(bytes),
        Some(_) => Err(malformed(format!("{what} of the zip archive is not where it should be"))),
        None => Err(CheckpointError::Truncated(format!("{what} of the zip archive lies beyond the end of the file"))),
    }
}

fn to_usize(n: u64) -> Result<usize, CheckpointError> {
    // Offsets are added to each other: half the range keeps every sum of two inside it.
    usize::try_from(n).ok().filter(|&n| n <= usize::MAX / 4).ok_or_else(|| malformed("a number in the zip archive is absurd"))
}

/// Little-endian numbers; callers have checked the range.
fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u32_at(b, at) as u64 | (u32_at(b, at + 4) as u64) << 32
}
