//! The NIfTI reader and writer: round trips, real files, and files that lie.

use crate::need;
use crate::support::manifest::labels;
use crate::support::{data, golden};
use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use stunetd::fault::{Code, Fault};
use stunetd::volume::nifti::{self, NiftiGeometry};
use stunetd::volume::{Affine, LabelMap, Labels, Limits, Quantity, Source, Volume};

fn affine() -> Affine {
    Affine::new([0.7, 0.1, 0.0], [-0.1, 0.7, 0.0], [0.0, 0.0, -2.5], [-120.0, 33.5, 801.25]).expect("invertible")
}

fn source(affine: &Affine) -> Source {
    Source::Nifti { path: PathBuf::from("scan.nii.gz"), digest: [0; 32], geometry: Box::new(NiftiGeometry::from_affine(affine)) }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> tempfile::NamedTempFile {
    let mut bytes = Vec::new();
    write(&mut bytes);
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(&bytes).expect("write");
    file
}

fn refused(bytes: &[u8]) -> Fault {
    let file = written(|out| out.extend_from_slice(bytes));
    nifti::read(file.path(), &Limits { max_voxels: 1 << 16 }).map(|volume| volume.shape).expect_err("is refused")
}

/// A header and voxels, in either byte order, as a plain file.
fn raw(big_endian: bool, dim: [i16; 8], (code, bits): (i16, i16), scale: [f32; 2], voxels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0u8; 352];
    let geometry = NiftiGeometry::from_affine(&affine());
    let mut put = |at: usize, mut value: Vec<u8>| {
        if big_endian {
            value.reverse();
        }
        bytes[at..at + value.len()].copy_from_slice(&value);
    };
    put(0, 348i32.to_le_bytes().into());
    dim.iter().enumerate().for_each(|(i, d)| put(40 + 2 * i, d.to_le_bytes().into()));
    put(70, code.to_le_bytes().into());
    put(72, bits.to_le_bytes().into());
    put(108, 352f32.to_le_bytes().into());
    put(112, scale[0].to_le_bytes().into());
    put(116, scale[1].to_le_bytes().into());
    put(254, 1i16.to_le_bytes().into());
    geometry.rows.iter().flatten().enumerate().for_each(|(i, v)| put(280 + 4 * i, v.to_le_bytes().into()));
    bytes[344..348].copy_from_slice(b"n+1\0");
    bytes.extend_from_slice(voxels);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::support::cases_of(64)))]

    #[test]
    fn labels_come_back(shape in proptest::array::uniform3(1usize..9), wide: bool, seed: u64) {
        let top = if wide { 400 } else { 200 };
        let values: Vec<u16> = (0..shape.iter().product::<usize>() as u64).map(|i| (i.wrapping_mul(seed | 1) >> 7) as u16 % (top + 1)).collect();
        let stored = if wide { Labels::U16(values.clone()) } else { Labels::U8(values.iter().map(|&v| v as u8).collect()) };
        let map = LabelMap::new(stored, shape, affine(), labels(top), source(&affine())).expect("label map");
        let file = written(|out| nifti::write_labels(out, &map).expect("write"));
        let read = nifti::read(file.path(), &Limits::default()).expect("read");
        prop_assert_eq!(read.shape, shape);
        prop_assert!(read.data.iter().zip(&values).all(|(a, b)| *a == f32::from(*b)));
        let Source::Nifti { geometry, .. } = &read.source else { panic!("a NIfTI file") };
        prop_assert_eq!(**geometry, NiftiGeometry::from_affine(&affine()));
    }

    #[test]
    fn volumes_come_back(shape in proptest::array::uniform3(1usize..9), channels in 1usize..4, whole: bool, seed: u32) {
        let step = if whole { 1.0 } else { 0.37 };
        let n = channels * shape.iter().product::<usize>();
        let data: Vec<f32> = (0..n as u32).map(|i| (i.wrapping_mul(seed | 1) >> 20) as f32 * step - 1024.0).collect();
        let volume = Volume { data, channels, shape, affine: affine(), quantity: vec![Quantity::Hu; channels], source: source(&affine()) };
        let file = written(|out| nifti::write_volume(out, &volume).expect("write"));
        let read = nifti::read(file.path(), &Limits::default()).expect("read");
        prop_assert_eq!((read.shape, read.channels), (shape, channels));
        prop_assert_eq!(&read.data, &volume.data);
        for (a, b) in read.affine.rows.iter().flatten().zip(volume.affine.rows.iter().flatten()) {
            prop_assert!((a - b).abs() < 1e-4);
        }
    }

    /// No bytes make the reader panic or reserve much.
    #[test]
    fn nonsense_is_refused_calmly(at in 0usize..348, value: u8, cut in 0usize..600) {
        let mut bytes = raw(false, [3, 5, 4, 3, 1, 1, 1, 1], (2, 8), [0.0; 2], &[7; 60]);
        bytes[at] = value;
        bytes.truncate(cut.max(1));
        let file = written(|out| out.extend_from_slice(&bytes));
        if let Ok(volume) = nifti::read(file.path(), &Limits { max_voxels: 1 << 16 }) {
            prop_assert!(volume.data.len() <= 1 << 16);
        }
    }
}

#[test]
fn every_number_type_in_both_byte_orders() {
    let dim = [4, 2, 1, 1, 2, 1, 1, 1];
    macro_rules! check {
        ($t:ty, $code:literal, $values:expr) => {
            for big_endian in [false, true] {
                let values: [$t; 4] = $values;
                let bytes: Vec<u8> = values.iter().flat_map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() }).collect();
                for (scale, slope, intercept) in [([0.0, 5.0], 1.0, 0.0), ([0.5, -3.0], 0.5, -3.0), ([f32::NAN, 0.0], 1.0, 0.0)] {
                    let file = written(|out| out.extend(raw(big_endian, dim, ($code, 8 * size_of::<$t>() as i16), scale, &bytes)));
                    let volume = nifti::read(file.path(), &Limits::default()).expect(stringify!($t));
                    assert_eq!((volume.shape, volume.channels), ([1, 1, 2], 2));
                    let expected: Vec<f32> = values.iter().map(|&v| (v as f64 * slope + intercept) as f32).collect();
                    assert_eq!(volume.data, expected, "{} {big_endian}", stringify!($t));
                }
            }
        };
    }
    check!(u8, 2, [0, 1, 200, 255]);
    check!(i8, 256, [-128, -1, 0, 127]);
    check!(i16, 4, [-1024, 0, 3071, 32767]);
    check!(u16, 512, [0, 1, 40000, 65535]);
    check!(i32, 8, [-100000, 0, 7, 1 << 20]);
    check!(u32, 768, [0, 1, 7, 1 << 31]);
    check!(f32, 16, [-0.5, 0.25, 1e6, -3e-5]);
    check!(i64, 1024, [-5, 0, 5, 1 << 40]);
    check!(u64, 1280, [0, 1, 2, 1 << 40]);
    check!(f64, 64, [-0.5, 0.125, 1e6, 3.0]);
}

#[test]
fn lying_files_are_refused_by_name() {
    let dim = [3, 5, 4, 3, 1, 1, 1, 1];
    let good = raw(false, dim, (2, 8), [0.0; 2], &[7; 60]);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let huge = raw(false, [3, 32767, 32767, 32767, 1, 1, 1, 1], (64, 64), [0.0; 2], &[]);
    for (name, bytes, code) in [
        ("not NIfTI at all", b"<html>login</html>".to_vec(), Code::InputNifti),
        ("wrong first number", with(0, &[0; 4]), Code::InputNifti),
        ("NIfTI-2", with(0, &540i32.to_le_bytes()), Code::InputNifti),
        ("pair of files", with(344, b"ni1\0"), Code::InputNifti),
        ("negative size", with(42, &(-5i16).to_le_bytes()), Code::InputNifti),
        ("five dimensions", with(40, &[5, 0]).tap(|f| f[50] = 9), Code::InputNifti),
        ("complex numbers", with(70, &32i16.to_le_bytes()), Code::InputNifti),
        ("bits that do not fit", with(72, &16i16.to_le_bytes()), Code::InputNifti),
        ("offset inside the header", with(108, &8f32.to_le_bytes()), Code::InputNifti),
        ("offset beyond reason", with(108, &1e30f32.to_le_bytes()), Code::InputNifti),
        ("metres", with(123, &[1]), Code::InputNifti),
        ("no geometry", with(254, &[0, 0]), Code::InputNifti),
        ("flat geometry", with(280, &[0; 48]), Code::InputNifti),
        ("one voxel short", good[..good.len() - 1].to_vec(), Code::InputNifti),
        ("header only", good[..348].to_vec(), Code::InputNifti),
        ("a voxel too many", good.clone().tap(|f| f.push(0)), Code::InputNifti),
        ("many more voxels than bytes", huge, Code::MemoryTooLarge),
    ] {
        let fault = refused(&bytes);
        assert_eq!(fault.code, code, "{name}: {fault}");
    }
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Vec<u8> {}

#[test]
fn broken_compression_is_refused() {
    let volume = Volume {
        data: (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32).collect(),
        channels: 1,
        shape: [10, 20, 20],
        affine: affine(),
        quantity: vec![Quantity::Hu],
        source: source(&affine()),
    };
    let mut bytes = Vec::new();
    nifti::write_volume(&mut bytes, &volume).expect("write");
    let n = bytes.len();
    for (name, file) in [
        ("cut in the middle", bytes[..n / 2].to_vec()),
        ("sum missing", bytes[..n - 8].to_vec()),
        ("a byte changed", bytes.clone().tap(|b| b[n / 2] ^= 0x55)),
        ("sum wrong", bytes.clone().tap(|b| b[n - 6] ^= 1)),
    ] {
        println!("{name}");
        assert_eq!(refused(&file).code, Code::InputNifti);
    }
    assert_eq!(nifti::read(Path::new("/no such file"), &Limits::default()).expect_err("missing").code, Code::DiskUnreadable);
}

/// A small compressed file that would inflate to gigabytes is refused by its header, before anything is reserved.
#[test]
fn a_gzip_bomb_is_refused_by_its_header() {
    let bomb = raw(false, [3, 30000, 30000, 1, 1, 1, 1, 1], (2, 8), [0.0; 2], &vec![0; 1 << 20]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&bomb).expect("gzip");
    assert_eq!(refused(&gz.finish().expect("gzip")).code, Code::MemoryTooLarge);
}

#[test]
fn real_files_have_the_statistics_and_places_that_nibabel_reads() {
    let path = need!(data("ct_nifti/example_ct_sm.nii.gz"), "shared/data is not there");
    let volume = nifti::read(&path, &Limits::default()).expect("a real CT");
    assert_eq!((volume.shape, volume.channels), ([30, 101, 122], 1));
    assert_eq!(volume.spacing_zyx(), [3.0; 3]);
    let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(near(volume.affine.apply([0.0; 3]), [177.95632935, -11.31900024, 94.30175781]), "{:?}", volume.affine);
    assert!(near(volume.affine.column(0), [-3.0, 0.0, 0.0]));
    // written by ITK, with another storage order than the file above
    let path = need!(golden("nnunet/e2e/dicom_mirror0.nii.gz"), "goldens are not there");
    let by_itk = nifti::read(&path, &Limits::default()).expect("labels");
    assert!(near(by_itk.affine.apply([0.0; 3]), [-249.51171875, -437.51171875, -804.5]));
    assert!(near(by_itk.affine.apply([1.0, 1.0, 1.0]), [-248.53515625, -436.53515625, -802.5]));
}

/// The output for a NIfTI source repeats every geometry field of its header, quirks included.
#[test]
fn geometry_fields_of_the_source_are_repeated() {
    let path = need!(data("ct_nifti/example_seg_dicom.nii.gz"), "shared/data is not there");
    let volume = nifti::read(&path, &Limits::default()).expect("a real file");
    let values: Vec<u8> = volume.data.iter().map(|&v| v as u8).collect();
    let map = LabelMap::new(Labels::U8(values), volume.shape, volume.affine, labels(255), volume.source.clone()).expect("labels");
    let file = written(|out| nifti::write_labels(out, &map).expect("write"));
    let read = nifti::read(file.path(), &Limits::default()).expect("read");
    let (Source::Nifti { geometry: ours, .. }, Source::Nifti { geometry: theirs, .. }) = (&read.source, &volume.source) else {
        panic!("both are NIfTI");
    };
    assert_eq!(ours, theirs);
    assert_eq!(read.data, volume.data);
}
