//! Reads structure sets (RTSTRUCT): the contours of each region of interest. The guard walks the file first; every count is
//! checked before memory is reserved.

use super::guard::{self, Limits};
use super::{DicomError, Level, Uid, charset};
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use std::collections::HashMap;
use std::path::Path;

const MAX_REGIONS: usize = 4096;
const MAX_CONTOURS: usize = 200_000;
const MAX_POINTS: usize = 20_000_000;

/// What a structure set may ask for: many contours, each one long text of decimals.
const LIMITS: Limits = Limits {
    file_bytes: 1 << 30,
    elements: 4_000_000,
    depth: 32,
    value_bytes: 64 << 20,
    kept_bytes: 512 << 20,
    inflated_bytes: 1 << 30,
    fragments: 1,
    rows_columns: 0,
    frames: 0,
    decoded_bytes: 0,
};

/// A structure set.
#[derive(Clone, Debug)]
pub struct StructureSet {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Study Instance UID.
    pub study: Uid,
    /// Frames of reference that it names.
    pub frames_of_reference: Vec<Uid>,
    /// Series that it was drawn on.
    pub series: Vec<Uid>,
    /// Regions in the order of the file.
    pub regions: Vec<Region>,
}

/// A region of interest.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// ROI Number.
    pub number: i32,
    /// ROI Name.
    pub name: String,
    /// Closed contours in one plane each; points in patient LPS mm.
    pub contours: Vec<Vec<[f64; 3]>>,
    /// Contours of other kinds (points, open lines), which enclose nothing.
    pub left_out: usize,
}

/// Reads a structure set.
pub fn read(path: &Path) -> Result<StructureSet, DicomError> {
    let only_structures = |class: &str| match class {
        uids::RT_STRUCTURE_SET_STORAGE => Ok(()),
        other => Err(DicomError::SopClass(super::error::printable_uid(other))),
    };
    let walked = guard::walk_file(path, &LIMITS, &only_structures);
    if let Some(error) = walked.error {
        return Err(error);
    }
    let d = walked.data.root();
    only_structures(&d.text(tags::SOP_CLASS_UID).ok_or(DicomError::MissingUid("SOP Class UID"))?)?;
    let charset = d.text(tags::SPECIFIC_CHARACTER_SET);
    let mut names = HashMap::new();
    for item in items(d, tags::STRUCTURE_SET_ROI_SEQUENCE, MAX_REGIONS, "Structure Set ROI Sequence")? {
        let number = item.integer(tags::ROI_NUMBER).ok_or_else(|| wrong("ROI Number"))?;
        let name = item.get(tags::ROI_NAME).and_then(|v| v.bytes());
        names.insert(number, name.map(|n| charset::decode(n, charset.as_deref())).unwrap_or_default());
    }
    let (mut regions, mut points, mut contours) = (Vec::new(), 0, 0);
    for item in items(d, tags::ROI_CONTOUR_SEQUENCE, MAX_REGIONS, "ROI Contour Sequence")? {
        let number = item.integer(tags::REFERENCED_ROI_NUMBER).ok_or_else(|| wrong("Referenced ROI Number"))?;
        let name = names.get(&number).cloned().ok_or_else(|| wrong("Referenced ROI Number"))?;
        let mut region = Region { number, name, contours: Vec::new(), left_out: 0 };
        for contour in items(item, tags::CONTOUR_SEQUENCE, MAX_CONTOURS, "Contour Sequence")? {
            let kind = contour.text(tags::CONTOUR_GEOMETRIC_TYPE).unwrap_or_default();
            if !["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"].contains(&kind.as_str()) {
                region.left_out += 1;
                continue;
            }
            let numbers = contour.get(tags::CONTOUR_DATA).and_then(|v| v.numbers()).ok_or_else(|| wrong("Contour Data"))?;
            let (triples, rest) = numbers.as_chunks::<3>();
            if !rest.is_empty() || triples.len() < 3 || numbers.iter().any(|v| !v.is_finite()) {
                return Err(wrong("Contour Data"));
            }
            (points, contours) = (points + triples.len(), contours + 1);
            if points > MAX_POINTS || contours > MAX_CONTOURS {
                return Err(DicomError::Implausible(format!("more than {MAX_POINTS} points or {MAX_CONTOURS} contours")));
            }
            region.contours.push(triples.to_vec());
        }
        regions.push(region);
    }
    let uid = |level: Level<'_>, tag: Tag| level.text(tag).and_then(|text| Uid::parse(&text).ok());
    let (mut frames_of_reference, mut series) = (Vec::new(), Vec::new());
    for frame in items(d, tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, MAX_REGIONS, "Referenced Frame of Reference Sequence")? {
        frames_of_reference.extend(uid(frame, tags::FRAME_OF_REFERENCE_UID));
        for study in items(frame, tags::RT_REFERENCED_STUDY_SEQUENCE, MAX_REGIONS, "RT Referenced Study Sequence")? {
            for one in items(study, tags::RT_REFERENCED_SERIES_SEQUENCE, MAX_REGIONS, "RT Referenced Series Sequence")? {
                series.extend(uid(one, tags::SERIES_INSTANCE_UID));
            }
        }
    }
    Ok(StructureSet {
        sop_instance: uid(d, tags::SOP_INSTANCE_UID).ok_or(DicomError::MissingUid("SOP Instance UID"))?,
        study: uid(d, tags::STUDY_INSTANCE_UID).ok_or(DicomError::MissingUid("Study Instance UID"))?,
        frames_of_reference,
        series,
        regions,
    })
}

fn items<'a>(level: Level<'a>, tag: Tag, limit: usize, name: &str) -> Result<Vec<Level<'a>>, DicomError> {
    let items: Vec<_> = level.items(tag).take(limit + 1).collect();
    if items.len() > limit { Err(DicomError::Implausible(format!("{name} exceeds the limit of {limit}"))) } else { Ok(items) }
}

fn wrong(name: &str) -> DicomError {
    DicomError::Corrupt(format!("{name} is missing or malformed"))
}
