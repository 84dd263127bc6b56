//! Folders become cases: what is read, what is refused, what a reader has to say, and what is kept of whom.

use crate::need;
use crate::support::{data, root, stunetd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use stunetd::fault::{Code, Fault};
use stunetd::models::Generation;
use stunetd::segment::SegmentOptions;
use stunetd::series::Policy;
use stunetd::training::cases::{Decision, Origin};
use stunetd::training::data::CaseFile;
use stunetd::training::store::{Admitted, Curator, Store, Stored, Word};
use stunetd::volume::decode::{Decoder, DecoderConfig};
use stunetd::volume::{Affine, Limits, Quantity, Source, Volume, nifti};

/// A small phantom with its labels.
fn phantom(seed: u64, folder: &Path) {
    let (seed, mut command) = (seed.to_string(), Command::new(stunetd()));
    command.arg("demo").arg(folder).args(["--seed", &seed, "--small", "--labels"]).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("stunetd").success());
}

fn model() -> Arc<Generation> {
    Arc::new(Generation::open(&root().join("models/demo")).expect("demo model"))
}

fn decoder() -> &'static Decoder {
    static DECODER: OnceLock<Decoder> = OnceLock::new();
    DECODER.get_or_init(|| Decoder::new(DecoderConfig { program: stunetd(), workers: 1, ..DecoderConfig::default() }).expect("decoder"))
}

fn admit_with(store: &Store, folder: &Path, places: &[PathBuf], inactive: &[&str]) -> Result<Admitted, Fault> {
    let mut curator = Curator {
        store,
        model: &model(),
        engine: None,
        options: SegmentOptions::default(),
        decoder: decoder(),
        places,
        results: None,
        policy: Policy::default(),
    };
    curator.admit(folder, "a print", &|case| inactive.contains(&case))
}

fn admit(store: &Store, folder: &Path) -> Result<Stored, Fault> {
    admit_with(store, folder, &[], &[]).map(|admitted| admitted.stored)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder").flatten().filter(|e| e.path().is_file()) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn word(decision: Decision, classes: &[&str]) -> Word {
    Word {
        reader: "Dr. A. Reader".into(),
        time: "2026-01-31T17:05:00Z".into(),
        classes: classes.iter().map(ToString::to_string).collect(),
        origin: Origin::Manual,
        decision,
        confirmed: Vec::new(),
    }
}

/// A NIfTI file of a few voxels somewhere.
fn some_labels(path: &Path) {
    let affine = Affine::new([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0; 3]).expect("invertible");
    let source = Source::Nifti { path: path.into(), digest: [0; 32], geometry: Box::new(nifti::NiftiGeometry::from_affine(&affine)) };
    let volume = Volume { data: vec![1.0; 8], channels: 1, shape: [2; 3], affine, quantity: vec![Quantity::Unknown], source };
    nifti::write_volume(std::fs::File::create(path).expect("file"), &volume).expect("written");
}

#[test]
fn a_folder_becomes_a_case_that_names_nobody() {
    let here = tempfile::tempdir().expect("folder");
    let folder = here.path().join("curated/one");
    phantom(3, &folder);
    let store = Store::open(here.path()).expect("store");
    let stored = admit(&store, &folder).expect("a case");
    let labels = stored.record.labels.as_ref().expect("labels");
    assert_eq!(labels.sources, ["segmentation"]);
    for organ in ["liver", "kidneys", "vertebrae"] {
        assert!(labels.millilitres[organ] > 50.0, "{organ}: {:?}", labels.millilitres);
    }
    assert_eq!((stored.record.shape, labels.contested, labels.left_out), ([40, 96, 116], 0, 0));
    // What was written is what is read.
    let values = stored.labels().expect("labels");
    assert!(values.iter().filter(|v| **v != 0).count() > 1000);
    assert_eq!(stored.image().expect("image").shape, [40, 96, 116]);
    // The same folder, and another process of the same site: the same case. Another site: another name.
    let again = Store::open(here.path()).expect("store");
    assert_eq!(admit(&again, &folder).expect("a case").name, stored.name);
    let elsewhere = tempfile::tempdir().expect("folder");
    assert_ne!(admit(&Store::open(elsewhere.path()).expect("store"), &folder).expect("a case").name, stored.name);

    // The person stands in one file, which nobody else may read.
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(store.root()), mode(&store.root().join("links.jsonl")), mode(&store.root().join("secret"))), (0o700, 0o600, 0o600));
    let links = store.links().expect("links");
    assert_eq!((links.len(), links[0].patient_id.as_str(), links[0].case.as_str()), (1, "STUNETD-PHANTOM-3", stored.name.as_str()));
    let record = std::fs::read_to_string(stored.folder.join("case.toml")).expect("record");
    let uid = links[0].study.as_str();
    assert!(!record.contains("PHANTOM") && !record.contains(uid), "{record}");

    assert!(store.remove(&stored.name).expect("removed") && !store.remove(&stored.name).expect("gone"));
    store.unlink(&stored.name).expect("unlinked");
    assert!(store.links().expect("links").is_empty() && store.cases().expect("cases").is_empty());
    assert_eq!(store.case("../../secret").expect_err("no name").code, Code::CasesUnknown);
}

#[test]
fn images_are_found_elsewhere_and_only_once() {
    let here = tempfile::tempdir().expect("folder");
    let (images, only_labels) = (here.path().join("images"), here.path().join("curated/one"));
    phantom(5, &images);
    std::fs::create_dir_all(&only_labels).expect("folder");
    std::fs::copy(images.join("labels.dcm"), only_labels.join("labels.dcm")).expect("copied");
    let store = Store::open(here.path()).expect("store");
    assert_eq!(admit(&store, &only_labels).expect_err("no image").code, Code::CasesNoImage);
    assert!(Curator::study_of(&only_labels).is_some_and(|study| study.starts_with("2.25.")));
    let stored = admit_with(&store, &only_labels, std::slice::from_ref(&images), &[]).expect("a case").stored;

    // Other labels of the same image, as NIfTI, whose numbers say nothing by themselves: a duplicate, until the first case is given up.
    let other = here.path().join("curated/two");
    copy(&images, &other);
    std::fs::remove_file(other.join("labels.dcm")).expect("removed");
    let mut volume = nifti::read(&stored.folder.join("labels.nii.gz"), &Limits::default()).expect("labels");
    let first = volume.data.iter().position(|v| *v != 0.0).expect("a label");
    volume.data[first] = 0.0;
    nifti::write_volume(std::fs::File::create(other.join("labels.nii.gz")).expect("file"), &volume).expect("written");
    assert_eq!(admit(&store, &other).expect_err("numbers").code, Code::CasesNoKnownLabel);
    let meanings: Vec<String> = model().manifest.labels.iter().map(|label| format!("{} = \"{}\"\n", label.value, label.name)).collect();
    std::fs::write(other.join("structures.toml"), format!("[structures]\n{}", meanings.concat())).expect("written");
    assert_eq!(admit(&store, &other).expect_err("twice").code, Code::CasesDuplicate);
    let second = admit_with(&store, &other, &[], &[&stored.name]).expect("a case").stored;
    assert_ne!(second.name, stored.name);
    let labels = second.record.labels.as_ref().expect("labels");
    assert_eq!((labels.sources.as_slice(), second.record.patient == stored.record.patient), (&["nifti".to_string()][..], true));

    // Labels of another grid, and nothing at all.
    some_labels(&other.join("labels.nii.gz"));
    assert_eq!(admit(&store, &other).expect_err("another grid").code, Code::CasesGeometry);
    std::fs::remove_file(other.join("labels.nii.gz")).expect("removed");
    assert_eq!(admit(&store, &other).expect_err("no labels").code, Code::CasesNoLabels);
}

#[test]
fn only_a_readers_word_makes_a_case_learned_from() {
    let here = tempfile::tempdir().expect("folder");
    let folder = here.path().join("one");
    phantom(8, &folder);
    let (store, model) = (Store::open(here.path()).expect("store"), model());
    let mut stored = admit(&store, &folder).expect("a case");
    assert_eq!(stored.reviewed(&model).expect_err("nobody signed").code, Code::CasesSignOff);
    let all = ["spleen", "kidneys", "liver", "stomach", "lungs", "aorta", "vertebrae", "autochthon"];
    // What was left out of the review has voxels.
    assert_eq!(stored.sign(word(Decision::Accepted, &["liver"]), &model).expect_err("others").code, Code::CasesSignOff);
    let nobody = Word { reader: " ".into(), ..word(Decision::Refused, &[]) };
    assert_eq!(stored.sign(nobody, &model).expect_err("nobody").code, Code::CasesSignOff);
    assert!(stored.signoffs().expect("records").is_empty(), "what does not hold is not kept");
    let implausible = stored.record.labels.as_ref().expect("labels").implausible.clone();
    let accept = Word { confirmed: implausible, ..word(Decision::Accepted, &all) };
    stored.sign(accept.clone(), &model).expect("accepted");
    assert_eq!(stored.reviewed(&model).expect("reviewed"), [0, 1, 2, 3, 4, 5, 6, 7, 8]);

    // On the network's grid, with what the model says of the background.
    assert_eq!(stored.prepared(&model, &[0, 3]).expect_err("the model was not asked").code, Code::TrainingCase);
    let labels = stored.labels().expect("labels");
    let mut own = labels.clone();
    let free = own.iter().position(|v| *v == 0).expect("background");
    own[free] = 2;
    stored.keep_model_labels(&model, &own).expect("kept");
    let allowed = stored.reviewed(&model).expect_err("hardly anything differs").code;
    assert_eq!(allowed, Code::CasesUnchanged, "one voxel is no correction");
    let half: Vec<u16> = own.iter().map(|v| if *v == 3 { 0 } else { *v }).collect();
    stored.keep_model_labels(&model, &half).expect("kept");
    let allowed = stored.reviewed(&model).expect("reviewed");
    let path = stored.prepared(&model, &allowed).expect("prepared");
    let case = CaseFile::open(&path).expect("a case file");
    assert_eq!((case.allowed(), case.channels()), (allowed.as_slice(), 1));
    assert!(case.present().any(|class| class == 3));
    assert_eq!(stored.prepared(&model, &allowed).expect("prepared"), path, "made once");
    assert_ne!(stored.prepared(&model, &[0, 1, 2, 3, 4, 5, 6, 7]).err().map(|f| f.code), None, "a label outside of what is allowed");

    // Taken out again.
    stored.sign(word(Decision::Withdrawn, &[]), &model).expect("withdrawn");
    assert_eq!(stored.reviewed(&model).expect_err("withdrawn").code, Code::CasesSignOff);
    let said: Vec<Decision> = stored.signoffs().expect("records").into_iter().map(|record| record.decision).collect();
    assert_eq!(said, [Decision::Accepted, Decision::Withdrawn]);
}

#[test]
fn a_record_beside_the_labels_counts_when_it_is_about_them() {
    let here = tempfile::tempdir().expect("folder");
    let folder = here.path().join("one");
    phantom(9, &folder);
    let store = Store::open(here.path()).expect("store");
    let classes = r#"["spleen", "kidneys", "liver", "stomach", "lungs", "aorta", "vertebrae", "autochthon"]"#;
    let text = |labels: &str| {
        format!(
            "reader = \"Dr. A. Reader\"\ntime = \"2026-01-31T17:05:00Z\"\nlabels = \"{labels}\"\nclasses = {classes}\norigin = \"manual\"\n\
             decision = \"accepted\"\nconfirmed = {classes}\n"
        )
    };
    std::fs::write(folder.join("signoff.toml"), text(&"0".repeat(64))).expect("written");
    let admitted = admit_with(&store, &folder, &[], &[]).expect("a case");
    assert_eq!(admitted.problem.expect("about other labels").code, Code::CasesSignOff);
    assert!(!admitted.stored.is_accepted().expect("records"));
    // The digest of the file is what a person can tell.
    let file = admitted.stored.record.labels.as_ref().expect("labels").files[0].clone();
    std::fs::write(folder.join("signoff.toml"), text(&file)).expect("written");
    for _ in 0..2 {
        let admitted = admit_with(&store, &folder, &[], &[]).expect("a case");
        assert!(admitted.problem.is_none() && admitted.stored.is_accepted().expect("records"));
        assert_eq!(admitted.stored.signoffs().expect("records").len(), 1, "one record, however often it is read");
    }
}

#[test]
fn real_labels_of_others_are_taken() {
    let folder = need!(data("petct_sts001"), "shared data is not there");
    let here = tempfile::tempdir().expect("folder");
    let store = Store::open(here.path()).expect("store");
    let case = here.path().join("sts");
    copy(&folder.join("CT"), &case);
    copy(&folder.join("RS_CT"), &case);
    // A tumour is no label of the model, unless somebody says which one it is to be.
    assert_eq!(admit(&store, &case).expect_err("no label").code, Code::CasesNoKnownLabel);
    let set = stunetd::dicom::rtstruct::read(&folder.join("RS_CT/RS.dcm")).expect("structure set");
    std::fs::write(case.join("structures.toml"), format!("[structures]\n{} = \"liver\"\n", set.regions[0].number)).expect("written");
    let stored = admit(&store, &case).expect("a case");
    let labels = stored.record.labels.as_ref().expect("labels");
    assert_eq!((labels.sources.as_slice(), labels.found.as_slice()), (&["structure_set".to_string()][..], &["liver".to_string()][..]));
    println!("{:?} {:?}", labels.millilitres, labels.implausible);
    let model = model();
    if labels.implausible.is_empty() {
        stored.sign(word(Decision::Accepted, &["liver"]), &model).expect("accepted");
    } else {
        let unconfirmed = stored.sign(word(Decision::Accepted, &["liver"]), &model).expect_err("to be confirmed");
        assert_eq!(unconfirmed.code, Code::CasesImplausible);
        let confirmed = Word { confirmed: vec!["liver".into()], ..word(Decision::Accepted, &["liver"]) };
        stored.sign(confirmed, &model).expect("accepted");
    }
    // Drawn on the PET, which is not for this model.
    let pet = here.path().join("pet");
    copy(&folder.join("PT"), &pet);
    copy(&folder.join("RS_PT"), &pet);
    std::fs::copy(case.join("structures.toml"), pet.join("structures.toml")).expect("copied");
    let refused = admit(&store, &pet).expect_err("another modality");
    assert_eq!(refused.code.area(), "scope", "{refused}");
}

#[test]
fn segmentations_of_other_makers_become_cases_in_any_encoding() {
    let folder = need!(data("seg_readback"), "shared data is not there");
    let admitted = |object: &str, structures: &str| {
        let here = tempfile::tempdir().expect("folder");
        let case = here.path().join("case");
        copy(&folder.join("dcmqi/ct-3slice"), &case);
        std::fs::copy(folder.join(object), case.join("labels.dcm")).expect("copied");
        std::fs::write(case.join("structures.toml"), format!("[structures]\n{structures}")).expect("written");
        let stored = admit(&Store::open(here.path()).expect("store"), &case)?;
        Ok::<_, Fault>((stored.record.labels.clone().expect("labels"), stored.labels().expect("values")))
    };
    let (first, values) = admitted("dcmqi/liver.dcm", "").expect("a case");
    assert_eq!(first.found, ["liver"], "by its name: the code is an old one");
    let object = stunetd::dicom::seg::read(&folder.join("dcmqi/liver.dcm")).expect("object");
    let bits: usize = (0..object.frames.len()).map(|n| object.frame(n).expect("frame").iter().filter(|v| **v != 0).count()).sum();
    assert_eq!(values.iter().filter(|v| **v == 3).count(), bits);
    for other in ["pydicom/liver_rle.dcm", "pydicom/liver_deflate.dcm", "pydicom/liver_expb.dcm"] {
        assert_eq!(admitted(other, "").expect(other).0.digest, first.digest, "{other}");
    }
    // Segments that share a hundredth are contested there; a third is too much.
    let (some, values) = admitted("dcmqi/partial_overlaps.dcm", "1 = \"spleen\"\n3 = \"liver\"\n").expect("a case");
    assert_eq!((some.contested, some.left_out), (95, 3));
    assert_eq!(values.iter().filter(|v| **v == stunetd::stunet::learning::IGNORED).count(), 95);
    let much = admitted("dcmqi/partial_overlaps.dcm", "1 = \"spleen\"\n2 = \"liver\"\n").expect_err("too much");
    assert_eq!(much.code, Code::CasesOverlap);
}

#[test]
fn tilted_and_uneven_slices_are_refused_by_name() {
    for (name, code) in [("ct_siemens_tilt_4slices", Code::CasesGeometry), ("ct_ge_missing_slice_4slices", Code::SeriesMissingSlice)] {
        let folder = need!(data(name), "shared data is not there");
        let here = tempfile::tempdir().expect("folder");
        let case = here.path().join("case");
        copy(&folder.join("dicom"), &case);
        some_labels(&case.join("labels.nii.gz"));
        let refused = admit(&Store::open(here.path()).expect("store"), &case).expect_err(name);
        assert_eq!(refused.code, code, "{name}: {refused}");
    }
}
