//! `manifest.json`: what lies in a result folder, what it was made from, and how (`docs/json/manifest.schema.json`).

use super::identity::{WRITER_VERSION, hex};
use super::rejection::REJECTION;
use super::segmentation::{RESEARCH_MARK, segment_numbers};
use super::{Found, JobDates, ResultRequest, Settings};
use crate::dicom::seg::Kind;
use crate::models::Status;
use crate::series::Series;
use crate::volume::{LabelMap, Source};
use serde::{Deserialize, Serialize};

/// The manifest of a result folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultManifest {
    /// Version of this layout: 1.
    pub schema: u32,
    /// `RESEARCH - not for diagnosis`, or none for an approved model.
    pub marking: Option<String>,
    /// Names the input voxels: SHA-256, hexadecimal. Its first eight digits name the folder.
    pub volume_key: String,
    /// Names input, model, settings, writer and copied attributes: SHA-256, hexadecimal. Results with the same identity are
    /// the same result.
    pub identity: String,
    /// SHA-256 over shape and label values.
    pub labels_sha256: String,
    /// When the job was taken up, RFC 3339.
    pub created: String,
    /// What wrote the folder.
    pub writer: Writer,
    /// The model.
    pub model: Model,
    /// The settings in force.
    pub settings: Settings,
    /// Where it ran, for information.
    pub device: String,
    /// The input.
    pub source: Input,
    /// The earlier result that this one takes the place of, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Replaced>,
    /// Shape of the label map, `[z, y, x]`.
    pub shape: [usize; 3],
    /// Voxel spacing `[z, y, x]`, mm.
    pub spacing_mm: [f64; 3],
    /// The model's labels, also those that were not found.
    pub labels: Vec<LabelEntry>,
    /// The files beside this one.
    pub outputs: Vec<Output>,
    /// Stable codes of what was odd about the input.
    pub warnings: Vec<String>,
}

/// What wrote a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// `stunetd`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The model that made the labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// `research` or `clinical`.
    pub status: Status,
    /// Digest of the generation.
    pub digest: String,
    /// SHA-256 of the weights file.
    pub weights_sha256: String,
}

/// What the labels were computed from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Input {
    /// DICOM series, one per channel.
    Dicom {
        /// Study Instance UID.
        study: String,
        /// By channel.
        series: Vec<InputSeries>,
    },
    /// A NIfTI file.
    Nifti {
        /// SHA-256 of the file.
        sha256: String,
    },
}

/// One input series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSeries {
    /// Series Instance UID.
    pub uid: String,
    /// `CT` or `PT`.
    pub modality: String,
    /// Planes used.
    pub planes: usize,
    /// Names the instances used: SHA-256 over their sorted SOP Instance UIDs and frame numbers, hexadecimal.
    pub instances_sha256: String,
    /// Which volume of its series this is, from 1, when the series was split by time or phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
}

/// The earlier result of the same series, or of one that was the best of the study before, that a result takes the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Which result of the series this one is, from 2.
    pub revision: u32,
    /// SOP Instance UIDs of the earlier one's DICOM objects.
    pub instances: Vec<String>,
    /// Every object of all earlier ones, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<DicomUids>,
    /// Series Instance UID of the first source of all these results, when it is another one: their Series Numbers count on from its.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_source: Option<String>,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelEntry {
    /// Value in label maps.
    pub value: u16,
    /// Segment Number in `seg.dcm`.
    pub segment: u16,
    /// Name.
    pub name: String,
    /// Voxels.
    pub voxels: u64,
    /// Volume in ml; none when the structure was not found or is incomplete.
    pub volume_ml: Option<f64>,
    /// Whether it touches the edge of the image, so that a part of it may be missing.
    pub incomplete: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Name in the folder.
    pub file: String,
    /// `seg`, `labelmap`, `nifti`, `preview` or `rejection`.
    pub format: String,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// UIDs of a DICOM object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dicom: Option<DicomUids>,
}

/// UIDs of a DICOM object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DicomUids {
    /// SOP Class UID.
    pub sop_class: String,
    /// SOP Instance UID.
    pub sop_instance: String,
    /// Series Instance UID.
    pub series: String,
}

/// Name of the manifest in a result folder.
pub const FILE_NAME: &str = "manifest.json";

impl ResultManifest {
    /// What a new result of this series takes the place of, if this one is of the same volume of it.
    pub fn as_replaced(&self, series: &Series) -> Option<Replaced> {
        let Input::Dicom { series: inputs, .. } = &self.source else { return None };
        let same = |input: &InputSeries| input.uid == series.series_uid.as_str() && input.phase == series.phase;
        let first_source = self.replaces.as_ref().and_then(|r| r.first_source.clone());
        inputs.iter().any(same).then(|| self.replaced(first_source))
    }

    /// What a new result of another series takes the place of, which is better than the one (Series Instance UID, phase) that this is of; none
    /// when it is not of that one.
    pub fn as_outdone(&self, series: &str, phase: Option<u32>) -> Option<Replaced> {
        let Input::Dicom { series: inputs, .. } = &self.source else { return None };
        let first_source = self.replaces.as_ref().and_then(|r| r.first_source.clone());
        let of_it = inputs.iter().any(|input| input.uid == series && input.phase == phase);
        of_it.then(|| self.replaced(first_source.or_else(|| Some(series.to_owned()))))
    }

    fn replaced(&self, first_source: Option<String>) -> Replaced {
        let own = self.outputs.iter().filter(|o| o.format != REJECTION).filter_map(|o| o.dicom.clone());
        let own: Vec<DicomUids> = own.collect();
        let revision = self.replaces.as_ref().map_or(1, |r| r.revision) + 1;
        let instances = own.iter().map(|o| o.sop_instance.clone()).collect();
        let earlier = self.replaces.iter().flat_map(|r| r.objects.clone());
        Replaced { revision, instances, objects: earlier.chain(own).collect(), first_source }
    }

    /// For a result of the same volume with another identity: whether model, settings and writer are the same, so that only the copied
    /// attributes of the source, and what is odd about it, can differ.
    pub fn differs_only_in_header(&self, model_digest: &str, settings: &Settings) -> bool {
        self.model.digest == model_digest && self.settings == *settings && self.writer.version == WRITER_VERSION
    }

    /// Everything but the files, which are added once they are written.
    pub(super) fn new(
        request: &ResultRequest<'_>,
        found: &Found<'_>,
        volume_key: &[u8; 32],
        identity: String,
        digest: String,
    ) -> ResultManifest {
        let model = &request.model.manifest;
        let (labels, stats) = (found.labels, &found.stats);
        let source = match labels.source() {
            Source::Case(case) => {
                let series: Vec<_> = case.channels.iter().map(input_series).collect();
                let study = case.grid_series().map(|s| s.study_uid.to_string()).unwrap_or_default();
                Input::Dicom { study, series }
            }
            Source::Nifti { digest, .. } => Input::Nifti { sha256: hex(digest) },
        };
        let entry = |(label, (value, segment)): (&crate::models::Label, (u16, u16))| {
            let figures = stats.labels[usize::from(value)];
            let volume = (figures.voxels > 0 && !figures.touches_edge).then_some((figures.volume_ml * 1000.0).round() / 1000.0);
            let name = label.name.clone();
            LabelEntry { value, segment, name, voxels: figures.voxels, volume_ml: volume, incomplete: figures.touches_edge }
        };
        let [x, y, z] = labels.affine().spacing();
        ResultManifest {
            schema: 1,
            marking: (model.status == Status::Research).then(|| RESEARCH_MARK.to_owned()),
            volume_key: hex(volume_key),
            identity,
            labels_sha256: digest,
            created: dates_of(request, labels).rfc3339(),
            writer: Writer { name: "stunetd".into(), version: WRITER_VERSION.into() },
            model: Model {
                name: model.name.clone(),
                version: model.version.clone(),
                status: model.status,
                digest: request.model.digest.clone(),
                weights_sha256: model.weights.sha256.clone(),
            },
            settings: request.settings.clone(),
            device: request.device.clone(),
            source,
            replaces: request.replaces.clone(),
            shape: labels.shape(),
            spacing_mm: [z, y, x],
            labels: labels.table().iter().zip(segment_numbers(labels.table(), Kind::Binary)).map(entry).collect(),
            outputs: Vec::new(),
            warnings: found.warnings.clone(),
        }
    }
}

fn dates_of(request: &ResultRequest<'_>, labels: &LabelMap) -> JobDates {
    match labels.source() {
        Source::Case(case) => case.grid_series().map_or(request.dates, |s| request.dates.in_zone_of(&s.copied)),
        Source::Nifti { .. } => request.dates,
    }
}

fn input_series(series: &crate::series::Series) -> InputSeries {
    InputSeries {
        uid: series.series_uid.to_string(),
        modality: series.modality.clone(),
        planes: series.planes.len(),
        instances_sha256: series.instances_digest(),
        phase: series.phase,
    }
}
