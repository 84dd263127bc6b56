//! From a folder with labels to a case.

use super::plausible::implausible;
use super::record::{CaseRecord, LabelRecord, Technical};
use super::stored::{write_labels, write_record, write_volume};
use super::{Link, Store, Stored, sources};
use crate::dicom::CopiedAttributes;
use crate::fault::{Code, Fault};
use crate::intake::scan::{Scan, ScanLimits, scan};
use crate::intake::select::{Rule, Verdict, select};
use crate::models::Generation;
use crate::results::{self, ResultManifest};
use crate::segment::{Engine, SegmentOptions};
use crate::series::{self, Case, Grouped, Policy, Series};
use crate::sys::durable::{self, StagingDir};
use crate::training::cases::{CaseError, ImageGrid, Likeness, Plausible, SignOff, admit, label_digest, map_structures, millilitres};
use crate::volume::decode::{Decoder, plane_digest};
use crate::volume::{self, LabelMap, Labels, Limits, ReadLimits, Source, Volume};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file beside the labels, and largest manifest of a result.
const MAX_TOML: u64 = 1 << 20;
const MAX_MANIFEST: u64 = 16 << 20;

/// Makes cases.
pub struct Curator<'a> {
    /// Where they go.
    pub store: &'a Store,
    /// Whose labels cases have: the base model that is configured.
    pub model: &'a Arc<Generation>,
    /// Runs that model, or none: cases that are made without can not be prepared before it was asked.
    pub engine: Option<&'a mut dyn Engine>,
    /// How it runs.
    pub options: SegmentOptions,
    /// Runs the codecs.
    pub decoder: &'a Decoder,
    /// Folders in which images are looked for that do not lie beside their labels.
    pub places: &'a [PathBuf],
    /// Where results are published: labels are compared with the result that their image has there.
    pub results: Option<&'a Path>,
    /// What series have to be like.
    pub policy: Policy,
}

/// `structures.toml` beside labels whose names and codes do not say what they are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Explicit {
    /// Number in the file (segment, ROI, label value) → name of the model's label.
    #[serde(default)]
    structures: BTreeMap<String, String>,
}

/// A case that was made.
#[derive(Debug)]
pub struct Admitted {
    /// The case.
    pub stored: Stored,
    /// Why the record that lay beside the labels does not hold.
    pub problem: Option<Fault>,
}

/// An image whose labels were found.
struct Found {
    volume: Volume,
    case: Box<Case>,
}

impl Curator<'_> {
    /// Makes a case of what lies in a folder: label objects, the image that they were drawn on unless it lies in one of the places, and perhaps
    /// `signoff.toml` and `structures.toml`. `inactive` tells which cases were given up: their images may come again. The same folder
    /// gives the same case; `print` says what it was like.
    ///
    /// # Errors
    /// `cases.*`; the codes for which series are refused; `disk.*`.
    pub fn admit(&mut self, folder: &Path, print: &str, inactive: &dyn Fn(&str) -> bool) -> Result<Admitted, Fault> {
        let explicit = self.explicit(folder)?;
        let signoff = text_beside(folder, "signoff.toml")?.map(|text| SignOff::parse(&text)).transpose()?;
        let found = scan(folder, &ScanLimits::default())?;
        let root = std::fs::canonicalize(folder).map_err(durable::StorageError::at(durable::Step::Read, folder))?;
        let others: Vec<PathBuf> = found.ignored.iter().map(|file| root.join(&file.relative)).collect();
        let labels = sources::read_all(&others)?;
        let image = self.image(found, &labels)?;
        let grid = ImageGrid::from(&image.volume);
        let mut structures = Vec::new();
        for source in &labels {
            structures.extend(source.structures(&grid)?);
        }
        let table = &self.model.manifest.labels;
        let mapped = map_structures(&structures, table, &explicit, &grid)?;
        let mut record = self.record(&image)?;
        let digest = label_digest(&mapped.labels);
        let name = self.store.case_name(&record.volume, &digest);
        let stored = match self.store.case(&name) {
            Ok(stored) => {
                self.store.link(line(&name, (folder, print), &image.case))?;
                stored
            }
            Err(_) => {
                let known = self.known(&record.volume, inactive)?;
                // An image too small for a fingerprint is found only when it is the very same.
                if let Some(likeness) = record.likeness {
                    admit(&mapped, &grid, &Plausible::new(), &[], &likeness, &known)?;
                }
                let millilitres = millilitres(&mapped, &grid);
                let names = |values: Vec<u16>| values.into_iter().filter_map(|v| table.get(v)).map(|label| label.name.clone()).collect();
                record.labels = Some(LabelRecord {
                    sources: labels.iter().map(|source| source.kind().to_string()).collect(),
                    files: labels.iter().map(|source| source.digest.clone()).collect(),
                    digest,
                    found: names(mapped.found.iter().copied().collect()),
                    left_out: mapped.left_out.len(),
                    contested: mapped.contested,
                    implausible: implausible(&mapped, &millilitres, &grid, table),
                    millilitres: millilitres.iter().filter_map(|(v, ml)| Some((table.get(*v)?.name.clone(), *ml))).collect(),
                });
                self.keep(&name, (folder, print), image, record, Some(&mapped.labels))?
            }
        };
        // A record that does not hold is told, and the case waits for a better one.
        let problem = signoff.and_then(|signoff| stored.keep_record(signoff, self.model).err());
        match problem {
            Some(fault) if fault.code.area() != "cases" => Err(fault),
            problem => Ok(Admitted { stored, problem }),
        }
    }

    /// The study that the labels in a folder say they are of.
    pub fn study_of(folder: &Path) -> Option<String> {
        let root = std::fs::canonicalize(folder).ok()?;
        let found = scan(&root, &ScanLimits::default()).ok()?;
        let others: Vec<PathBuf> = found.ignored.iter().map(|file| root.join(&file.relative)).collect();
        sources::read_all(&others).ok()?.iter().find_map(sources::Source::study).map(ToString::to_string)
    }

    /// Keeps an image without labels: for rehearsal, and to see whether models agree. Its series are those of the model's channels.
    ///
    /// # Errors
    /// `cases.duplicate` for an image that is a case; the codes for which series are refused; `disk.*`.
    pub fn keep_study(&mut self, channels: Vec<Series>, inactive: &dyn Fn(&str) -> bool) -> Result<Stored, Fault> {
        let image = self.read(channels)?;
        let record = self.record(&image)?;
        let name = self.store.case_name(&record.volume, "");
        if let Ok(stored) = self.store.case(&name) {
            return Ok(stored);
        }
        let known = self.known(&record.volume, inactive)?;
        if let Some((other, _)) = known.iter().find(|(_, other)| record.likeness.is_some_and(|own| own.is_like(other))) {
            return Err(CaseError::Duplicate(other.clone()).into());
        }
        self.keep(&name, (Path::new(""), ""), image, record, None)
    }

    /// Writes a case, with the model's own labels where the model can be run, and the line that tells whose it is.
    fn keep(&mut self, name: &str, from: (&Path, &str), image: Found, record: CaseRecord, labels: Option<&[u16]>) -> Result<Stored, Fault> {
        let Found { volume, case } = image;
        let cases = durable::parent(&self.store.folder_of(name)).to_path_buf();
        let mut staging = StagingDir::new_in(&cases)?;
        write_volume(&staging.path().join("image.nii.gz"), &volume)?;
        if let Some(labels) = labels {
            write_labels(&staging.path().join("labels.nii.gz"), labels, volume.shape, volume.affine)?;
        }
        write_record(staging.path(), &record)?;
        let mut staged = Stored { name: name.into(), folder: staging.path().into(), record };
        if let Some((model, own)) = self.published(&volume, &case).filter(|_| labels.is_some()) {
            staged.compare(&model, &self.model.manifest.labels, &own)?;
        }
        if let Some(engine) = &mut self.engine {
            let prepared = volume::prepare(&volume, &self.model.manifest, &Limits::default())?;
            drop(volume);
            let own = engine.segment(prepared, self.options, &mut |_| true)?;
            staged.keep_model_labels(self.model, &values_of(&own))?;
        }
        // The table first: a case whose person is not known could not be purged.
        self.store.link(line(name, from, &case))?;
        staging.publish(&self.store.folder_of(name))?;
        self.store.case(name)
    }

    /// What was published for the volume: the model's digest and its labels.
    fn published(&self, volume: &Volume, case: &Case) -> Option<(String, Vec<u16>)> {
        let folder = self.results?.join(results::folder_of(&case.volume_key));
        let file = std::fs::File::open(folder.join(results::MANIFEST_FILE)).ok()?;
        let manifest: ResultManifest = serde_json::from_reader(file.take(MAX_MANIFEST)).ok()?;
        let labels = results::restore(&folder, &manifest, volume, &self.model.manifest.labels)?;
        Some((manifest.model.digest, values_of(&labels)))
    }

    fn explicit(&self, folder: &Path) -> Result<BTreeMap<i64, u16>, Fault> {
        let Some(text) = text_beside(folder, "structures.toml")? else { return Ok(BTreeMap::new()) };
        let wrong = |what: &str| Fault::from(CaseError::SignOff(format!("structures.toml: {what}")));
        let explicit: Explicit = toml::from_str(&text).map_err(|_| wrong("it can not be read"))?;
        let one = |(number, name): (&String, &String)| {
            let number = number.parse().map_err(|_| wrong("a key is not a number"))?;
            let label = self.model.manifest.labels.iter().find(|label| label.name == *name);
            Ok((number, label.ok_or_else(|| wrong("it names a class that the model does not have"))?.value))
        };
        explicit.structures.iter().map(one).collect()
    }

    /// The image that the labels were drawn on: beside them, else in the other places.
    fn image(&self, beside: Scan, labels: &[sources::Source]) -> Result<Found, Fault> {
        let mut looked = 0;
        let mut scan_of_place = Some(beside);
        for place in std::iter::once(None).chain(self.places.iter().map(Some)) {
            let found = match (place, scan_of_place.take()) {
                (None, Some(beside)) => beside,
                (Some(place), _) => scan(place, &ScanLimits::default())?,
                (None, None) => continue,
            };
            looked += found.instances.len();
            match self.image_among(found, labels, place.is_some())? {
                Some(channels) => return self.read(channels),
                None => continue,
            }
        }
        Err(CaseError::NoImage(format!("none of {looked} images is one that the labels name")).into())
    }

    /// The channels of the image that all labels may be of, if it is among these files; elsewhere labels have to name it.
    fn image_among(&self, found: Scan, labels: &[sources::Source], elsewhere: bool) -> Result<Option<Vec<Series>>, Fault> {
        let study = labels.iter().find_map(sources::Source::study).cloned();
        let Scan { mut instances, mut ignored } = found;
        if elsewhere {
            let Some(study) = &study else { return Ok(None) };
            instances.retain(|instance| instance.study_uid == *study);
            ignored.retain(|file| file.member_of.as_ref().is_some_and(|key| key.study == study.as_str()));
        }
        let files = ScanLimits::default().file;
        let digest = |path: &Path, frame: u32, format: &crate::dicom::PixelFormat| plane_digest(path, frame, format, &files, self.decoder);
        let Grouped { series, rejected, .. } = series::group(instances, ignored, &self.policy, &digest);
        let of_all = |series: &Series| labels.iter().all(|source| source.may_be_of(series));
        let rules = [Rule::all(self.model.clone())];
        let all: Vec<&Series> = series.iter().collect();
        let mut refusal = None;
        for (one, verdict) in all.iter().zip(select(&rules, &all)) {
            if !of_all(one) {
                continue;
            }
            upright(one)?;
            if let Verdict::Selected { channels, .. } = verdict {
                return Ok(Some(channels.into_iter().filter_map(|i| series.get(i).cloned()).collect()));
            }
            refusal = verdict.refusal(&rules, &all).or(refusal);
        }
        let unfit = rejected.iter().find(|r| r.series.as_deref().is_some_and(of_all));
        match refusal.or_else(|| unfit.map(|r| r.refusal.clone())) {
            Some(refusal) => Err(Fault::new(refusal.code, refusal.detail)),
            // All that lies beside NIfTI labels is refused: say why.
            None if !elsewhere && series.is_empty() => match rejected.into_iter().next() {
                Some(rejected) => Err(Fault::new(rejected.refusal.code, rejected.refusal.detail)),
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    fn read(&self, channels: Vec<Series>) -> Result<Found, Fault> {
        channels.iter().try_for_each(upright)?;
        let case = Case { channels, grid: self.model.manifest.preprocessing.grid_channel, volume_key: [0; 32] };
        let volume = volume::read(case, &ReadLimits::default(), self.decoder)?;
        let Source::Case(case) = &volume.source else { return Err(Fault::new(Code::InternalBug, "A series gave no case.")) };
        if let Some(hold) = case.channels.iter().find_map(|series| series.hold.as_ref()) {
            return Err(Fault::new(hold.code, hold.detail.clone()));
        }
        let case = case.clone();
        Ok(Found { volume, case })
    }

    fn record(&self, image: &Found) -> Result<CaseRecord, Fault> {
        let Some(series) = image.case.grid_series() else { return Err(Fault::new(Code::InternalBug, "A case without a series.")) };
        let [issuer, patient_id] = identity(&image.case);
        // Without a Patient ID the study stands for the person: its other studies can not be known.
        let patient = match patient_id.is_empty() {
            true => self.store.pseudonym("nobody", series.study_uid.as_str()),
            false => self.store.patient(&issuer, &patient_id),
        };
        let key: String = image.case.volume_key.iter().map(|byte| format!("{byte:02x}")).collect();
        let frame = series.frame_of_reference_uid.as_ref();
        Ok(CaseRecord {
            schema: 1,
            patient,
            study: self.store.pseudonym("study", series.study_uid.as_str()),
            frame_of_reference: frame.map(|uid| self.store.pseudonym("frame", uid.as_str())),
            volume: self.store.pseudonym("volume", &key),
            likeness: Likeness::of(&image.volume.data, image.volume.shape),
            shape: image.volume.shape,
            spacing: image.volume.spacing_zyx(),
            channels: image.volume.channels,
            labels: None,
            changed: BTreeMap::new(),
            technical: Technical::of(series),
        })
    }

    /// The likenesses of the labelled cases that count; the very same volume is a duplicate without one, too.
    fn known(&self, volume: &str, inactive: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Likeness)>, Fault> {
        let cases = self.store.cases()?;
        let mut active = cases.iter().filter(|case| case.is_labelled() && !inactive(&case.name));
        if let Some(same) = active.clone().find(|case| case.record.volume == volume) {
            return Err(CaseError::Duplicate(same.name.clone()).into());
        }
        Ok(active.by_ref().filter_map(|case| Some((case.name.clone(), case.record.likeness?))).collect())
    }
}

/// The line of the table that tells where a case came from.
fn line(name: &str, (folder, print): (&Path, &str), case: &Case) -> Link {
    let [issuer, patient_id] = identity(case);
    Link {
        case: name.into(),
        folder: folder.into(),
        print: print.into(),
        issuer,
        patient_id,
        study: case.grid_series().map(|series| series.study_uid.to_string()).unwrap_or_default(),
        series: case.channels.iter().map(|series| series.series_uid.to_string()).collect(),
    }
}

/// Labels are not brought onto slices that have to be made upright or even first.
fn upright(series: &Series) -> Result<(), CaseError> {
    match series.geometry.sheared || !series.geometry.uniform_spacing {
        true => Err(CaseError::Geometry("the image's slices are tilted or uneven; labels on them are not learned from".into())),
        false => Ok(()),
    }
}

fn values_of(labels: &LabelMap) -> Vec<u16> {
    match labels.labels() {
        Labels::U8(values) => values.iter().map(|&v| v.into()).collect(),
        Labels::U16(values) => values.clone(),
    }
}

/// Issuer of Patient ID and Patient ID, as far as they are given.
fn identity(case: &Case) -> [String; 2] {
    let copied = case.grid_series().map(|series| &series.copied);
    let text = |copied: &CopiedAttributes, element| copied.trimmed(0x0010, element).map(|v| String::from_utf8_lossy(v).into_owned());
    [0x0021, 0x0020].map(|element| copied.and_then(|copied| text(copied, element)).unwrap_or_default())
}

/// The text of a small file in the folder, if it is there.
fn text_beside(folder: &Path, name: &str) -> Result<Option<String>, Fault> {
    let path = folder.join(name);
    let mut text = String::new();
    match std::fs::File::open(&path).and_then(|file| file.take(MAX_TOML).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(durable::StorageError::at(durable::Step::Read, &path)(e).into()),
    }
}
