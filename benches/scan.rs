//! Reading headers: a folder of CT slices, as `intake::scan` sees it, from a warm page cache.
//!
//! `cargo bench --bench scan -- [--files 10000] [--repeats 5] [--threads 2]`
//!
//! Then what the daemon does again and again with files that it knows: a look at all folders, which finds nothing new, and what it asks of
//! the series.
//!
//! Each file is a 512 × 512 slice with 40 private elements beside the usual ones; its pixels are a hole in the file, since no scan reads
//! them. The smallest time of the repeats counts.

use clap::Parser;
use std::os::unix::fs::FileExt;
use stunetd::dicom::Uid;
use stunetd::dicom::ct_image::CtSeries;
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::intake::tree::Tree;
use stunetd::intake::watch::Dirty;
use stunetd::sys::clock::Stopwatch;

const SIZE: u16 = 512;
const PIXELS: usize = 2 * SIZE as usize * SIZE as usize;

#[derive(Parser)]
struct Options {
    /// Files.
    #[arg(long, default_value_t = 10_000)]
    files: u32,
    /// Repeats.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global().expect("threads");
    let folder = tempfile::tempdir().expect("folder");
    let mut header = 0;
    for k in 0..options.files {
        let (bytes, whole) = slice(k);
        let path = folder.path().join(format!("{}", k / 500));
        std::fs::create_dir_all(&path).expect("folder");
        let file = std::fs::File::create(path.join(format!("{k}.dcm"))).expect("file");
        file.write_all_at(&bytes, 0).expect("written");
        file.set_len(whole as u64).expect("length");
        header = bytes.len();
    }
    let mut best = f64::INFINITY;
    for _ in 0..options.repeats {
        let watch = Stopwatch::start();
        let found = scan(folder.path(), &ScanLimits::default()).expect("scan");
        best = best.min(watch.seconds());
        assert_eq!(found.instances.len(), options.files as usize);
    }
    println!(
        "{} files with headers of {header} bytes, {} threads: {best:.3} s, {:.0} files/s",
        options.files,
        options.threads,
        f64::from(options.files) / best
    );
    known(folder.path(), &options);
}

/// A look that finds nothing new, and questions about every series.
fn known(folder: &std::path::Path, options: &Options) {
    let mut tree = Tree::new(vec![folder.to_path_buf()], ScanLimits::default());
    tree.look(Dirty::All);
    assert_eq!(tree.len(), options.files as usize);
    let (mut look, mut ask) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..options.repeats {
        let watch = Stopwatch::start();
        let (found, _) = tree.look(Dirty::All);
        look = look.min(watch.seconds());
        assert_eq!(found.files, 0);
        let watch = Stopwatch::start();
        let series = tree.series();
        let asked: usize = series.keys().filter(|key| tree.print(key).is_some()).map(|key| tree.folders_of(key).len()).sum();
        ask = ask.min(watch.seconds());
        assert!(asked >= series.len());
    }
    println!("{} known files: a look {look:.4} s; series, prints and folders {ask:.6} s", options.files);
}

/// The bytes of a slice up to its pixels, and the length of the whole file.
fn slice(k: u32) -> (Vec<u8>, usize) {
    let series = CtSeries {
        patient_name: "BENCH^SCAN",
        patient_id: "BENCH",
        patient_age: "042Y",
        study_uid: uid("study"),
        series_uid: uid(&format!("series {}", k / 500)),
        frame_of_reference_uid: uid("frame of reference"),
        study_description: "BENCH",
        series_description: "BENCH",
        body_part: "ABDOMEN",
        date: "20260102",
        time: "030405",
        size: [SIZE, SIZE],
        pixel_spacing: [0.8, 0.8],
        slice_thickness: 2.0,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    };
    let mut bytes = series.image(&uid(&format!("instance {k}")), k + 1, [0.0, 0.0, 2.0 * f64::from(k % 500)], &vec![0; PIXELS / 2]);
    let whole = bytes.len();
    bytes.truncate(whole - PIXELS);
    // Private elements, as scanners write them, in front of group 0028.
    let at = bytes.windows(6).position(|w| w == b"\x28\x00\x02\x00US").expect("Samples per Pixel");
    let mut private = b"\x21\x00\x10\x00LO\x0a\x00MAKER 1.0 ".to_vec();
    for element in 0..40u8 {
        private.extend(b"\x21\x00");
        private.extend([element, 0x10]);
        private.extend(b"LO\x40\x00");
        private.extend([b'x'; 64]);
    }
    bytes.splice(at..at, private.iter().copied());
    (bytes, whole + private.len())
}

fn uid(text: &str) -> Uid {
    use sha2::{Digest, Sha256};
    Uid::from_digest(&Sha256::digest(text).into())
}
