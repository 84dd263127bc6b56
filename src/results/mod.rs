//! What leaves the house: DICOM-SEG, label map, NIfTI labels, preview picture, manifest. Identity is deterministic: the same
//! voxels, model and settings give the same UIDs and, with the same job dates, the same bytes.
//!
//! Results are written into a staging folder; `delivery` publishes it.

mod colour;
mod common;
mod dates;
mod identity;
mod manifest;
mod preview;
mod rejection;
mod restore;
mod segmentation;
mod shares;
mod stats;

pub use colour::cielab;
pub use dates::JobDates;
pub use identity::{Identity, WRITER_VERSION};
pub use manifest::{
    DicomUids, FILE_NAME as MANIFEST_FILE, Input, InputSeries, LabelEntry, Model, Output, Replaced, ResultManifest, Writer,
};
pub use preview::{Canvas, Font, Rgb};
pub use rejection::{REJECTION, REJECTION_FILE};
pub use restore::restore;
pub use segmentation::{INCOMPLETE, RESEARCH_MARK, segment_numbers};
pub use shares::{Share, Wanted};
pub use stats::{LabelFigures, Stats};

use crate::config::Format;
use crate::dicom::CopiedAttributes;
use crate::dicom::seg::WriteError;
use crate::fault::{Code, Fault};
use crate::models::{Generation, Label, Manifest, OnUnknown};
use crate::series::{Case, Irregular};
use crate::sys::durable::{self, Step, StorageError};
use crate::volume::{LabelMap, Labels, Source, Volume, nifti};
use identity::hex;
use rayon::prelude::*;
use segmentation::ObjectUids;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The settings in force, after `auto` was resolved: part of a result's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Distance of windows as a share of the patch.
    pub step: f64,
    /// Whether mirrored copies were averaged.
    pub mirror: bool,
    /// Whether windows were laid only over what is more than air; told where it is so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_air: bool,
    /// Number format of the network: `f32`, `bf16` or `f16`.
    pub precision: String,
    /// What was allowed for uneven slice distances.
    pub irregular: Irregular,
    /// Whether an injected dose below 10 kBq was taken as MBq; told where it was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assume_mbq: bool,
}

impl Settings {
    /// One text for one choice of settings.
    fn canonical(&self) -> String {
        let skip_air = if self.skip_air { " skip_air" } else { "" };
        let assume_mbq = if self.assume_mbq { " assume_mbq" } else { "" };
        format!(
            "step={:016x} mirror={} precision={} irregular={:?}{skip_air}{assume_mbq}",
            self.step.to_bits(),
            self.mirror,
            self.precision,
            self.irregular
        )
    }
}

/// What is to be written, and what the results say about how they came about.
#[derive(Clone, Debug)]
pub struct ResultRequest<'a> {
    /// The model that made the labels.
    pub model: &'a Generation,
    /// The settings in force.
    pub settings: Settings,
    /// Files to write beside `manifest.json`.
    pub formats: &'a [Format],
    /// When the job was taken up.
    pub dates: JobDates,
    /// Where the network ran, for information: `cpu`, `cuda:0`.
    pub device: String,
    /// The earlier result that this one takes the place of, if there is one.
    pub replaces: Option<Replaced>,
    /// What destinations get beside, or in place of, whole objects.
    pub wanted: &'a Wanted,
}

/// Files in a folder, synced, with what they are.
#[derive(Clone, Debug)]
pub struct Results {
    /// The folder they lie in.
    pub dir: PathBuf,
    /// Name of the folder they are to be published as: the first eight hexadecimal digits of the VolumeKey.
    pub folder: String,
    /// The manifest, as it lies in the folder.
    pub manifest: ResultManifest,
}

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A case without series.
    #[error("the labels belong to no series")]
    NoSeries,
    /// The DICOM object.
    #[error(transparent)]
    Object(#[from] WriteError),
    /// The picture.
    #[error("the preview can not be encoded: {0}")]
    Preview(#[from] png::EncodingError),
    /// The manifest.
    #[error("the manifest can not be encoded: {0}")]
    Manifest(#[from] serde_json::Error),
    /// A file.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ResultsError> for Fault {
    fn from(error: ResultsError) -> Fault {
        match error {
            ResultsError::Storage(e) | ResultsError::Object(WriteError::Storage(e)) => e.into(),
            ResultsError::Object(e @ WriteError::TooLarge { .. }) => Fault::new(Code::ResultsTooLarge, e.to_string()).caused_by(e),
            ResultsError::NoSeries
            | ResultsError::Object(WriteError::Description(_))
            | ResultsError::Preview(_)
            | ResultsError::Manifest(_) => Fault::new(Code::InternalBug, error.to_string()).caused_by(error),
        }
    }
}

/// Name of a format's file in a result folder.
pub fn file_name(format: Format) -> &'static str {
    match format {
        Format::Seg => "seg.dcm",
        Format::LabelMap => "labelmap.dcm",
        Format::Nifti => "labels.nii.gz",
        Format::Preview => "preview.png",
    }
}

/// The formats that a source allows, of those asked for. DICOM objects need a DICOM source, and where nothing else was asked for a
/// NIfTI source gives the label map and the picture. NIfTI has one distance for all slices: a series whose distances differ gives none.
pub fn possible_formats(formats: &[Format], source: &Source) -> Vec<Format> {
    let mut possible = formats.to_vec();
    match source {
        Source::Case(case) if case.grid_series().is_some_and(|s| !s.geometry.uniform_spacing) => possible.retain(|f| *f != Format::Nifti),
        Source::Case(_) => {}
        Source::Nifti { .. } => {
            possible.retain(|f| !matches!(f, Format::Seg | Format::LabelMap));
            if possible.len() < formats.len() {
                possible.extend([Format::Nifti, Format::Preview]);
            }
        }
    }
    possible.sort();
    possible.dedup();
    possible
}

/// What was found: labels, their figures, and what has to be told with them.
struct Found<'a> {
    labels: &'a LabelMap,
    stats: Stats,
    /// Stable codes, ascending.
    warnings: Vec<String>,
}

impl<'a> Found<'a> {
    /// With `scope.expects` the image itself has to show the anatomy that the model is made for: one of those labels, not cut by the edge.
    fn of(labels: &'a LabelMap, manifest: &Manifest) -> Result<Found<'a>, Fault> {
        let stats = Stats::of(labels);
        let mut warnings = warnings_of(labels.source());
        let expects = &manifest.scope.expects;
        let is_whole = |label: &Label| stats.labels.get(usize::from(label.value)).is_some_and(|f| f.voxels > 0 && !f.touches_edge);
        if !expects.is_empty() && !labels.table().iter().any(|label| expects.contains(&label.name) && is_whole(label)) {
            if manifest.scope.on_unknown == OnUnknown::Refuse {
                let detail = format!("None of {} was found whole (model `{}`)", expects.join(", "), manifest.name);
                return Err(Fault::new(Code::ScopeAnatomy, detail));
            }
            warnings.push("anatomy_unconfirmed".into());
            warnings.sort();
        }
        Ok(Found { labels, stats, warnings })
    }
}

/// What names the voxels of a source, and the attributes that its results repeat.
pub fn key_of(source: &Source) -> (&[u8; 32], &CopiedAttributes) {
    const NONE: &CopiedAttributes = &CopiedAttributes { elements: Vec::new() };
    match source {
        Source::Case(case) => (&case.volume_key, case.grid_series().map_or(NONE, |s| &s.copied)),
        Source::Nifti { digest, .. } => (digest, NONE),
    }
}

/// What is odd about a source, as stable codes: ascending, each once.
pub fn warnings_of(source: &Source) -> Vec<String> {
    let Source::Case(case) = source else { return Vec::new() };
    let warnings: BTreeSet<&String> = case.channels.iter().flat_map(|s| &s.warnings).collect();
    warnings.into_iter().cloned().collect()
}

/// Name of the folder that results of these voxels are published as.
pub fn folder_of(volume_key: &[u8; 32]) -> String {
    hex(&volume_key[..4])
}

/// Writes the results of one volume into `dir`, each file synced: the formats asked for as far as the source allows them
/// ([`possible_formats`]), and `manifest.json`. `scope.anatomy` when the labels show that the model is not made for the image.
pub fn build(labels: &LabelMap, volume: &Volume, request: &ResultRequest<'_>, dir: &Path) -> Result<Results, Fault> {
    let (volume_key, copied) = key_of(labels.source());
    let identity = Identity::new(volume_key, &request.model.digest, &request.settings, copied, &warnings_of(labels.source()));
    let formats = possible_formats(request.formats, labels.source());
    let found = Found::of(labels, &request.model.manifest)?;
    let (digest, prepared) = rayon::join(|| labels_digest(labels), || write_dicom(&formats, &found, request, &identity, dir));
    let mut outputs = prepared?;
    let rest: Vec<Format> = formats.into_iter().filter(|f| matches!(f, Format::Nifti | Format::Preview)).collect();
    let others: Vec<Output> = rest
        .into_par_iter()
        .map(|format| {
            let path = dir.join(file_name(format));
            match format {
                Format::Nifti => write_nifti(&path, labels)?,
                _ => durable::write_file(&path, &preview::render(labels, volume, &found.stats, &request.model.manifest)?)?,
            }
            output(format.name(), file_name(format), &path, None)
        })
        .collect::<Result<_, ResultsError>>()?;
    outputs.extend(others);

    let mut manifest = ResultManifest::new(request, &found, volume_key, identity.hex(), digest);
    let left_out = request.formats.iter().filter(|f| !outputs.iter().any(|o| o.format == f.name()));
    manifest.warnings.extend(left_out.map(|f| format!("left_out_{f}")));
    manifest.outputs = outputs;
    write_manifest(&dir.join(MANIFEST_FILE), &manifest)?;
    Ok(Results { dir: dir.to_path_buf(), folder: folder_of(volume_key), manifest })
}

/// Writes a manifest, one key a line.
pub fn write_manifest(path: &Path, manifest: &ResultManifest) -> Result<(), Fault> {
    let mut text = serde_json::to_vec_pretty(manifest).map_err(ResultsError::from)?;
    text.push(b'\n');
    Ok(durable::write_file(path, &text)?)
}

/// The DICOM objects: of the formats asked for, what destinations want in their place, and a note that rejects earlier ones. Where all
/// segments do not fit into one object, a label map stands for them.
fn write_dicom(
    formats: &[Format],
    found: &Found<'_>,
    request: &ResultRequest<'_>,
    identity: &Identity,
    dir: &Path,
) -> Result<Vec<Output>, ResultsError> {
    let case: &Case = match found.labels.source() {
        Source::Case(case) => case,
        Source::Nifti { .. } => return Ok(Vec::new()),
    };
    let source = shares::Source { case, found, request, identity, dir };
    let whole = |format| source.write(&Share { format, labels: Vec::new(), limit: None });
    let mut outputs = Vec::new();
    for &format in formats.iter().filter(|f| f.is_dicom()) {
        match whole(format) {
            Ok(written) => outputs.extend(written),
            Err(ResultsError::Object(WriteError::TooLarge { .. })) if format == Format::Seg => {
                if !formats.contains(&Format::LabelMap) {
                    outputs.extend(whole(Format::LabelMap)?);
                }
            }
            Err(error) => return Err(error),
        }
    }
    source.add(&request.wanted.shares, &mut outputs)?;
    if let (true, Some(replaces)) = (request.wanted.rejections, &request.replaces) {
        let series = case.grid_series().ok_or(ResultsError::NoSeries)?;
        let path = dir.join(REJECTION_FILE);
        let uids = rejection::write(&path, series, replaces, request, identity)?;
        outputs.extend(uids.map(|uids| output(REJECTION, REJECTION_FILE, &path, Some(uids))).transpose()?);
    }
    Ok(outputs)
}

fn write_nifti(path: &Path, labels: &LabelMap) -> Result<(), ResultsError> {
    durable::write_file_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let written = nifti::write_labels(&mut out, labels).and_then(|()| out.flush());
        written.map_err(|e| StorageError::at(Step::Write, path)(e).into())
    })
}

fn output(format: &str, file: &str, path: &Path, uids: Option<ObjectUids>) -> Result<Output, ResultsError> {
    let (bytes, sha256) = file_digest(path)?;
    let dicom =
        uids.map(|u| DicomUids { sop_class: u.sop_class.into(), sop_instance: u.sop_instance.to_string(), series: u.series.to_string() });
    Ok(Output { file: file.into(), format: format.into(), bytes, sha256, dicom })
}

/// Size and SHA-256 of a file.
pub fn file_digest(path: &Path) -> Result<(u64, String), StorageError> {
    let mut file = std::fs::File::open(path).map_err(StorageError::at(Step::Read, path))?;
    let (mut hash, mut buffer, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let n = file.read(&mut buffer).map_err(StorageError::at(Step::Read, path))?;
        if n == 0 {
            return Ok((bytes, hex(&hash.finalize())));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// SHA-256 over shape `[z, y, x]` (64 bits each) and values (8 or 16 bits each), little endian.
/// SHA-256 over a label map's shape and values, hexadecimal.
pub fn labels_digest(labels: &LabelMap) -> String {
    let mut hash = Sha256::new();
    labels.shape().iter().for_each(|&n| hash.update((n as u64).to_le_bytes()));
    match labels.labels() {
        Labels::U8(v) => hash.update(v),
        Labels::U16(v) => v.chunks(1 << 16).for_each(|c| hash.update(c.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())),
    }
    hex(&hash.finalize())
}
