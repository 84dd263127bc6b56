//! The answer of `stunetd inspect --json`.

use crate::cli::selection::Selection;
use crate::dicom::{RefusedFile, SeriesKey};
use crate::fault::{Code, Fault, Kind};
use crate::series::{Geometry, RejectedSeries, Series};
use crate::volume::{Affine, Quantity, Source, Statistics, Volume, suv};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Everything that was found.
#[derive(Default, Serialize)]
pub struct Report {
    /// Series, or phases of a series, that give a volume.
    pub volumes: Vec<VolumeEntry>,
    /// Series, or parts of a series, that give none.
    pub rejected: Vec<Rejected>,
    /// Files that belong to no volume.
    pub ignored_files: Vec<Ignored>,
}

impl Report {
    /// Whether there is a volume and nothing was refused that a person would want.
    pub fn is_clean(&self) -> bool {
        let wanted = |code: Code| code.kind() != Kind::Expected;
        let refused = self.rejected.iter().any(|r| wanted(r.code)) || self.ignored_files.iter().any(|f| wanted(f.code));
        !self.volumes.is_empty() && !refused && self.volumes.iter().all(|v| v.segmentable)
    }
}

/// One volume. Positions are DICOM patient LPS millimetres; k runs along row direction × column direction.
#[derive(Serialize)]
pub struct VolumeEntry {
    pub study_instance_uid: Option<String>,
    pub series_instance_uid: Option<String>,
    pub frame_of_reference_uid: Option<String>,
    /// `CT` or `PT`; not known for a NIfTI file.
    pub modality: Option<String>,
    pub series_number: Option<i32>,
    pub series_description: Option<String>,
    /// Which volume of its series, from 1, when the series was split by time or phase.
    pub phase: Option<u32>,
    /// Columns, rows, slices.
    pub shape_ijk: [usize; 3],
    /// Distances between columns, rows and slices in mm, the last one along the normal.
    pub spacing_ijk: [f64; 3],
    /// Index (i, j, k, 1) to LPS mm. The third column is the true step between slices.
    pub affine_lps: [[f64; 4]; 4],
    pub uniform_spacing: bool,
    pub sheared: bool,
    /// Distances of the slices along the normal, when they are not uniform: the position of each slice, mm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice_positions_along_normal: Option<Vec<f64>>,
    /// What the values mean: `HU`, `not_HU`, the PET unit, or `unknown`.
    pub quantity: String,
    /// Values times this are SUVbw; while a dose that is too small for Bq holds the series back, if it is in MBq.
    pub suvbw_factor: Option<f64>,
    /// Minimum, maximum, mean and hash of the values in that unit.
    #[serde(flatten)]
    pub statistics: Statistics,
    /// What is odd, as codes.
    pub warnings: Vec<String>,
    /// Whether `segment` would take it.
    pub segmentable: bool,
    /// Why not.
    pub hold: Option<Hold>,
    /// What the rules of the configuration say of it, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Selection>,
    /// Hexadecimal; names the content of the volume whatever its files look like.
    pub volume_key: String,
    /// The file written for `--nifti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nifti: Option<PathBuf>,
}

/// Why a volume is shown but would not be segmented.
#[derive(Serialize)]
pub struct Hold {
    pub code: Code,
    pub detail: String,
    pub action: &'static str,
}

/// One series that gives no volume.
#[derive(Serialize)]
pub struct Rejected {
    pub study_instance_uid: String,
    pub series_instance_uid: String,
    /// The part of the code after the dot.
    pub reason: &'static str,
    pub code: Code,
    pub detail: String,
    pub action: &'static str,
    /// Number of files concerned.
    pub files: usize,
    pub series_number: Option<i32>,
    pub series_description: Option<String>,
}

/// One file that belongs to no volume.
#[derive(Serialize)]
pub struct Ignored {
    /// Relative to the input.
    pub path: String,
    /// The part of the code after the dot.
    pub reason: &'static str,
    pub code: Code,
    pub detail: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn described(series: &Series) -> Option<String> {
    Some(series.selection.series_description.clone()).filter(|d| !d.is_empty())
}

impl VolumeEntry {
    /// A channel of a volume.
    pub fn of(volume: &Volume, channel: usize) -> VolumeEntry {
        let mut entry = VolumeEntry::of_grid(volume, channel);
        match &volume.source {
            Source::Case(case) => {
                entry.volume_key = hex(&case.volume_key);
                if let Some(series) = case.channels.get(channel) {
                    entry.add_series(series);
                }
            }
            Source::Nifti { digest, .. } => entry.volume_key = hex(digest),
        }
        entry
    }

    fn of_grid(volume: &Volume, channel: usize) -> VolumeEntry {
        let [nz, ny, nx] = volume.shape;
        let quantity = match volume.quantity.get(channel) {
            Some(Quantity::Hu) => "HU",
            Some(Quantity::NotHu) => "not_HU",
            Some(Quantity::SuvBw) => "SUVbw",
            Some(Quantity::PetUnits) => "PET",
            Some(Quantity::Unknown) | None => "unknown",
        };
        VolumeEntry {
            study_instance_uid: None,
            series_instance_uid: None,
            frame_of_reference_uid: None,
            modality: None,
            series_number: None,
            series_description: None,
            phase: None,
            shape_ijk: [nx, ny, nz],
            spacing_ijk: volume.affine.spacing(),
            affine_lps: matrix(&volume.affine),
            uniform_spacing: true,
            sheared: false,
            slice_positions_along_normal: None,
            quantity: quantity.to_owned(),
            suvbw_factor: None,
            statistics: Statistics::of(volume, channel),
            warnings: Vec::new(),
            segmentable: true,
            hold: None,
            selection: None,
            volume_key: String::new(),
            nifti: None,
        }
    }

    fn add_series(&mut self, series: &Series) {
        let geometry = &series.geometry;
        self.study_instance_uid = Some(series.study_uid.to_string());
        self.series_instance_uid = Some(series.series_uid.to_string());
        self.frame_of_reference_uid = series.frame_of_reference_uid.as_ref().map(ToString::to_string);
        self.modality = Some(series.modality.clone());
        self.series_number = series.selection.series_number;
        self.series_description = described(series);
        self.phase = series.phase;
        self.spacing_ijk[2] = along_normal(geometry, geometry.slice_step);
        self.uniform_spacing = geometry.uniform_spacing;
        self.sheared = geometry.sheared;
        if !geometry.uniform_spacing {
            self.slice_positions_along_normal = Some(series.planes.iter().map(|p| along_normal(geometry, p.position)).collect());
        }
        if let Some(pet) = &series.pet {
            let timing: Vec<_> = series.planes.iter().map(|p| p.timing).collect();
            self.suvbw_factor = suv::factors(pet, &timing, true).ok().and_then(|f| f.of_series());
            self.quantity = series.unit.clone();
        }
        self.warnings = series.warnings.clone();
        self.segmentable = series.hold.is_none();
        self.hold = series.hold.as_ref().map(|h| Hold { code: h.code, detail: h.detail.clone(), action: h.code.action() });
    }
}

fn matrix(affine: &Affine) -> [[f64; 4]; 4] {
    let [x, y, z] = affine.rows;
    [x, y, z, [0.0, 0.0, 0.0, 1.0]]
}

/// The part of a vector along the slice normal.
fn along_normal(geometry: &Geometry, v: [f64; 3]) -> f64 {
    let (r, c) = (geometry.row_direction, geometry.column_direction);
    let normal = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]];
    normal.iter().zip(v).map(|(a, b)| a * b).sum()
}

impl Rejected {
    /// A series that grouping refused.
    pub fn of(rejected: &RejectedSeries) -> Rejected {
        let series = rejected.series.as_deref();
        Rejected {
            files: rejected.files.len(),
            series_number: series.and_then(|s| s.selection.series_number),
            series_description: series.and_then(described),
            ..Rejected::because(&rejected.key, rejected.refusal.code, &rejected.refusal.detail)
        }
    }

    /// A series whose voxels could not be read.
    pub fn unread(key: &SeriesKey, files: usize, fault: &Fault) -> Rejected {
        Rejected { files, ..Rejected::because(key, fault.code, &fault.detail) }
    }

    fn because(key: &SeriesKey, code: Code, detail: &str) -> Rejected {
        Rejected {
            study_instance_uid: key.study.clone(),
            series_instance_uid: key.series.clone(),
            reason: code.reason(),
            code,
            detail: detail.to_owned(),
            action: code.action(),
            files: 0,
            series_number: None,
            series_description: None,
        }
    }
}

impl Ignored {
    /// A file that the scan or grouping left out.
    pub fn of(file: &RefusedFile) -> Ignored {
        Ignored { path: name(&file.relative), reason: file.code.reason(), code: file.code, detail: file.detail.clone() }
    }

    /// A file that can not be decoded.
    pub fn because(file: &Path, fault: &Fault) -> Ignored {
        Ignored { path: name(file), reason: fault.code.reason(), code: fault.code, detail: fault.detail.clone() }
    }
}

/// JSON holds Unicode only: bytes of a name that are none become replacement characters.
fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
