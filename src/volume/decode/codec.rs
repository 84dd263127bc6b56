//! The codecs that decode compressed frames, behind one function. Runs in decode-worker children (`worker`), never in the
//! daemon itself; benches call it directly to know the codec's own time.

use super::{jpeg, jpeg2000, jpegls};

/// A family of code streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// ISO/IEC 10918-1: baseline, extended (8 and 12 bit) and lossless.
    Jpeg,
    /// ISO/IEC 14495-1.
    JpegLs,
    /// ISO/IEC 15444-1 and -15 (high throughput).
    Jpeg2000,
}

impl Codec {
    /// The byte that names it in a message to a worker.
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Codec::Jpeg => 1,
            Codec::JpegLs => 2,
            Codec::Jpeg2000 => 3,
        }
    }

    /// The codec of such a byte.
    pub(super) fn from_byte(byte: u8) -> Option<Codec> {
        [Codec::Jpeg, Codec::JpegLs, Codec::Jpeg2000].into_iter().find(|c| c.to_byte() == byte)
    }
}

/// What the header says a frame holds: one sample a pixel, rows of columns, little-endian words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpec {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Bytes of one stored word: 1, 2 or 4 (Bits Allocated / 8).
    pub word: u8,
}

impl FrameSpec {
    /// Pixels of the frame.
    pub fn pixels(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// Bytes of the decoded frame.
    pub fn bytes(&self) -> usize {
        self.pixels() * self.word as usize
    }
}

/// Why a frame can not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The code stream breaks the rules of its standard.
    #[error("the code stream is broken: {0}")]
    Broken(String),
    /// The code stream is sound but holds another image than the header says.
    #[error("the code stream holds {stream}, the header says {header}")]
    Mismatch {
        /// What the code stream says of itself.
        stream: String,
        /// What the header says.
        header: String,
    },
    /// The frame ends before its last pixel.
    #[error("the frame ends after {got} of {expected} bytes")]
    Short {
        /// Bytes decoded.
        got: usize,
        /// Bytes of the whole frame.
        expected: usize,
    },
}

/// Decodes one frame into `out` (exactly `spec.bytes()` long): little-endian words as an uncompressed file would hold them; a
/// negative sample is two's complement over the whole word.
pub fn decode(codec: Codec, stream: &[u8], spec: FrameSpec, out: &mut [u8]) -> Result<(), CodecError> {
    if out.len() != spec.bytes() || spec.pixels() == 0 {
        return Err(CodecError::Short { got: out.len(), expected: spec.bytes() });
    }
    match codec {
        Codec::Jpeg => jpeg::decode(stream, spec, out),
        Codec::JpegLs => jpegls::decode(stream, spec, out),
        Codec::Jpeg2000 => jpeg2000::decode(stream, spec, out),
    }
}

/// Refuses a code stream whose size, components or depth are not the header's, before anything of that size is reserved.
pub(super) fn check_same(spec: FrameSpec, columns: u64, rows: u64, components: u64, bits: u64) -> Result<(), CodecError> {
    let word_bits = 8 * spec.word as u64;
    if (columns, rows, components) == (spec.columns.into(), spec.rows.into(), 1) && (1..=word_bits).contains(&bits) {
        return Ok(());
    }
    Err(CodecError::Mismatch {
        stream: format!("{columns} × {rows} pixels of {components} × {bits} bits"),
        header: format!("{} × {} pixels of 1 × at most {word_bits} bits", spec.columns, spec.rows),
    })
}

/// Writes samples as little-endian words of `word` bytes.
pub(super) fn write_words<T: Copy>(samples: &[T], word: u8, out: &mut [u8], widen: impl Fn(T) -> u32) {
    match word {
        1 => out.iter_mut().zip(samples).for_each(|(o, &s)| *o = widen(s) as u8),
        2 => out.chunks_exact_mut(2).zip(samples).for_each(|(o, &s)| o.copy_from_slice(&(widen(s) as u16).to_le_bytes())),
        _ => out.chunks_exact_mut(4).zip(samples).for_each(|(o, &s)| o.copy_from_slice(&widen(s).to_le_bytes())),
    }
}
