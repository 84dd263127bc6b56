//! The phantom as a DICOM study: one axial CT series, one file a slice.

use super::anatomy;
use super::image::{self, COLUMNS, PIXEL, ROWS, SLICES, STEP};
use crate::dicom::Uid;
use crate::dicom::ct_image::CtSeries;
use crate::fault::Fault;
use crate::sys::durable;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A UID of this very study: the same on every machine, so that a repeated demonstration is the same study.
pub fn uid(role: &str) -> Uid {
    Uid::from_digest(&Sha256::digest(format!("stunetd phantom 1 {role}")).into())
}

/// Writes the study into a folder, a file a slice, each whole or not at all. `done` is told after each slice.
pub fn write(folder: &Path, done: &(dyn Fn(usize) + Sync)) -> Result<(), Fault> {
    let series = CtSeries {
        patient_name: "PHANTOM^STUNETD",
        patient_id: "STUNETD-PHANTOM",
        patient_age: "042Y",
        study_uid: uid("study"),
        series_uid: uid("series"),
        frame_of_reference_uid: uid("frame of reference"),
        study_description: "Generated phantom, not a patient",
        series_description: "Abdomen phantom 3 mm",
        body_part: "ABDOMEN",
        date: "20260101",
        time: "120000",
        size: [ROWS as u16, COLUMNS as u16],
        pixel_spacing: [PIXEL; 2],
        slice_thickness: STEP,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    };
    durable::create_dir_all(folder)?;
    let parts = anatomy::parts();
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Fault> {
        loop {
            let slice = next.fetch_add(1, Ordering::Relaxed);
            if slice >= SLICES {
                return Ok(());
            }
            let number = slice + 1;
            let instance = uid(&format!("instance {number}"));
            let file = series.image(&instance, number as u32, image::origin(slice), &image::slice(&parts, slice));
            durable::write_file(&folder.join(format!("IM{number:04}.dcm")), &file)?;
            done(number);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..crate::sys::cores::Cores::available()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
