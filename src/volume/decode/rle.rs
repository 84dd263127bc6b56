//! DICOM RLE (PS3.5 annex G): PackBits segments, one a byte of the word, most significant first.

use super::codec::{CodecError, FrameSpec};

/// Decodes one frame into little-endian words. Extra bytes in a segment (its padding) are ignored.
pub(super) fn decode(frame: &[u8], spec: FrameSpec, out: &mut [u8]) -> Result<(), CodecError> {
    let broken = |what: String| CodecError::Broken(what);
    let header = frame.first_chunk::<64>().ok_or_else(|| broken("the RLE header is cut short".into()))?;
    let field = |i: usize| u32::from_le_bytes([header[4 * i], header[4 * i + 1], header[4 * i + 2], header[4 * i + 3]]) as usize;
    let word = spec.word as usize;
    if field(0) != word {
        return Err(broken(format!("{} RLE segments for words of {word} bytes", field(0))));
    }
    for segment in 0..word {
        let start = field(1 + segment);
        let end = if segment + 1 < word { field(2 + segment) } else { frame.len() };
        let bytes = frame.get(start..end).filter(|_| start >= 64);
        let bytes = bytes.ok_or_else(|| broken(format!("RLE segment {segment} lies outside the frame")))?;
        let place = word - 1 - segment;
        let got = unpack(bytes, out, word, place);
        if got < spec.pixels() {
            return Err(CodecError::Short { got: got * word, expected: spec.bytes() });
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
            let spec = FrameSpec { rows: 1, columns: words.len() as u16, word: 2 };
            let mut out = vec![0; spec.bytes()];
            decode(&frame(&words), spec, &mut out).unwrap();
            let got: Vec<u16> = out.chunks(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
            prop_assert_eq!(got, words);
        }

        #[test]
        fn hostile_bytes_end_in_an_error_or_pixels(bytes in proptest::collection::vec(any::<u8>(), 0..400), word in 1u8..3) {
            let spec = FrameSpec { rows: 3, columns: 7, word };
            let mut out = vec![0; spec.bytes()];
            let _ = decode(&bytes, spec, &mut out);
            let mut header = [0u8; 64];
            header[0] = word;
            header[4] = 64;
            header[8] = 66;
            let _ = decode(&[&header[..], &bytes].concat(), spec, &mut out);
        }
    }

    #[test]
    fn short_segments_are_refused() {
        let mut bytes = frame(&[7; 10]);
        let spec = FrameSpec { rows: 2, columns: 5, word: 2 };
        let mut out = vec![0; spec.bytes()];
        assert!(decode(&bytes, spec, &mut out).is_ok());
        bytes.pop();
        assert!(matches!(decode(&bytes, spec, &mut out), Err(CodecError::Short { .. })));
        assert!(matches!(decode(&bytes[..40], spec, &mut out), Err(CodecError::Broken(_))));
    }
}
