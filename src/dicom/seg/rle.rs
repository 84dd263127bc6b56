//! RLE Lossless frames (PS3.5 annex G), decoded under a limit.

/// Decodes one frame into `samples` values of `bytes` (1 or 2) bytes each, little endian. `None` when the frame is malformed.
pub fn decode(frame: &[u8], samples: usize, bytes: usize) -> Option<Vec<u8>> {
    let word = |i: usize| Some(u32::from_le_bytes(frame.get(i * 4..i * 4 + 4)?.try_into().ok()?) as usize);
    if word(0)? != bytes {
        return None;
    }
    let mut out = vec![0; samples.checked_mul(bytes)?];
    for segment in 0..bytes {
        let start = word(1 + segment)?;
        let end = if segment + 1 < bytes { word(2 + segment)? } else { frame.len() };
        let plane = unpack(frame.get(start..end)?, samples)?;
        // The first segment holds the most significant bytes.
        let byte = bytes - 1 - segment;
        out.iter_mut().skip(byte).step_by(bytes).zip(plane).for_each(|(o, v)| *o = v);
    }
    Some(out)
}

/// PackBits: exactly `length` bytes; what a sloppy encoder adds behind them is ignored.
fn unpack(mut data: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        let (&control, rest) = data.split_first()?;
        data = rest;
        match control {
            0..=127 => {
                let (run, rest) = data.split_at_checked(usize::from(control) + 1)?;
                out.extend_from_slice(run);
                data = rest;
            }
            128 => {}
            129..=255 => {
                let (&value, rest) = data.split_first()?;
                out.resize(out.len() + 257 - usize::from(control), value);
                data = rest;
            }
        }
    }
    out.truncate(length);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut head = vec![segments.len() as u32];
        let mut at = 64;
        for s in segments {
            head.push(at);
            at += s.len() as u32;
        }
        head.resize(16, 0);
        head.iter().flat_map(|v| v.to_le_bytes()).chain(segments.concat()).collect()
    }

    #[test]
    fn runs_and_literals() {
        let one = frame(&[&[2, 1, 2, 3, 128, 254, 9]]);
        assert_eq!(decode(&one, 6, 1), Some(vec![1, 2, 3, 9, 9, 9]));
        let two = frame(&[&[255, 1], &[1, 7, 8]]);
        assert_eq!(decode(&two, 2, 2), Some(vec![7, 1, 8, 1]));
    }

    #[test]
    fn malformed_frames_are_refused() {
        for bad in [&frame(&[&[2, 1, 2]])[..], &frame(&[&[255]]), &frame(&[]), &[1, 0, 0, 0], &[]] {
            assert_eq!(decode(bad, 3, 1), None);
        }
    }
}
