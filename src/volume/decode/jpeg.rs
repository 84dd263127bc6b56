//! JPEG by libjpeg-turbo 3 (ISO/IEC 10918-1): baseline and extended with 8 or 12 bits, lossless with 2 to 16 bits.
//!
//! Rust's own decoders stop at 8 bits for the discrete cosine transform; libjpeg-turbo covers all four DICOM processes and is the
//! most widely tested one.

use super::codec::{CodecError, FrameSpec, check_same, write_words};
use std::ffi::CStr;
use turbojpeg_sys as tj;

/// Progressive scans that one frame may have: more than any encoder writes, few enough that a stream of empty scans ends soon.
const MAX_SCANS: i32 = 100;

pub(super) fn decode(stream: &[u8], spec: FrameSpec, out: &mut [u8]) -> Result<(), CodecError> {
    let decoder = Decompressor::new()?;
    decoder.set(tj::TJPARAM_TJPARAM_STOPONWARNING, 1)?;
    decoder.set(tj::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS)?;
    // SAFETY: the handle is live and the pointer covers `stream.len()` readable bytes for the duration of the call.
    decoder.check(unsafe { tj::tj3DecompressHeader(decoder.0, stream.as_ptr(), stream.len() as _) })?;
    let [columns, rows, bits] = [tj::TJPARAM_TJPARAM_JPEGWIDTH, tj::TJPARAM_TJPARAM_JPEGHEIGHT, tj::TJPARAM_TJPARAM_PRECISION]
        .map(|p| u64::try_from(decoder.get(p)).unwrap_or(0));
    let components = if decoder.get(tj::TJPARAM_TJPARAM_COLORSPACE) == tj::TJCS_TJCS_GRAY as i32 { 1 } else { 3 };
    check_same(spec, columns, rows, components, bits)?;
    let gray = tj::TJPF_TJPF_GRAY;
    let pixels = spec.pixels();
    let (from, len) = (stream.as_ptr(), stream.len() as _);
    match bits {
        0..=8 => {
            let mut samples = vec![0u8; pixels];
            // SAFETY: `check_same` has shown that the image has `pixels` gray pixels; the samples, without row padding (pitch 0), fill
            // exactly that buffer. The stream is the one whose header was read.
            decoder.check(unsafe { tj::tj3Decompress8(decoder.0, from, len, samples.as_mut_ptr(), 0, gray) })?;
            write_words(&samples, spec.word, out, u32::from);
        }
        9..=12 => {
            let mut samples = vec![0i16; pixels];
            // SAFETY: as above, with two bytes a sample.
            decoder.check(unsafe { tj::tj3Decompress12(decoder.0, from, len, samples.as_mut_ptr(), 0, gray) })?;
            write_words(&samples, spec.word, out, |s| s as u32);
        }
        _ => {
            let mut samples = vec![0u16; pixels];
            // SAFETY: as above, with two bytes a sample.
            decoder.check(unsafe { tj::tj3Decompress16(decoder.0, from, len, samples.as_mut_ptr(), 0, gray) })?;
            write_words(&samples, spec.word, out, u32::from);
        }
    }
    Ok(())
}

/// A TurboJPEG handle, destroyed when dropped.
struct Decompressor(tj::tjhandle);

impl Decompressor {
    fn new() -> Result<Decompressor, CodecError> {
        // SAFETY: takes a constant and returns a handle or null.
        let handle = unsafe { tj::tj3Init(tj::TJINIT_TJINIT_DECOMPRESS as _) };
        if handle.is_null() { Err(CodecError::Broken("the JPEG decoder does not start".into())) } else { Ok(Decompressor(handle)) }
    }

    fn set(&self, parameter: tj::TJPARAM, value: i32) -> Result<(), CodecError> {
        // SAFETY: the handle is live; unknown parameters are refused by the library.
        self.check(unsafe { tj::tj3Set(self.0, parameter as _, value) })
    }

    fn get(&self, parameter: tj::TJPARAM) -> i32 {
        // SAFETY: the handle is live; unknown parameters give -1.
        unsafe { tj::tj3Get(self.0, parameter as _) }
    }

    /// A call's outcome, with the library's words when it failed.
    fn check(&self, outcome: i32) -> Result<(), CodecError> {
        if outcome == 0 {
            return Ok(());
        }
        // SAFETY: the handle is live; the text is a NUL-terminated string that lives until the next call on this handle.
        let text = unsafe { CStr::from_ptr(tj::tj3GetErrorStr(self.0)) };
        Err(CodecError::Broken(text.to_string_lossy().into_owned()))
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: made by `tj3Init`, destroyed once.
        unsafe { tj::tj3Destroy(self.0) }
    }
}
