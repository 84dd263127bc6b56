//! Removes all that there is of a study: for a patient who asks for it, or one that should never have come. No daemon may run meanwhile; who
//! calls has the ledger for itself.

use super::reconcile::{damaged_of, objects_in, strays, study_of};
use crate::audit::{Audit, Event, Study};
use crate::config::{Config, DestinationKind};
use crate::dicom::guard::Limits;
use crate::dicom::{Patient, SeriesKey, is_of_patient, read_identity};
use crate::fault::Fault;
use crate::intake::readmit::readmit;
use crate::intake::spool::{QUARANTINE, Spool};
use crate::ledger::{Change, DeliveryState, Job, Ledger, Reader, SeriesRecord, State, TrainingChange, Which, remove_copies};
use crate::sys::durable::{self, StagingDir, Step, StorageError};
use crate::training::store::{Link, Store};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Studies.
    pub studies: u64,
    /// Jobs, with their rows.
    pub jobs: u64,
    /// Folders with results: published ones, and copies in folders of destinations.
    pub folders: u64,
    /// Instances that were received.
    pub instances: u64,
}

/// Removes what was received of studies, their results, damaged ones that were set aside included, the copies in folders of destinations,
/// and their rows; lines of the journal without a UID stay. Copies of the ledger, which know what it knew, go as a whole. Interrupted, it is
/// to be called again. Nothing is changed in watched folders and at other destinations.
pub fn purge(ledger: &dyn Ledger, config: &Config, audit: &Audit, whose: Whose<'_>, who: &str) -> Result<Purged, Fault> {
    // What the ledger does not know of would stay, and be segmented again.
    readmit(ledger, &config.spool.path, config.spool.max_instance.0)?;
    let studies = match whose {
        Whose::Study(study) => BTreeSet::from([study.to_owned()]),
        Whose::Patient(id) => studies_of(ledger, config, id)?,
    };
    let mut all = Purged::default();
    for study in &studies {
        let one = purge_study(ledger, config, audit, study, who)?;
        all.studies += one.studies;
        all.jobs += one.jobs;
        all.folders += one.folders;
        all.instances += one.instances;
    }
    if all.studies > 0 {
        remove_copies(&config.state)?;
    }
    Ok(all)
}

/// The studies of a patient: of which a published object, or one that was received, has this Patient ID. Objects that can not be read are
/// passed over.
fn studies_of(ledger: &dyn Reader, config: &Config, patient_id: &str) -> Result<BTreeSet<String>, Fault> {
    let mut studies = BTreeSet::new();
    let limits = Limits::default();
    let is_of = |path: &Path| is_of_patient(path, patient_id, &limits).unwrap_or(false);
    for job in ledger.jobs(&Which::default())? {
        let Some(result) = &job.result else { continue };
        let folder = config.output.path.join(&result.folder);
        let objects = ledger.objects(job.id)?;
        if objects.iter().filter(|o| o.file.ends_with(".dcm")).any(|o| is_of(&folder.join(&o.file))) {
            studies.insert(job.series.study.clone());
        }
    }
    for stray in strays(ledger, &config.output.path)? {
        let folder = config.output.path.join(stray);
        if objects_in(&folder).iter().any(|object| is_of(object)) {
            studies.extend(study_of(&folder));
        }
    }
    const PAGE: u64 = 1000;
    let mut seen: BTreeSet<SeriesKey> = BTreeSet::new();
    for page in 0.. {
        let received = ledger.received(page * PAGE, PAGE)?;
        for instance in &received {
            // One instance tells of its series.
            if seen.insert(instance.series.clone()) && is_of(&config.spool.path.join(&instance.path)) {
                studies.insert(instance.series.study.clone());
            }
        }
        if (received.len() as u64) < PAGE {
            break;
        }
    }
    Ok(studies)
}

fn purge_study(ledger: &dyn Ledger, config: &Config, audit: &Audit, study: &str, who: &str) -> Result<Purged, Fault> {
    let mut purged = Purged::default();
    let mut jobs = ledger.jobs(&Which { uid: Some(study.into()), ..Which::default() })?;
    jobs.retain(|job| job.series.study == study);
    let mut series = ledger.series(study)?;
    series.retain(|record| record.series.study == study);
    let told = Study { patient: patient(ledger, config, audit, &jobs, &series)?, ..Study::named(study) };
    let mut folders: BTreeSet<String> = jobs.iter().filter_map(|job| Some(job.result.as_ref()?.folder.clone())).collect();
    for stray in strays(ledger, &config.output.path)? {
        let set_aside = damaged_of(&stray).is_some_and(|folder| folders.contains(folder));
        if set_aside || study_of(&config.output.path.join(&stray)).is_some_and(|of| of == study) {
            folders.insert(stray);
        }
    }
    for job in &jobs {
        end(ledger, job, who)?;
    }
    let copies = config.destination.iter().filter(|d| d.kind == DestinationKind::Folder).map(|d| &d.path);
    for place in copies.chain([&config.output.path]) {
        for folder in &folders {
            purged.folders += u64::from(take_away(place, folder)?.is_some());
        }
    }
    let spool = config.spool.path.is_dir().then(|| Spool::open(&config.spool.path, config.spool.max_instance.0)).transpose()?;
    for record in &series {
        let paths: Vec<String> = ledger.received_of(&record.series)?.into_iter().map(|r| r.path).collect();
        purged.instances += paths.len() as u64;
        let change = Change::Discard { series: record.series.clone(), paths };
        let gone = || Ok(ledger.commit(vec![change]).map(|_| ())?);
        match &spool {
            // Whatever lies there, it lies in the folder of this series.
            Some(spool) => drop(spool.remove(&record.series.study, &record.series.series, None, gone)?),
            None => gone()?,
        }
    }
    for entry in std::fs::read_dir(config.spool.path.join(QUARANTINE)).into_iter().flatten().flatten() {
        // What can not be read tells of no study, and goes after its time.
        if read_identity(&entry.path(), &Limits::default()).is_ok_and(|identity| identity.study_uid.as_str() == study) {
            std::fs::remove_file(entry.path()).map_err(StorageError::at(Step::Remove, &entry.path()))?;
            purged.instances += 1;
        }
    }
    for job in &jobs {
        ledger.commit(vec![Change::Forget { job: job.id }])?;
        purged.jobs += 1;
    }
    // Of what was done and removed before, names of volumes are still there.
    let forget = |record: &SeriesRecord| Change::ForgetSeries { series: record.series.clone() };
    if !series.is_empty() {
        ledger.commit(series.iter().map(forget).collect())?;
    }
    if !jobs.is_empty() || !series.is_empty() || purged.folders + purged.instances > 0 {
        purged.studies = 1;
        // Who has the UID and this ledger finds the line again; nobody else learns anything, nor whether two machines had the same study.
        let salted = Sha256::new_with_prefix(ledger.instance()?).chain_update([0]).chain_update(study).finalize();
        let hash: String = salted.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        audit.record(&Event::Deleted { study: &told, who });
        let name = format!("Study {hash}: {} jobs, {} instances.", purged.jobs, purged.instances);
        ledger.commit(vec![Change::Purged { who: who.into(), name }])?;
    }
    Ok(purged)
}

/// Whose study it is, while something of it is there that says so.
fn patient(
    ledger: &dyn Reader,
    config: &Config,
    audit: &Audit,
    jobs: &[Job],
    series: &[crate::ledger::SeriesRecord],
) -> Result<Option<Patient>, Fault> {
    if !audit.is_on() {
        return Ok(None);
    }
    for (job, result) in jobs.iter().filter_map(|job| Some((job, job.result.as_ref()?))) {
        let objects = ledger.objects(job.id)?;
        let object = objects.iter().find(|o| o.file.ends_with(".dcm"));
        let patient = object.and_then(|o| audit.patient(&config.output.path.join(&result.folder).join(&o.file)));
        if patient.is_some() {
            return Ok(patient);
        }
    }
    for record in series {
        let patient = ledger.received_of(&record.series)?.first().and_then(|r| audit.patient(&config.spool.path.join(&r.path)));
        if patient.is_some() {
            return Ok(patient);
        }
    }
    Ok(None)
}

/// Whose cases are removed.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// Those of a study, by its UID.
    Study(&'a str),
    /// Those of a patient, by the Patient ID, whoever issued it.
    Patient(&'a str),
}

/// What was removed of what models learn from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PurgedCases {
    /// Cases.
    pub cases: Vec<String>,
    /// Generations that were taught with one of them, by their digest. They are as they were: nothing can be taken out of weights.
    pub generations: Vec<String>,
}

/// Removes curated cases and kept studies, with the lines that tell whose they are. Lines of the split and of the audit stay: they name nobody.
pub fn purge_cases(ledger: &dyn Ledger, config: &Config, whose: Whose<'_>, who: &str) -> Result<PurgedCases, Fault> {
    if !config.state.join("training").is_dir() {
        return Ok(PurgedCases::default());
    }
    let store = Store::open(&config.state)?;
    let is_of = |link: &Link| match whose {
        Whose::Study(study) => link.study == study,
        Whose::Patient(id) => !link.patient_id.is_empty() && link.patient_id == id.trim(),
    };
    let names: BTreeSet<String> = store.links()?.into_iter().filter(is_of).map(|link| link.case).collect();
    let mut generations = BTreeSet::new();
    for run in ledger.runs()? {
        let folder = store.root().join("runs").join(run.id.to_string());
        let taught = ["curated", "rehearsal"].iter().any(|part| holds(&folder.join(part), &names));
        generations.extend(run.candidate.filter(|_| taught));
    }
    let known: BTreeSet<String> = ledger.cases()?.into_iter().map(|case| case.id).collect();
    for name in &names {
        store.remove(name)?;
        if known.contains(name) {
            ledger.commit(vec![Change::Training(TrainingChange::RemoveCase { id: name.clone(), who: who.into() })])?;
        }
        store.unlink(name)?;
    }
    Ok(PurgedCases { cases: names.into_iter().collect(), generations: generations.into_iter().collect() })
}

/// Whether a folder of a run has a file of one of these cases: its name begins with the case's.
fn holds(folder: &Path, cases: &BTreeSet<String>) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let is_of = |name: &str| name.split(['-', '.']).next().is_some_and(|case| cases.contains(case));
    entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_of))
}

/// Nothing more happens to a job, nor to its deliveries.
fn end(ledger: &dyn Ledger, job: &Job, who: &str) -> Result<(), Fault> {
    let open = |state| matches!(state, DeliveryState::Pending | DeliveryState::Waiting | DeliveryState::Parked);
    let wanted = match job.progress.state {
        State::Cancelled | State::Superseded => false,
        State::Done => ledger.deliveries(job.id)?.iter().any(|d| open(d.state)),
        State::Queued | State::Waiting | State::Parked | State::Running => true,
    };
    if wanted {
        ledger.commit(vec![Change::Cancel { job: job.id, who: who.into() }])?;
    }
    Ok(())
}

/// Takes a folder away, all at once for who looks on. Dropped, it is removed with what is in it, or swept at the next start; none when it was
/// not there.
pub(super) fn take_away(place: &Path, folder: &str) -> Result<Option<StagingDir>, Fault> {
    let path = place.join(folder);
    if !path.is_dir() {
        return Ok(None);
    }
    let aside = StagingDir::new_in(place)?;
    durable::rename(&path, &aside.path().join(folder))?;
    Ok(Some(aside))
}
