//! From instances to series: grouping, ordering, gaps, tilt, duplicates, splits, candidate pairs.
//!
//! Knows headers, not pixels. Positions are DICOM patient LPS millimetres; slices are ordered along
//! `row × column` (the normal), never by InstanceNumber or file name.

use crate::dicom::{CopiedAttributes, Uid};
use std::path::PathBuf;

/// One plane of a series: a classic instance, or one frame of a multi-frame instance.
#[derive(Clone, Debug)]
pub struct Plane {
    /// The file that holds it.
    pub path: PathBuf,
    /// SOP Class UID (0008,0016).
    pub sop_class_uid: Uid,
    /// SOP Instance UID (0008,0018).
    pub sop_instance_uid: Uid,
    /// Frame number from 1, for a frame of a multi-frame instance.
    pub frame: Option<u32>,
    /// Image Position (Patient): centre of the first voxel, LPS mm.
    pub position: [f64; 3],
    /// Instance Number (0020,0013), if there is one.
    pub instance_number: Option<i32>,
    /// How the stored values are laid out.
    pub pixels: PixelFormat,
    /// Stored value → modality unit.
    pub rescale: Rescale,
    /// When this plane was acquired (PET decay correction).
    pub timing: PlaneTiming,
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

/// What a PET header says about its unit and the tracer (`spec/dicom.md` section 3). Times are seconds since 1970-01-01 of the file's local clock.
#[derive(Clone, Debug, Default, PartialEq)]
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

/// How the planes of a series lie to each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Rows (ny).
    pub rows: usize,
    /// Columns (nx).
    pub columns: usize,
    /// Direction of increasing column index i (unit vector, LPS).
    pub row_direction: [f64; 3],
    /// Direction of increasing row index j (unit vector, LPS).
    pub column_direction: [f64; 3],
    /// Distance between columns (dx) and between rows (dy) in mm.
    pub pixel_spacing: PixelSpacing,
    /// Step from one plane's origin to the next in LPS mm: the mean over the series. Not parallel to the normal when the gantry is tilted.
    pub slice_step: [f64; 3],
    /// Slice Thickness (0018,0050) in mm, if given.
    pub slice_thickness: Option<f64>,
    /// Whether all slice distances are equal within tolerance.
    pub uniform_spacing: bool,
    /// Whether the slice step is oblique to the normal (tilted gantry).
    pub sheared: bool,
}

/// In-plane distances between voxel centres, mm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelSpacing {
    /// Between columns, along i: PixelSpacing[1].
    pub dx: f64,
    /// Between rows, along j: PixelSpacing[0].
    pub dy: f64,
}

/// Ordered planes of one grid: one frame of reference, parallel, spacing regular or the irregularity described.
#[derive(Clone, Debug)]
pub struct Series {
    /// Study Instance UID.
    pub study_uid: Uid,
    /// Series Instance UID.
    pub series_uid: Uid,
    /// Frame of Reference UID, empty in some half-anonymised files.
    pub frame_of_reference_uid: Option<Uid>,
    /// `CT` or `PT`.
    pub modality: String,
    /// Planes ordered along the normal.
    pub planes: Vec<Plane>,
    /// How they lie.
    pub geometry: Geometry,
    /// Whether the pixels went through lossy compression (0028,2110) or a lossy transfer syntax.
    pub lossy: bool,
    /// Unit and tracer, for PET.
    pub pet: Option<PetHeader>,
    /// What was odd but acceptable, as stable codes (`inspect --json`: `warnings`).
    pub warnings: Vec<String>,
    /// Raw patient and study attributes that results repeat.
    pub copied: CopiedAttributes,
}

/// The series that together are one input: one channel (CT) or several (PET + CT), same study and frame of reference.
#[derive(Clone, Debug)]
pub struct Case {
    /// One series per channel, in the order of the model's channels. The first one's grid is the source grid.
    pub channels: Vec<Series>,
    /// SHA-256 over sorted (SOP Instance UID, frame numbers, digest of decoded stored pixels, geometry, rescale) of every channel; known
    /// after decoding.
    pub volume_key: [u8; 32],
}
