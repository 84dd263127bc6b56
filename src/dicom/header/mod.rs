//! Reading one file's header into an [`Instance`].

mod frames;
mod identity;
mod image;
mod pet;

pub use identity::{Identity, read_identity};

use super::copied::CopiedAttributes;
use super::elements::{DataSet, Level};
use super::error::{DicomError, printable_uid};
use super::guard::{self, Limits, Walked};
use super::instance::{Announced, ImageObject, Instance, RefusedFile, SelectionTags, SeriesKey};
use super::{Uid, charset, syntax, time};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use std::path::{Path, PathBuf};

/// Reads the header of a regular file. `relative` is its name for reports.
pub fn read_instance(path: &Path, relative: PathBuf, limits: &Limits) -> Result<Instance, RefusedFile> {
    let Walked { data, error, size } = guard::walk_file(path, limits, &accept_class);
    let built = match error {
        Some(error) => Err(error),
        None => instance(&data, path, &relative, size, limits),
    };
    built.map_err(|error| RefusedFile { member_of: membership(&data, &error), code: error.code(), detail: error.to_string(), relative })
}

/// Only CT and PET images are read further. An empty class is left to the check of identifying attributes.
fn accept_class(class: &str) -> Result<(), DicomError> {
    const SEGMENTATIONS: [&str; 3] = ["1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.5", "1.2.840.10008.5.1.4.1.1.66.7"];
    if class.is_empty() || ImageObject::from_sop_class(class).is_some() {
        Ok(())
    } else if SEGMENTATIONS.contains(&class) {
        Err(DicomError::Segmentation(printable_uid(class)))
    } else {
        Err(DicomError::SopClass(printable_uid(class)))
    }
}

/// The series that a refused file is missing from: an image that can be told to be part of one.
fn membership(data: &DataSet, error: &DicomError) -> Option<SeriesKey> {
    if matches!(error, DicomError::MissingUid(_)) || ImageObject::from_sop_class(&data.sop_class()?).is_none() {
        return None;
    }
    let root = data.root();
    Some(SeriesKey {
        study: printable_uid(&root.text(tags::STUDY_INSTANCE_UID)?),
        series: printable_uid(&root.text(tags::SERIES_INSTANCE_UID)?),
    })
}

fn instance(data: &DataSet, path: &Path, relative: &Path, size: u64, limits: &Limits) -> Result<Instance, DicomError> {
    let root = data.root();
    let sop_class_uid = required_uid(root, tags::SOP_CLASS_UID, "SOP Class UID")?;
    let object = ImageObject::from_sop_class(sop_class_uid.as_str()).ok_or_else(|| DicomError::SopClass(sop_class_uid.to_string()))?;
    let sop_instance_uid = required_uid(root, tags::SOP_INSTANCE_UID, "SOP Instance UID")?;
    let study_uid = required_uid(root, tags::STUDY_INSTANCE_UID, "Study Instance UID")?;
    let series_uid = required_uid(root, tags::SERIES_INSTANCE_UID, "Series Instance UID")?;
    let frame_of_reference_uid = match required_uid(root, tags::FRAME_OF_REFERENCE_UID, "Frame of Reference UID") {
        Err(DicomError::MissingUid(_)) => None,
        found => Some(found?),
    };
    let pixels = image::pixel_format(data, limits)?;
    let frames = frames::planes(root, object, pixels.frames)?;
    let lossy = match syntax::loss(&data.transfer_syntax) {
        syntax::Loss::Always => true,
        syntax::Loss::Possible => root.text(tags::LOSSY_IMAGE_COMPRESSION).as_deref() != Some("00"),
        syntax::Loss::Never => root.text(tags::LOSSY_IMAGE_COMPRESSION).as_deref() == Some("01"),
    };
    Ok(Instance {
        path: path.to_path_buf(),
        relative: relative.to_path_buf(),
        size,
        object,
        sop_class_uid,
        sop_instance_uid,
        study_uid,
        series_uid,
        frame_of_reference_uid,
        image_type: root.texts(tags::IMAGE_TYPE),
        monochrome: image::is_monochrome(root),
        multi_energy: root.text(tags::MULTIENERGY_CT_ACQUISITION).as_deref() == Some("YES"),
        lossy,
        instance_number: root.integer(tags::INSTANCE_NUMBER),
        pixels,
        frames,
        announced: announced(root),
        selection: selection(root),
        pet: (object.modality() == "PT").then(|| Box::new(pet::header(root, object))),
        copied: CopiedAttributes::of(data),
    })
}

fn required_uid(root: Level, tag: Tag, name: &'static str) -> Result<Uid, DicomError> {
    let text = root.text(tag).ok_or(DicomError::MissingUid(name))?;
    Uid::parse(&text).map_err(|_| DicomError::InvalidUid(name))
}

fn announced(root: Level) -> Announced {
    let positive = |tag| root.count(tag).filter(|n| *n > 0);
    Announced {
        in_series: positive(tags::NUMBER_OF_SERIES_RELATED_INSTANCES),
        in_acquisition: positive(tags::IMAGES_IN_ACQUISITION),
        slices: positive(tags::NUMBER_OF_SLICES),
        time_slices: positive(tags::NUMBER_OF_TIME_SLICES),
        time_slots: positive(tags::NUMBER_OF_TIME_SLOTS),
        temporal_positions: positive(tags::NUMBER_OF_TEMPORAL_POSITIONS),
        in_concatenation: positive(tags::IN_CONCATENATION_TOTAL_NUMBER),
    }
}

/// Of a classic object, or what all frames of another share.
fn irradiation_events(root: Level) -> Vec<String> {
    let shared = root.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let of_frames = shared.and_then(|shared| shared.item(tags::IRRADIATION_EVENT_IDENTIFICATION_SEQUENCE));
    let levels = [Some(root), of_frames].into_iter().flatten();
    levels.map(|level| level.texts(tags::IRRADIATION_EVENT_UID)).find(|events| !events.is_empty()).unwrap_or_default()
}

fn selection(root: Level) -> SelectionTags {
    let set = root.text(tags::SPECIFIC_CHARACTER_SET);
    let text = |tag| root.get(tag).and_then(|v| v.bytes()).map(|b| charset::decode(b, set.as_deref())).unwrap_or_default();
    let born = root.text(tags::PATIENT_BIRTH_DATE).and_then(|t| time::date(&t));
    let studied = root.text(tags::STUDY_DATE).and_then(|t| time::date(&t));
    // Whoever takes a birth date out often puts the date of the study in its place: that tells no age.
    let by_dates = born.zip(studied).map(|(born, studied)| (studied - born) / 86_400.0 / 365.2425).filter(|age| *age > 0.0);
    SelectionTags {
        series_number: root.integer(tags::SERIES_NUMBER),
        series_description: text(tags::SERIES_DESCRIPTION),
        protocol: text(tags::PROTOCOL_NAME),
        body_part: text(tags::BODY_PART_EXAMINED),
        kernel: text(tags::CONVOLUTION_KERNEL),
        contrast_agent: text(tags::CONTRAST_BOLUS_AGENT),
        manufacturer: text(tags::MANUFACTURER),
        model_name: text(tags::MANUFACTURER_MODEL_NAME),
        irradiation_events: irradiation_events(root),
        acquisition_number: root.integer(tags::ACQUISITION_NUMBER),
        radiopharmaceutical: pet::radiopharmaceutical(root),
        age_years: root.text(tags::PATIENT_AGE).and_then(|t| time::age_years(&t)).or(by_dates),
    }
}
