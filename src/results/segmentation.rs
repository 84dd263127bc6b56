//! A label map as a DICOM segmentation object: what is copied from the source, what is ours, how segments are numbered.

use super::colour::cielab;
use super::identity::{Identity, WRITER_VERSION};
use super::{Found, JobDates, ResultRequest, ResultsError};
use crate::dicom::encode::{Concept, Encoder, dcm};
use crate::dicom::seg::{Algorithm, Description, Kind, LabelValues, Measures, Segment, SourcePlane, SourceSeries, Written, write};
use crate::dicom::{CopiedAttributes, RawElement, Uid};
use crate::models::{Code, LabelTable, Manifest, Status};
use crate::series::{Case, Series};
use crate::volume::Labels;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use std::path::Path;

/// Manufacturer (0008,0070) of the objects we write.
const MANUFACTURER: &str = "stunetd project";

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

/// Writes the object. `role` is `seg` or `labelmap`.
pub(super) fn write_object(
    path: &Path,
    kind: Kind,
    role: &str,
    case: &Case,
    found: &Found<'_>,
    request: &ResultRequest<'_>,
    identity: &Identity,
) -> Result<(Written, ObjectUids), ResultsError> {
    let labels = found.labels;
    let series = case.grid_series().ok_or(ResultsError::NoSeries)?;
    let manifest = &request.model.manifest;
    let uids = ObjectUids {
        sop_class: kind.sop_class(),
        sop_instance: identity.uid(&format!("instance/{role}")),
        series: identity.uid(&format!("series/{role}")),
    };
    let segments: Vec<Segment<'_>> = labels
        .table()
        .iter()
        .zip(segment_numbers(labels.table(), kind))
        .map(|(label, (value, number))| Segment {
            value,
            number,
            label: &label.name,
            description: found.stats.labels.get(usize::from(value)).filter(|figures| figures.touches_edge).map(|_| INCOMPLETE),
            category: concept(&label.category),
            property_type: concept(&label.property_type),
            modifier: label.modifier.as_ref().map(concept),
            region: label.region.as_ref().map(concept),
            region_modifier: label.region_modifier.as_ref().map(concept),
            cielab: cielab(label.rgb),
            tracking_uid: identity.uid(&format!("tracking/{value}")),
        })
        .collect();
    let further = case.channels.iter().filter(|s| s.series_uid != series.series_uid).map(whole_series).collect();
    let description = Description {
        kind,
        sop_instance: uids.sop_instance.clone(),
        dimension: identity.uid(&format!("dimension/{role}")),
        rows: series.geometry.rows,
        columns: series.geometry.columns,
        measures: measures(series),
        planes: series.planes.iter().map(source_plane).collect(),
        series: &series.series_uid,
        further,
        segments,
        algorithm: Algorithm { name: &manifest.name, version: &manifest.version },
    };
    let base = attributes(case, series, &uids, role, found, request, identity);
    let values = match labels.labels() {
        Labels::U8(v) => LabelValues::U8(v),
        Labels::U16(v) => LabelValues::U16(v),
    };
    Ok((write(path, base, &description, values)?, uids))
}

/// Patient, study, series, frame of reference, equipment, general image and SOP common modules.
fn attributes(
    case: &Case,
    series: &Series,
    uids: &ObjectUids,
    role: &str,
    found: &Found<'_>,
    request: &ResultRequest<'_>,
    identity: &Identity,
) -> Encoder {
    let manifest = &request.model.manifest;
    let research = manifest.status == Status::Research;
    let mut e = Encoder::new();
    // Type 2: present even where the source has none.
    for (tag, vr) in [
        (tags::STUDY_DATE, VR::DA),
        (tags::STUDY_TIME, VR::TM),
        (tags::ACCESSION_NUMBER, VR::SH),
        (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
        (tags::PATIENT_NAME, VR::PN),
        (tags::PATIENT_ID, VR::LO),
        (tags::PATIENT_BIRTH_DATE, VR::DA),
        (tags::PATIENT_SEX, VR::CS),
        (tags::STUDY_ID, VR::SH),
        (tags::POSITION_REFERENCE_INDICATOR, VR::LO),
        (tags::CONTENT_CREATOR_NAME, VR::PN),
    ] {
        e.text(tag, vr, "");
    }
    let lossy = case.channels.iter().any(|s| s.lossy);
    let is_loss = |tag: (u16, u16)| [tags::LOSSY_IMAGE_COMPRESSION_RATIO, tags::LOSSY_IMAGE_COMPRESSION_METHOD].contains(&tag.into());
    let copied = series.copied.elements.iter().filter(|element| is_sound(element) && (lossy || !is_loss(element.tag)));
    copied.for_each(|element| e.raw(element));
    let given = |tag: Tag| series.copied.trimmed(tag.0, tag.1);
    let method = given(tags::DEIDENTIFICATION_METHOD).or_else(|| given(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE));
    if given(tags::PATIENT_IDENTITY_REMOVED) == Some(b"YES") && method.is_none() {
        // PS3.3 C.7.1.1: one of both is required then.
        e.text(tags::DEIDENTIFICATION_METHOD, VR::LO, "not stated by the source");
    }

    e.uid(tags::STUDY_INSTANCE_UID, &series.study_uid);
    e.uid(tags::SERIES_INSTANCE_UID, &uids.series);
    e.text(tags::SERIES_NUMBER, VR::IS, &series_number(series, role, request).to_string());
    let revision = request.replaces.as_ref().map_or(1, |r| r.revision);
    e.one(tags::SERIES_DESCRIPTION, VR::LO, &series_description(manifest, revision), 64);
    e.text(tags::INSTANCE_NUMBER, VR::IS, "1");
    // A source without a frame of reference gets one of its own; the position of its planes is all that is known.
    let frame_of_reference = series.frame_of_reference_uid.clone().unwrap_or_else(|| identity.uid("frame-of-reference"));
    e.uid(tags::FRAME_OF_REFERENCE_UID, &frame_of_reference);

    let serial = &request.model.digest[..request.model.digest.len().min(16)];
    let versions = format!("stunetd {WRITER_VERSION}\\{}", model_name(manifest).replace('\\', "_"));
    let equipment = |e: &mut Encoder| {
        e.text(tags::MANUFACTURER, VR::LO, MANUFACTURER);
        e.text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "stunetd");
        e.text(tags::DEVICE_SERIAL_NUMBER, VR::LO, serial);
        e.text(tags::SOFTWARE_VERSIONS, VR::LO, &versions);
    };
    equipment(&mut e);
    e.sequence(tags::CONTRIBUTING_EQUIPMENT_SEQUENCE, |s| {
        s.item(|e| {
            equipment(e);
            e.one(tags::CONTRIBUTION_DESCRIPTION, VR::ST, &format!("Segmentation by {}", model_name(manifest)), 1024);
            e.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, dcm("109102", "Processing Equipment"));
        });
    });

    let dates: JobDates = request.dates.in_zone_of(&series.copied);
    for (date, time) in [(tags::SERIES_DATE, tags::SERIES_TIME), (tags::CONTENT_DATE, tags::CONTENT_TIME)] {
        e.text(date, VR::DA, &dates.date());
        e.text(time, VR::TM, &dates.time());
    }
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

/// A number that is the series' own in its study and above any scanner's: 9,000,000 and up for research results, 8,000,000
/// and up for approved models. It depends on source series, model and format; the last digit is left for revisions.
fn series_number(series: &Series, role: &str, request: &ResultRequest<'_>) -> u32 {
    let key = Identity::new(&[0; 32], &request.model.digest, &request.settings, &CopiedAttributes::default(), &[]);
    let base = if request.model.manifest.status == Status::Research { 9_000_000 } else { 8_000_000 };
    let phase = series.phase.unwrap_or(1);
    let revision = request.replaces.as_ref().map_or(1, |r| r.revision.min(9));
    base + 10 * key.number(&format!("series-number/{role}/{}/{phase}", series.series_uid), 99_999) + revision
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

/// Name and version of a model.
pub(super) fn model_name(manifest: &Manifest) -> String {
    format!("{} {}", manifest.name, manifest.version).trim_end().to_owned()
}

/// Whether a copied attribute may stand in our object as it is. What names patient and study is never touched, whatever it looks like; of the
/// rest, what would make the object invalid is left out: empty values where none may be (clinical trial, de-identification), an age without
/// three digits and a unit, a Study ID that is too long.
fn is_sound(element: &RawElement) -> bool {
    let value = element.value.trim_ascii();
    match Tag::from(element.tag) {
        Tag(0x0012, _) => !value.is_empty(),
        tags::PATIENT_AGE => matches!(value, [] | [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'D' | b'W' | b'M' | b'Y']),
        tags::STUDY_ID => value.len() <= 16,
        _ => true,
    }
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
    fn what_would_make_an_object_invalid_is_not_repeated() {
        let sound = |tag: Tag, value: &str| is_sound(&RawElement { tag: (tag.0, tag.1), vr: *b"LO", value: value.into() });
        for (age, fine) in [("042Y", true), ("", true), ("0Y", false), ("7", false), ("1000D", false), ("04 Y", false)] {
            assert_eq!(sound(tags::PATIENT_AGE, age), fine, "{age}");
        }
        assert!(sound(tags::STUDY_ID, "sixteen letters!") && !sound(tags::STUDY_ID, "IBSI_1_STS_001_CT"));
        assert!(!sound(tags::DEIDENTIFICATION_METHOD, "  ") && sound(tags::DEIDENTIFICATION_METHOD, "x"));
        assert!(sound(tags::ACCESSION_NUMBER, "longer than sixteen letters") && sound(tags::PATIENT_ID, ""));
    }

    #[test]
    fn content_labels_are_code_strings() {
        for (name, label) in
            [("totalseg-v1", "TOTALSEG_V1"), ("a.very.long.name.of.a.model", "A_VERY_LONG_NAME"), ("", "STUNETD"), ("--", "STUNETD")]
        {
            assert_eq!(content_label(name), label);
        }
    }
}
