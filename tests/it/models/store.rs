//! The store of generations: whole or not there, never changed, approved by a named person as another generation.

use super::out;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use stunetd::fault::Code;
use stunetd::models::{Approval, Generation, Lineage, Manifest, Status, Store};

fn demo() -> Generation {
    Generation::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).expect("the demo model")
}

fn lineage() -> Lineage {
    Lineage { slot: demo().digest, run: Some(7), report: Some("ab".repeat(32)), ..Lineage::default() }
}

#[test]
fn a_generation_is_there_whole_under_its_digest_and_comes_back_as_it_was() {
    let (_scratch, state) = out();
    let (store, demo) = (Store::of(&state), demo());
    assert!(store.list().expect("nothing yet").is_empty());
    let manifest = Manifest { version: "2".into(), status: Status::Clinical, ..demo.manifest.clone() };
    let made = store.publish(manifest, &demo.weights(), &lineage()).expect("published");
    // Whoever publishes, nobody approved it.
    assert_eq!((made.manifest.status, made.manifest.version.as_str()), (Status::Research, "2"));
    assert!(store.holds(&made) && !store.holds(&demo) && made.dir.ends_with(&made.digest));
    made.verify(&mut |_, _| {}).expect("sound");
    assert_eq!(store.get(&made.digest[..8]).expect("by its beginning").digest, made.digest);
    assert_eq!(store.lineage(&made.digest).expect("readable"), lineage());
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&state.join("training")), mode(&made.weights())), (0o700, 0o440));
    // The same once more is the same.
    let again = store.publish(made.manifest.clone(), &demo.weights(), &Lineage::default()).expect("there already");
    assert_eq!((again.digest, store.list().expect("one").len()), (made.digest.clone(), 1));
    assert_eq!(store.lineage(&made.digest).expect("readable"), lineage());
    for wrong in ["abcdef0", "zzzzzzzz", &"0".repeat(64)] {
        assert_eq!(store.get(wrong).expect_err(wrong).code, Code::ModelUnknownGeneration);
    }
}

#[test]
fn weights_that_do_not_fit_leave_nothing_behind() {
    let (scratch, state) = out();
    let (store, demo) = (Store::of(&state), demo());
    let mut bytes = std::fs::read(demo.weights()).expect("weights");
    bytes.truncate(bytes.len() - 4);
    let cut = scratch.path().join("cut.safetensors");
    std::fs::write(&cut, bytes).expect("written");
    store.publish(demo.manifest.clone(), &cut, &lineage()).expect_err("cut short");
    store.publish(demo.manifest.clone(), &scratch.path().join("absent"), &lineage()).expect_err("absent");
    let mut other = demo.manifest.clone();
    other.architecture.num_classes += 1;
    store.publish(other, &demo.weights(), &lineage()).expect_err("another architecture");
    assert_eq!(std::fs::read_dir(state.join("training/generations")).expect("folder").count(), 0);
}

#[test]
fn approval_makes_another_generation_of_the_same_weights() {
    let (_scratch, state) = out();
    let (store, demo) = (Store::of(&state), demo());
    let made = store.publish(Manifest { version: "2".into(), ..demo.manifest.clone() }, &demo.weights(), &lineage()).expect("published");
    store.record_canary(&made.digest, "device", "labels").expect("recorded");
    let approval = Approval { by: "Dr. Ada".into(), document: "QM 7".into() };
    let approved = store.approve(&made, &demo.digest, approval.clone()).expect("approved");
    assert_ne!(approved.digest, made.digest);
    assert_eq!((approved.manifest.status, &approved.manifest.weights), (Status::Clinical, &made.manifest.weights));
    let inode = |model: &Generation| std::fs::metadata(model.weights()).expect("there").ino();
    assert_eq!(inode(&approved), inode(&made));
    let expected = Lineage { from: Some(made.digest.clone()), approval: Some(approval.clone()), ..lineage() };
    assert_eq!(store.lineage(&approved.digest).expect("readable"), expected);
    assert_eq!(store.canary(&approved.digest, "device").as_deref(), Some("labels"));
    assert_eq!(store.approve(&approved, &demo.digest, approval.clone()).expect_err("already").code, Code::ModelNotPromotable);
    // A model from outside is approved as well, by a copy.
    let outside = store.approve(&demo, &demo.digest, approval).expect("approved");
    assert!(store.holds(&outside) && inode(&outside) != inode(&demo));
}

#[test]
fn a_generation_that_was_tampered_with_is_not_given_out() {
    let (_scratch, state) = out();
    let (store, demo) = (Store::of(&state), demo());
    let made = store.publish(demo.manifest.clone(), &demo.weights(), &lineage()).expect("published");
    let file = made.dir.join("manifest.toml");
    let text = std::fs::read_to_string(&file).expect("manifest").replace("status = \"research\"", "status = \"clinical\"");
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, text).expect("written");
    assert_eq!(store.get(&made.digest).expect_err("another model").code, Code::ModelDigest);
    assert!(store.list().expect("listed")[0].opened.is_err());
}
