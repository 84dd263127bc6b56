//! DICOM RLE (PS3.5 annex G): PackBits segments, one a byte of the word, most significant first.

/// Why a frame can not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// Fewer bytes than the header has.
    #[error("the RLE header is cut short")]
    Header,
    /// Another number of segments than the words have bytes.
    #[error("{segments} RLE segments for words of {word} bytes")]
    Segments {
        /// Segments of the frame.
        segments: usize,
        /// Bytes of a word.
        word: usize,
    },
    /// A segment that lies outside the frame.
    #[error("RLE segment {0} lies outside the frame")]
    Outside(usize),
    /// A segment that ends before the last pixel.
    #[error("RLE segment {segment} ends after {pixels} pixels")]
    Short {
        /// Which segment.
        segment: usize,
        /// Pixels that it has.
        pixels: usize,
    },
}

/// Decodes one frame into `out`, little-endian words of `word` bytes. Extra bytes in a segment (its padding) are ignored.
pub fn decode(frame: &[u8], word: usize, out: &mut [u8]) -> Result<(), RleError> {
    let header = frame.first_chunk::<64>().ok_or(RleError::Header)?;
    let field = |i: usize| u32::from_le_bytes([header[4 * i], header[4 * i + 1], header[4 * i + 2], header[4 * i + 3]]) as usize;
    if field(0) != word || !(1..=15).contains(&word) {
        return Err(RleError::Segments { segments: field(0), word });
    }
    let needed = out.len() / word;
    for segment in 0..word {
        let start = field(1 + segment);
        let end = if segment + 1 < word { field(2 + segment) } else { frame.len() };
        let bytes = frame.get(start..end).filter(|_| start >= 64).ok_or(RleError::Outside(segment))?;
        let pixels = unpack(bytes, out, word, word - 1 - segment);
        if pixels < needed {
            return Err(RleError::Short { segment, pixels });
        }
    }
    Ok(())
}

/// Unpacks one segment into every `step`th byte of `out` from `place` on; returns how many were written. Stops at the end of
/// either side.
fn unpack(mut packed: &[u8], out: &mut [u8], step: usize, place: usize) -> usize {
    let total = out.len() / step;
    let mut written = 0;
    let mut slots = out[place..].iter_mut().step_by(step);
    while written < total {
        let Some((&control, rest)) = packed.split_first() else { break };
        packed = rest;
        match control {
            0..=127 => {
                let run = (control as usize + 1).min(packed.len());
                let (literal, rest) = packed.split_at(run);
                packed = rest;
                for (slot, &byte) in slots.by_ref().take(run.min(total - written)).zip(literal) {
                    *slot = byte;
                }
                written = (written + run).min(total);
            }
            128 => {}
            _ => {
                let Some((&byte, rest)) = packed.split_first() else { break };
                packed = rest;
                let run = (257 - control as usize).min(total - written);
                slots.by_ref().take(run).for_each(|slot| *slot = byte);
                written += run;
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A plain encoder: literal runs only, or replicate runs where two bytes are equal.
    fn pack(plane: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut i = 0;
        while i < plane.len() {
            let same = plane[i..].iter().take(128).take_while(|&&b| b == plane[i]).count();
            if same > 1 {
                out.extend([(257 - same) as u8, plane[i]]);
                i += same;
            } else {
                out.extend([0, plane[i]]);
                i += 1;
            }
        }
        out
    }

    fn frame(words: &[u16]) -> Vec<u8> {
        let high = pack(&words.iter().map(|w| (w >> 8) as u8).collect::<Vec<_>>());
        let low = pack(&words.iter().map(|w| *w as u8).collect::<Vec<_>>());
        let mut header = [0u32; 16];
        header[..3].copy_from_slice(&[2, 64, 64 + high.len() as u32]);
        let mut bytes: Vec<u8> = header.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.extend(high);
        bytes.extend(low);
        bytes
    }

    proptest! {
        #[test]
        fn words_come_back(words in proptest::collection::vec(any::<u16>().prop_map(|w| w & 0x0303), 1..300)) {
            let mut out = vec![0; 2 * words.len()];
            decode(&frame(&words), 2, &mut out).unwrap();
            let got: Vec<u16> = out.chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
            prop_assert_eq!(got, words);
        }

        #[test]
        fn hostile_bytes_end_in_an_error_or_pixels(bytes in proptest::collection::vec(any::<u8>(), 0..400), word in 0usize..5) {
            let mut out = vec![0; 21 * word];
            let _ = decode(&bytes, word, &mut out);
            let mut header = [0u8; 64];
            header[0] = word as u8;
            header[4] = 64;
            header[8] = 66;
            let _ = decode(&[&header[..], &bytes].concat(), word, &mut out);
        }
    }

    #[test]
    fn damaged_frames_are_refused() {
        let mut bytes = frame(&[7; 10]);
        let mut out = [0; 20];
        assert_eq!(decode(&bytes, 2, &mut out), Ok(()));
        assert_eq!(decode(&bytes, 1, &mut out), Err(RleError::Segments { segments: 2, word: 1 }));
        bytes.pop();
        assert_eq!(decode(&bytes, 2, &mut out), Err(RleError::Short { segment: 1, pixels: 0 }));
        assert_eq!(decode(&bytes[..40], 2, &mut out), Err(RleError::Header));
        bytes[8] = 63;
        assert_eq!(decode(&bytes, 2, &mut out), Err(RleError::Outside(0)));
    }

    #[test]
    fn runs_literals_and_what_lies_behind_them() {
        let mut bytes = [[1u32, 64].map(u32::to_le_bytes).concat(), vec![0; 56]].concat();
        bytes.extend([2, 1, 2, 3, 128, 254, 9, 77]);
        let mut out = [0; 6];
        decode(&bytes, 1, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 9, 9, 9]);
    }
}
