//! Small CT series of nothing in particular.

use sha2::{Digest, Sha256};
use std::path::Path;
use stunetd::dicom::Uid;
use stunetd::dicom::ct_image::CtSeries;

/// An axial series of 24 × 32 pixels a slice, 2 mm apart each way, every voxel of its own value.
pub struct Ct {
    number: u32,
    study: u32,
    slices: usize,
    announced: Option<usize>,
    patient: &'static str,
    air: bool,
}

const SIZE: [usize; 2] = [24, 32];

impl Ct {
    pub fn new(number: u32, slices: usize) -> Ct {
        Ct { number, study: number, slices, announced: None, patient: "CANARY^NAME", air: true }
    }

    /// The same, with so many Number of Series Related Instances in every header.
    pub fn announcing(self, count: usize) -> Ct {
        Ct { announced: Some(count), ..self }
    }

    /// The same with another patient's name.
    pub fn of(self, patient: &'static str) -> Ct {
        Ct { patient, ..self }
    }

    /// The same of soft tissue alone, which no CT in HU is.
    pub fn without_air(self) -> Ct {
        Ct { air: false, ..self }
    }

    /// The same in the study, and with the frame of reference, of another one.
    pub fn in_study(self, study: u32) -> Ct {
        Ct { study, ..self }
    }

    /// Its Series Instance UID.
    pub fn series_uid(&self) -> Uid {
        named(self.number, "series")
    }

    /// All slices, into a folder.
    pub fn write(&self, folder: &Path) {
        (0..self.slices).for_each(|slice| self.write_slice(folder, slice));
    }

    /// One slice, moved into its place whole.
    pub fn write_slice(&self, folder: &Path, slice: usize) {
        let uid = |role: &str| named(self.number, role);
        let series = CtSeries {
            // Canaries: nothing that the daemon writes but DICOM objects may hold them.
            patient_name: self.patient,
            patient_id: "CANARY-ID",
            patient_age: "042Y",
            study_uid: named(self.study, "study"),
            series_uid: self.series_uid(),
            frame_of_reference_uid: named(self.study, "frame of reference"),
            study_description: "CANARY STUDY",
            series_description: "CANARY SERIES",
            body_part: "ABDOMEN",
            date: "20260102",
            time: "030405",
            size: SIZE.map(|n| n as u16),
            pixel_spacing: [2.0, 2.0],
            slice_thickness: 2.0,
            orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        };
        // Half air, half soft tissue, as a histogram of HU has it.
        let hu: Vec<i16> =
            (0..SIZE[0] * SIZE[1])
                .map(|i| {
                    if self.air && i % SIZE[1] < 12 {
                        -1000 + (i % 7) as i16
                    } else {
                        40 + ((i + slice + self.number as usize) % 13) as i16
                    }
                })
                .collect();
        let mut file = series.image(&uid(&format!("instance {slice}")), slice as u32 + 1, [-32.0, -24.0, 2.0 * slice as f64], &hu);
        if let Some(count) = self.announced {
            // Before the first element of group 0028.
            let at = file.windows(6).position(|w| w == b"\x28\x00\x02\x00US").expect("Samples per Pixel");
            file.splice(at..at, [b"\x20\x00\x09\x12IS\x04\x00".to_vec(), format!("{count:4}").into_bytes()].concat());
        }
        let name = format!("{}-{slice}.dcm", self.number);
        stunetd::sys::durable::write_file(&folder.join(name), &file).expect("written");
    }
}

fn named(number: u32, role: &str) -> Uid {
    Uid::from_digest(&Sha256::digest(format!("test ct {number} {role}")).into())
}
