//! A note that the objects of earlier results are not to be used any more: Key Object Selection with the title *Rejected for Quality
//! Reasons*, as archives that follow IHE IOCM (imaging object change management) understand it. PS3.3 A.35.4, PS3.16 TID 2010.

use super::common::{self, OfSeries};
use super::identity::Identity;
use super::segmentation::{ObjectUids, RESEARCH_MARK};
use super::{DicomUids, Replaced, ResultRequest, ResultsError};
use crate::dicom::encode::{Concept, Encoder, dcm, file_meta};
use crate::dicom::{RawElement, Uid};
use crate::models::Status;
use crate::series::Series;
use crate::sys::durable;
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of its file in a result folder.
pub const REJECTION_FILE: &str = "rejection.dcm";
/// How a manifest calls it.
pub const REJECTION: &str = "rejection";

/// Writes the note. Nothing when no object is known to reject.
pub(super) fn write(
    path: &Path,
    series: &Series,
    replaces: &Replaced,
    request: &ResultRequest<'_>,
    identity: &Identity,
) -> Result<Option<ObjectUids>, ResultsError> {
    if replaces.objects.is_empty() {
        return Ok(None);
    }
    let uids = ObjectUids {
        sop_class: uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
        sop_instance: identity.uid("instance/rejection"),
        series: identity.uid("series/rejection"),
    };
    let research = request.model.manifest.status == Status::Research;
    let description = if research { format!("{RESEARCH_MARK}: replaced") } else { "Replaced segmentations".into() };
    let of = OfSeries { uid: &uids.series, role: REJECTION, description: &description, number: 1 };
    let mut e = common::attributes(series, &of, request, belongs);
    e.text(tags::SOP_CLASS_UID, VR::UI, uids.sop_class);
    e.uid(tags::SOP_INSTANCE_UID, &uids.sop_instance);
    e.text(tags::MODALITY, VR::CS, "KO");
    e.sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, |_| {});
    evidence(&mut e, series, replaces);
    content(&mut e, replaces, &device(&request.model.digest));
    let file = [file_meta(uids.sop_class, &uids.sop_instance, uids::EXPLICIT_VR_LITTLE_ENDIAN), e.into_data_set()].concat();
    durable::write_file(path, &file)?;
    Ok(Some(uids))
}

/// What of the copied attributes a document without images has: patient, study and clinical trial.
fn belongs(element: &RawElement) -> bool {
    let (group, number) = element.tag;
    matches!(group, 0x0008 | 0x0010 | 0x0012) || (group, number) == (0x0020, 0x0010)
}

/// The observer is the model that made the new result.
fn device(model_digest: &str) -> Uid {
    Uid::from_digest(&Sha256::digest(format!("device/{model_digest}")).into())
}

/// Current Requested Procedure Evidence: every object, by series.
fn evidence(e: &mut Encoder, series: &Series, replaces: &Replaced) {
    let mut by_series: BTreeMap<&str, Vec<&DicomUids>> = BTreeMap::new();
    replaces.objects.iter().for_each(|object| by_series.entry(&object.series).or_default().push(object));
    e.sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, |s| {
        s.item(|e| {
            e.sequence(tags::REFERENCED_SERIES_SEQUENCE, |s| {
                for (uid, objects) in by_series {
                    s.item(|e| {
                        e.sequence(tags::REFERENCED_SOP_SEQUENCE, |s| objects.iter().for_each(|object| reference(s, object)));
                        e.text(tags::SERIES_INSTANCE_UID, VR::UI, uid);
                    });
                }
            });
            e.uid(tags::STUDY_INSTANCE_UID, &series.study_uid);
        });
    });
}

fn reference(s: &mut Encoder, object: &DicomUids) {
    s.item(|e| {
        e.text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, &object.sop_class);
        e.text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, &object.sop_instance);
    });
}

/// TID 2010, with the observer of TID 1004.
fn content(e: &mut Encoder, replaces: &Replaced, device: &Uid) {
    e.text(tags::VALUE_TYPE, VR::CS, "CONTAINER");
    e.code(tags::CONCEPT_NAME_CODE_SEQUENCE, dcm("113001", "Rejected for Quality Reasons"));
    e.text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE");
    e.sequence(tags::CONTENT_TEMPLATE_SEQUENCE, |s| {
        s.item(|e| {
            e.text(tags::MAPPING_RESOURCE, VR::CS, "DCMR");
            e.text(tags::TEMPLATE_IDENTIFIER, VR::CS, "2010");
        });
    });
    let named = |e: &mut Encoder, relation: &str, kind: &str, name: Concept<'_>| {
        e.text(tags::RELATIONSHIP_TYPE, VR::CS, relation);
        e.text(tags::VALUE_TYPE, VR::CS, kind);
        e.code(tags::CONCEPT_NAME_CODE_SEQUENCE, name);
    };
    e.sequence(tags::CONTENT_SEQUENCE, |s| {
        s.item(|e| {
            named(e, "HAS OBS CONTEXT", "CODE", dcm("121005", "Observer Type"));
            e.code(tags::CONCEPT_CODE_SEQUENCE, dcm("121007", "Device"));
        });
        s.item(|e| {
            named(e, "HAS OBS CONTEXT", "UIDREF", dcm("121012", "Device Observer UID"));
            e.uid(tags::UID, device);
        });
        s.item(|e| {
            named(e, "CONTAINS", "TEXT", dcm("113012", "Key Object Description"));
            let words = format!("Replaced by revision {}: the source series has changed.", replaces.revision);
            e.text(tags::TEXT_VALUE, VR::UT, &words);
        });
        for object in &replaces.objects {
            s.item(|e| {
                e.sequence(tags::REFERENCED_SOP_SEQUENCE, |s| reference(s, object));
                e.text(tags::RELATIONSHIP_TYPE, VR::CS, "CONTAINS");
                e.text(tags::VALUE_TYPE, VR::CS, "IMAGE");
            });
        }
    });
}
