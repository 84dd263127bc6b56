//! The phantom as a DICOM study: one axial CT series, one file a slice, and what it shows as a segmentation object.

use super::anatomy;
use super::image;
use super::variant::Variant;
use crate::dicom::ct_image::{CtSeries, LabelsOf};
use crate::dicom::encode::Concept;
use crate::dicom::seg::{LabelValues, Segment, WriteError};
use crate::fault::{Code, Fault};
use crate::models::{self, Label, codes};
use crate::results::cielab;
use crate::sys::durable;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The file with what the phantom shows.
pub const LABELS: &str = "labels.dcm";
/// The organs, in the order of the segments.
const ORGANS: [&str; 8] = ["spleen", "kidneys", "liver", "stomach", "lungs", "aorta", "vertebrae", "autochthon"];

/// Writes the study into a folder, a file a slice, each whole or not at all, and the labels if wanted. `done` is told after each slice.
pub fn write(folder: &Path, variant: &Variant, labels: bool, done: &(dyn Fn(usize) + Sync)) -> Result<(), Fault> {
    let (frame, patient_id) = (variant.frame(), variant.patient_id());
    let series = CtSeries {
        patient_name: "PHANTOM^STUNETD",
        patient_id: &patient_id,
        patient_age: "042Y",
        study_uid: variant.uid("study"),
        series_uid: variant.uid("series"),
        frame_of_reference_uid: variant.uid("frame of reference"),
        study_description: "Generated phantom, not a patient",
        series_description: "Abdomen phantom 3 mm",
        body_part: "ABDOMEN",
        date: "20260101",
        time: "120000",
        size: [frame.rows as u16, frame.columns as u16],
        pixel_spacing: [frame.pixel; 2],
        slice_thickness: frame.step,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    };
    durable::create_dir_all(folder)?;
    let parts = anatomy::parts();
    let instance = |slice: usize| variant.uid(&format!("instance {}", slice + 1));
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Fault> {
        loop {
            let slice = next.fetch_add(1, Ordering::Relaxed);
            if slice >= frame.slices {
                return Ok(());
            }
            let number = slice + 1;
            let image = image::slice(&parts, variant, slice);
            let file = series.image(&instance(slice), number as u32, frame.origin(slice), &image);
            durable::write_file(&folder.join(format!("IM{number:04}.dcm")), &file)?;
            done(number);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..crate::sys::cores::Cores::available()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    if !labels {
        return Ok(());
    }
    let value = |organ: &str| ORGANS.iter().position(|name| *name == organ).map_or(0, |i| i as u8 + 1);
    let values: Vec<u8> = (0..frame.slices).flat_map(|z| image::organs(&parts, variant, z)).map(value).collect();
    let coded = |(name, value): (&&str, u16)| codes::look_up(name).unwrap_or_else(|| codes::tissue(value)).label(value, name);
    let labels: Vec<Label> = ORGANS.iter().zip(1u16..).map(coded).collect();
    let object = LabelsOf {
        instances: (0..frame.slices).map(|slice| (instance(slice), frame.origin(slice))).collect(),
        sop_instance: variant.uid("labels"),
        series_uid: variant.uid("series of labels"),
        dimension: variant.uid("dimension of labels"),
        segments: labels.iter().map(|label| segment(label, variant)).collect(),
    };
    let written = series.labels(&folder.join(LABELS), &object, LabelValues::U8(&values));
    written.map(drop).map_err(|error| match error {
        WriteError::Storage(error) => error.into(),
        other => Fault::new(Code::InternalBug, other.to_string()).caused_by(other),
    })
}

fn segment<'a>(label: &'a Label, variant: &Variant) -> Segment<'a> {
    fn concept(code: &models::Code) -> Concept<'_> {
        Concept { value: &code.value, scheme: &code.scheme, meaning: &code.meaning }
    }
    Segment {
        value: label.value,
        number: label.value,
        label: &label.name,
        description: None,
        category: concept(&label.category),
        property_type: concept(&label.property_type),
        modifier: label.modifier.as_ref().map(concept),
        region: label.region.as_ref().map(concept),
        region_modifier: label.region_modifier.as_ref().map(concept),
        cielab: cielab(label.rgb),
        tracking_uid: variant.uid(&format!("tracking {}", label.value)),
    }
}
