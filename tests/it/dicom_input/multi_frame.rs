//! Enhanced and legacy converted objects: functional groups become planes, per frame before shared.

use super::maker::{Content, Element, Encoding, file, items, text, with, word};
use crate::support::cases::{decoder, series_in};
use std::path::{Path, PathBuf};
use stunetd::dicom::guard::Limits;
use stunetd::dicom::{ImageObject, Instance, PhaseKey, PhaseValue, read_instance};
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::series::{Case, Grouped, Policy, group};
use stunetd::volume::{self, Quantity, ReadLimits, suv};

fn double(group: u16, element: u16, value: f64) -> Element {
    Element { tag: (group, element), vr: "FD", content: Content::Bytes(value.to_le_bytes().to_vec()) }
}

fn position(z: f64) -> Element {
    items(0x0020, 0x9113, vec![vec![text(0x0020, 0x0032, "DS", &format!("-10\\-20\\{z}"))]], false)
}

fn content(stack: &str, temporal: u32) -> Element {
    let index = Element { tag: (0x0020, 0x9128), vr: "UL", content: Content::Bytes(temporal.to_le_bytes().to_vec()) };
    let stamp = text(0x0018, 0x9074, "DT", &format!("2024013109350{temporal}.0"));
    items(0x0020, 0x9111, vec![vec![stamp, double(0x0018, 0x9220, 250.0), text(0x0020, 0x9056, "SH", stack), index]], false)
}

fn rescale(slope: &str, intercept: &str, unit: &str) -> Element {
    let values = vec![text(0x0028, 0x1052, "DS", intercept), text(0x0028, 0x1053, "DS", slope), text(0x0028, 0x1054, "LO", unit)];
    items(0x0028, 0x9145, vec![values], false)
}

/// A multi-frame object of 2 x 2 pixels with one item of functional groups a frame.
fn enhanced(class: &str, frames: Vec<Vec<Element>>, shared: Vec<Element>, more: Vec<Element>) -> Vec<Element> {
    let n = frames.len();
    let orientation = items(0x0020, 0x9116, vec![vec![text(0x0020, 0x0037, "DS", "1\\0\\0\\0\\1\\0")]], false);
    let measures = items(0x0028, 0x9110, vec![vec![text(0x0018, 0x0050, "DS", "3"), text(0x0028, 0x0030, "DS", "2\\1.5")]], false);
    let mut shared_groups = vec![orientation, measures];
    shared_groups.extend(shared);
    let mut all = vec![
        text(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        text(0x0008, 0x0016, "UI", class),
        text(0x0008, 0x0018, "UI", "1.2.3.1"),
        text(0x0020, 0x000D, "UI", "1.2.3.4"),
        text(0x0020, 0x000E, "UI", "1.2.3.5"),
        text(0x0020, 0x0052, "UI", "1.2.3.6"),
        word(0x0028, 0x0002, 1),
        text(0x0028, 0x0004, "CS", "MONOCHROME2"),
        text(0x0028, 0x0008, "IS", &n.to_string()),
        word(0x0028, 0x0010, 2),
        word(0x0028, 0x0011, 2),
        word(0x0028, 0x0100, 16),
        word(0x0028, 0x0101, 16),
        word(0x0028, 0x0102, 15),
        word(0x0028, 0x0103, 0),
        items(0x5200, 0x9229, vec![shared_groups], true),
        items(0x5200, 0x9230, frames, true),
        Element { tag: (0x7FE0, 0x0010), vr: "OW", content: Content::Words(vec![7; 4 * n]) },
    ];
    all.extend(more);
    all.sort_by_key(|e| e.tag);
    all
}

const ENHANCED_CT: &str = "1.2.840.10008.5.1.4.1.1.2.1";
const LEGACY_CT: &str = "1.2.840.10008.5.1.4.1.1.2.2";
const ENHANCED_PET: &str = "1.2.840.10008.5.1.4.1.1.130";
const LEGACY_PET: &str = "1.2.840.10008.5.1.4.1.1.128.1";

fn read(elements: &[Element]) -> Result<Instance, &'static str> {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("x");
    std::fs::write(&path, file(elements, Encoding::Explicit)).expect("write");
    read_instance(&path, PathBuf::from("x"), &Limits::default()).map_err(|refused| refused.code.reason())
}

fn grouped(elements: &[Element]) -> Grouped {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("x"), file(elements, Encoding::Explicit)).expect("write");
    let found = scan(folder.path(), &ScanLimits::default()).expect("scan");
    group(found.instances, found.ignored, &Policy::default(), &|p: &Path, _, _| panic!("{} need not be decoded", p.display()))
}

#[test]
fn frames_take_their_own_groups_before_the_shared_ones() {
    let frame = |z: f64, own: Option<Element>| [vec![content("1", 1), position(z)], own.into_iter().collect()].concat();
    let frames = vec![frame(9.0, Some(rescale("2", "-1000", "HU"))), frame(0.0, None), frame(4.5, None)];
    let instance = read(&enhanced(ENHANCED_CT, frames, vec![rescale("1", "-1024", "HU")], vec![])).expect("read");
    assert_eq!((instance.object, instance.frames.len()), (ImageObject::EnhancedCt, 3));
    let slopes: Vec<(f64, f64)> = instance.frames.iter().map(|f| (f.rescale.slope, f.rescale.intercept)).collect();
    assert_eq!(slopes, [(2.0, -1000.0), (1.0, -1024.0), (1.0, -1024.0)]);
    let first = &instance.frames[0];
    assert_eq!(
        (first.number, first.position, first.pixel_spacing, first.slice_thickness),
        (Some(1), Some([-10.0, -20.0, 9.0]), Some([2.0, 1.5]), Some(3.0))
    );
    assert_eq!((first.timing.acquisition, first.timing.frame_duration_ms), (Some(1_706_693_701.0), Some(250.0)));
    assert_eq!(first.phase.get(PhaseKey::TemporalPosition), Some(&PhaseValue::Number(1.0)));
}

#[test]
fn frames_and_groups_have_to_agree() {
    let frames = || vec![vec![position(0.0)], vec![position(1.0)]];
    let count = |n: &str| with(enhanced(ENHANCED_CT, frames(), vec![], vec![]), vec![((0x28, 0x08), Some(text(0x28, 0x08, "IS", n)))]);
    assert_eq!(read(&count("1")).err(), Some("corrupt"));
    assert_eq!(read(&count("3")).err(), Some("pixel_data_too_short"));
    assert_eq!(read(&count("x")).err(), Some("implausible_dimensions"));
    let classic = with(count("2"), vec![((0x08, 0x16), Some(text(0x08, 0x16, "UI", "1.2.840.10008.5.1.4.1.1.2")))]);
    assert_eq!(read(&classic).err(), Some("unsupported_pixel_format"), "two frames in a classic image");
}

#[test]
fn stacks_and_temporal_positions_are_volumes() {
    let unit = || vec![rescale("1", "-1024", "HU")];
    let frame = |stack: &'static str, temporal: u32, z: f64| vec![content(stack, temporal), position(z)];
    // Two slabs with a gap between them, announced as two stacks.
    let slabs = (0..4).map(|k| frame("1", 1, f64::from(k))).chain((0..3).map(|k| frame("2", 1, 100.0 + f64::from(k)))).collect();
    let found = grouped(&enhanced(ENHANCED_CT, slabs, unit(), vec![]));
    assert_eq!(found.series.iter().map(|s| s.planes.len()).collect::<Vec<_>>(), [4, 3], "{:?}", found.rejected);
    // The same positions twice.
    for by_stack in [true, false] {
        let phases = (0..8)
            .map(|n| if by_stack { frame(["1", "2"][n / 4], 1, (n % 4) as f64) } else { frame("1", n as u32 / 4 + 1, (n % 4) as f64) });
        let found = grouped(&enhanced(ENHANCED_CT, phases.collect(), unit(), vec![]));
        assert_eq!(found.series.iter().map(|s| (s.phase, s.planes.len())).collect::<Vec<_>>(), [(Some(1), 4), (Some(2), 4)]);
        assert_eq!(found.series[1].planes[0].frame, Some(5));
    }
    // A Stack ID of its own for every frame says nothing.
    let single = ["1", "2", "3", "4"].iter().zip(0u8..).map(|(stack, k)| frame(stack, 1, f64::from(k))).collect();
    assert_eq!(grouped(&enhanced(ENHANCED_CT, single, unit(), vec![])).series[0].planes.len(), 4);
}

#[test]
fn legacy_converted_attributes_are_found_where_they_were_left() {
    let unassigned =
        |n: u32| items(0x0020, 0x9171, vec![vec![text(0x0020, 0x0012, "IS", &n.to_string()), text(0x0008, 0x0032, "TM", "101500")]], false);
    let frames = (0..6).map(|n| vec![position(f64::from(n % 3)), unassigned(n / 3), rescale("1", "-1024", "HU")]).collect();
    let found = grouped(&enhanced(LEGACY_CT, frames, vec![], vec![]));
    assert_eq!(found.series.iter().map(|s| s.phase).collect::<Vec<_>>(), [Some(1), Some(2)]);

    let isotope = items(0x0054, 0x0016, vec![vec![text(0x0018, 0x1074, "DS", "370000000"), text(0x0018, 0x1075, "DS", "6586.2")]], false);
    let shared =
        vec![text(0x0028, 0x0051, "CS", "DECY\\ATTN"), isotope, text(0x0054, 0x1001, "CS", "BQML"), text(0x0054, 0x1102, "CS", "START")];
    let frames = (0..3).map(|n| vec![position(f64::from(n)), rescale("0.5", "0", "BQML")]).collect();
    let found = grouped(&enhanced(LEGACY_PET, frames, vec![items(0x0020, 0x9170, vec![shared], false)], vec![]));
    let pet = found.series[0].pet.as_ref().expect("PET");
    assert_eq!((pet.units.as_str(), pet.total_dose, pet.half_life_s), ("BQML", Some(3.7e8), Some(6586.2)));
    assert_eq!((pet.decay_correction.as_deref(), found.series[0].unit.as_str()), (Some("START"), "BQML"));
}

#[test]
fn enhanced_pet_says_it_with_flags_and_codes() {
    let pet = |attenuation: &'static str, decay: &'static str, groups: Vec<Element>| {
        let frames = (0..3).map(|n| vec![content("1", 1), position(f64::from(n))]).collect();
        let flags = vec![
            text(0x0018, 0x9701, "DT", "20240131093000"),
            text(0x0018, 0x9758, "CS", decay),
            text(0x0018, 0x9759, "CS", attenuation),
            text(0x0018, 0x9760, "CS", "YES"),
        ];
        grouped(&enhanced(ENHANCED_PET, frames, groups, flags))
    };
    let mapping = |slope: f64, unit: &'static str| {
        let code = items(0x0040, 0x08EA, vec![vec![text(0x0008, 0x0100, "SH", unit)]], false);
        vec![code, double(0x0040, 0x9224, 0.0), double(0x0040, 0x9225, slope)]
    };
    let mapped = items(0x0040, 0x9096, vec![mapping(3.0, "%"), mapping(0.25, "Bq/ml")], false);
    let found = pet("YES", "YES", vec![mapped]);
    let series = &found.series[0];
    let header = series.pet.as_ref().expect("PET");
    assert_eq!((header.units.as_str(), header.corrected_image.join(" ")), ("BQML", "DECY ATTN SCAT".into()));
    assert_eq!(header.decay_correction_datetime, Some(1_706_693_400.0));
    assert_eq!((series.planes[0].rescale.slope, series.planes[0].rescale.explicit), (0.25, true));

    let found = pet("YES", "NO", vec![rescale("2", "0", "BQML")]);
    let header = found.series[0].pet.as_ref().expect("PET");
    assert_eq!((header.units.as_str(), header.decay_correction.as_deref()), ("BQML", Some("NONE")));
    let reasons = |attenuation| pet(attenuation, "NO", vec![]).rejected.iter().map(|r| r.refusal.code.reason()).collect::<Vec<_>>();
    assert_eq!(reasons("NO"), ["not_attenuation_corrected"]);
}

/// 75 kg, 370 MBq of F-18, injected an hour before the scan.
#[test]
fn enhanced_pet_gives_suv_by_the_time_that_its_values_refer_to() {
    let nuclide = items(0x0054, 0x0300, vec![vec![text(0x0008, 0x0100, "SH", "C-111A1")]], false);
    let isotope = vec![
        nuclide,
        text(0x0018, 0x1074, "DS", "370000000"),
        text(0x0018, 0x1075, "DS", "6586.2"),
        text(0x0018, 0x1078, "DT", "20240131083500"),
    ];
    let object = |decayed_to: Option<&'static str>, attenuation: &'static str| {
        let frames = (0..3).map(|n| vec![content("1", 0), position(f64::from(n)), rescale("2", "0", "BQML")]).collect();
        let mut more = vec![
            text(0x0010, 0x1030, "DS", "75"),
            items(0x0054, 0x0016, vec![isotope.clone()], false),
            text(0x0018, 0x9758, "CS", if decayed_to.is_some() { "YES" } else { "NO" }),
            text(0x0018, 0x9759, "CS", attenuation),
        ];
        more.extend(decayed_to.map(|time| text(0x0018, 0x9701, "DT", time)));
        enhanced(ENHANCED_PET, frames, vec![], more)
    };
    let factors = |decayed_to: Option<&'static str>, attenuation: &'static str| {
        let found = grouped(&object(decayed_to, attenuation));
        let reasons: Vec<_> = found.rejected.iter().map(|r| r.refusal.code.reason()).collect();
        let series = found.series.first().ok_or(reasons)?;
        let timing: Vec<_> = series.planes.iter().map(|p| p.timing).collect();
        Ok::<_, Vec<&str>>(suv::factors(series.pet.as_ref().expect("PET"), &timing, false).expect("SUV"))
    };
    let left = |hours: f64| 0.5f64.powf(hours * 3600.0 / 6586.2);
    let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-6, "{got} instead of {want}");
    let start = factors(Some("20240131093500"), "YES").expect("start");
    close(start.of_series().expect("one factor"), 75e3 / (370e6 * left(1.0)));
    let admin = factors(Some("20240131083500"), "YES").expect("administration");
    close(admin.of_series().expect("one factor"), 75e3 / 370e6);
    // Not corrected: each plane at its own mean time, here half of a quarter of a second after its start.
    let none = factors(None, "YES").expect("none");
    assert_eq!((none.of_series(), none.per_plane.len()), (None, 3));
    close(none.per_plane[0], 75e3 / (370e6 * left(1.0 + 0.125 / 3600.0)));
    assert_eq!(factors(Some("20240131093500"), "NO").expect_err("not corrected"), ["not_attenuation_corrected"]);

    // As files: every voxel is stored as 7, which is 14 Bq/ml.
    let folder = tempfile::tempdir().expect("folder");
    let decoder = decoder();
    for (decayed_to, dose) in [(Some("20240131093500"), left(1.0)), (Some("20240131083500"), 1.0), (None, left(1.0 + 0.125 / 3600.0))] {
        std::fs::write(folder.path().join("x"), file(&object(decayed_to, "YES"), Encoding::Explicit)).expect("write");
        let channels = series_in(folder.path(), &decoder);
        let volume = volume::read(Case { channels, grid: 0, volume_key: [0; 32] }, &ReadLimits::default(), &decoder).expect("read");
        assert_eq!((volume.shape, &volume.quantity[..]), ([3, 2, 2], &[Quantity::SuvBw][..]));
        volume.data.iter().for_each(|v| close(f64::from(*v), 14.0 * 75e3 / (370e6 * dose)));
    }
}
