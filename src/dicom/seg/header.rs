//! The data set of a segmentation object up to its pixels: Image Pixel, Segmentation Image, Multi-frame Functional
//! Groups, Multi-frame Dimension and Common Instance Reference modules.

use super::description::{Description, Kind, Segment, SourcePlane};
use crate::dicom::Uid;
use crate::dicom::encode::{Concept, Encoder, dcm};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use std::collections::{BTreeMap, BTreeSet};

/// A frame that will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameSpec {
    /// Index into the segments; none in a label map.
    pub segment: Option<usize>,
    /// Slice of the labels.
    pub slice: usize,
}

/// Adds the modules to `e`, which holds patient, study, series, equipment and SOP common attributes already.
pub(super) fn modules(e: &mut Encoder, d: &Description<'_>, frames: &[FrameSpec], bits: u16) {
    e.text(tags::SOP_CLASS_UID, VR::UI, d.kind.sop_class());
    e.uid(tags::SOP_INSTANCE_UID, &d.sop_instance);
    e.text(tags::MODALITY, VR::CS, "SEG");
    e.text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY");

    e.us(tags::SAMPLES_PER_PIXEL, &[1]);
    e.text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    e.text(tags::NUMBER_OF_FRAMES, VR::IS, &frames.len().to_string());
    e.us(tags::ROWS, &[d.rows as u16]);
    e.us(tags::COLUMNS, &[d.columns as u16]);
    e.us(tags::BITS_ALLOCATED, &[bits]);
    e.us(tags::BITS_STORED, &[bits]);
    e.us(tags::HIGH_BIT, &[bits - 1]);
    e.us(tags::PIXEL_REPRESENTATION, &[0]);

    e.text(tags::SEGMENTATION_TYPE, VR::CS, if d.kind == Kind::Binary { "BINARY" } else { "LABELMAP" });
    e.text(tags::SEGMENTS_OVERLAP, VR::CS, "NO");
    e.sequence(tags::SEGMENT_SEQUENCE, |s| {
        if d.kind == Kind::LabelMap {
            s.item(|e| background(e, d));
        }
        for segment in &d.segments {
            s.item(|e| segment_item(e, segment, d));
        }
    });

    dimensions(e, d);
    e.sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, |s| s.item(|e| shared_groups(e, d)));
    e.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |s| frame_groups(s, d, frames));
    references(e, d, frames);
}

/// Every value that occurs in a label map has an item, the background too.
fn background(e: &mut Encoder, d: &Description<'_>) {
    let category = Concept { value: "309825002", scheme: "SCT", meaning: "Spatial and Relational Concept" };
    e.code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, category);
    e.us(tags::SEGMENT_NUMBER, &[0]);
    e.text(tags::SEGMENT_LABEL, VR::LO, "Background");
    e.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    e.one(tags::SEGMENT_ALGORITHM_NAME, VR::LO, d.algorithm.name, 64);
    e.us(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &[0, 0x8080, 0x8080]);
    e.code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, dcm("125040", "Background"));
}

fn segment_item(e: &mut Encoder, segment: &Segment<'_>, d: &Description<'_>) {
    let modified = |e: &mut Encoder, tag: Tag, code: Concept<'_>, modifier_tag: Tag, modifier: Option<Concept<'_>>| {
        e.code_with(tag, code, |e| {
            if let Some(modifier) = modifier {
                e.code(modifier_tag, modifier);
            }
        });
    };
    if let Some(region) = segment.region {
        modified(e, tags::ANATOMIC_REGION_SEQUENCE, region, tags::ANATOMIC_REGION_MODIFIER_SEQUENCE, segment.region_modifier);
    }
    e.code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, segment.category);
    e.us(tags::SEGMENT_NUMBER, &[segment.number]);
    e.one(tags::SEGMENT_LABEL, VR::LO, segment.label, 64);
    if let Some(description) = segment.description {
        e.one(tags::SEGMENT_DESCRIPTION, VR::ST, description, 1024);
    }
    e.sequence(tags::SEGMENTATION_ALGORITHM_IDENTIFICATION_SEQUENCE, |s| {
        s.item(|e| {
            e.code(tags::ALGORITHM_FAMILY_CODE_SEQUENCE, dcm("123110", "Artificial Intelligence"));
            e.one(tags::ALGORITHM_VERSION, VR::LO, d.algorithm.version, 64);
            e.one(tags::ALGORITHM_NAME, VR::LO, d.algorithm.name, 64);
        });
    });
    e.text(tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC");
    e.one(tags::SEGMENT_ALGORITHM_NAME, VR::LO, d.algorithm.name, 64);
    e.us(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, &segment.cielab);
    let modifier_tag = tags::SEGMENTED_PROPERTY_TYPE_MODIFIER_CODE_SEQUENCE;
    modified(e, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, segment.property_type, modifier_tag, segment.modifier);
    e.one(tags::TRACKING_ID, VR::UT, segment.label, 64);
    e.uid(tags::TRACKING_UID, &segment.tracking_uid);
}

fn dimensions(e: &mut Encoder, d: &Description<'_>) {
    e.sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, |s| s.item(|e| e.uid(tags::DIMENSION_ORGANIZATION_UID, &d.dimension)));
    let index = |s: &mut Encoder, pointer: Tag, group: Tag, label: &str| {
        s.item(|e| {
            e.uid(tags::DIMENSION_ORGANIZATION_UID, &d.dimension);
            e.at(tags::DIMENSION_INDEX_POINTER, pointer);
            e.at(tags::FUNCTIONAL_GROUP_POINTER, group);
            e.text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label);
        });
    };
    e.sequence(tags::DIMENSION_INDEX_SEQUENCE, |s| {
        if d.kind == Kind::Binary {
            index(s, tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Segment Number");
        }
        index(s, tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Image Position Patient");
    });
}

fn shared_groups(e: &mut Encoder, d: &Description<'_>) {
    let m = &d.measures;
    e.sequence(tags::PLANE_ORIENTATION_SEQUENCE, |s| {
        s.item(|e| e.decimals(tags::IMAGE_ORIENTATION_PATIENT, &[m.row_direction, m.column_direction].concat()));
    });
    e.sequence(tags::PIXEL_MEASURES_SEQUENCE, |s| {
        s.item(|e| {
            if let Some(thickness) = m.slice_thickness {
                e.decimals(tags::SLICE_THICKNESS, &[thickness]);
            }
            if let Some(spacing) = m.spacing_between_slices {
                e.decimals(tags::SPACING_BETWEEN_SLICES, &[spacing]);
            }
            e.decimals(tags::PIXEL_SPACING, &m.pixel_spacing);
        });
    });
}

/// The items of the Per-frame Functional Groups Sequence. What depends on the slice alone is encoded once a slice.
fn frame_groups(s: &mut Encoder, d: &Description<'_>, frames: &[FrameSpec]) {
    let mut slices: BTreeMap<usize, (Vec<u8>, Vec<u8>, u32)> = BTreeMap::new();
    for frame in frames {
        slices.entry(frame.slice).or_insert_with(|| {
            let plane = &d.planes[frame.slice];
            (derivation(plane), position(plane), 0)
        });
    }
    // Dimension index values count from 1 over the positions that occur, in space.
    for (rank, slice) in slices.values_mut().enumerate() {
        slice.2 = rank as u32 + 1;
    }
    for frame in frames {
        let (derivation, position, rank) = &slices[&frame.slice];
        s.item(|e| {
            e.encoded(derivation);
            e.sequence(tags::FRAME_CONTENT_SEQUENCE, |s| {
                s.item(|e| match frame.segment {
                    Some(segment) => e.ul(tags::DIMENSION_INDEX_VALUES, &[d.segments[segment].number.into(), *rank]),
                    None => e.ul(tags::DIMENSION_INDEX_VALUES, &[*rank]),
                });
            });
            e.encoded(position);
            if let Some(segment) = frame.segment {
                e.sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, |s| {
                    s.item(|e| e.us(tags::REFERENCED_SEGMENT_NUMBER, &[d.segments[segment].number]));
                });
            }
        });
    }
}

fn derivation(plane: &SourcePlane<'_>) -> Vec<u8> {
    let mut e = Encoder::new();
    e.sequence(tags::DERIVATION_IMAGE_SEQUENCE, |s| {
        s.item(|e| {
            e.sequence(tags::SOURCE_IMAGE_SEQUENCE, |s| {
                s.item(|e| {
                    e.uid(tags::REFERENCED_SOP_CLASS_UID, plane.sop_class);
                    e.uid(tags::REFERENCED_SOP_INSTANCE_UID, plane.sop_instance);
                    if let Some(frame) = plane.frame {
                        e.text(tags::REFERENCED_FRAME_NUMBER, VR::IS, &frame.to_string());
                    }
                    e.text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
                    e.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, PURPOSE);
                });
            });
            e.code(tags::DERIVATION_CODE_SEQUENCE, dcm("113076", "Segmentation"));
        });
    });
    e.into_bytes()
}

fn position(plane: &SourcePlane<'_>) -> Vec<u8> {
    let mut e = Encoder::new();
    e.sequence(tags::PLANE_POSITION_SEQUENCE, |s| s.item(|e| e.decimals(tags::IMAGE_POSITION_PATIENT, &plane.position)));
    e.into_bytes()
}

/// Common Instance Reference: exactly the instances that frames refer to, and the further inputs.
fn references(e: &mut Encoder, d: &Description<'_>, frames: &[FrameSpec]) {
    let used: BTreeSet<usize> = frames.iter().map(|f| f.slice).collect();
    let mut instances: Vec<_> = used.iter().map(|&z| (d.planes[z].sop_class, d.planes[z].sop_instance)).collect();
    let mut seen = BTreeSet::new();
    instances.retain(|(_, uid)| seen.insert(*uid));
    let list = |s: &mut Encoder, series: &Uid, instances: &[(&Uid, &Uid)]| {
        s.item(|e| {
            e.sequence(tags::REFERENCED_INSTANCE_SEQUENCE, |s| {
                for (class, uid) in instances {
                    s.item(|e| {
                        e.uid(tags::REFERENCED_SOP_CLASS_UID, class);
                        e.uid(tags::REFERENCED_SOP_INSTANCE_UID, uid);
                    });
                }
            });
            e.uid(tags::SERIES_INSTANCE_UID, series);
        });
    };
    e.sequence(tags::REFERENCED_SERIES_SEQUENCE, |s| {
        list(s, d.series, &instances);
        for further in &d.further {
            list(s, further.series, &further.instances);
        }
    });
    if !d.further.is_empty() {
        // General Reference module: inputs that no single frame stands for.
        e.sequence(tags::SOURCE_IMAGE_SEQUENCE, |s| {
            for (class, uid) in d.further.iter().flat_map(|f| &f.instances) {
                s.item(|e| {
                    e.uid(tags::REFERENCED_SOP_CLASS_UID, class);
                    e.uid(tags::REFERENCED_SOP_INSTANCE_UID, uid);
                    e.text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "NO");
                    e.code(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, PURPOSE);
                });
            }
        });
    }
}

const PURPOSE: Concept<'static> = dcm("121322", "Source image for image processing operation");
