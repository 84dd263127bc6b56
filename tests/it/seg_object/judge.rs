//! Independent judges: `check_seg.py` (pydicom, highdicom, dcmqi, dcentvfy) and `dciodvfy`, where they are installed.

use super::phantom::{Grid, affine, blobs, label_map, series, table, write_files};
use super::{built, case, cut_and_odd};
use crate::{need, support};
use std::path::{Path, PathBuf};
use std::process::Command;
use stunetd::config::Format;
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::models::LabelTable;
use stunetd::models::codes::{look_up, orders};
use stunetd::series::{Irregular, Policy, group};
use stunetd::volume::{LabelMap, Limits, nifti};

/// A Python that can judge, and the script.
fn judge() -> Option<(PathBuf, PathBuf)> {
    let script = support::shared()?.join("tools/check_seg.py");
    let python = std::env::var_os("STUNETD_PYTHON").map(PathBuf::from).or_else(|| support::on_path("python3"))?;
    let able = Command::new(&python).args(["-c", "import pydicom, highdicom, nibabel, SimpleITK"]).output().ok()?.status.success();
    (script.is_file() && able).then_some((python, script))
}

const NO_JUDGE: &str = "check_seg.py, or a python with pydicom, highdicom, nibabel and SimpleITK (STUNETD_PYTHON), is not here";

fn assert_right(objects: &[PathBuf], source: &Path, expected: Option<&Path>) {
    let Some((python, script)) = judge() else { return };
    let mut command = Command::new(python);
    command.arg(script).args(objects).arg("--source").arg(source);
    if let Some(expected) = expected {
        command.arg("--expected").arg(expected);
    }
    let out = command.output().expect("started");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}\n{}", String::from_utf8_lossy(&out.stderr));
    // Warnings that say something about our writing; the others are about the tools or the phantom.
    for code in ["pad_bits", "no_source_image", "segments_overlap", "background", "algorithm_identification", "no_colour", "no_Series"] {
        assert!(!said.lines().any(|l| l.trim_start().starts_with("warn") && l.contains(code)), "{said}");
    }
}

fn assert_accepted(map: &LabelMap, source: &Path) {
    let (dir, _) = built(map, &[Format::Seg, Format::LabelMap, Format::Nifti]);
    let path = |name: &str| dir.path().join(name);
    assert_right(&[path("seg.dcm"), path("labelmap.dcm")], source, Some(&path("labels.nii.gz")));
}

#[test]
fn check_seg_accepts_objects_in_any_orientation() {
    need!(judge(), NO_JUDGE);
    for (axes, shape) in [
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [6, 16, 24]),
        ([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]], [5, 11, 13]),
        ([[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, -1.0]], [7, 9, 10]),
    ] {
        let (series, map, _) = case(&Grid { axes, ..Grid::axial(shape) }, 3);
        let source = tempfile::tempdir().expect("folder");
        write_files(&series, source.path());
        assert_accepted(&map, source.path());
    }
}

#[test]
fn check_seg_accepts_that_nothing_was_found() {
    need!(judge(), NO_JUDGE);
    let series = series(&Grid::axial([4, 8, 8]));
    let source = tempfile::tempdir().expect("folder");
    write_files(&series, source.path());
    assert_accepted(&label_map(&series, vec![0; 256], table(2)), source.path());
}

#[test]
fn check_seg_accepts_what_is_cut_and_odd() {
    need!(judge(), NO_JUDGE);
    let (series, map) = cut_and_odd();
    let source = tempfile::tempdir().expect("folder");
    write_files(&series, source.path());
    assert_accepted(&map, source.path());
}

/// Generated series of every kind of geometry, multi-frame objects and odd headers among them.
#[test]
fn check_seg_accepts_objects_on_generated_series() {
    need!(judge(), NO_JUDGE);
    let cases = need!(support::cases::cases(), "the generated cases can not be made here");
    let decoder = support::cases::decoder();
    let policy = Policy { irregular: Irregular::Resample, min_slices: 2, ..Policy::default() };
    let mut judged = 0;
    let names = [
        "geo_coronal",
        "geo_oblique",
        "geo_gantry_tilt",
        "geo_two_slices",
        "geo_missing_slice",
        "enh_ct",
        "enh_ct_two_phases",
        "pet_bqml_start",
    ];
    for name in names {
        let folder = cases.join(name);
        for series in support::cases::grouped(&folder, &policy, &decoder).series {
            let shape = [series.planes.len(), series.geometry.rows, series.geometry.columns];
            let map = label_map(&series, blobs(shape, 3), table(3));
            if series.geometry.uniform_spacing {
                assert_accepted(&map, &folder);
            } else {
                let (dir, _) = built(&map, &[Format::Seg, Format::LabelMap]);
                assert_right(&[dir.path().join("seg.dcm"), dir.path().join("labelmap.dcm")], &folder, None);
            }
            judged += 1;
        }
    }
    assert!(judged >= names.len(), "{judged} series");
}

/// The real CT (JPEG 2000, InstanceNumber against z) with the labels that came with it.
#[test]
fn check_seg_accepts_the_real_ct() {
    need!(judge(), NO_JUDGE);
    let root = need!(support::data("ct_real"), "shared/data/ct_real is not here");
    let found = scan(&root.join("dicom"), &ScanLimits::default()).expect("scan");
    let mut grouped = group(found.instances, found.ignored, &Policy::default(), &|_, _, _| panic!("there are no duplicates"));
    let series = grouped.series.pop().expect("a series");
    let expected = root.join("labelmap_totalsegmentator_v2.nii.gz");
    let reference = nifti::read(&expected, &Limits::default()).expect("labels");
    let names = orders().into_iter().find(|o| o.name == "totalsegmentator-v2").expect("order").names;
    let table = names.iter().zip(1u16..).map(|(n, v)| look_up(n).expect("coded").label(v, n)).collect();

    let (affine, [nz, ny, nx]) = (affine(&series), [series.planes.len(), series.geometry.rows, series.geometry.columns]);
    let [_, ry, rx] = reference.shape;
    let labels = (0..nz * ny * nx).map(|v| {
        let point = affine.apply([(v % nx) as f64, (v / nx % ny) as f64, (v / (nx * ny)) as f64]);
        let [i, j, k] = reference.affine.invert(point).map(|c| c.round() as usize);
        reference.data[(k * ry + j) * rx + i] as u8
    });
    let map = label_map(&series, labels.collect(), LabelTable::new(table).expect("table"));
    assert_eq!(map.present().len(), 31);
    let (dir, _) = built(&map, &[Format::Seg, Format::LabelMap]);
    assert_right(&[dir.path().join("seg.dcm"), dir.path().join("labelmap.dcm")], &root.join("dicom"), Some(&expected));
}

#[test]
fn dciodvfy_finds_no_error() {
    let tool = need!(support::on_path("dciodvfy"), "dciodvfy (Debian: dicom3tools) is not on PATH");
    for map in [case(&Grid::axial([5, 9, 11]), 3).1, cut_and_odd().1] {
        let (dir, _) = built(&map, &[Format::Seg]);
        let out = Command::new(&tool).arg("-new").arg(dir.path().join("seg.dcm")).output().expect("started");
        let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("Error")).collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        assert!(said.contains("Segmentation"), "{said}");
    }
}
