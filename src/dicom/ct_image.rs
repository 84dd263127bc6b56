//! Classic CT images, written: what a scanner would send. Used for the demonstration study.

use super::encode::{Encoder, file_meta};
use super::seg::{self, Algorithm, Description, Kind, LabelValues, Measures, Segment, SourcePlane, WriteError, Written};
use super::{RawElement, Uid};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use std::path::Path;

/// What all images of a series share.
#[derive(Clone, Debug)]
pub struct CtSeries<'a> {
    /// Patient's Name; `^` between family and given name.
    pub patient_name: &'a str,
    /// Patient ID.
    pub patient_id: &'a str,
    /// Patient's Age, such as `042Y`.
    pub patient_age: &'a str,
    /// Study Instance UID.
    pub study_uid: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// Frame of Reference UID.
    pub frame_of_reference_uid: Uid,
    /// Study Description.
    pub study_description: &'a str,
    /// Series Description.
    pub series_description: &'a str,
    /// Body Part Examined.
    pub body_part: &'a str,
    /// Date of everything, `YYYYMMDD`.
    pub date: &'a str,
    /// Time of everything, `HHMMSS`.
    pub time: &'a str,
    /// Rows and columns.
    pub size: [u16; 2],
    /// Pixel Spacing: between rows, between columns, mm.
    pub pixel_spacing: [f64; 2],
    /// Slice Thickness, mm.
    pub slice_thickness: f64,
    /// Image Orientation (Patient).
    pub orientation: [f64; 6],
}

impl CtSeries<'_> {
    /// A whole file (explicit VR little endian) of one axial image. `hu` holds rows × columns values from -1024 to 3071, row by row; the
    /// position is that of the first pixel's centre, LPS mm; `number` is the Instance Number.
    pub fn image(&self, instance_uid: &Uid, number: u32, position: [f64; 3], hu: &[i16]) -> Vec<u8> {
        const INTERCEPT: i16 = -1024;
        let mut e = Encoder::new();
        let mut text = |tag, vr, value: &str| e.text(tag, vr, value);
        text(tags::IMAGE_TYPE, VR::CS, r"ORIGINAL\PRIMARY\AXIAL");
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
        for tag in [tags::STUDY_DATE, tags::SERIES_DATE, tags::ACQUISITION_DATE, tags::CONTENT_DATE] {
            text(tag, VR::DA, self.date);
        }
        for tag in [tags::STUDY_TIME, tags::SERIES_TIME, tags::ACQUISITION_TIME, tags::CONTENT_TIME] {
            text(tag, VR::TM, self.time);
        }
        for tag in [tags::ACCESSION_NUMBER, tags::STUDY_ID] {
            text(tag, VR::SH, "");
        }
        text(tags::MODALITY, VR::CS, "CT");
        text(tags::MANUFACTURER, VR::LO, "stunetd");
        text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "phantom generator");
        text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
        text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
        text(tags::STUDY_DESCRIPTION, VR::LO, self.study_description);
        text(tags::SERIES_DESCRIPTION, VR::LO, self.series_description);
        text(tags::PATIENT_NAME, VR::PN, self.patient_name);
        text(tags::PATIENT_ID, VR::LO, self.patient_id);
        text(tags::PATIENT_BIRTH_DATE, VR::DA, "");
        text(tags::PATIENT_SEX, VR::CS, "O");
        text(tags::PATIENT_AGE, VR::AS, self.patient_age);
        text(tags::BODY_PART_EXAMINED, VR::CS, self.body_part);
        text(tags::KVP, VR::DS, "120");
        text(tags::CONVOLUTION_KERNEL, VR::SH, "NONE");
        text(tags::PATIENT_POSITION, VR::CS, "HFS");
        text(tags::SERIES_NUMBER, VR::IS, "1");
        text(tags::ACQUISITION_NUMBER, VR::IS, "1");
        text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string());
        text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        text(tags::RESCALE_TYPE, VR::LO, "HU");
        e.uid(tags::SOP_INSTANCE_UID, instance_uid);
        e.uid(tags::STUDY_INSTANCE_UID, &self.study_uid);
        e.uid(tags::SERIES_INSTANCE_UID, &self.series_uid);
        e.uid(tags::FRAME_OF_REFERENCE_UID, &self.frame_of_reference_uid);
        e.decimals(tags::SLICE_THICKNESS, &[self.slice_thickness]);
        e.decimals(tags::IMAGE_POSITION_PATIENT, &position);
        e.decimals(tags::IMAGE_ORIENTATION_PATIENT, &self.orientation);
        e.decimals(tags::PIXEL_SPACING, &self.pixel_spacing);
        e.decimals(tags::RESCALE_INTERCEPT, &[f64::from(INTERCEPT)]);
        e.decimals(tags::RESCALE_SLOPE, &[1.0]);
        e.decimals(tags::WINDOW_CENTER, &[40.0]);
        e.decimals(tags::WINDOW_WIDTH, &[400.0]);
        e.us(tags::SAMPLES_PER_PIXEL, &[1]);
        e.us(tags::ROWS, &self.size[..1]);
        e.us(tags::COLUMNS, &self.size[1..]);
        e.us(tags::BITS_ALLOCATED, &[16]);
        e.us(tags::BITS_STORED, &[12]);
        e.us(tags::HIGH_BIT, &[11]);
        e.us(tags::PIXEL_REPRESENTATION, &[0]);
        let stored = hu.iter().flat_map(|v| (v.saturating_sub(INTERCEPT).clamp(0, 4095) as u16).to_le_bytes()).collect();
        let pixels = tags::PIXEL_DATA;
        e.raw(&RawElement { tag: (pixels.group(), pixels.element()), vr: *b"OW", value: stored });
        [file_meta(uids::CT_IMAGE_STORAGE, instance_uid, uids::EXPLICIT_VR_LITTLE_ENDIAN), e.into_data_set()].concat()
    }

    /// Writes a segmentation object (BINARY) of what the images show: one value a voxel, `[z, y, x]` in the order of the instances.
    ///
    /// # Errors
    /// Labels that do not fit the images; the disk.
    pub fn labels(&self, path: &Path, object: &LabelsOf<'_>, values: LabelValues<'_>) -> Result<Written, WriteError> {
        let mut e = Encoder::new();
        for tag in [tags::STUDY_DATE, tags::SERIES_DATE, tags::CONTENT_DATE] {
            e.text(tag, VR::DA, self.date);
        }
        for tag in [tags::STUDY_TIME, tags::SERIES_TIME, tags::CONTENT_TIME] {
            e.text(tag, VR::TM, self.time);
        }
        for tag in [tags::ACCESSION_NUMBER, tags::STUDY_ID] {
            e.text(tag, VR::SH, "");
        }
        e.text(tags::MANUFACTURER, VR::LO, "stunetd");
        e.text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "phantom generator");
        e.text(tags::DEVICE_SERIAL_NUMBER, VR::LO, "phantom");
        e.text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"));
        e.text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
        e.text(tags::STUDY_DESCRIPTION, VR::LO, self.study_description);
        e.text(tags::SERIES_DESCRIPTION, VR::LO, "What the phantom shows");
        e.text(tags::PATIENT_NAME, VR::PN, self.patient_name);
        e.text(tags::PATIENT_ID, VR::LO, self.patient_id);
        e.text(tags::PATIENT_BIRTH_DATE, VR::DA, "");
        e.text(tags::PATIENT_SEX, VR::CS, "O");
        e.text(tags::PATIENT_AGE, VR::AS, self.patient_age);
        e.text(tags::SERIES_NUMBER, VR::IS, "2");
        e.text(tags::INSTANCE_NUMBER, VR::IS, "1");
        e.text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
        e.text(tags::CONTENT_QUALIFICATION, VR::CS, "RESEARCH");
        e.text(tags::CONTENT_LABEL, VR::CS, "PHANTOM");
        e.text(tags::CONTENT_DESCRIPTION, VR::LO, "Generated with the phantom");
        e.text(tags::CONTENT_CREATOR_NAME, VR::PN, "");
        e.text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO");
        e.text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
        e.uid(tags::STUDY_INSTANCE_UID, &self.study_uid);
        e.uid(tags::SERIES_INSTANCE_UID, &object.series_uid);
        e.uid(tags::FRAME_OF_REFERENCE_UID, &self.frame_of_reference_uid);
        let [r0, r1, r2, c0, c1, c2] = self.orientation;
        let image = Uid::parse(uids::CT_IMAGE_STORAGE).map_err(|_| WriteError::Description("the images' SOP class is no UID"))?;
        let plane = |(sop_instance, position)| SourcePlane { position, sop_class: &image, sop_instance, frame: None };
        let description = Description {
            kind: Kind::Binary,
            sop_instance: object.sop_instance.clone(),
            dimension: object.dimension.clone(),
            rows: self.size[0].into(),
            columns: self.size[1].into(),
            measures: Measures {
                pixel_spacing: self.pixel_spacing,
                slice_thickness: Some(self.slice_thickness),
                spacing_between_slices: Some(self.slice_thickness),
                row_direction: [r0, r1, r2],
                column_direction: [c0, c1, c2],
            },
            planes: object.instances.iter().map(|(uid, position)| plane((uid, *position))).collect(),
            series: &self.series_uid,
            further: Vec::new(),
            partial: false,
            segments: object.segments.clone(),
            algorithm: Algorithm { name: "phantom generator", version: env!("CARGO_PKG_VERSION") },
        };
        seg::write(path, e, &description, values)
    }
}

/// A segmentation object of a series.
#[derive(Clone, Debug)]
pub struct LabelsOf<'a> {
    /// SOP Instance UID and position of each image, in the order of the slices.
    pub instances: Vec<(Uid, [f64; 3])>,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// Dimension Organization UID.
    pub dimension: Uid,
    /// One for each value but 0, numbered 1, 2, 3 ….
    pub segments: Vec<Segment<'a>>,
}
