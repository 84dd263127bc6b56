//! From stored words to numbers: mask, sign, rescale, padding, and the digest of what was stored.

use super::codec::FrameSpec;
use crate::dicom::{PixelFormat, Rescale};
use sha2::{Digest, Sha256};
use std::mem::MaybeUninit;

/// How the words of one plane become numbers.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    /// Bits below the stored value: High Bit - Bits Stored + 1.
    low: u32,
    /// Bits Stored.
    bits: u32,
    signed: bool,
    rescale: Rescale,
    /// Stored values, inclusive, that are replaced, and by what.
    padding: Option<(i64, i64, f32)>,
}

/// A pixel layout that can not be converted.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LayoutError {
    /// Bits Allocated, Bits Stored and High Bit do not fit together, or are not supported.
    #[error("{stored} bits stored of {allocated} allocated, high bit {high}")]
    Bits {
        /// Bits Allocated.
        allocated: u16,
        /// Bits Stored.
        stored: u16,
        /// High Bit.
        high: u16,
    },
    /// Slope or intercept would give numbers beyond f32.
    #[error("rescale slope {slope}, intercept {intercept}")]
    Rescale {
        /// Rescale Slope.
        slope: f64,
        /// Rescale Intercept.
        intercept: f64,
    },
}

impl Conversion {
    /// `padded` replaces padding values, where the format has any.
    pub fn new(format: &PixelFormat, rescale: Rescale, padded: Option<f32>) -> Result<Conversion, LayoutError> {
        let (allocated, stored, high) = (format.bits_allocated, format.bits_stored, format.high_bit);
        if !matches!(allocated, 8 | 16 | 32) || stored == 0 || high >= allocated || high + 1 < stored {
            return Err(LayoutError::Bits { allocated, stored, high });
        }
        // With this every value is finite in f32.
        let largest = rescale.slope.abs() * 2f64.powi(stored.into()) + rescale.intercept.abs();
        if !(largest < f64::from(f32::MAX) && rescale.slope != 0.0) {
            return Err(LayoutError::Rescale { slope: rescale.slope, intercept: rescale.intercept });
        }
        let padding = format.padding.zip(padded).map(|((low, high), value)| (low.into(), high.into(), value));
        Ok(Conversion { low: (high + 1 - stored).into(), bits: stored.into(), signed: format.signed, rescale, padding })
    }

    /// Converts one plane of little-endian words and returns the digest of its stored values: SHA-256 over them as little-endian numbers
    /// of 16 bits, or 32 where more are stored, masked and sign-extended. Words and `out` have the frame's size.
    pub fn plane(&self, words: &[u8], spec: FrameSpec, out: &mut [MaybeUninit<f32>], scratch: &mut Vec<u8>) -> [u8; 32] {
        assert!(words.len() == spec.bytes() && out.len() == spec.pixels());
        match spec.word {
            1 => self.narrow(words, |&w| u16::from(w), out, scratch),
            2 => {
                let (words, _) = words.as_chunks::<2>();
                self.narrow(words, |&w| u16::from_le_bytes(w), out, scratch)
            }
            _ => {
                let (words, _) = words.as_chunks::<4>();
                self.wide(words, out, scratch)
            }
        }
    }

    /// Words of at most 16 bits. Kept apart from wider ones: 16-bit lanes are what the compiler makes fast.
    fn narrow<W>(&self, words: &[W], word: impl Fn(&W) -> u16, out: &mut [MaybeUninit<f32>], scratch: &mut Vec<u8>) -> [u8; 32] {
        // Up to the top, which drops the bits above, and down again, which drops those below and brings the sign.
        let (up, down) = (16 - self.bits - self.low, 16 - self.bits);
        if self.signed {
            self.fill(words, |w| i32::from((word(w) << up) as i16 >> down), out, scratch)
        } else {
            self.fill(words, |w| i32::from((word(w) << up) >> down), out, scratch)
        }
    }

    fn fill<W>(&self, words: &[W], stored: impl Fn(&W) -> i32, out: &mut [MaybeUninit<f32>], scratch: &mut Vec<u8>) -> [u8; 32] {
        let Rescale { slope, intercept, .. } = self.rescale;
        let (low, high, padded) = self.padding.map_or((1, 0, 0.0), |(l, h, v)| (clamp(l), clamp(h), v));
        scratch.resize(2 * words.len(), 0);
        let (digits, _) = scratch.as_chunks_mut::<2>();
        for ((word, digits), out) in words.iter().zip(digits).zip(out) {
            let value = stored(word);
            *digits = (value as u16).to_le_bytes();
            let number = (slope * f64::from(value) + intercept) as f32;
            out.write(if (low..=high).contains(&value) { padded } else { number });
        }
        Sha256::digest(scratch).into()
    }

    fn wide(&self, words: &[[u8; 4]], out: &mut [MaybeUninit<f32>], scratch: &mut Vec<u8>) -> [u8; 32] {
        let (up, down) = (32 - self.bits - self.low, 32 - self.bits);
        let Rescale { slope, intercept, .. } = self.rescale;
        let (low, high, padded) = self.padding.unwrap_or((1, 0, 0.0));
        scratch.clear();
        for (word, out) in words.iter().zip(out) {
            let word = u32::from_le_bytes(*word) << up;
            let value = if self.signed { i64::from(word as i32 >> down) } else { i64::from(word >> down) };
            let digits = (value as u32).to_le_bytes();
            scratch.extend(if self.bits <= 16 { &digits[..2] } else { &digits[..] });
            let number = (slope * value as f64 + intercept) as f32;
            out.write(if (low..=high).contains(&value) { padded } else { number });
        }
        Sha256::digest(scratch).into()
    }
}

/// A stored value of at most 16 bits; what lies outside is met by none.
fn clamp(value: i64) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::Uid;
    use proptest::prelude::*;

    fn format(allocated: u16, stored: u16, high: u16, signed: bool) -> PixelFormat {
        let transfer_syntax = Uid::parse("1.2.840.10008.1.2.1").unwrap();
        let (bits_allocated, bits_stored, high_bit) = (allocated, stored, high);
        PixelFormat { transfer_syntax, frames: 1, rows: 1, columns: 1, bits_allocated, bits_stored, high_bit, signed, padding: None }
    }

    fn run(format: &PixelFormat, rescale: Rescale, padded: Option<f32>, words: &[u8]) -> (Vec<f32>, [u8; 32]) {
        let word = (format.bits_allocated / 8) as u8;
        let spec = FrameSpec { rows: 1, columns: (words.len() / usize::from(word)) as u16, word };
        let mut out = vec![MaybeUninit::new(f32::NAN); spec.pixels()];
        let digest = Conversion::new(format, rescale, padded).unwrap().plane(words, spec, &mut out, &mut Vec::new());
        // SAFETY: initialised above.
        (out.iter().map(|v| unsafe { v.assume_init() }).collect(), digest)
    }

    const HU: Rescale = Rescale { slope: 1.0, intercept: -1024.0, explicit: true };
    const ONE: Rescale = Rescale { slope: 1.0, intercept: 0.0, explicit: true };

    #[test]
    fn junk_outside_the_stored_bits_is_dropped() {
        let words: Vec<u8> = [0xf123u16, 0x0fff].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(run(&format(16, 12, 11, false), HU, None, &words).0, [0x123 as f32 - 1024.0, 3071.0]);
        assert_eq!(run(&format(16, 12, 11, true), ONE, None, &words).0, [0x123 as f32, -1.0]);
        // high bit 13: two bits of junk below
        assert_eq!(run(&format(16, 12, 13, false), ONE, None, &words).0, [(0x3123 >> 2) as f32, 0x3ff as f32]);
        assert_eq!(run(&format(8, 8, 7, true), ONE, None, &[0x80, 0x7f]).0, [-128.0, 127.0]);
        let wide: Vec<u8> = [0xffff_ff85u32, 7].iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(run(&format(32, 32, 31, true), ONE, None, &wide).0, [-123.0, 7.0]);
        assert_eq!(run(&format(32, 32, 31, false), ONE, None, &wide).0, [0xffff_ff85u32 as f32, 7.0]);
        assert_eq!(run(&format(32, 8, 7, true), ONE, None, &wide).0, [-123.0, 7.0]);
    }

    #[test]
    fn padding_is_a_range_of_stored_values() {
        let words: Vec<u8> = [-2000i16, -1999, -1990, 0].iter().flat_map(|w| w.to_le_bytes()).collect();
        let padded = PixelFormat { padding: Some((-2000, -1991)), ..format(16, 16, 15, true) };
        assert_eq!(run(&padded, HU, Some(-1024.0), &words).0, [-1024.0, -1024.0, -3014.0, -1024.0]);
        assert_eq!(run(&padded, HU, None, &words).0[0], -3024.0);
    }

    #[test]
    fn nonsense_is_refused() {
        for (allocated, stored, high) in [(16, 0, 11), (16, 12, 16), (16, 13, 11), (12, 12, 11), (1, 1, 0), (64, 16, 15)] {
            assert!(Conversion::new(&format(allocated, stored, high, false), HU, None).is_err());
        }
        for (slope, intercept) in [(f64::NAN, 0.0), (1.0, f64::INFINITY), (0.0, 1.0), (1e38, 0.0)] {
            assert!(Conversion::new(&format(16, 16, 15, false), Rescale { slope, intercept, explicit: true }, None).is_err());
        }
    }

    proptest! {
        /// What the digest stands for does not depend on how many bits were allocated, or on junk above the stored ones.
        #[test]
        fn the_digest_is_of_the_numbers(values in proptest::collection::vec(0u8..128, 1..50), junk in any::<u8>(), signed in any::<bool>()) {
            let sixteen: Vec<u8> = values.iter().flat_map(|&v| [v, junk]).collect();
            let wide: Vec<u8> = values.iter().flat_map(|&v| [v, junk, junk, junk]).collect();
            let a = run(&format(8, 8, 7, signed), HU, None, &values);
            prop_assert_eq!(&a, &run(&format(16, 8, 7, signed), HU, None, &sixteen));
            prop_assert_eq!(&a, &run(&format(32, 8, 7, signed), HU, None, &wide));
        }

        #[test]
        fn numbers_are_those_of_f64(words in proptest::collection::vec(any::<i16>(), 1..50), slope in -10.0f64..10.0, intercept in -9000.0f64..9000.0) {
            prop_assume!(slope != 0.0);
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            let (got, _) = run(&format(16, 16, 15, true), Rescale { slope, intercept, explicit: true }, None, &bytes);
            for (got, word) in got.iter().zip(words) {
                prop_assert_eq!(*got, (slope * f64::from(word) + intercept) as f32);
            }
        }
    }
}
