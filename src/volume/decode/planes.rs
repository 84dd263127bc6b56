//! Decodes planes: finds each frame in its file, decompresses it here or in a worker, and converts it in place.

use super::codec::{Codec, CodecError, FrameSpec};
use super::convert::Conversion;
use super::pool::{Decoder, EncodedFrame};
use crate::dicom::guard::Limits;
use crate::dicom::{PixelData, PixelFormat, Rescale, rle};
use crate::fault::{Code, Fault};
use rayon::prelude::*;
use std::io::Read;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Decoded bytes that one batch for a worker holds at most.
const BATCH_BYTES: usize = 8 << 20;
/// Planes that one thread takes at a time.
const CHUNK: usize = 8;

/// One plane to decode and where its numbers go.
pub struct PlaneJob<'a> {
    /// The file.
    pub path: &'a Path,
    /// The frame, from 1.
    pub frame: u32,
    /// How its stored values are laid out.
    pub format: &'a PixelFormat,
    /// How its words become numbers.
    pub conversion: Conversion,
    /// `rows × columns` numbers, all written when [`decode_planes`] succeeds.
    pub out: &'a mut [MaybeUninit<f32>],
    /// Digest of its stored values ([`Conversion::plane`]), written likewise.
    pub digest: &'a mut [u8; 32],
}

/// Decodes all planes or none: at the first that fails it stops and says which of `jobs` it was.
pub fn decode_planes(jobs: Vec<PlaneJob>, limits: &Limits, decoder: &Decoder) -> Result<(), (usize, Fault)> {
    let mut here = Vec::new();
    let mut workers = Vec::new();
    let mut last: Option<Arc<Lazy>> = None;
    let mut order: Vec<(usize, PlaneJob)> = jobs.into_iter().enumerate().collect();
    // Frames of one file stand together, so that it is opened once and closed soon.
    order.sort_by(|(_, a), (_, b)| a.path.cmp(b.path));
    for (index, job) in order {
        let file = match last.take().filter(|f| f.path == job.path) {
            Some(file) => file,
            None => Arc::new(Lazy { path: job.path, opened: OnceLock::new() }),
        };
        last = Some(file.clone());
        let item = Item::new(index, file, job).map_err(|fault| (index, fault))?;
        if matches!(item.route, Route::Worker(_)) { workers.push(item) } else { here.push(item) }
    }
    drop(last);
    let context = Context { limits, stop: AtomicBool::new(false), failed: Mutex::new(None) };
    let batches = Mutex::new(into_batches(workers, decoder.workers()).into_iter());
    std::thread::scope(|scope| {
        let waiting = batches.lock().unwrap_or_else(PoisonError::into_inner).len();
        // Threads of their own: they mostly wait for workers, and rayon's have other things to do.
        for _ in 0..decoder.workers().min(waiting) {
            scope.spawn(|| {
                let mut buffers = Buffers::default();
                let next = || batches.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some(batch) = next() {
                    context.run(|| decode_batch(batch, &context, decoder, &mut buffers));
                }
            });
        }
        into_chunks(here).into_par_iter().for_each_init(Buffers::default, |buffers, chunk| {
            for item in chunk {
                context.run(|| decode_here(item, &context, buffers));
            }
        });
    });
    match context.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// The digest of the stored values of one frame (from 1) of a file, as [`Conversion::plane`] defines it; an error says what is wrong with
/// the pixel data. For planes that no volume is made of yet: to compare duplicates, and to find out why a file is of no use.
pub fn plane_digest(path: &Path, frame: u32, format: &PixelFormat, limits: &Limits, decoder: &Decoder) -> Result<[u8; 32], Fault> {
    let pixels = usize::from(format.rows) * usize::from(format.columns);
    let conversion = Conversion::new(format, Rescale::default(), None).map_err(layout)?;
    let mut out = Vec::new();
    out.try_reserve_exact(pixels).map_err(|_| Fault::new(Code::MemoryTooLarge, format!("{pixels} pixels do not fit into memory.")))?;
    let mut digest = [0; 32];
    let job = PlaneJob { path, frame, format, conversion, out: &mut out.spare_capacity_mut()[..pixels], digest: &mut digest };
    decode_planes(vec![job], limits, decoder).map_err(|(_, fault)| fault)?;
    Ok(digest)
}

/// A pixel layout that can not be converted, as a fault.
pub fn layout(error: super::convert::LayoutError) -> Fault {
    Fault::new(Code::CodecPixelFormat, error.to_string())
}

/// How a frame is decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Native words.
    Native,
    /// Native words in a fragment.
    Fragment,
    /// PackBits segments.
    Rle,
    /// A raw deflate stream.
    Deflate,
    /// In a worker.
    Worker(Codec),
}

impl Route {
    fn of(transfer_syntax: &str) -> Option<Route> {
        Some(match transfer_syntax.strip_prefix("1.2.840.10008.1.2")? {
            "" | ".1" | ".1.99" | ".2" => Route::Native,
            ".1.98" => Route::Fragment,
            ".5" => Route::Rle,
            ".8.1" => Route::Deflate,
            ".4.50" | ".4.51" | ".4.57" | ".4.70" => Route::Worker(Codec::Jpeg),
            ".4.80" | ".4.81" => Route::Worker(Codec::JpegLs),
            ".4.90" | ".4.91" | ".4.201" | ".4.202" | ".4.203" => Route::Worker(Codec::Jpeg2000),
            _ => return None,
        })
    }
}

/// A file that is opened when its first frame is wanted and closed with its last.
struct Lazy<'a> {
    path: &'a Path,
    opened: OnceLock<Result<PixelData, (Code, String)>>,
}

impl Lazy<'_> {
    fn pixels(&self, limits: &Limits) -> Result<&PixelData, Fault> {
        let opened = self.opened.get_or_init(|| PixelData::open(self.path, limits).map_err(|e| (e.code(), e.to_string())));
        opened.as_ref().map_err(|(code, detail)| Fault::new(*code, detail.clone()))
    }
}

/// A plane on its way.
struct Item<'a> {
    index: usize,
    file: Arc<Lazy<'a>>,
    job: PlaneJob<'a>,
    spec: FrameSpec,
    route: Route,
}

impl<'a> Item<'a> {
    fn new(index: usize, file: Arc<Lazy<'a>>, job: PlaneJob<'a>) -> Result<Item<'a>, Fault> {
        let format = job.format;
        let syntax = format.transfer_syntax.as_str();
        let route = Route::of(syntax).ok_or_else(|| Fault::new(Code::CodecTransferSyntax, format!("Transfer syntax {syntax}.")))?;
        let spec = FrameSpec { rows: format.rows, columns: format.columns, word: (format.bits_allocated / 8) as u8 };
        if spec.pixels() == 0 || spec.pixels() != job.out.len() {
            return Err(Fault::new(Code::InputImplausible, format!("{} rows of {} columns.", spec.rows, spec.columns)));
        }
        Ok(Item { index, file, job, spec, route })
    }

    /// The frame's stored bytes: native words in little endian, or a code stream.
    fn stored(&self, limits: &Limits, out: &mut Vec<u8>) -> Result<(), Fault> {
        let pixels = self.file.pixels(limits)?;
        let format = self.job.format;
        let native = self.route == Route::Native;
        if pixels.transfer_syntax() != format.transfer_syntax.as_str() || pixels.is_encapsulated() == native {
            return Err(Fault::new(Code::InputChanged, "Its transfer syntax is not the one that its header had."));
        }
        // Big endian: the bytes of each word are turned round, and where OW holds single bytes, those of each pair.
        let turned = match (native && pixels.is_big_endian(), self.spec.word) {
            (false, _) => 1,
            (true, 1) if &pixels.vr() == b"OW" => 2,
            (true, word) => usize::from(word),
        };
        let bytes = self.spec.bytes().next_multiple_of(turned);
        if bytes != self.spec.bytes() && format.frames > 1 {
            return Err(Fault::new(Code::CodecPixelFormat, "Big endian words that hold bytes of two frames."));
        }
        pixels.frame(self.job.frame.saturating_sub(1), format.frames, bytes as u64, out)?;
        if turned > 1 {
            out.chunks_exact_mut(turned).for_each(<[u8]>::reverse);
        }
        Ok(())
    }
}

/// Memory that a thread uses again for each plane.
#[derive(Default)]
struct Buffers {
    stored: Vec<u8>,
    words: Vec<u8>,
    scratch: Vec<u8>,
}

/// What all threads share.
struct Context<'a> {
    limits: &'a Limits,
    stop: AtomicBool,
    failed: Mutex<Option<(usize, Fault)>>,
}

impl Context<'_> {
    /// Runs a step unless another has failed; of several that fail the first plane is reported.
    fn run(&self, step: impl FnOnce() -> Result<(), (usize, Fault)>) {
        if self.stop.load(Ordering::Relaxed) {
            return;
        }
        if let Err(failure) = step() {
            self.stop.store(true, Ordering::Relaxed);
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if failed.as_ref().is_none_or(|(index, _)| failure.0 < *index) {
                *failed = Some(failure);
            }
        }
    }
}

fn into_chunks(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut chunks = Vec::with_capacity(items.len() / CHUNK + 1);
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        chunks.push(items.by_ref().take(CHUNK).collect());
    }
    chunks
}

/// Batches that keep every worker busy to the end and fit into a worker's shared memory.
fn into_batches(items: Vec<Item>, workers: usize) -> Vec<Vec<Item>> {
    let most = (items.len() / (4 * workers)).clamp(1, Decoder::BATCH);
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += item.spec.bytes();
        match batches.last_mut() {
            Some(batch) if batch.len() < most && bytes <= BATCH_BYTES => batch.push(item),
            _ => {
                bytes = item.spec.bytes();
                batches.push(vec![item]);
            }
        }
    }
    batches
}

fn decode_here(item: Item, context: &Context, buffers: &mut Buffers) -> Result<(), (usize, Fault)> {
    let Buffers { stored, words, scratch } = buffers;
    let blame = |fault: Fault| (item.index, fault);
    item.stored(context.limits, stored).map_err(blame)?;
    let words = match item.route {
        Route::Native | Route::Fragment => stored.as_slice(),
        Route::Rle => {
            words.resize(item.spec.bytes(), 0);
            rle::decode(stored, item.spec.word.into(), words).map_err(|e| blame(Fault::new(Code::CodecDecode, e.to_string())))?;
            words.as_slice()
        }
        Route::Deflate => {
            words.clear();
            let inflated = flate2::read::DeflateDecoder::new(stored.as_slice()).take(item.spec.bytes() as u64).read_to_end(words);
            inflated.map_err(|e| blame(refused(item.route, &CodecError::Broken(e.to_string()))))?;
            words.as_slice()
        }
        Route::Worker(_) => return Err(blame(Fault::new(Code::InternalBug, "A compressed frame was not sent to a worker."))),
    };
    let expected = item.spec.bytes();
    let words = words.get(..expected).ok_or_else(|| blame(refused(item.route, &CodecError::Short { got: words.len(), expected })))?;
    *item.job.digest = item.job.conversion.plane(words, item.spec, item.job.out, scratch);
    Ok(())
}

fn decode_batch(mut batch: Vec<Item>, context: &Context, decoder: &Decoder, buffers: &mut Buffers) -> Result<(), (usize, Fault)> {
    let mut streams = Vec::with_capacity(batch.len());
    for item in &batch {
        let mut stream = Vec::new();
        item.stored(context.limits, &mut stream).map_err(|fault| (item.index, fault))?;
        streams.push(stream);
    }
    let frames: Vec<EncodedFrame> = batch
        .iter()
        .zip(&streams)
        .filter_map(|(item, bytes)| match item.route {
            Route::Worker(codec) => Some(EncodedFrame { codec, spec: item.spec, bytes }),
            _ => None,
        })
        .collect();
    let first = batch[0].index;
    let decoded = decoder.decode(&frames, |i, words| {
        let item = &mut batch[i];
        *item.job.digest = item.job.conversion.plane(words, item.spec, item.job.out, &mut buffers.scratch);
    });
    decoded.map_err(|error| (error.frame().and_then(|f| batch.get(f)).map_or(first, |item| item.index), error.into()))
}

/// Bytes that are missing from uncompressed values were never sent; a code stream that gives too few is broken.
fn refused(route: Route, error: &CodecError) -> Fault {
    let code = match (error, route) {
        (CodecError::Short { .. }, Route::Native | Route::Fragment) => Code::InputPixelDataShort,
        _ => Code::CodecDecode,
    };
    Fault::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header side and this one know the same transfer syntaxes.
    #[test]
    fn every_readable_syntax_has_a_route() {
        for uid in crate::dicom::syntax::readable() {
            assert!(Route::of(uid).is_some(), "{uid}");
        }
        for uid in ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.110", "1.3.46.670589.33.1.1", "1.2.840.10008.1.2."] {
            assert!(Route::of(uid).is_none(), "{uid}");
        }
    }
}
