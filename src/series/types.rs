//! The types of this room: planes, geometry, series, cases.

use crate::config::{Accept, Config, Irregular};
use crate::dicom::{CopiedAttributes, PetHeader, PixelFormat, PlaneTiming, RefusedFile, Rescale, SelectionTags, SeriesKey, Uid};
use crate::fault::{Code, Fault};
use std::path::{Path, PathBuf};

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

/// The warning of a series whose injected dose, too small for Bq, was taken as MBq.
pub const DOSE_ASSUMED: &str = "dose_assumed_mbq";

/// Image Type DERIVED\SECONDARY.
pub(super) fn is_derived(image_type: &[String]) -> bool {
    matches!(image_type, [pixels, patient, ..] if pixels == "DERIVED" && patient == "SECONDARY")
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
    /// Header values that selection rules look at.
    pub selection: SelectionTags,
    /// Image Type (0008,0008) of the first plane.
    pub image_type: Vec<String>,
    /// Which volume of its series this is, from 1, when the series was split by time or phase.
    pub phase: Option<u32>,
    /// What the values mean, as the header says it: `HU`, a PET unit, or another Rescale Type.
    pub unit: String,
    /// Why this series may be looked at but not segmented (its values are not known to be HU).
    pub hold: Option<Refusal>,
}

impl Series {
    /// Whether it is CT that was computed from other images.
    pub fn is_derived(&self) -> bool {
        self.modality == "CT" && is_derived(&self.image_type)
    }

    /// Whether the injected dose, too small for Bq, was taken as MBq.
    pub fn dose_was_assumed(&self) -> bool {
        self.warnings.iter().any(|w| w == DOSE_ASSUMED)
    }

    /// Names the instances and frames that the series is made of, in hexadecimal: SHA-256 over the sorted SOP Instance UIDs and frame
    /// numbers. Says nothing about their content.
    pub fn instances_digest(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut names: Vec<_> = self.planes.iter().map(|p| format!("{}/{}\n", p.sop_instance_uid, p.frame.unwrap_or(0))).collect();
        names.sort();
        let digest = names.iter().fold(Sha256::new(), |hash, name| hash.chain_update(name)).finalize();
        digest.iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A stable code and what exactly; no patient data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// What exactly was found, in numbers and attribute names.
    pub detail: String,
}

/// The series that together are one input: one channel (CT) or several (PET + CT), same study and frame of reference.
#[derive(Clone, Debug)]
pub struct Case {
    /// One series per channel, in the order of the model's channels.
    pub channels: Vec<Series>,
    /// The channel whose grid is the source grid: the others are interpolated onto it, the labels and the objects are its.
    pub grid: usize,
    /// SHA-256 over sorted (SOP Instance UID, frame numbers, digest of decoded stored pixels, geometry, rescale) of every channel; known
    /// after decoding.
    pub volume_key: [u8; 32],
}

impl Case {
    /// The series whose grid is the source grid; none in a case without series.
    pub fn grid_series(&self) -> Option<&Series> {
        self.channels.get(self.grid)
    }
}

/// SHA-256 of the decoded stored values of one frame (from 1) of a file, sign-extended and masked to Bits Stored, so that it does not depend
/// on the transfer syntax.
pub type PlaneDigest<'d> = &'d (dyn Fn(&Path, u32, &PixelFormat) -> Result<[u8; 32], Fault> + Sync);

/// Most planes of a series. Intake stops to read the headers of a series that has more.
pub const MOST_PLANES: usize = 10_000;

/// What `group` may accept.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Missing slices and uneven distances.
    pub irregular: Irregular,
    /// Fewest slices of a volume, at least 1.
    pub min_slices: usize,
    /// Most planes of a series.
    pub max_planes: usize,
    /// Whether CT of Image Type DERIVED\SECONDARY may be a volume; a rule has to ask for it too.
    pub derived: bool,
}

impl Policy {
    /// What a configuration accepts.
    pub fn of(config: &Config) -> Policy {
        let derived = config.select.iter().any(|rule| rule.accept.contains(&Accept::Derived));
        Policy { irregular: config.intake.irregular, min_slices: config.intake.min_slices, derived, ..Policy::default() }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { irregular: Irregular::Refuse, min_slices: 3, max_planes: MOST_PLANES, derived: false }
    }
}

/// A series, or a part of one, that gives no volume, and why.
#[derive(Clone, Debug)]
pub struct RejectedSeries {
    /// Study and Series Instance UID; not checked when they are the reason.
    pub key: SeriesKey,
    /// Why.
    pub refusal: Refusal,
    /// The files concerned, relative to the scanned folder.
    pub files: Vec<PathBuf>,
    /// Its planes and geometry, when these could be built and something else is the reason.
    pub series: Option<Box<Series>>,
}

/// What `group` makes of the instances.
#[derive(Clone, Debug, Default)]
pub struct Grouped {
    /// Series that give a volume each, ordered by study, series number, series and phase.
    pub series: Vec<Series>,
    /// Series or parts of series that give none.
    pub rejected: Vec<RejectedSeries>,
    /// Files that belong to no volume, those of the scan included.
    pub ignored: Vec<RefusedFile>,
}
