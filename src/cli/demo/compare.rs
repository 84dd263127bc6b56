//! How a result compares with the phantom: is it whole, does it lie where the study lies, and how much of each organ was
//! found.

use super::anatomy;
use super::image;
use super::variant::Variant;
use crate::config::Format;
use crate::delivery;
use crate::dicom::seg::{self, SegObject};
use crate::fault::{Code, Fault};
use crate::results::{file_digest, file_name};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Farthest that a pixel may lie from its place, mm.
const TOLERANCE: f64 = 1e-3;

/// One organ.
#[derive(Debug, Default, Serialize)]
pub struct Organ {
    /// Voxels that are the phantom's organ.
    pub phantom: u64,
    /// Voxels that the SEG says are.
    pub found: u64,
    /// Voxels that are both.
    pub both: u64,
}

impl Organ {
    /// Twice what they share over what they have: 1 is the same, 0 is nothing in common.
    pub fn dice(&self) -> f64 {
        2.0 * self.both as f64 / (self.phantom + self.found).max(1) as f64
    }
}

/// Checks a result folder against its manifest and its SEG against the phantom; the organs by name.
pub fn compare(result: &Path, variant: &Variant) -> Result<BTreeMap<String, Organ>, Fault> {
    let wrong = |what: String| Fault::new(Code::ResultsDamaged, format!("{}: {what}", result.display()));
    let manifest = delivery::published(result)?.ok_or_else(|| wrong("no manifest of a result".into()))?;
    for output in &manifest.outputs {
        if file_digest(&result.join(&output.file))? != (output.bytes, output.sha256.clone()) {
            return Err(wrong(format!("{} is not what the manifest says", output.file)));
        }
    }
    let object = seg::read(&result.join(file_name(Format::Seg))).map_err(|e| wrong(format!("the SEG can not be read: {e}")))?;
    let frame = variant.frame();
    if object.study != variant.uid("study") || (object.rows, object.columns) != (frame.rows, frame.columns) {
        return Err(wrong("the SEG is not one of the phantom".into()));
    }
    let organs = count(&object, variant).map_err(|e| wrong(e.to_string()))?;
    for label in &manifest.labels {
        let found = organs.get(&label.name).map_or(0, |o| o.found);
        if found != label.voxels {
            return Err(wrong(format!("{}: {found} voxels in the SEG, {} in the manifest", label.name, label.voxels)));
        }
    }
    Ok(organs)
}

fn count(object: &SegObject, variant: &Variant) -> Result<BTreeMap<String, Organ>, String> {
    let grid = variant.frame();
    let names: BTreeMap<u16, &str> = object.segments.iter().map(|s| (s.number, s.label.as_str())).collect();
    let mut by_slice: BTreeMap<usize, Vec<(usize, &str)>> = BTreeMap::new();
    for (i, frame) in object.frames.iter().enumerate() {
        let height = (frame.position[2] - grid.origin(0)[2]) / grid.step;
        let slice = height.round().clamp(0.0, grid.slices as f64 - 1.0) as usize;
        let off = frame.position.iter().zip(grid.origin(slice)).fold(0f64, |far, (a, b)| far.max((a - b).abs()));
        if off > TOLERANCE || frame.pixel_spacing.iter().any(|s| (s - grid.pixel).abs() > TOLERANCE) {
            return Err(format!("frame {} lies {off:.3} mm from the phantom's slice", i + 1));
        }
        let name = frame.segment.and_then(|n| names.get(&n)).ok_or_else(|| format!("frame {} names no segment", i + 1))?;
        by_slice.entry(slice).or_default().push((i, name));
    }
    let parts = anatomy::parts();
    let mut organs: BTreeMap<String, Organ> = BTreeMap::new();
    for slice in 0..grid.slices {
        let truth = image::organs(&parts, variant, slice);
        for organ in truth.iter().filter(|o| !o.is_empty()) {
            organs.entry(organ.to_string()).or_default().phantom += 1;
        }
        for (frame, name) in by_slice.remove(&slice).unwrap_or_default() {
            let mask = object.frame(frame).map_err(|e| e.to_string())?;
            let organ = organs.entry(name.to_string()).or_default();
            for (_, truth) in mask.iter().zip(&truth).filter(|(value, _)| **value != 0) {
                organ.found += 1;
                organ.both += u64::from(*truth == name);
            }
        }
    }
    Ok(organs)
}
