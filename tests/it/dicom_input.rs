//! DICOM in: the guard against hostile bytes, grouping rules on headers made for the purpose, real series against their references.

mod grouping;
mod guard;
mod inspect;
mod maker;
mod multi_frame;

use crate::need;
use crate::support::data;
use serde_json::Value;
use std::path::Path;
use stunetd::intake::scan::{ScanLimits, scan};
use stunetd::series::{Grouped, Irregular, Policy, Series, group};

/// Groups everything below a folder; a digest is never needed there.
fn grouped(folder: &Path, policy: Policy) -> Grouped {
    let found = scan(folder, &ScanLimits::default()).expect("scan");
    group(found.instances, found.ignored, &policy, &|_, _, _| panic!("no duplicates in {}", folder.display()))
}

fn close(a: f64, b: f64, tolerance: f64, what: &str) {
    assert!((a - b).abs() <= tolerance, "{what}: {a} instead of {b}");
}

/// Holds a series equal to an entry of `reference.json` (made by an independent reader).
fn assert_reference(series: &Series, reference: &Value, name: &str) {
    let numbers = |key: &str| -> Vec<f64> {
        reference[key].as_array().unwrap_or_else(|| panic!("{name}: {key}")).iter().map(|v| v.as_f64().expect("number")).collect()
    };
    let g = &series.geometry;
    let shape: Vec<f64> = [g.columns, g.rows, series.planes.len()].iter().map(|n| *n as f64).collect();
    assert_eq!(shape, numbers("shape_ijk"), "{name}: shape");
    let spacing = numbers("pixel_spacing_row_col");
    close(g.pixel_spacing.dy, spacing[0], 1e-9, name);
    close(g.pixel_spacing.dx, spacing[1], 1e-9, name);
    for (have, want) in g.row_direction.iter().chain(&g.column_direction).zip(numbers("orientation")) {
        close(*have, want, 1e-5, &format!("{name}: orientation"));
    }
    let planes = &series.planes;
    for (plane, key) in [(&planes[0], "first_position"), (&planes[planes.len() - 1], "last_position")] {
        for (have, want) in plane.position.iter().zip(numbers(key)) {
            close(*have, want, 1e-6, &format!("{name}: {key}"));
        }
    }
    if planes.len() > 1 {
        let normal = {
            let (r, c) = (g.row_direction, g.column_direction);
            [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]]
        };
        let along = |p: &[f64; 3]| p.iter().zip(normal).map(|(a, b)| a * b).sum::<f64>();
        let mut steps: Vec<f64> = planes.windows(2).map(|w| along(&w[1].position) - along(&w[0].position)).collect();
        steps.sort_by(f64::total_cmp);
        close(steps[0], reference["slice_distance_min"].as_f64().expect("min"), 2e-5, name);
        close(steps[steps.len() - 1], reference["slice_distance_max"].as_f64().expect("max"), 2e-5, name);
        let tilt = reference["tilt_deg"].as_f64().expect("tilt");
        assert_eq!(g.sheared, tilt > 0.6, "{name}: tilt of {tilt} degrees");
        if g.uniform_spacing {
            let cosine = along(&g.slice_step) / g.slice_step.iter().map(|v| v * v).sum::<f64>().sqrt();
            close(cosine.clamp(-1.0, 1.0).acos().to_degrees(), tilt, 0.01, &format!("{name}: tilt"));
        }
        assert_eq!(g.uniform_spacing, reference["uniform"].as_bool().expect("uniform"), "{name}: uniform");
    }
}

#[test]
fn real_series_have_the_geometry_of_their_references() {
    let root = need!(data(""), "shared data is not there");
    let mut checked = 0;
    for (folder, reference) in [
        ("ct_real/dicom", "ct_real/reference.json"),
        ("ct_ge_tilt_varspacing", "ct_ge_tilt_varspacing/reference.json"),
        ("ct_philips_mixed_study", "ct_philips_mixed_study/reference.json"),
        ("ct_siemens_tilt_4slices", "ct_siemens_tilt_4slices/reference.json"),
        ("ct_ge_missing_slice_4slices", "ct_ge_missing_slice_4slices/reference.json"),
        ("ct_siemens_tilt_missing_4slices", "ct_siemens_tilt_missing_4slices/reference.json"),
        ("petct_sts001/CT", "petct_sts001/CT_reference.json"),
        ("petct_sts001/PT", "petct_sts001/PT_reference.json"),
        ("enhanced_ct", "enhanced_ct/reference.json"),
    ] {
        let text = std::fs::read_to_string(root.join(reference)).expect("reference");
        let reference: Value = serde_json::from_str(&text).expect("json");
        let policy = Policy { irregular: Irregular::Resample, min_slices: 2, ..Policy::default() };
        let found = grouped(&root.join(folder), policy);
        // A series that is refused for what its values mean still has its geometry.
        let held = found.rejected.iter().filter_map(|r| r.series.as_deref());
        let built: Vec<&Series> = found.series.iter().chain(held).collect();
        for entry in reference["series"].as_array().expect("series") {
            let uid = entry["series_instance_uid"].as_str().expect("uid");
            let same: Vec<&&Series> = built.iter().filter(|s| s.series_uid.as_str() == uid).collect();
            let class = entry["sop_class"].as_str().expect("class");
            let localizer = entry["image_type"].as_array().is_some_and(|t| t.iter().any(|v| v == "LOCALIZER"));
            if class.ends_with(".1.1.7") || localizer {
                assert!(same.is_empty(), "{folder}: secondary captures and localizers give no volume");
                continue;
            }
            assert_eq!(same.len(), 1, "{folder}: {:?}", found.rejected);
            assert_reference(same[0], entry, folder);
            checked += 1;
        }
    }
    assert_eq!(checked, 10, "series with a reference");
}

#[test]
fn real_irregular_series_are_refused_by_default() {
    let root = need!(data(""), "shared data is not there");
    for (folder, reason) in [
        ("ct_ge_tilt_varspacing", "non_uniform_spacing"),
        ("ct_ge_missing_slice_4slices", "missing_slice"),
        ("ct_siemens_tilt_missing_4slices", "missing_slice"),
        ("enhanced_ct", "too_few_slices"),
    ] {
        let found = grouped(&root.join(folder), Policy::default());
        assert!(found.series.is_empty(), "{folder}");
        assert_eq!(found.rejected.iter().map(|r| r.refusal.code.reason()).collect::<Vec<_>>(), [reason], "{folder}");
    }
    let blank = grouped(&root.join("ct_real/original_blank_uids"), Policy::default());
    assert!(blank.series.is_empty() && blank.rejected.is_empty());
    assert_eq!(blank.ignored.iter().filter(|f| f.code.reason() == "missing_uid").count(), 20);
}
