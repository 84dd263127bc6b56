//! A label map as a DICOM segmentation object: what is copied from the source, what is ours, how segments are numbered.

use super::colour::cielab;
use super::common::{self, OfSeries, model_name};
use super::identity::Identity;
use super::{Found, ResultRequest, ResultsError};
use crate::dicom::Uid;
use crate::dicom::encode::{Concept, Encoder, dcm};
use crate::dicom::seg::{Algorithm, Description, Kind, LabelValues, Measures, Segment, SourcePlane, SourceSeries, Written, write};
use crate::models::{Code, Label, LabelTable, Manifest, Status};
use crate::series::{Case, Series};
use crate::volume::Labels;
use dicom_core::VR;
use dicom_dictionary_std::tags;
use std::path::Path;

/// Segment Description of a structure of which a part may be missing.
pub const INCOMPLETE: &str = "Incomplete: cut by the edge of the image. Its volume is not that of the structure.";

/// Longest text of Image Comments (LT).
const LONGEST_COMMENT: usize = 10_240;

/// What every research result says, on its face and in its series description.
pub const RESEARCH_MARK: &str = "RESEARCH - not for diagnosis";

/// UIDs of an object that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectUids {
    /// SOP Class UID.
    pub sop_class: &'static str,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Series Instance UID.
    pub series: Uid,
}

/// Segment Number of each label value of a table. LABELMAP objects use the value itself. In BINARY objects numbers count 1, 2, 3 …
/// in the order of the values: where a model's values are 1 to n without gaps, as they mostly are, number and value are the same.
///
/// Every label of the model is listed, also those that this study does not show: a segment number then means the same in
/// every study, and a segment without frames says that the structure was looked for and not found.
pub fn segment_numbers(table: &LabelTable, kind: Kind) -> impl Iterator<Item = (u16, u16)> + '_ {
    table.iter().zip(1u16..).map(move |(label, n)| (label.value, if kind == Kind::Binary { n } else { label.value }))
}

/// Which object of a result.
pub(super) struct Role<'a> {
    /// BINARY or LABELMAP.
    pub kind: Kind,
    /// What the UIDs of its series are made from: `seg`, `labelmap`, or one of these and what is left out.
    pub series: String,
    /// What its own UIDs are made from.
    pub instance: String,
    /// Its number in the series, from 1.
    pub number: u32,
    /// Whether a label is in it.
    pub keep: &'a dyn Fn(&Label) -> bool,
}

/// Writes the object; nothing when none of the table's labels is in it.
pub(super) fn write_object(
    path: &Path,
    role: &Role<'_>,
    case: &Case,
    found: &Found<'_>,
    request: &ResultRequest<'_>,
    identity: &Identity,
) -> Result<Option<(Written, ObjectUids)>, ResultsError> {
    let kind = role.kind;
    let labels = found.labels;
    let series = case.grid_series().ok_or(ResultsError::NoSeries)?;
    let manifest = &request.model.manifest;
    let uids = ObjectUids {
        sop_class: kind.sop_class(),
        sop_instance: identity.uid(&format!("instance/{}", role.instance)),
        series: identity.uid(&format!("series/{}", role.series)),
    };
    let segments: Vec<Segment<'_>> = labels
        .table()
        .iter()
        .filter(|label| (role.keep)(label))
        .zip(1u16..)
        .map(|(label, number)| Segment {
            value: label.value,
            number: if kind == Kind::Binary { number } else { label.value },
            label: &label.name,
            description: found.stats.labels.get(usize::from(label.value)).filter(|figures| figures.touches_edge).map(|_| INCOMPLETE),
            category: concept(&label.category),
            property_type: concept(&label.property_type),
            modifier: label.modifier.as_ref().map(concept),
            region: label.region.as_ref().map(concept),
            region_modifier: label.region_modifier.as_ref().map(concept),
            cielab: cielab(label.rgb),
            tracking_uid: identity.uid(&format!("tracking/{}", label.value)),
        })
        .collect();
    if segments.is_empty() {
        return Ok(None);
    }
    let further = case.channels.iter().filter(|s| s.series_uid != series.series_uid).map(whole_series).collect();
    let description = Description {
        kind,
        sop_instance: uids.sop_instance.clone(),
        dimension: identity.uid(&format!("dimension/{}", role.instance)),
        rows: series.geometry.rows,
        columns: series.geometry.columns,
        measures: measures(series),
        planes: series.planes.iter().map(source_plane).collect(),
        series: &series.series_uid,
        further,
        partial: segments.len() < labels.table().len(),
        segments,
        algorithm: Algorithm { name: &manifest.name, version: &manifest.version },
    };
    let base = attributes(case, series, &uids, role, found, request, identity);
    let values = match labels.labels() {
        Labels::U8(v) => LabelValues::U8(v),
        Labels::U16(v) => LabelValues::U16(v),
    };
    Ok(Some((write(path, base, &description, values)?, uids)))
}

/// Patient, study, series, frame of reference, equipment, general image and SOP common modules.
fn attributes(
    case: &Case,
    series: &Series,
    uids: &ObjectUids,
    role: &Role<'_>,
    found: &Found<'_>,
    request: &ResultRequest<'_>,
    identity: &Identity,
) -> Encoder {
    let manifest = &request.model.manifest;
    let research = manifest.status == Status::Research;
    let lossy = case.channels.iter().any(|s| s.lossy);
    let is_loss = |tag: (u16, u16)| [tags::LOSSY_IMAGE_COMPRESSION_RATIO, tags::LOSSY_IMAGE_COMPRESSION_METHOD].contains(&tag.into());
    let revision = request.replaces.as_ref().map_or(1, |r| r.revision);
    let of_series =
        OfSeries { uid: &uids.series, role: &role.series, description: &series_description(manifest, revision), number: role.number };
    let mut e = common::attributes(series, &of_series, request, |element| lossy || !is_loss(element.tag));
    e.text(tags::CONTENT_CREATOR_NAME, VR::PN, "");
    if !e.has(tags::POSITION_REFERENCE_INDICATOR) {
        e.text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
    }
    // A source without a frame of reference gets one of its own; the position of its planes is all that is known.
    let frame_of_reference = series.frame_of_reference_uid.clone().unwrap_or_else(|| identity.uid("frame-of-reference"));
    e.uid(tags::FRAME_OF_REFERENCE_UID, &frame_of_reference);
    e.sequence(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, |s| {
        s.item(|e| {
            common::equipment(e, request);
            e.one(tags::CONTRIBUTION_DESCRIPTION, VR::ST, &format!("Segmentation by {}", model_name(manifest)), 1024);
            e.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, dcm("109102", "Processing Equipment"));
        });
    });
    e.text(tags::CONTENT_QUALIFICATION, VR::CS, if research { "RESEARCH" } else { "PRODUCT" });
    e.text(tags::CONTENT_LABEL, VR::CS, &content_label(&manifest.name));
    let structures = match found.labels.present().len() {
        0 => "no structure found".to_owned(),
        n => format!("{n} of {} structures found", found.labels.table().len()),
    };
    let description = match request.replaces.as_ref().and_then(|r| r.instances.first()) {
        Some(earlier) => format!("Replaces {earlier}"),
        None if research => format!("{RESEARCH_MARK}: {structures}"),
        None => structures,
    };
    e.one(tags::CONTENT_DESCRIPTION, VR::LO, &description, 64);
    let warnings = &found.warnings;
    if !warnings.is_empty() {
        e.one(tags::IMAGE_COMMENTS, VR::LT, &format!("To be noted: {}", warnings.join(", ")), LONGEST_COMMENT);
    }
    e.text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
    e.text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, if lossy { "01" } else { "00" });
    e
}

/// At most 64 characters; a revision says so at its end.
fn series_description(manifest: &Manifest, revision: u32) -> String {
    let description = match manifest.status {
        Status::Research => format!("{RESEARCH_MARK}: {}", model_name(manifest)),
        Status::Clinical => format!("Segmentation by {}", model_name(manifest)),
    };
    let mark = if revision > 1 { format!(" rev {revision}") } else { String::new() };
    description.chars().take(64 - mark.len()).collect::<String>() + &mark
}

/// A code string of at most 16 characters.
fn content_label(name: &str) -> String {
    let label: String = name.chars().take(16).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    if label.trim_matches('_').is_empty() { "STUNETD".into() } else { label }
}

fn concept(code: &Code) -> Concept<'_> {
    Concept { value: &code.value, scheme: &code.scheme, meaning: &code.meaning }
}

fn measures(series: &Series) -> Measures {
    let g = &series.geometry;
    let (r, c) = (g.row_direction, g.column_direction);
    let normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
    let distance: f64 = g.slice_step.iter().zip(normal).map(|(a, b)| a * b).sum::<f64>().abs();
    let spacing = (series.planes.len() > 1 && g.uniform_spacing && distance > 0.0).then_some(distance);
    // Readers need a thickness: where neither the header nor even distances give one, the smallest distance.
    let along = |p: &crate::series::Plane| p.position.iter().zip(normal).map(|(a, b)| a * b).sum::<f64>();
    let smallest = series.planes.windows(2).map(|w| along(&w[1]) - along(&w[0])).filter(|d| *d > 0.0).min_by(f64::total_cmp);
    Measures {
        pixel_spacing: [g.pixel_spacing.dy, g.pixel_spacing.dx],
        slice_thickness: g.slice_thickness.or(spacing).or(smallest),
        spacing_between_slices: spacing,
        row_direction: r,
        column_direction: c,
    }
}

fn source_plane(plane: &crate::series::Plane) -> SourcePlane<'_> {
    SourcePlane { position: plane.position, sop_class: &plane.sop_class_uid, sop_instance: &plane.sop_instance_uid, frame: plane.frame }
}

fn whole_series(series: &Series) -> SourceSeries<'_> {
    let mut instances: Vec<_> = series.planes.iter().map(|p| (&p.sop_class_uid, &p.sop_instance_uid)).collect();
    let mut seen = std::collections::BTreeSet::new();
    instances.retain(|(_, uid)| seen.insert(*uid));
    SourceSeries { series: &series.series_uid, instances }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_labels_are_code_strings() {
        for (name, label) in
            [("totalseg-v1", "TOTALSEG_V1"), ("a.very.long.name.of.a.model", "A_VERY_LONG_NAME"), ("", "STUNETD"), ("--", "STUNETD")]
        {
            assert_eq!(content_label(name), label);
        }
    }
}
