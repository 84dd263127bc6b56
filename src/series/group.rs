//! From instances to series, by the rules of this room's other files, one series after the other.

use super::duplicates::{first_of_equal, unique_instances};
use super::eligible::{Values, hounsfield, is_localizer, unfit};
use super::geometry::{Stack, axes, stack};
use super::grids::{self, Grid};
use super::phases::{self, Member, Phases};
use super::types::{Grouped, Plane, PlaneDigest, Policy, Refusal, RejectedSeries, Series, is_derived};
use crate::dicom::{Instance, PhaseKey, PhaseValue, RefusedFile, SeriesKey, Uid};
use crate::fault::Code;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Builds the series of all studies among `instances`. `refused` are files that were refused before: they end up in
/// `ignored`, and a series that one of them is missing from is rejected. `digest` decodes one plane; it is only asked where one SOP
/// Instance UID or one position occurs twice.
pub fn group(instances: Vec<Instance>, refused: Vec<RefusedFile>, policy: &Policy, digest: PlaneDigest) -> Grouped {
    let mut broken: BTreeMap<SeriesKey, Vec<&RefusedFile>> = BTreeMap::new();
    for file in &refused {
        if let Some(key) = &file.member_of {
            broken.entry(key.clone()).or_default().push(file);
        }
    }
    let mut by_series: BTreeMap<SeriesKey, Vec<Instance>> = BTreeMap::new();
    for instance in instances {
        by_series.entry(key_of(&instance.study_uid, &instance.series_uid)).or_default().push(instance);
    }
    let mut out = Grouped::default();
    for (key, files) in &broken {
        let mut names: Vec<PathBuf> = files.iter().map(|f| f.relative.clone()).collect();
        names.extend(by_series.remove(key).unwrap_or_default().into_iter().map(|i| i.relative));
        let refusal = Refusal { code: files[0].code, detail: files[0].detail.clone() };
        out.rejected.push(RejectedSeries { key: key.clone(), refusal, files: names, series: None });
    }
    for (key, members) in by_series {
        one_series(&key, members, policy, digest, &mut out);
    }
    out.ignored.extend(refused);
    out.ignored.sort_by(|a, b| a.relative.cmp(&b.relative));
    out.series.sort_by(|a, b| {
        let order = |s: &Series| (s.study_uid.clone(), s.selection.series_number, s.series_uid.clone(), s.phase);
        order(a).cmp(&order(b))
    });
    out
}

fn key_of(study: &Uid, series: &Uid) -> SeriesKey {
    SeriesKey { study: study.to_string(), series: series.to_string() }
}

fn one_series(key: &SeriesKey, members: Vec<Instance>, policy: &Policy, digest: PlaneDigest, out: &mut Grouped) {
    let mut fit = Vec::with_capacity(members.len());
    let mut unfit_files = Vec::new();
    let mut first_reason = None;
    // Beside original images derived ones are not taken: they would be slices of one volume.
    let derived = policy.derived && members.iter().all(|i| unfit(i, false).is_some());
    for instance in members {
        match unfit(&instance, derived) {
            None => fit.push(instance),
            Some(why) => {
                unfit_files.push(instance.relative.clone());
                out.ignored.push(RefusedFile { relative: instance.relative, code: why.code, detail: why.detail.clone(), member_of: None });
                first_reason.get_or_insert(why);
            }
        }
    }
    let reject = |refusal: Refusal, files: Vec<PathBuf>| RejectedSeries { key: key.clone(), refusal, files, series: None };
    if fit.is_empty() {
        out.rejected.extend(first_reason.map(|why| reject(why, unfit_files)));
        return;
    }
    let files: Vec<PathBuf> = fit.iter().map(|i| i.relative.clone()).collect();
    if let Some(refusal) = of_whole_series(&fit, policy) {
        out.rejected.push(reject(refusal, files));
        return;
    }
    let instances = match unique_instances(fit, digest) {
        Ok(instances) => instances,
        Err(refusal) => {
            out.rejected.push(reject(refusal, files));
            return;
        }
    };
    let planes = instances
        .iter()
        .flat_map(|instance| instance.frames.iter().filter(|frame| !is_localizer(frame)).map(move |frame| Member { instance, frame }));
    let frames_of_reference: Vec<Vec<Grid>> = stacks(planes.collect()).into_iter().flat_map(grids::split).collect();
    let is_split = frames_of_reference.iter().map(Vec::len).sum::<usize>() > 1;
    for mut grids in frames_of_reference {
        let others = grids.split_off(1);
        for other in others {
            let detail = format!("{} images beside a stack of {}", other.members.len(), grids[0].members.len());
            out.rejected.push(reject(Refusal { code: Code::SeriesMixedGeometry, detail }, files_of(&other.members)));
        }
        for grid in grids {
            one_grid(key, grid.members, is_split, policy, digest, out);
        }
    }
}

/// The planes by modality and by Stack ID: what a multi-frame object says are several stacks are several volumes. Stacks over the same
/// positions are phases, and a Stack ID for every single frame says nothing: both are left together.
fn stacks(planes: Vec<Member>) -> Vec<Vec<Member>> {
    let mut by_modality: BTreeMap<&str, BTreeMap<String, Vec<Member>>> = BTreeMap::new();
    for member in planes {
        let stack = match member.frame.phase.get(PhaseKey::Stack) {
            Some(PhaseValue::Number(n)) => n.to_string(),
            Some(PhaseValue::Text(text)) => text.clone(),
            None => String::new(),
        };
        by_modality.entry(member.instance.object.modality()).or_default().entry(stack).or_default().push(member);
    }
    let mut out = Vec::new();
    for stacks in by_modality.into_values() {
        let places: Vec<BTreeSet<[i64; 3]>> = stacks.values().map(|s| s.iter().filter_map(place).collect()).collect();
        let repeated = places.iter().enumerate().any(|(i, p)| places[..i].contains(p));
        if repeated || stacks.values().all(|s| s.len() == 1) {
            out.push(stacks.into_values().flatten().collect());
        } else {
            out.extend(stacks.into_values());
        }
    }
    out
}

/// The position of a plane in steps of 0.1 mm.
fn place(member: &Member) -> Option<[i64; 3]> {
    member.frame.position.map(|p| p.map(|v| (v * 10.0).round() as i64))
}

fn files_of(members: &[Member]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = members.iter().map(|m| m.instance.relative.clone()).collect();
    files.sort();
    files.dedup();
    files
}

/// Reasons that concern a series as a whole, before anything is split.
fn of_whole_series(instances: &[Instance], policy: &Policy) -> Option<Refusal> {
    let planes: usize = instances.iter().map(|i| i.frames.len()).sum();
    if planes > policy.max_planes {
        let detail = format!("{planes} planes, the limit is {}", policy.max_planes);
        return Some(Refusal { code: Code::SeriesTooMany, detail });
    }
    let patient = |i: &Instance| i.copied.trimmed(0x0010, 0x0020).map(<[u8]>::to_vec);
    let mut patients = instances.iter().filter_map(patient);
    if let Some(first) = patients.next()
        && patients.any(|other| other != first)
    {
        return Some(Refusal { code: Code::SeriesPatientConflict, detail: "two values of Patient ID".into() });
    }
    let total = instances.iter().filter_map(|i| i.announced.in_concatenation).max();
    if let Some(total) = total.filter(|t| (instances.len() as u64) < u64::from(*t)) {
        let detail = format!("{} of {total} parts of a concatenation", instances.len());
        return Some(Refusal { code: Code::SeriesMissingSlice, detail });
    }
    let uncorrected =
        |i: &Instance| i.pet.as_ref().is_some_and(|p| !p.corrected_image.is_empty() && !p.corrected_image.iter().any(|c| c == "ATTN"));
    if instances.iter().any(uncorrected) {
        return Some(Refusal { code: Code::SeriesNotAttenuationCorrected, detail: "ATTN is not in Corrected Image".into() });
    }
    None
}

/// The planes of one grid: one volume, several phases, or a reason.
fn one_grid(key: &SeriesKey, members: Vec<Member>, is_split: bool, policy: &Policy, digest: PlaneDigest, out: &mut Grouped) {
    let files = files_of(&members);
    let reject = |refusal: Refusal| RejectedSeries { key: key.clone(), refusal, files: files.clone(), series: None };
    let mut normal = [0.0; 3];
    for member in &members {
        match axes(member.frame) {
            Ok(axes) => normal = axes.normal,
            Err(refusal) => return out.rejected.push(reject(refusal)),
        }
    }
    let count = members.len();
    let mut warnings = if is_split { vec!["series_split"] } else { Vec::new() };
    if announced(members[0].instance).is_some_and(|n| n > count as u64) {
        warnings.push("fewer_images_than_announced");
    }
    let parts = match phases::split(members, normal) {
        Phases::One(members) => vec![members],
        Phases::Many(parts) => parts,
        Phases::Flat => {
            let detail = format!("{count} images at one position");
            return out.rejected.push(reject(Refusal { code: Code::SeriesNotVolume, detail }));
        }
        Phases::Unclear { positions, uneven } => match first_of_equal(positions, digest) {
            Ok(Some(members)) => {
                warnings.push("duplicate_positions");
                vec![members]
            }
            Ok(None) => {
                let code = if uneven { Code::SeriesMultiTemporal } else { Code::SeriesDuplicatePositions };
                return out.rejected.push(reject(Refusal { code, detail: format!("{count} images") }));
            }
            Err(refusal) => return out.rejected.push(reject(refusal)),
        },
    };
    let many = parts.len() > 1;
    for (index, part) in parts.into_iter().enumerate() {
        match build(&part, many.then_some(index as u32 + 1), &warnings, policy) {
            Ok((series, None)) => out.series.push(series),
            Ok((series, Some(refusal))) => {
                let rejected = RejectedSeries { series: Some(Box::new(series)), files: files_of(&part), ..reject(refusal) };
                out.rejected.push(rejected);
            }
            Err(refusal) => out.rejected.push(RejectedSeries { files: files_of(&part), ..reject(refusal) }),
        }
    }
}

/// The series of ordered planes, and why it is refused although its geometry is known.
fn build(members: &[Member], phase: Option<u32>, warnings: &[&str], policy: &Policy) -> Result<(Series, Option<Refusal>), Refusal> {
    let first = members[0];
    let instance = first.instance;
    let axes = axes(first.frame)?;
    let positions: Vec<[f64; 3]> = members.iter().filter_map(|m| m.frame.position).collect();
    let (rows, columns) = (instance.pixels.rows.into(), instance.pixels.columns.into());
    let Stack { geometry, warnings: more, mut refusal } = stack(&axes, &positions, rows, columns, first.frame.slice_thickness, policy)?;
    let mut warnings: Vec<String> = warnings.iter().chain(&more).map(|w| (*w).to_owned()).collect();
    let lossy = members.iter().any(|m| m.instance.lossy);
    if lossy {
        warnings.push("lossy_source".into());
    }
    if members.iter().any(|m| m.instance.object.modality() == "CT" && is_derived(&m.instance.image_type)) {
        warnings.push("derived_source".into());
    }
    let mut hold = None;
    if instance.object.modality() == "CT" {
        match hounsfield(members.iter().map(|m| (m.instance, m.frame))) {
            Values::Hu => {}
            Values::Doubtful(why, warning) => {
                warnings.push(warning.into());
                hold = Some(why);
            }
            Values::Other(why) => refusal = refusal.or(Some(why)),
        }
    }
    let unit = match &instance.pet {
        Some(pet) => pet.units.clone(),
        None => first.frame.rescale_type.clone().unwrap_or_else(|| "HU".into()),
    };
    let series = Series {
        study_uid: instance.study_uid.clone(),
        series_uid: instance.series_uid.clone(),
        frame_of_reference_uid: instance.frame_of_reference_uid.clone(),
        modality: instance.object.modality().into(),
        planes: members.iter().zip(positions).map(|(m, position)| plane(m, position)).collect(),
        geometry,
        lossy,
        pet: instance.pet.as_deref().cloned(),
        warnings,
        copied: instance.copied.clone(),
        selection: instance.selection.clone(),
        image_type: instance.image_type.clone(),
        phase,
        unit,
        hold,
    };
    Ok((series, refusal))
}

/// How many images the sender said one series has. What other attributes say is too often wrong.
fn announced(instance: &Instance) -> Option<u64> {
    let a = instance.announced;
    let pet = a.slices.map(|s| u64::from(s) * u64::from(a.time_slices.unwrap_or(1)) * u64::from(a.time_slots.unwrap_or(1)));
    pet.or(a.in_series.map(u64::from))
}

fn plane(member: &Member, position: [f64; 3]) -> Plane {
    let Member { instance, frame } = member;
    Plane {
        path: instance.path.clone(),
        sop_class_uid: instance.sop_class_uid.clone(),
        sop_instance_uid: instance.sop_instance_uid.clone(),
        frame: frame.number,
        position,
        instance_number: instance.instance_number,
        pixels: instance.pixels.clone(),
        rescale: frame.rescale,
        timing: frame.timing,
    }
}

/// One case per series for models with one channel, and the series that may not be segmented.
///
/// Pairs of series for models with more channels need the model's own list of modalities.
pub fn candidate_cases(series: Vec<Series>) -> Candidates {
    let (held, free): (Vec<Series>, Vec<Series>) = series.into_iter().partition(|s| s.hold.is_some());
    let cases = free.into_iter().map(|s| super::Case { channels: vec![s], grid: 0, volume_key: [0; 32] }).collect();
    Candidates { cases, held }
}

/// What `candidate_cases` finds.
#[derive(Debug, Default)]
pub struct Candidates {
    /// Inputs of one channel. The volume key is zero until the voxels are decoded.
    pub cases: Vec<super::Case>,
    /// Series whose values are not known to be HU: see their `hold`.
    pub held: Vec<Series>,
}
