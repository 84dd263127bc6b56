//! Structures as voxels of the image, from segmentation objects and label volumes.

use super::{CaseError, ImageGrid};
use crate::dicom::seg::{ReadKind, SegObject};
use crate::fault::{Code, Fault};
use crate::volume::Volume;
use std::collections::BTreeMap;

/// Most voxels of all structures together.
const MAX_VOXELS: usize = 1 << 30;

/// What a structure is, as far as its file says so in codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concept {
    /// Code Value of the type.
    pub value: String,
    /// Coding Scheme Designator.
    pub scheme: String,
    /// Code Value of the modifier (laterality).
    pub modifier: Option<String>,
}

/// A structure on the image's grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    /// Its number in the file: segment number, ROI number or label value.
    pub number: i64,
    /// Its name in the file.
    pub name: String,
    /// Its code, if there is one.
    pub concept: Option<Concept>,
    /// Flat indices `(k * ny + j) * nx + i`, ascending, each once.
    pub voxels: Vec<u32>,
}

impl Structure {
    pub(super) fn sorted(mut self) -> Structure {
        self.voxels.sort_unstable();
        self.voxels.dedup();
        self
    }
}

/// The segments of an object, each by itself, whether they overlap or not. Fractions count from one half on. Segments without
/// a voxel are there too: somebody may have looked for them.
///
/// # Errors
/// `cases.geometry` for frames that are not slices of the image's grid, `codec.*` for damaged pixel data.
pub fn from_segmentation(object: &SegObject, grid: &ImageGrid) -> Result<Vec<Structure>, Fault> {
    let mut structures: BTreeMap<u16, Structure> = BTreeMap::new();
    for segment in &object.segments {
        let concept = segment.property_type.as_ref().map(|code| Concept {
            value: code.value.clone(),
            scheme: code.scheme.clone(),
            modifier: segment.modifier.as_ref().map(|m| m.value.clone()),
        });
        let new = Structure { number: segment.number.into(), name: segment.label.clone(), concept, voxels: Vec::new() };
        structures.insert(segment.number, new);
    }
    let mut total = 0;
    for (n, frame) in object.frames.iter().enumerate() {
        let [between_rows, between_columns] = frame.pixel_spacing;
        let down = frame.column_direction.map(|v| v * between_rows);
        let right = frame.row_direction.map(|v| v * between_columns);
        let placement = grid.place(frame.position, [(down, object.rows), (right, object.columns)])?;
        let values = object.frame(n)?;
        for (i, &value) in values.iter().enumerate() {
            let segment = match object.kind {
                ReadKind::Binary => frame.segment.filter(|_| value != 0),
                ReadKind::Fractional { maximum } => frame.segment.filter(|_| 2 * u32::from(value) >= u32::from(maximum).max(1)),
                ReadKind::LabelMap { padding } => Some(value).filter(|&v| Some(v) != padding),
            };
            // Value 0 of a label map is a background that may be described as a segment.
            let Some(structure) = segment.filter(|&s| s != 0).and_then(|s| structures.get_mut(&s)) else { continue };
            total += 1;
            if total > MAX_VOXELS {
                return Err(Fault::new(Code::MemoryTooLarge, format!("The structures have more than {MAX_VOXELS} voxels together.")));
            }
            structure.voxels.push(grid.index(&placement, [i / object.columns, i % object.columns]) as u32);
        }
    }
    Ok(structures.into_values().filter(|s| s.number != 0).map(Structure::sorted).collect())
}

/// The labels of a volume with whole numbers (a NIfTI file), each value but 0 a structure of that number, without names. The
/// array may run along the image's axes in any order and direction.
///
/// # Errors
/// `cases.geometry` for another grid, several channels, or values that are no label values.
pub fn from_label_volume(labels: &Volume, grid: &ImageGrid) -> Result<Vec<Structure>, CaseError> {
    let geometry = |what: &str| CaseError::Geometry(what.into());
    let mut sizes = [labels.shape, grid.shape];
    sizes.iter_mut().for_each(|shape| shape.sort_unstable());
    if labels.channels != 1 || sizes[0] != sizes[1] {
        return Err(geometry("the labels have another shape than the image"));
    }
    let [nz, ny, nx] = labels.shape;
    let affine = &labels.affine;
    let placement = grid.place(affine.apply([0.0; 3]), [(affine.column(2), nz), (affine.column(1), ny), (affine.column(0), nx)])?;
    let mut structures: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (i, &value) in labels.data.iter().enumerate().filter(|(_, value)| **value != 0.0) {
        if value.fract() != 0.0 || !(0.0..=f32::from(u16::MAX - 2)).contains(&value) {
            return Err(geometry("a value of the labels is not a whole number from 0 to 65533"));
        }
        let at = [i / (ny * nx), i / nx % ny, i % nx];
        structures.entry(value as u16).or_default().push(grid.index(&placement, at) as u32);
    }
    let new = |(value, voxels): (u16, Vec<u32>)| Structure { number: value.into(), name: String::new(), concept: None, voxels }.sorted();
    Ok(structures.into_iter().map(new).collect())
}
