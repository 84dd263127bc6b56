//! JPEG 2000 and high-throughput JPEG 2000 by OpenJPEG (ISO/IEC 15444-1 and -15), lossless and lossy.
//!
//! A code stream has no checksum, and OpenJPEG decodes damaged code-blocks to noise without a word. It can compare the bytes that the
//! arithmetic decoder used with the length of each code-block, but does so only for streams that announce predictable termination. That
//! announcement changes nothing else in the decoder, so it is switched on in a copy of the stream ([`ask_for_check`]); a block that ends
//! more than [`SLACK`] bytes too early or too late is damaged.

use super::codec::{CodecError, FrameSpec, check_same, write_words};
use openjpeg_sys as opj;
use std::ffi::{CStr, c_char, c_void};

/// Bytes by which a code-block may miss its announced length. Encoders may cut the last bytes of a block or leave a few more than
/// needed; in a damaged block the decoder loses its place by tens of bytes.
const SLACK: i64 = 8;

/// Size of OpenJPEG's read buffer.
const BUFFER: usize = 64 << 10;

pub(super) fn decode(stream: &[u8], spec: FrameSpec, out: &mut [u8]) -> Result<(), CodecError> {
    let mut stream = stream.to_vec();
    ask_for_check(&mut stream);
    let mut log = Log::default();
    let outcome = run(&stream, spec, out, &mut log);
    let worst = log.worst;
    match outcome {
        Err(CodecError::Broken(what)) => Err(CodecError::Broken(log.error.unwrap_or(what))),
        Err(other) => Err(other),
        Ok(()) if worst > SLACK => Err(CodecError::Broken(format!("a code-block misses its length by {worst} bytes"))),
        Ok(()) => Ok(()),
    }
}

fn run(stream: &[u8], spec: FrameSpec, out: &mut [u8], log: &mut Log) -> Result<(), CodecError> {
    let broken = |what: &str| CodecError::Broken(what.to_owned());
    let mut source = Source { bytes: stream, at: 0 };
    let input = Input::new(&mut source).ok_or_else(|| broken("no memory for the decoder"))?;
    let format =
        if stream.starts_with(b"\0\0\0\x0cjP  ") { opj::OPJ_CODEC_FORMAT::OPJ_CODEC_JP2 } else { opj::OPJ_CODEC_FORMAT::OPJ_CODEC_J2K };
    let decoder = Decompressor::new(format, log).ok_or_else(|| broken("no memory for the decoder"))?;
    let mut image = Image(std::ptr::null_mut());
    // SAFETY: decoder and stream are live; the header's image is written to `image`, which destroys it.
    let read = unsafe { opj::opj_read_header(input.0, decoder.0, &mut image.0) };
    if read == 0 || image.0.is_null() {
        return Err(broken("the main header can not be read"));
    }
    image.check(spec)?;
    // SAFETY: as above; the image is the one that belongs to this decoder and stream.
    if unsafe { opj::opj_decode(decoder.0, input.0, image.0) != 0 && opj::opj_end_decompress(decoder.0, input.0) != 0 } {
        let samples = image.check(spec)?.ok_or_else(|| broken("no samples came out"))?;
        write_words(samples, spec.word, out, |s| s as u32);
        return Ok(());
    }
    Err(broken("the code stream can not be decoded"))
}

/// Sets the predictable-termination flag in every COD and COC marker segment of the main header (ISO/IEC 15444-1 A.6.1, A.6.2), unless
/// the code-blocks are high-throughput ones. Leaves anything that does not look like a main header alone.
fn ask_for_check(stream: &mut [u8]) {
    const PREDICTABLE: u8 = 0x10;
    const HIGH_THROUGHPUT: u8 = 0x40;
    let Some(start) = stream.windows(4).position(|w| w == [0xff, 0x4f, 0xff, 0x51]) else { return };
    let mut at = start + 2;
    while let Some(&[0xff, marker, high, low]) = stream.get(at..).and_then(|s| s.first_chunk::<4>()) {
        let length = usize::from(u16::from_be_bytes([high, low]));
        // The code-block style stands behind marker, length, Scod, SGcod and three bytes of SPcod, or marker, length, Ccoc, Scoc and three
        // bytes of SPcoc (one component: Ccoc takes one byte).
        let style = match marker {
            0x90 | 0x93 | 0xd9 => return,
            0x52 => at + 12,
            0x53 => at + 9,
            _ => usize::MAX,
        };
        if let Some(byte) = stream.get_mut(style).filter(|b| **b & HIGH_THROUGHPUT == 0) {
            *byte |= PREDICTABLE;
        }
        at += 2 + length.max(2);
    }
}

/// What OpenJPEG said.
#[derive(Default)]
struct Log {
    /// Its first error.
    error: Option<String>,
    /// Largest number of bytes by which a code-block missed its length.
    worst: i64,
}

/// SAFETY: called by OpenJPEG with a NUL-terminated text and the `Log` that was registered.
unsafe extern "C" fn on_error(text: *const c_char, log: *mut c_void) {
    // SAFETY: see above; the log outlives the decoder and nobody else holds a reference while the decoder runs.
    let (text, log) = unsafe { (CStr::from_ptr(text), &mut *log.cast::<Log>()) };
    log.error.get_or_insert_with(|| text.to_string_lossy().trim().chars().take(160).collect());
}

/// SAFETY: as `on_error`.
unsafe extern "C" fn on_warning(text: *const c_char, log: *mut c_void) {
    // SAFETY: as in `on_error`.
    let (text, log) = unsafe { (CStr::from_ptr(text), &mut *log.cast::<Log>()) };
    // "PTERM check failure: 59 remaining bytes in code block …" or "PTERM check failure: 3 synthesized 0xFF markers read"
    let bytes = text.to_str().ok().and_then(|t| t.strip_prefix("PTERM check failure: ")?.split(' ').next()?.parse().ok());
    log.worst = log.worst.max(bytes.unwrap_or(0));
}

/// The stream as OpenJPEG's callbacks read it.
struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// SAFETY: OpenJPEG passes a buffer of `length` bytes and the `Source` that was registered.
unsafe extern "C" fn read(buffer: *mut c_void, length: usize, source: *mut c_void) -> usize {
    // SAFETY: see above; the source outlives the stream and nobody else holds a reference while the decoder runs.
    let source = unsafe { &mut *source.cast::<Source>() };
    let rest = &source.bytes[source.at..];
    let count = rest.len().min(length);
    if count == 0 {
        return usize::MAX;
    }
    // SAFETY: `count` bytes are readable in `rest` and writable in the buffer, which is OpenJPEG's own.
    unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), buffer.cast(), count) };
    source.at += count;
    count
}

/// SAFETY: as `read`. Returns the bytes skipped, -1 beyond the end.
unsafe extern "C" fn skip(count: i64, source: *mut c_void) -> i64 {
    // SAFETY: as in `read`.
    let source = unsafe { &mut *source.cast::<Source>() };
    match usize::try_from(source.at as i64 + count) {
        Ok(at) if at <= source.bytes.len() => {
            source.at = at;
            count
        }
        _ => -1,
    }
}

/// SAFETY: as `read`.
unsafe extern "C" fn seek(at: i64, source: *mut c_void) -> i32 {
    // SAFETY: as in `read`.
    let source = unsafe { &mut *source.cast::<Source>() };
    match usize::try_from(at) {
        Ok(at) if at <= source.bytes.len() => {
            source.at = at;
            1
        }
        _ => 0,
    }
}

/// An OpenJPEG input stream, destroyed when dropped.
struct Input<'a>(*mut opj::opj_stream_t, std::marker::PhantomData<&'a ()>);

impl<'a> Input<'a> {
    fn new(source: &'a mut Source<'_>) -> Option<Input<'a>> {
        let length = source.bytes.len() as u64;
        // SAFETY: the stream is checked for null; the callbacks get the source, which the lifetime keeps alive as long as the stream.
        unsafe {
            let stream = opj::opj_stream_create(BUFFER, 1);
            if stream.is_null() {
                return None;
            }
            opj::opj_stream_set_read_function(stream, Some(read));
            opj::opj_stream_set_skip_function(stream, Some(skip));
            opj::opj_stream_set_seek_function(stream, Some(seek));
            opj::opj_stream_set_user_data(stream, std::ptr::from_mut(source).cast(), None);
            opj::opj_stream_set_user_data_length(stream, length);
            Some(Input(stream, std::marker::PhantomData))
        }
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `opj_stream_create`, destroyed once.
        unsafe { opj::opj_stream_destroy(self.0) }
    }
}

/// An OpenJPEG decoder, destroyed when dropped.
struct Decompressor<'a>(*mut opj::opj_codec_t, std::marker::PhantomData<&'a ()>);

impl<'a> Decompressor<'a> {
    fn new(format: opj::OPJ_CODEC_FORMAT, log: &'a mut Log) -> Option<Decompressor<'a>> {
        // SAFETY: the decoder is checked for null; the callbacks get the log, which the lifetime keeps alive as long as the decoder;
        // all-zero decoder parameters are what `opj_set_default_decoder_parameters` starts from.
        unsafe {
            let decoder = opj::opj_create_decompress(format);
            if decoder.is_null() {
                return None;
            }
            let decoder = Decompressor(decoder, std::marker::PhantomData);
            let log = std::ptr::from_mut(log).cast();
            opj::opj_set_error_handler(decoder.0, Some(on_error), log);
            opj::opj_set_warning_handler(decoder.0, Some(on_warning), log);
            let mut parameters = std::mem::zeroed();
            opj::opj_set_default_decoder_parameters(&mut parameters);
            let ready = opj::opj_setup_decoder(decoder.0, &mut parameters) != 0 && opj::opj_decoder_set_strict_mode(decoder.0, 1) != 0;
            ready.then_some(decoder)
        }
    }
}

impl Drop for Decompressor<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `opj_create_decompress`, destroyed once.
        unsafe { opj::opj_destroy_codec(self.0) }
    }
}

/// An OpenJPEG image, destroyed when dropped.
struct Image(*mut opj::opj_image_t);

impl Image {
    /// Refuses an image that is not the one the header promised; gives its samples once it is decoded.
    fn check(&self, spec: FrameSpec) -> Result<Option<&[i32]>, CodecError> {
        // SAFETY: the pointer is not null (checked after `opj_read_header`) and OpenJPEG keeps `numcomps` components behind `comps`.
        let components = unsafe { std::slice::from_raw_parts((*self.0).comps, (*self.0).numcomps as usize) };
        let Some(c) = components.first() else {
            return check_same(spec, 0, 0, 0, 0).map(|()| None);
        };
        check_same(spec, c.w.into(), c.h.into(), components.len() as u64, c.prec.into())?;
        // SAFETY: OpenJPEG has allocated `w * h` samples where `data` is not null, and `check_same` has shown that this is `pixels()`.
        Ok((!c.data.is_null()).then(|| unsafe { std::slice::from_raw_parts(c.data, spec.pixels()) }))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by `opj_read_header`, destroyed once.
            unsafe { opj::opj_image_destroy(self.0) }
        }
    }
}
