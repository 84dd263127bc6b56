//! What one file's header says: the house's first type. No pixels.

use super::{CopiedAttributes, Uid};
use crate::fault::Code;
use std::path::PathBuf;

/// A CT or PET image object whose header was read and lies within the limits. Whether it can be part of a volume is for `series` to say.
#[derive(Clone, Debug)]
pub struct Instance {
    /// The file, as it can be opened.
    pub path: PathBuf,
    /// The file, relative to the folder that was scanned.
    pub relative: PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// Which image object it is.
    pub object: ImageObject,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: Uid,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: Uid,
    /// Study Instance UID (0020,000D).
    pub study_uid: Uid,
    /// Series Instance UID (0020,000E).
    pub series_uid: Uid,
    /// Frame of Reference UID (0020,0052); empty in some half-anonymised files.
    pub frame_of_reference_uid: Option<Uid>,
    /// Image Type (0008,0008).
    pub image_type: Vec<String>,
    /// One sample per pixel, MONOCHROME1 or MONOCHROME2.
    pub monochrome: bool,
    /// Multi-energy CT Acquisition (0018,9361) is YES.
    pub multi_energy: bool,
    /// Lossy Image Compression (0028,2110) is 01, or the transfer syntax is a lossy one.
    pub lossy: bool,
    /// Instance Number (0020,0013), if it is a number.
    pub instance_number: Option<i32>,
    /// How the stored values are laid out.
    pub pixels: PixelFormat,
    /// The planes: one for a classic object, one per frame for a multi-frame object, in file order.
    pub frames: Vec<Frame>,
    /// What the sender said about the number of images.
    pub announced: Announced,
    /// Header values that selection rules look at.
    pub selection: SelectionTags,
    /// Unit and tracer, for PET.
    pub pet: Option<Box<PetHeader>>,
    /// Raw patient and study attributes that results repeat.
    pub copied: CopiedAttributes,
}

/// The image objects that can become a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageObject {
    /// CT Image Storage.
    Ct,
    /// Enhanced CT Image Storage.
    EnhancedCt,
    /// Legacy Converted Enhanced CT Image Storage.
    LegacyConvertedCt,
    /// Positron Emission Tomography Image Storage.
    Pet,
    /// Enhanced PET Image Storage.
    EnhancedPet,
    /// Legacy Converted Enhanced PET Image Storage.
    LegacyConvertedPet,
}

impl ImageObject {
    /// By SOP Class UID.
    pub fn from_sop_class(uid: &str) -> Option<ImageObject> {
        Some(match uid {
            "1.2.840.10008.5.1.4.1.1.2" => ImageObject::Ct,
            "1.2.840.10008.5.1.4.1.1.2.1" => ImageObject::EnhancedCt,
            "1.2.840.10008.5.1.4.1.1.2.2" => ImageObject::LegacyConvertedCt,
            "1.2.840.10008.5.1.4.1.1.128" => ImageObject::Pet,
            "1.2.840.10008.5.1.4.1.1.130" => ImageObject::EnhancedPet,
            "1.2.840.10008.5.1.4.1.1.128.1" => ImageObject::LegacyConvertedPet,
            _ => return None,
        })
    }

    /// `CT` or `PT`.
    pub fn modality(self) -> &'static str {
        match self {
            ImageObject::Ct | ImageObject::EnhancedCt | ImageObject::LegacyConvertedCt => "CT",
            ImageObject::Pet | ImageObject::EnhancedPet | ImageObject::LegacyConvertedPet => "PT",
        }
    }

    /// Whether geometry and rescale stand in functional groups, one per frame.
    pub fn is_multi_frame(self) -> bool {
        !matches!(self, ImageObject::Ct | ImageObject::Pet)
    }
}

/// How stored values are laid out in the file (Image Pixel module).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelFormat {
    /// Transfer syntax of the file.
    pub transfer_syntax: Uid,
    /// Frames in the file; 1 for a classic instance.
    pub frames: u32,
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
    /// Bits Allocated: 8, 16 or 32.
    pub bits_allocated: u16,
    /// Bits Stored.
    pub bits_stored: u16,
    /// High Bit.
    pub high_bit: u16,
    /// Pixel Representation 1: two's complement.
    pub signed: bool,
    /// Pixel Padding Value .. Range Limit, as stored values, inclusive, low end first.
    pub padding: Option<(i32, i32)>,
}

/// One plane of an object: the classic image, or one frame. A missing value is `None`; whether that matters is for `series` to say.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Frame number from 1, for a frame of a multi-frame object.
    pub number: Option<u32>,
    /// Image Position (Patient), LPS mm, finite.
    pub position: Option<[f64; 3]>,
    /// Image Orientation (Patient): direction of increasing column index, then of increasing row index; finite, not checked further.
    pub orientation: Option<[f64; 6]>,
    /// Pixel Spacing as written: between rows (dy), between columns (dx), mm; may be zero or negative.
    pub pixel_spacing: Option<[f64; 2]>,
    /// Slice Thickness (0018,0050), mm, if positive.
    pub slice_thickness: Option<f64>,
    /// Stored value → modality unit.
    pub rescale: Rescale,
    /// Rescale Type (0028,1054), if not empty.
    pub rescale_type: Option<String>,
    /// Frame Type (0008,9007), empty for a classic object.
    pub frame_type: Vec<String>,
    /// When this plane was acquired.
    pub timing: PlaneTiming,
    /// What can tell two planes at the same position apart.
    pub phase: PhaseKeys,
}

/// Rescale of one plane: `slope * stored + intercept` (Modality LUT or Pixel Value Transformation).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// Rescale Slope (0028,1053), 1 when absent.
    pub slope: f64,
    /// Rescale Intercept (0028,1052), 0 when absent.
    pub intercept: f64,
    /// Whether both were there.
    pub explicit: bool,
}

impl Default for Rescale {
    fn default() -> Rescale {
        Rescale { slope: 1.0, intercept: 0.0, explicit: false }
    }
}

/// Times of one plane, as far as the header has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PlaneTiming {
    /// Acquisition date and time, in seconds since 1970-01-01 of the local clock that the file uses.
    pub acquisition: Option<f64>,
    /// Frame Reference Time (0054,1300), ms.
    pub frame_reference_ms: Option<f64>,
    /// Actual Frame Duration (0018,1242), ms.
    pub frame_duration_ms: Option<f64>,
}

/// The attributes by which repeated positions are split into volumes, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PhaseKey {
    /// Temporal Position Identifier (0020,0100) or Temporal Position Index (0020,9128).
    TemporalPosition,
    /// Stack ID (0020,9056).
    Stack,
    /// Acquisition Number (0020,0012) or Frame Acquisition Number (0020,9156).
    AcquisitionNumber,
    /// Trigger Time (0018,1060) or Nominal Cardiac Trigger Delay Time (0020,9153), ms.
    TriggerTime,
    /// Nominal Percentage of Cardiac Phase (0020,9241).
    CardiacPhase,
    /// Frame Reference Time (0054,1300), ms.
    FrameReferenceTime,
    /// Acquisition date and time.
    AcquisitionTime,
    /// Convolution Kernel (0018,1210).
    Kernel,
    /// KVP (0018,0060).
    Kvp,
    /// Echo Time (0018,0081).
    EchoTime,
}

impl PhaseKey {
    /// All keys, in the order in which they are tried.
    pub const ALL: [PhaseKey; 10] = [
        PhaseKey::TemporalPosition,
        PhaseKey::Stack,
        PhaseKey::AcquisitionNumber,
        PhaseKey::TriggerTime,
        PhaseKey::CardiacPhase,
        PhaseKey::FrameReferenceTime,
        PhaseKey::AcquisitionTime,
        PhaseKey::Kernel,
        PhaseKey::Kvp,
        PhaseKey::EchoTime,
    ];
}

/// The value of one phase key: numbers come before texts, in their own order.
#[derive(Clone, Debug, PartialEq)]
pub enum PhaseValue {
    /// A number (times in s or ms as the attribute has them).
    Number(f64),
    /// Anything else.
    Text(String),
}

/// The phase keys that a plane has.
#[derive(Clone, Debug, Default)]
pub struct PhaseKeys(pub [Option<PhaseValue>; PhaseKey::ALL.len()]);

impl PhaseKeys {
    /// The value of a key, if the plane has it.
    pub fn get(&self, key: PhaseKey) -> Option<&PhaseValue> {
        self.0[key as usize].as_ref()
    }

    /// Sets the value of a key.
    pub fn set(&mut self, key: PhaseKey, value: Option<PhaseValue>) {
        self.0[key as usize] = value;
    }
}

/// How many images there should be, where the sender says so. Hints: many files have none or wrong ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Number of Series Related Instances (0020,1209).
    pub in_series: Option<u32>,
    /// Images in Acquisition (0020,1002).
    pub in_acquisition: Option<u32>,
    /// Number of Slices (0054,0081), PET.
    pub slices: Option<u32>,
    /// Number of Time Slices (0054,0101), PET.
    pub time_slices: Option<u32>,
    /// Number of Time Slots (0054,0071), gated PET.
    pub time_slots: Option<u32>,
    /// Number of Temporal Positions (0020,0105).
    pub temporal_positions: Option<u32>,
    /// In-concatenation Total Number (0020,9163).
    pub in_concatenation: Option<u32>,
}

/// Header values that selection rules look at, decoded. Free text may hold anything, so nothing here is printed by `Debug`.
#[derive(Clone, Default)]
pub struct SelectionTags {
    /// Series Number (0020,0011).
    pub series_number: Option<i32>,
    /// Series Description (0008,103E).
    pub series_description: String,
    /// Protocol Name (0018,1030).
    pub protocol: String,
    /// Body Part Examined (0018,0015).
    pub body_part: String,
    /// Convolution Kernel (0018,1210), values joined by `\`.
    pub kernel: String,
    /// Contrast/Bolus Agent (0018,0010).
    pub contrast_agent: String,
    /// Manufacturer (0008,0070).
    pub manufacturer: String,
    /// Manufacturer's Model Name (0008,1090).
    pub model_name: String,
    /// Radiopharmaceutical Code Sequence (0054,0304): `scheme:value`, e.g. `SCT:35321007`; empty where the tracer is not coded.
    pub radiopharmaceutical: String,
    /// Irradiation Event UID (0008,3010) values: one for each scan that the image is made of.
    pub irradiation_events: Vec<String>,
    /// Acquisition Number (0020,0012).
    pub acquisition_number: Option<i32>,
    /// Patient's age in years: from Patient's Age (0010,1010), else from the dates of birth and study.
    pub age_years: Option<f64>,
}

impl std::fmt::Debug for SelectionTags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SelectionTags(series number {:?})", self.series_number)
    }
}

/// What a PET header says about its unit and the tracer (PET Series, PET Isotope and PET Image modules). Times are seconds since 1970-01-01
/// of the file's local clock. Holds patient data: `Debug` prints the unit alone.
#[derive(Clone, Default, PartialEq)]
pub struct PetHeader {
    /// Units (0054,1001): `BQML`, `GML`, `CNTS`, …
    pub units: String,
    /// SUV Type (0054,1006).
    pub suv_type: Option<String>,
    /// Corrected Image (0028,0051) values.
    pub corrected_image: Vec<String>,
    /// Decay Correction (0054,1102): `START`, `ADMIN`, `NONE`.
    pub decay_correction: Option<String>,
    /// Patient Weight, kg.
    pub weight_kg: Option<f64>,
    /// Patient Size, m.
    pub size_m: Option<f64>,
    /// Patient Sex.
    pub sex: Option<String>,
    /// Radionuclide Total Dose as written (Bq; MBq by mistake is told by its size).
    pub total_dose: Option<f64>,
    /// Radionuclide Half Life, s.
    pub half_life_s: Option<f64>,
    /// Radionuclide code value (or meaning), to check the half-life against.
    pub radionuclide: Option<String>,
    /// Radiopharmaceutical Start DateTime (0018,1078).
    pub injection_datetime: Option<f64>,
    /// Radiopharmaceutical Start Time (0018,1072), seconds after midnight.
    pub injection_time_of_day: Option<f64>,
    /// Series Date and Time.
    pub series_datetime: Option<f64>,
    /// Decay Correction DateTime (0018,9701), enhanced PET.
    pub decay_correction_datetime: Option<f64>,
    /// GE private scan date-time (0009,xx0D), creator GEMS_PETD_01.
    pub ge_scan_datetime: Option<f64>,
    /// Philips SUV factor (7053,xx00).
    pub philips_suv_factor: Option<f64>,
    /// Philips counts → Bq/ml factor (7053,xx09).
    pub philips_activity_factor: Option<f64>,
}

impl std::fmt::Debug for PetHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PetHeader(units {:?})", self.units)
    }
}

impl Instance {
    /// The series that it is of.
    pub fn series_key(&self) -> SeriesKey {
        SeriesKey { study: self.study_uid.to_string(), series: self.series_uid.to_string() }
    }
}

/// A file that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// The file, relative to the folder that was scanned. Never part of a log line: names may hold patient data.
    pub relative: PathBuf,
    /// Why.
    pub code: Code,
    /// What exactly; no patient data.
    pub detail: String,
    /// The series that misses this file, when it is an image of one: without it that series is not whole.
    pub member_of: Option<SeriesKey>,
}

/// Study and Series Instance UID as they stand in a file that was refused: not checked, characters outside `0-9.` replaced by `?`, at most
/// 64 characters each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Study Instance UID.
    pub study: String,
    /// Series Instance UID.
    pub series: String,
}
