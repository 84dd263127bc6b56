//! What the fuzz targets do with bytes from outside: anything but a panic, an abort or a hang is right. The tests replay the committed corpus
//! (`tests/corpus`) through the same functions.

use std::io::Write;
use std::path::{Path, PathBuf};
use stunetd::dicom::guard::{Limits, walk_bytes};
use stunetd::dicom::seg;
use stunetd::dicom::{Instance, PixelData, PixelFormat, read_instance};
use stunetd::fault::{Code, Fault};
use stunetd::series::{self, Irregular, Policy};
use stunetd::stunet::checkpoint::{Checkpoint, read_pickle};
use stunetd::volume::decode::{Codec, Decoder, DecoderConfig, FrameSpec, decode, plane_digest};

/// Pixels of a frame that are decoded at most: larger ones only cost time.
const MOST_PIXELS: usize = 1 << 18;
/// Frames of an object, or tensors of a checkpoint, that are read at most.
const MOST_PARTS: usize = 16;

/// Hands the bytes over as a file.
fn with_file<T>(data: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(data).expect("written");
    read(file.path())
}

fn limits() -> Limits {
    // Inflating hundreds of megabytes shows nothing that some do not show.
    Limits { inflated_bytes: 32 << 20, ..Limits::default() }
}

fn instance(path: &Path) -> Option<Instance> {
    read_instance(path, PathBuf::from("x"), &limits()).ok()
}

/// The guard, the header, and the rules of grouping.
pub fn header(data: &[u8]) {
    let walked = walk_bytes(data, &limits(), &|_| Ok(()));
    if let (None, Some(pixels), None) = (&walked.error, &walked.data.pixels, walked.data.deflated_at) {
        assert!(pixels.end() <= data.len() as u64, "pixel data only where there are bytes");
    }
    // The index of a refused file is as safe to read as that of a good one.
    for value in walked.data.root().elements() {
        value.text();
        value.numbers();
        let read: usize = value.items().map(|item| item.elements().filter(|v| v.text().is_some()).count()).sum();
        assert!(read <= data.len(), "no more values than bytes");
    }
    let read = with_file(data, |path| read_instance(path, PathBuf::from("x"), &limits()));
    let (instances, refused) = match read {
        Ok(instance) => (vec![instance], Vec::new()),
        Err(refused) => (Vec::new(), vec![refused]),
    };
    let digest = |_: &Path, _: u32, _: &PixelFormat| Err(Fault::new(Code::InputCorrupt, "not read here"));
    let policy = Policy { irregular: Irregular::Resample, min_slices: 1, ..Policy::default() };
    series::group(instances, refused, &policy, &digest);
}

/// The stored frames of a file and their values, whatever compresses them. Codecs run in this process.
pub fn pixels(data: &[u8]) {
    with_file(data, |path| {
        let Some(instance) = instance(path) else { return };
        let format = &instance.pixels;
        let spec = FrameSpec { rows: format.rows, columns: format.columns, word: (format.bits_allocated / 8) as u8 };
        if spec.pixels() > MOST_PIXELS {
            return;
        }
        let frames = format.frames.min(MOST_PARTS as u32);
        match codec_of(format.transfer_syntax.as_str()) {
            Some(codec) => {
                let Ok(pixels) = PixelData::open(path, &limits()) else { return };
                let (mut stream, mut words) = (Vec::new(), vec![0; spec.bytes()]);
                for frame in 0..frames {
                    if pixels.frame(frame, format.frames, spec.bytes() as u64, &mut stream).is_ok() {
                        let _ = decode(codec, &stream, spec, &mut words);
                    }
                }
            }
            // Nothing is left to the workers.
            None => {
                let decoder = Decoder::new(DecoderConfig { program: "/nonexistent".into(), workers: 1, ..DecoderConfig::default() });
                let decoder = decoder.expect("a decoder without workers");
                for frame in 1..=frames {
                    let _ = plane_digest(path, frame, format, &limits(), &decoder);
                }
            }
        }
    });
}

fn codec_of(transfer_syntax: &str) -> Option<Codec> {
    match transfer_syntax.strip_prefix("1.2.840.10008.1.2.4.")? {
        "50" | "51" | "57" | "70" => Some(Codec::Jpeg),
        "80" | "81" => Some(Codec::JpegLs),
        "90" | "91" | "201" | "202" | "203" => Some(Codec::Jpeg2000),
        _ => None,
    }
}

/// A code stream behind what the header says of it: bytes of a word, rows, columns (two bytes each, little endian).
fn code_stream(codec: Codec, data: &[u8]) {
    let Some(([word, r0, r1, c0, c1], stream)) = data.split_first_chunk() else { return };
    let spec =
        FrameSpec { rows: u16::from_le_bytes([*r0, *r1]), columns: u16::from_le_bytes([*c0, *c1]), word: [1, 2, 4][*word as usize % 3] };
    if spec.pixels() <= MOST_PIXELS {
        let _ = decode(codec, stream, spec, &mut vec![0; spec.bytes()]);
    }
}

/// JPEG baseline, extended, lossless.
pub fn jpeg(data: &[u8]) {
    code_stream(Codec::Jpeg, data);
}

/// JPEG-LS.
pub fn jpegls(data: &[u8]) {
    code_stream(Codec::JpegLs, data);
}

/// JPEG 2000, high throughput too.
pub fn jpeg2000(data: &[u8]) {
    code_stream(Codec::Jpeg2000, data);
}

/// Segmentation objects and their frames.
pub fn seg(data: &[u8]) {
    with_file(data, |path| {
        let Ok(object) = seg::read(path) else { return };
        if object.rows * object.columns > MOST_PIXELS {
            return;
        }
        for index in 0..object.frames.len().min(MOST_PARTS) {
            if let Ok(values) = object.frame(index) {
                assert_eq!(values.len(), object.rows * object.columns);
            }
        }
    });
}

/// Checkpoints and the pickles in them.
pub fn checkpoint(data: &[u8]) {
    let _ = read_pickle(data);
    with_file(data, |path| {
        let Ok(checkpoint) = Checkpoint::open(path) else { return };
        let Ok(weights) = checkpoint.weights() else { return };
        for (_, tensor) in weights.into_iter().take(MOST_PARTS) {
            let _ = checkpoint.read(tensor);
        }
    });
}
