//! JPEG-LS by CharLS (ISO/IEC 14495-1), lossless and near-lossless.

use super::codec::{CodecError, FrameSpec, check_same, write_words};
use charls::CharLS;

pub(super) fn decode(stream: &[u8], spec: FrameSpec, out: &mut [u8]) -> Result<(), CodecError> {
    let broken = |e: charls::Error| CodecError::Broken(e.to_string());
    let info = CharLS::default().get_frame_info(stream).map_err(broken)?;
    let (bits, components) = (info.bits_per_sample.max(0) as u64, info.component_count.max(0) as u64);
    check_same(spec, info.width.into(), info.height.into(), components, bits)?;
    // A decoder reads one stream only: the second one starts from the header again.
    let samples = CharLS::default().decode(stream).map_err(broken)?;
    let sample = if bits <= 8 { 1 } else { 2 };
    if samples.len() != spec.pixels() * sample {
        return Err(CodecError::Short { got: samples.len(), expected: spec.pixels() * sample });
    }
    if sample == spec.word as usize {
        out.copy_from_slice(&samples);
    } else if sample == 1 {
        write_words(&samples, spec.word, out, u32::from);
    } else {
        let (words, _) = samples.as_chunks::<2>();
        write_words(words, spec.word, out, |w| u16::from_le_bytes(w).into());
    }
    Ok(())
}
