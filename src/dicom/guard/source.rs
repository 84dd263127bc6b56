//! Bytes by offset, through a small window: a file, a buffer, or the inflated form of either.

use super::DicomError;
use flate2::read::DeflateDecoder;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// First read of a file: most headers end within.
const FIRST_READ: usize = 16 << 10;
/// Read after a jump over a value, and step of the inflater.
const NEXT_READ: usize = 4 << 10;
/// A deflated data set may inflate to this, and to so many times its own size: an image of nothing but air still passes, a bomb does not.
const INFLATED_BASE: u64 = 64 << 20;
const INFLATED_RATIO: u64 = 100;
/// What a deflated stream may hold after its pixel data: padding and a signature.
const DEFLATED_TAIL: u64 = 1 << 20;

/// Bytes by offset. Offsets asked of an inflated source never fall.
pub(crate) struct Source<'a> {
    inner: Inner<'a>,
    /// Bytes `[start, start + window.len())`; not used for memory.
    window: Vec<u8>,
    start: u64,
    end: u64,
}

enum Inner<'a> {
    Memory(&'a [u8]),
    File(&'a File),
    Inflate { stream: Box<DeflateDecoder<Box<dyn Read + 'a>>>, finished: bool },
}

impl<'a> Source<'a> {
    /// A buffer.
    pub(crate) fn memory(bytes: &'a [u8]) -> Source<'a> {
        Source { inner: Inner::Memory(bytes), window: Vec::new(), start: 0, end: bytes.len() as u64 }
    }

    /// A file of that size. What is appended later is not seen; if it shrinks, reads come back short.
    pub(crate) fn file(file: &'a File, size: u64) -> Source<'a> {
        Source { inner: Inner::File(file), window: Vec::new(), start: 0, end: size }
    }

    /// The raw deflate stream that starts at `offset`, inflated as it is read, to at most `cap` bytes and a plausible multiple of its size.
    pub(crate) fn inflate_from(self, offset: u64, cap: u64) -> Source<'a> {
        let cap = cap.min(INFLATED_BASE + INFLATED_RATIO * self.end.saturating_sub(offset));
        let bytes: Box<dyn Read + 'a> = match self.inner {
            Inner::Memory(bytes) => Box::new(bytes.get(offset as usize..).unwrap_or_default()),
            Inner::File(file) => Box::new(FileFrom { file, offset, end: self.end }),
            Inner::Inflate { .. } => Box::new(std::io::empty()),
        };
        let stream = Box::new(DeflateDecoder::new_with_buf(bytes, vec![0; FIRST_READ]));
        Source { inner: Inner::Inflate { stream, finished: false }, window: Vec::new(), start: 0, end: cap }
    }

    /// The offset behind the last byte; for an inflated source the cap, until the stream has ended.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Whether the end is only known when it is reached.
    pub(crate) fn inflates(&self) -> bool {
        matches!(self.inner, Inner::Inflate { .. })
    }

    /// Up to `want` bytes at `offset`; fewer only where the source ends.
    pub(crate) fn at(&mut self, offset: u64, want: usize) -> Result<&[u8], DicomError> {
        match &mut self.inner {
            Inner::Memory(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(&bytes[from..bytes.len().min(from.saturating_add(want))]);
            }
            Inner::File(file) => {
                let held = self.start..self.start + self.window.len() as u64;
                let last = offset.saturating_add(want as u64).min(self.end);
                if offset < last && !(held.contains(&offset) && last <= held.end) {
                    let read = if offset == 0 || held.contains(&offset) { FIRST_READ } else { NEXT_READ };
                    let length = (self.end - offset).min(read.max(want) as u64) as usize;
                    self.window.resize(length, 0);
                    self.start = offset;
                    let got = read_fully_at(file, &mut self.window, offset)?;
                    self.window.truncate(got);
                }
            }
            Inner::Inflate { stream, finished } => {
                if offset < self.start {
                    return Err(DicomError::Corrupt("the deflated data set would have to be read backwards".into()));
                }
                loop {
                    let behind = (offset - self.start).min(self.window.len() as u64) as usize;
                    if *finished || offset + want as u64 <= self.start + self.window.len() as u64 {
                        break;
                    }
                    self.window.drain(..behind);
                    self.start += behind as u64;
                    let held = self.window.len();
                    self.window.resize(held + NEXT_READ, 0);
                    let got = match stream.read(&mut self.window[held..]) {
                        Ok(got) => got,
                        // The stream is cut: what is missing shows where it is asked for.
                        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => 0,
                        Err(_) => return Err(DicomError::Corrupt("the deflated data set does not inflate".into())),
                    };
                    self.window.truncate(held + got);
                    if got == 0 {
                        *finished = true;
                        self.end = self.start + self.window.len() as u64;
                    } else if self.start + self.window.len() as u64 > self.end {
                        return Err(DicomError::Corrupt(format!("the deflated data set inflates to more than {} bytes", self.end)));
                    }
                }
            }
        }
        let from = offset.saturating_sub(self.start).min(self.window.len() as u64) as usize;
        Ok(&self.window[from..self.window.len().min(from + want)])
    }

    /// Checks that an inflated stream ends soon after `position`.
    pub(crate) fn expect_end_within(&mut self, position: u64) -> Result<(), DicomError> {
        let tail = position.saturating_add(DEFLATED_TAIL);
        if tail < self.end && !self.at(tail, 1)?.is_empty() {
            return Err(DicomError::Corrupt("the deflated data set goes on long after its pixel data".into()));
        }
        Ok(())
    }
}

/// Fills the buffer from `offset`, as far as the file goes.
pub(crate) fn read_fully_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

struct FileFrom<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
}

impl Read for FileFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.end.saturating_sub(self.offset).try_into().unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..length], self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}
