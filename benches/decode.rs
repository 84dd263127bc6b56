//! Reading pixels: uncompressed slices from a warm page cache, and compressed ones through decode workers beside the codec alone.
//!
//! `cargo bench --bench decode -- [--slices 300] [--compressed FOLDER] [--repeats 7] [--fork]`
//!
//! The uncompressed series is made here, 512 × 512, 16 bit. FOLDER is any series of JPEG, JPEG-LS or JPEG 2000, by default the shared
//! data's real CT. The smallest time of the repeats counts; both sides of a comparison run in turn.

#[path = "../tests/it/support/place.rs"]
mod place;

use clap::Parser;
use rayon::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use stunetd::dicom::PixelData;
use stunetd::dicom::guard::Limits;
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::series::{Case, Policy, Series, group};
use stunetd::sys::clock::Stopwatch;
use stunetd::volume::decode::{Codec, Decoder, DecoderConfig, FrameSpec, decode};
use stunetd::volume::{ReadLimits, read};

#[derive(Parser)]
struct Options {
    /// Slices of the uncompressed series.
    #[arg(long, default_value_t = 300)]
    slices: usize,
    /// A compressed series.
    #[arg(long)]
    compressed: Option<PathBuf>,
    /// Repeats.
    #[arg(long, default_value_t = 7)]
    repeats: usize,
    /// Decode workers; 0: one for each processor.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Fork the first workers instead of starting them.
    #[arg(long)]
    fork: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    stunetd::sys::memory::keep_freed_memory();
    let options = Options::parse();
    let mut config = DecoderConfig { program: place::stunetd(), fork: options.fork, ..DecoderConfig::default() };
    if options.workers > 0 {
        config.workers = options.workers;
    }
    let decoder = Decoder::new(config).expect("decoder");
    println!("{} decode workers, {} threads", decoder.workers(), rayon::current_num_threads());

    let folder = tempfile::tempdir().expect("folder");
    for k in 0..options.slices {
        std::fs::write(folder.path().join(format!("{k}.dcm")), slice(k)).expect("slice");
    }
    let series = series_in(folder.path());
    let read_series = || drop(read(case(&series), &ReadLimits::default(), &decoder).expect("volume"));
    println!("read {} uncompressed slices of 512 × 512: {:.3} s", options.slices, best(options.repeats, &mut [&mut || read_series()])[0]);

    let Some(compressed) = options.compressed.or_else(|| Some(place::shared()?.join("data/ct_real/dicom"))).filter(|p| p.is_dir()) else {
        println!("no compressed series: name one, or the shared data (STUNETD_SHARED)");
        return;
    };
    let series = series_in(&compressed);
    let cold = Stopwatch::start();
    drop(read(case(&series), &ReadLimits::default(), &decoder).expect("volume"));
    println!("read {} compressed slices, workers started for it: {:.3} s", series.planes.len(), cold.seconds());
    let streams = streams(&series);
    let mut alone = || {
        streams.par_iter().for_each(|(codec, spec, bytes)| {
            let mut out = vec![0; spec.bytes()];
            decode(*codec, bytes, *spec, &mut out).expect("decoded");
        })
    };
    let mut whole = || drop(read(case(&series), &ReadLimits::default(), &decoder).expect("volume"));
    let [whole, alone] = best(options.repeats, &mut [&mut whole, &mut alone])[..] else { unreachable!("two were given") };
    println!(
        "read {} compressed slices: {whole:.3} s; the codec alone, as many threads: {alone:.3} s; ratio {:.2}",
        streams.len(),
        whole / alone
    );
}

/// Smallest seconds of each, run in turn.
fn best(repeats: usize, steps: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; steps.len()];
    for _ in 0..repeats {
        for (step, least) in steps.iter_mut().zip(&mut least) {
            let watch = Stopwatch::start();
            step();
            *least = least.min(watch.seconds());
        }
    }
    least
}

fn case(series: &Series) -> Case {
    Case { channels: vec![series.clone()], grid: 0, volume_key: [0; 32] }
}

fn series_in(folder: &Path) -> Series {
    let found = scan(folder, &ScanLimits::default()).expect("scan");
    let mut found = group(found.instances, found.ignored, &Policy::default(), &|_, _, _| unreachable!("no duplicates")).series;
    assert_eq!(found.len(), 1, "{}", folder.display());
    found.remove(0)
}

fn streams(series: &Series) -> Vec<(Codec, FrameSpec, Vec<u8>)> {
    let load = |plane: &stunetd::series::Plane| {
        let f = &plane.pixels;
        let codec = match f.transfer_syntax.as_str().rsplit('.').next() {
            Some("50" | "51" | "57" | "70") => Codec::Jpeg,
            Some("80" | "81") => Codec::JpegLs,
            _ => Codec::Jpeg2000,
        };
        let spec = FrameSpec { rows: f.rows, columns: f.columns, word: (f.bits_allocated / 8) as u8 };
        let mut bytes = Vec::new();
        let pixels = PixelData::open(&plane.path, &Limits::default()).expect("open");
        pixels.frame(plane.frame.unwrap_or(1) - 1, f.frames, spec.bytes() as u64, &mut bytes).expect("frame");
        (codec, spec, bytes)
    };
    series.planes.iter().map(load).collect()
}

/// One CT slice, explicit VR little endian, a disc of tissue with noise in air.
fn slice(k: usize) -> Vec<u8> {
    let mut out = vec![0; 128];
    out.extend(b"DICM");
    let mut element = |tag: (u16, u16), vr: &[u8; 2], value: &[u8]| {
        out.extend(tag.0.to_le_bytes());
        out.extend(tag.1.to_le_bytes());
        out.extend(vr);
        let padding: &[u8] = match (value.len() % 2, vr) {
            (1, b"UI") => b"\0",
            (1, _) => b" ",
            _ => b"",
        };
        let length = value.len() + padding.len();
        if vr == b"OW" {
            out.extend([0, 0]);
            out.extend((length as u32).to_le_bytes());
        } else {
            out.extend((length as u16).to_le_bytes());
        }
        out.write_all(value).and_then(|()| out.write_all(padding)).expect("memory");
    };
    const CT: &[u8] = b"1.2.840.10008.5.1.4.1.1.2";
    let instance = format!("2.25.1000{k}");
    element((2, 2), b"UI", CT);
    element((2, 3), b"UI", instance.as_bytes());
    element((2, 0x10), b"UI", b"1.2.840.10008.1.2.1");
    element((8, 8), b"CS", br"ORIGINAL\PRIMARY\AXIAL");
    element((8, 0x16), b"UI", CT);
    element((8, 0x18), b"UI", instance.as_bytes());
    element((8, 0x60), b"CS", b"CT");
    element((0x20, 0xd), b"UI", b"2.25.1");
    element((0x20, 0xe), b"UI", b"2.25.2");
    element((0x20, 0x32), b"DS", format!(r"-200\-200\{}", k as f64 * 1.5).as_bytes());
    element((0x20, 0x37), b"DS", br"1\0\0\0\1\0");
    element((0x20, 0x52), b"UI", b"2.25.3");
    element((0x28, 2), b"US", &1u16.to_le_bytes());
    element((0x28, 4), b"CS", b"MONOCHROME2");
    for (tag, value) in [(0x10, 512u16), (0x11, 512), (0x100, 16), (0x101, 12), (0x102, 11), (0x103, 0)] {
        if tag == 0x100 {
            element((0x28, 0x30), b"DS", br"0.8\0.8");
        }
        element((0x28, tag), b"US", &value.to_le_bytes());
    }
    element((0x28, 0x1052), b"DS", b"-1024");
    element((0x28, 0x1053), b"DS", b"1");
    let mut noise = 12345 + k as u32;
    let mut pixels = Vec::with_capacity(512 * 512 * 2);
    for i in 0..512 * 512i32 {
        let (x, y) = (i % 512 - 256, i / 512 - 256);
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let tissue = if x * x + y * y < 200 * 200 { 1064 } else { 24 };
        pixels.extend((tissue + (noise >> 27) as u16).to_le_bytes());
    }
    element((0x7fe0, 0x10), b"OW", &pixels);
    out
}
