//! From files of scores to what the gates judge.

use super::measure::{folder_of, labels_file, read_labels, read_score};
use super::{CHANGES, Change, Request, Subject};
use crate::fault::Fault;
use crate::training::gates::{Emptiness, Evaluation, Patient, Perturbation, Score, Technical, dice};
use crate::volume::nifti;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Inputs in which nothing is to be found, by name; the same for every model.
const EMPTY: [&str; 2] = ["air", "noisy air"];

/// What the files of a comparison say. `digests`: the serving model's and the candidate's; the first `changed` locked cases were measured under
/// every change.
///
/// # Errors
/// A file that is missing or can not be read.
pub fn gather(request: &Request, digests: [&str; 2], scores: &Path, changed: usize, technical: Technical) -> Result<Evaluation, Fault> {
    let mut by_patient: BTreeMap<&str, Vec<&Subject>> = BTreeMap::new();
    request.locked.iter().for_each(|subject| by_patient.entry(&subject.patient).or_default().push(subject));
    let mut patients = Vec::new();
    for (id, subjects) in by_patient {
        let found = subjects.iter().map(|subject| compared(subject, Change::Plain, digests, scores)).collect::<Result<Vec<_>, _>>()?;
        patients.push(patient(id, &subjects, &found));
    }
    let mut perturbations = Vec::new();
    for change in CHANGES {
        let mut differences = Vec::new();
        for subject in request.locked.iter().take(changed) {
            let found = compared(subject, change, digests, scores)?;
            differences.extend(found.scores.values().map(|[old, new]| new.dice - old.dice));
        }
        perturbations.push(Perturbation { name: change.name().into(), differences });
    }
    let mut empty = Vec::new();
    for name in EMPTY {
        let [old, new] = [read_score(scores, digests[0], "empty", name)?, read_score(scores, digests[1], "empty", name)?];
        empty.push(Emptiness { name: name.into(), voxels: [old.voxels, new.voxels] });
    }
    Ok(Evaluation {
        serving: digests[0].into(),
        candidate: digests[1].into(),
        patients,
        agreement: agreement(request, digests, scores)?,
        perturbations,
        empty,
        technical,
        facts: None,
    })
}

/// Both models on one case.
#[derive(Default)]
struct Compared {
    scores: BTreeMap<u16, [Score; 2]>,
    components: BTreeMap<u16, [u32; 2]>,
    absent: BTreeSet<u16>,
}

fn compared(subject: &Subject, change: Change, digests: [&str; 2], scores: &Path) -> Result<Compared, Fault> {
    let [old, new] =
        [read_score(scores, digests[0], &subject.name, change.name())?, read_score(scores, digests[1], &subject.name, change.name())?];
    let mut found = Compared::default();
    for &label in &subject.reviewed {
        // A label that neither the person nor this model sees was rightly not found.
        let none = Score { dice: 1.0, surface_dice: 1.0 };
        let of = |score: &super::CaseScore| score.scores.get(&label).copied();
        if of(&old).is_some() || of(&new).is_some() {
            found.scores.insert(label, [of(&old).unwrap_or(none), of(&new).unwrap_or(none)]);
            let count = |score: &super::CaseScore| score.components.get(&label).copied().unwrap_or(0);
            found.components.insert(label, [count(&old), count(&new)]);
            if !old.present.contains(&label) {
                found.absent.insert(label);
            }
        }
    }
    Ok(found)
}

/// The mean over the cases of a patient.
fn patient(id: &str, subjects: &[&Subject], found: &[Compared]) -> Patient {
    let labels: BTreeSet<u16> = found.iter().flat_map(|case| case.scores.keys().copied()).collect();
    let mut patient = Patient {
        id: id.into(),
        subgroups: subjects.iter().flat_map(|subject| subject.subgroups.clone()).collect(),
        scores: BTreeMap::new(),
        absent: BTreeSet::new(),
        components: BTreeMap::new(),
    };
    for label in labels {
        let of: Vec<&[Score; 2]> = found.iter().filter_map(|case| case.scores.get(&label)).collect();
        let mean = |get: &dyn Fn(&[Score; 2]) -> f64| of.iter().map(|pair| get(pair)).sum::<f64>() / of.len() as f64;
        let score = |i: usize| Score { dice: mean(&|pair| pair[i].dice), surface_dice: mean(&|pair| pair[i].surface_dice) };
        patient.scores.insert(label, [score(0), score(1)]);
        let pieces = found.iter().filter_map(|case| case.components.get(&label));
        patient.components.insert(label, pieces.fold([0, 0], |[a, b], [c, d]| [a.max(*c), b.max(*d)]));
        if found.iter().all(|case| !case.scores.contains_key(&label) || case.absent.contains(&label)) {
            patient.absent.insert(label);
        }
    }
    patient
}

/// Dice of both models' labels with each other, by label that either sees, on studies without labels.
fn agreement(request: &Request, digests: [&str; 2], scores: &Path) -> Result<BTreeMap<u16, Vec<f64>>, Fault> {
    let mut agreement: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
    for subject in &request.studies {
        let (_, shape, _) = nifti::peek(&subject.image)?;
        let labels = digests.map(|digest| read_labels(&labels_file(&folder_of(scores, digest), &subject.name), shape));
        let [old, new] = labels;
        let (old, new) = (old?, new?);
        let seen: BTreeSet<u16> =
            [&old, &new].iter().flat_map(|labels| labels.chunk_by(|a, b| a == b)).filter_map(|run| run.first().copied()).collect();
        for label in seen.into_iter().filter(|label| *label != 0) {
            agreement.entry(label).or_default().extend(dice(&old, &new, label));
        }
    }
    Ok(agreement)
}
