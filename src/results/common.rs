//! What all our DICOM objects say of patient, study, series, equipment and dates.

use super::identity::{Identity, WRITER_VERSION};
use super::{JobDates, ResultRequest};
use crate::dicom::encode::Encoder;
use crate::dicom::{CopiedAttributes, RawElement, Uid};
use crate::models::{Manifest, Status};
use crate::series::Series;
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

/// Manufacturer (0008,0070) of the objects we write.
const MANUFACTURER: &str = "stunetd project";

/// The series that an object goes into.
pub(super) struct OfSeries<'a> {
    /// Its UID.
    pub uid: &'a Uid,
    /// What its UID and number are made from.
    pub role: &'a str,
    /// Series Description.
    pub description: &'a str,
    /// Instance Number of the object.
    pub number: u32,
}

/// Patient, study, series, general equipment and content dates. Of what is copied from the source, `repeat` names what fits the object.
pub(super) fn attributes(series: &Series, of: &OfSeries<'_>, request: &ResultRequest<'_>, repeat: impl Fn(&RawElement) -> bool) -> Encoder {
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
    ] {
        e.text(tag, vr, "");
    }
    let copied = series.copied.elements.iter().filter(|element| is_sound(element) && repeat(element));
    copied.for_each(|element| e.raw(element));
    let given = |tag: Tag| series.copied.trimmed(tag.0, tag.1);
    let method = given(tags::DEIDENTIFICATION_METHOD).or_else(|| given(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE));
    if given(tags::PATIENT_IDENTITY_REMOVED) == Some(b"YES") && method.is_none() {
        // PS3.3 C.7.1.1: one of both is required then.
        e.text(tags::DEIDENTIFICATION_METHOD, VR::LO, "not stated by the source");
    }
    e.uid(tags::STUDY_INSTANCE_UID, &series.study_uid);
    e.uid(tags::SERIES_INSTANCE_UID, of.uid);
    e.text(tags::SERIES_NUMBER, VR::IS, &series_number(series, of.role, request).to_string());
    e.one(tags::SERIES_DESCRIPTION, VR::LO, of.description, 64);
    e.text(tags::INSTANCE_NUMBER, VR::IS, &of.number.to_string());
    equipment(&mut e, request);
    let dates: JobDates = request.dates.in_zone_of(&series.copied);
    for (date, time) in [(tags::SERIES_DATE, tags::SERIES_TIME), (tags::CONTENT_DATE, tags::CONTENT_TIME)] {
        e.text(date, VR::DA, &dates.date());
        e.text(time, VR::TM, &dates.time());
    }
    e
}

/// What made the object; for the top level, and for an item of Contributing Equipment.
pub(super) fn equipment(e: &mut Encoder, request: &ResultRequest<'_>) {
    let serial = &request.model.digest[..request.model.digest.len().min(16)];
    let versions = format!("stunetd {WRITER_VERSION}\\{}", model_name(&request.model.manifest).replace('\\', "_"));
    e.text(tags::MANUFACTURER, VR::LO, MANUFACTURER);
    e.text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "stunetd");
    e.text(tags::DEVICE_SERIAL_NUMBER, VR::LO, serial);
    e.text(tags::SOFTWARE_VERSIONS, VR::LO, &versions);
}

/// Distance of the numbers of every ten revisions.
const BEYOND: u32 = 10_000_000;
/// The number has to fit into 31 bits.
const LAST_REVISION: u32 = 2_000;

/// A number that is the series' own in its study and above any scanner's: 9,000,000 and up for research results, 8,000,000
/// and up for approved models. It depends on source series, model and format; the last digit is left for revisions, and from the tenth on the
/// digits above the seventh: a revision always has a higher number than the one before, and nobody else's.
fn series_number(series: &Series, role: &str, request: &ResultRequest<'_>) -> u32 {
    let key = Identity::new(&[0; 32], &request.model.digest, &request.settings, &CopiedAttributes::default(), &[]);
    let base = if request.model.manifest.status == Status::Research { 9_000_000 } else { 8_000_000 };
    let phase = series.phase.unwrap_or(1);
    let revision = request.replaces.as_ref().map_or(1, |r| r.revision).min(LAST_REVISION);
    // A better series that came late counts on from the one whose place it takes.
    let source = request.replaces.as_ref().and_then(|r| r.first_source.as_deref()).unwrap_or(series.series_uid.as_str());
    of_revision(base + 10 * key.number(&format!("series-number/{role}/{source}/{phase}"), 99_999), revision)
}

fn of_revision(number: u32, revision: u32) -> u32 {
    number + (revision / 10) * BEYOND + revision % 10
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
    fn every_revision_has_a_higher_number_of_its_own() {
        let numbers = |place: u32| (1..=LAST_REVISION).map(move |revision| of_revision(9_000_000 + 10 * place, revision));
        for place in [0, 1, 57, 99_998] {
            assert!(numbers(place).zip(numbers(place).skip(1)).all(|(former, later)| former < later), "{place}");
        }
        let all: std::collections::BTreeSet<u32> = (0..200).flat_map(numbers).collect();
        assert_eq!(all.len(), 200 * LAST_REVISION as usize);
        assert!(numbers(99_998).all(|number| i32::try_from(number).is_ok()));
        // Those of approved models begin elsewhere.
        assert!((1..=LAST_REVISION).all(|revision| !all.contains(&of_revision(8_000_000, revision))));
    }
}
