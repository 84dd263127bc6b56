//! Planes of an object: the classic image, or the frames of the functional groups (PS3.3 C.7.6.16), each first per frame, then shared.

use super::super::elements::Level;
use super::super::error::DicomError;
use super::super::instance::{Frame, ImageObject, PhaseKey, PhaseKeys, PhaseValue, PlaneTiming, Rescale};
use super::super::time;
use super::pet::real_world_value;
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// One [`Frame`] for a classic object, one per frame for a multi-frame one.
pub(super) fn planes(root: Level, object: ImageObject, frames: u32) -> Result<Vec<Frame>, DicomError> {
    if !object.is_multi_frame() {
        if frames != 1 {
            return Err(DicomError::PixelFormat(format!("{frames} frames in a single-frame object")));
        }
        return Ok(vec![classic(root)]);
    }
    let shared = root.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let planes: Vec<Frame> = root
        .items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE)
        .zip(1u32..)
        .map(|(own, number)| functional(root, Groups { own, shared }, number, object))
        .collect();
    if planes.len() != frames as usize {
        return Err(DicomError::Corrupt(format!("functional groups for {} of {frames} frames", planes.len())));
    }
    Ok(planes)
}

fn classic(root: Level) -> Frame {
    let acquisition = acquisition_time(root);
    let mut phase = PhaseKeys::default();
    phase.set(PhaseKey::TemporalPosition, number(root, tags::TEMPORAL_POSITION_IDENTIFIER));
    phase.set(PhaseKey::AcquisitionNumber, number(root, tags::ACQUISITION_NUMBER));
    phase.set(PhaseKey::TriggerTime, number(root, tags::TRIGGER_TIME));
    phase.set(PhaseKey::CardiacPhase, number(root, tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE));
    phase.set(PhaseKey::FrameReferenceTime, number(root, tags::FRAME_REFERENCE_TIME));
    phase.set(PhaseKey::AcquisitionTime, acquisition.map(PhaseValue::Number));
    phase.set(PhaseKey::Kernel, root.text(tags::CONVOLUTION_KERNEL).map(PhaseValue::Text));
    phase.set(PhaseKey::Kvp, number(root, tags::KVP));
    phase.set(PhaseKey::EchoTime, number(root, tags::ECHO_TIME));
    // A lookup table in place of slope and intercept gives values without a known unit.
    let table = root.item(Tag(0x0028, 0x3000)).map(|_| "LUT".to_owned());
    Frame {
        number: None,
        position: root.numbers(tags::IMAGE_POSITION_PATIENT),
        orientation: root.numbers(tags::IMAGE_ORIENTATION_PATIENT),
        pixel_spacing: root.numbers(tags::PIXEL_SPACING),
        slice_thickness: root.number(tags::SLICE_THICKNESS).filter(|t| *t > 0.0),
        rescale: rescale(root),
        rescale_type: root.text(tags::RESCALE_TYPE).or(table),
        frame_type: Vec::new(),
        timing: PlaneTiming {
            acquisition,
            frame_reference_ms: root.number(tags::FRAME_REFERENCE_TIME),
            frame_duration_ms: root.number(tags::ACTUAL_FRAME_DURATION),
        },
        phase,
    }
}

/// Acquisition DateTime, else date and time; a missing date is taken from the series or the study.
fn acquisition_time(root: Level) -> Option<f64> {
    let stamp = root.text(tags::ACQUISITION_DATE_TIME).and_then(|t| time::date_time(&t, file_offset(root)));
    stamp.or_else(|| {
        let date = [tags::ACQUISITION_DATE, tags::SERIES_DATE, tags::STUDY_DATE].into_iter().find_map(|tag| root.text(tag))?;
        time::date_and_time(&date, &root.text(tags::ACQUISITION_TIME)?)
    })
}

/// Timezone Offset From UTC of the file, in seconds.
pub(super) fn file_offset(root: Level) -> Option<f64> {
    root.text(tags::TIMEZONE_OFFSET_FROM_UTC).and_then(|t| time::utc_offset(&t))
}

fn number(level: Level, tag: Tag) -> Option<PhaseValue> {
    level.number(tag).map(PhaseValue::Number)
}

fn rescale(level: Level) -> Rescale {
    let (slope, intercept) = (level.number(tags::RESCALE_SLOPE), level.number(tags::RESCALE_INTERCEPT));
    Rescale { slope: slope.unwrap_or(1.0), intercept: intercept.unwrap_or(0.0), explicit: slope.is_some() && intercept.is_some() }
}

/// The functional groups that apply to one frame.
#[derive(Clone, Copy)]
struct Groups<'a> {
    own: Level<'a>,
    shared: Option<Level<'a>>,
}

impl<'a> Groups<'a> {
    /// The first item of a functional group's sequence: the frame's own, else the shared one.
    fn get(self, tag: Tag) -> Option<Level<'a>> {
        self.own.item(tag).or_else(|| self.shared?.item(tag))
    }
}

fn functional(root: Level, groups: Groups, frame: u32, object: ImageObject) -> Frame {
    let content = groups.get(tags::FRAME_CONTENT_SEQUENCE);
    let measures = groups.get(tags::PIXEL_MEASURES_SEQUENCE);
    let cardiac = groups.get(tags::CARDIAC_SYNCHRONIZATION_SEQUENCE);
    let unassigned = groups.get(tags::UNASSIGNED_PER_FRAME_CONVERTED_ATTRIBUTES_SEQUENCE);
    let types = groups.get(if object.modality() == "CT" { tags::CT_IMAGE_FRAME_TYPE_SEQUENCE } else { tags::PET_FRAME_TYPE_SEQUENCE });
    let transformation = groups.get(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE).unwrap_or(root);
    let stamp = |level: Option<Level>, tag| level.and_then(|l| l.text(tag)).and_then(|t| time::date_time(&t, file_offset(root)));
    let acquisition = stamp(content, tags::FRAME_ACQUISITION_DATE_TIME).or_else(|| stamp(content, tags::FRAME_REFERENCE_DATE_TIME));
    let acquisition = acquisition.or_else(|| acquisition_time(unassigned.unwrap_or(root)));

    let mut phase = PhaseKeys::default();
    let of = |level: Option<Level>, tag| level.and_then(|l| number(l, tag));
    let converted = |tag| of(unassigned, tag);
    phase.set(
        PhaseKey::TemporalPosition,
        of(content, tags::TEMPORAL_POSITION_INDEX).or_else(|| converted(tags::TEMPORAL_POSITION_IDENTIFIER)),
    );
    phase.set(PhaseKey::Stack, content.and_then(|c| c.text(tags::STACK_ID)).map(stack));
    phase.set(PhaseKey::AcquisitionNumber, of(content, tags::FRAME_ACQUISITION_NUMBER).or_else(|| converted(tags::ACQUISITION_NUMBER)));
    phase.set(PhaseKey::TriggerTime, of(cardiac, tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME).or_else(|| converted(tags::TRIGGER_TIME)));
    phase.set(PhaseKey::CardiacPhase, of(cardiac, tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE));
    phase.set(PhaseKey::FrameReferenceTime, converted(tags::FRAME_REFERENCE_TIME));
    phase.set(PhaseKey::AcquisitionTime, acquisition.map(PhaseValue::Number));
    let reconstruction = groups.get(tags::CT_RECONSTRUCTION_SEQUENCE).or(unassigned);
    phase.set(PhaseKey::Kernel, reconstruction.and_then(|r| r.text(tags::CONVOLUTION_KERNEL)).map(PhaseValue::Text));
    phase.set(PhaseKey::Kvp, of(groups.get(tags::CTX_RAY_DETAILS_SEQUENCE), tags::KVP).or_else(|| converted(tags::KVP)));

    let mut rescale = rescale(transformation);
    let mut rescale_type = transformation.text(tags::RESCALE_TYPE);
    if object.modality() == "PT"
        && let Some((mapped, unit)) = real_world_value(groups.own).or_else(|| real_world_value(groups.shared?))
    {
        (rescale, rescale_type) = (mapped, Some(unit));
    }
    Frame {
        number: Some(frame),
        position: groups.get(tags::PLANE_POSITION_SEQUENCE).and_then(|p| p.numbers(tags::IMAGE_POSITION_PATIENT)),
        orientation: groups.get(tags::PLANE_ORIENTATION_SEQUENCE).and_then(|o| o.numbers(tags::IMAGE_ORIENTATION_PATIENT)),
        pixel_spacing: measures.and_then(|m| m.numbers(tags::PIXEL_SPACING)),
        slice_thickness: measures.and_then(|m| m.number(tags::SLICE_THICKNESS)).filter(|t| *t > 0.0),
        rescale,
        rescale_type,
        frame_type: types.map(|t| t.texts(tags::FRAME_TYPE)).unwrap_or_default(),
        timing: PlaneTiming {
            acquisition,
            frame_reference_ms: unassigned.and_then(|u| u.number(tags::FRAME_REFERENCE_TIME)),
            frame_duration_ms: content
                .and_then(|c| c.number(tags::FRAME_ACQUISITION_DURATION))
                .or_else(|| unassigned?.number(tags::ACTUAL_FRAME_DURATION)),
        },
        phase,
    }
}

fn stack(text: String) -> PhaseValue {
    text.parse().map_or(PhaseValue::Text(text), PhaseValue::Number)
}
