use super::*;
use crate::dicom::Uid;
use dicom_core::{DataElement, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// A small CT image of a series, as a file.
pub(in crate::intake) fn image(path: &Path, series: u32, instance: u32) {
    let mut object = InMemDicomObject::new_empty();
    let mut text = |tag, vr, value: String| object.put(DataElement::new(tag, vr, dicom_value!(Str, value)));
    text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE.into());
    text(tags::SOP_INSTANCE_UID, VR::UI, format!("1.2.{series}.{instance}"));
    text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2".into());
    text(tags::SERIES_INSTANCE_UID, VR::UI, format!("1.2.{series}"));
    text(tags::MODALITY, VR::CS, "CT".into());
    text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into());
    text(tags::IMAGE_POSITION_PATIENT, VR::DS, format!("0\\0\\{instance}"));
    text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0".into());
    text(tags::PIXEL_SPACING, VR::DS, "1\\1".into());
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1u16),
        (tags::ROWS, 2),
        (tags::COLUMNS, 2),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 12),
        (tags::HIGH_BIT, 11),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        object.put(DataElement::new(tag, VR::US, dicom_value!(U16, [value])));
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, dicom_value!(U16, [1, 2, 3, 4])));
    let meta =
        FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN).media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE);
    object.with_meta(meta).expect("meta").write_to_file(path).expect("written");
}

fn key(series: u32) -> SeriesKey {
    SeriesKey { study: "1.2".into(), series: format!("1.2.{series}") }
}

/// Looks, and tells how many headers were read and which series have how many instances.
fn look(tree: &mut Tree, dirty: Dirty) -> (u64, Vec<(String, usize)>) {
    let (found, errors) = tree.look(dirty);
    assert!(errors.is_empty(), "{errors:?}");
    let series = tree.series();
    let counts = series.keys().map(|k| (k.series.clone(), tree.load(k).map_or(0, |l| l.instances.len()))).collect();
    (found.files, counts)
}

fn folders(paths: &[&Path]) -> Dirty {
    let mut dirty = Dirty::none();
    paths.iter().for_each(|p| dirty.add(p.to_path_buf()));
    dirty
}

#[test]
fn headers_are_read_once_for_each_state_of_a_file() {
    let root = tempfile::tempdir().expect("folder");
    let (a, b) = (root.path().join("a"), root.path().join("a/b"));
    fs::create_dir_all(&b).expect("folders");
    image(&a.join("1"), 1, 1);
    image(&a.join("2"), 1, 2);
    image(&b.join("3"), 2, 1);
    fs::write(a.join("note.txt"), b"hello").expect("file");
    let mut tree = Tree::new(vec![root.path().to_path_buf()], ScanLimits::default());
    let name = |n: u32| format!("1.2.{n}");
    assert_eq!(look(&mut tree, Dirty::All), (4, vec![(name(1), 2), (name(2), 1)]));
    assert_eq!(look(&mut tree, Dirty::All), (0, vec![(name(1), 2), (name(2), 1)]));
    assert_eq!(tree.folders_of(&key(2)), BTreeSet::from([b.clone()]));

    // A look at one folder reads what is new there, and only there.
    let before = tree.series();
    image(&a.join("4"), 1, 3);
    image(&b.join("5"), 2, 2);
    assert_eq!(look(&mut tree, folders(&[&b])), (1, vec![(name(1), 2), (name(2), 2)]));
    assert_eq!(tree.series()[&key(1)], before[&key(1)]);
    assert_ne!(tree.series()[&key(2)], before[&key(2)]);
    assert_eq!(look(&mut tree, folders(&[&a])), (1, vec![(name(1), 3), (name(2), 2)]));

    // A file in a new state is read again, one that went away is gone, a folder with all that is in it too.
    image(&a.join("1"), 2, 3);
    fs::remove_file(a.join("2")).expect("removed");
    assert_eq!(look(&mut tree, folders(&[&a])), (1, vec![(name(1), 1), (name(2), 3)]));
    fs::remove_dir_all(&b).expect("removed");
    assert_eq!(look(&mut tree, folders(&[&a])), (0, vec![(name(1), 1), (name(2), 1)]));
    assert_eq!(tree.len(), 3);
}

#[test]
fn folders_that_come_whole_are_looked_through() {
    let (root, elsewhere) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let deep = elsewhere.path().join("study/deep/deeper");
    fs::create_dir_all(&deep).expect("folders");
    image(&deep.join("1"), 1, 1);
    let mut tree = Tree::new(vec![root.path().to_path_buf()], ScanLimits::default());
    assert_eq!(look(&mut tree, Dirty::All), (0, vec![]));
    std::process::Command::new("mv").arg(elsewhere.path().join("study")).arg(root.path()).status().expect("mv");
    // The notice names the new folder and the one it is in; only that one is known.
    let told = folders(&[root.path(), &root.path().join("study")]);
    assert_eq!(look(&mut tree, told), (1, vec![("1.2.1".into(), 1)]));
}

#[test]
fn what_is_being_written_is_passed_over_and_what_changes_meanwhile_is_not_taken() {
    let root = tempfile::tempdir().expect("folder");
    let at = |name: &str| root.path().join(name);
    image(&at("1"), 1, 1);
    image(&at("2.part"), 1, 2);
    fs::create_dir(at(".hidden")).expect("folder");
    image(&at(".hidden/3"), 1, 3);
    // Cut off in the middle of the pixels: a member of the series that can not be used.
    image(&at("4"), 1, 4);
    let bytes = fs::read(at("4")).expect("file");
    fs::write(at("4"), &bytes[..bytes.len() - 4]).expect("file");
    let mut tree = Tree::new(vec![root.path().to_path_buf()], ScanLimits::default());
    let (found, _) = tree.look(Dirty::All);
    assert_eq!((found.files, found.refused.values().sum::<u64>()), (2, 1), "{found:?}");
    let loaded = tree.load(&key(1)).expect("unchanged");
    assert_eq!((loaded.instances.len(), loaded.refused.len()), (1, 1));
    assert_eq!(loaded.instances[0].sop_instance_uid, Uid::parse("1.2.1.1").expect("uid"));
    fs::write(at("4"), &bytes).expect("file");
    assert!(tree.load(&key(1)).is_none());
    tree.look(Dirty::All);
    assert_eq!(tree.load(&key(1)).expect("unchanged").instances.len(), 2);
}

#[test]
fn a_root_that_can_not_be_read_keeps_what_was_known() {
    let root = tempfile::tempdir().expect("folder");
    let inside = root.path().join("in");
    fs::create_dir(&inside).expect("folder");
    image(&inside.join("1"), 1, 1);
    let mut tree = Tree::new(vec![inside.clone()], ScanLimits::default());
    tree.look(Dirty::All);
    let series = tree.series();
    fs::remove_dir_all(&inside).expect("removed");
    let (_, errors) = tree.look(Dirty::All);
    assert_eq!(errors.len(), 1);
    assert_eq!(tree.series(), series);
    assert!(tree.load(&key(1)).is_none());
}

#[test]
fn a_series_with_more_files_than_the_limit_is_refused_unread() {
    let root = tempfile::tempdir().expect("folder");
    (1..=4).for_each(|n| image(&root.path().join(n.to_string()), 1, n));
    (5..=6).for_each(|n| image(&root.path().join(n.to_string()), 2, n));
    let mut tree = Tree::new(vec![root.path().to_path_buf()], ScanLimits { planes: 3, ..ScanLimits::default() });
    tree.look(Dirty::All);
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = read.clone();
    let tree = tree.telling(Arc::new(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    let loaded = tree.load(&key(1)).expect("unchanged");
    assert_eq!((loaded.instances.len(), read.load(std::sync::atomic::Ordering::Relaxed)), (0, 0));
    let told: Vec<_> = loaded.refused.iter().map(|r| (r.code, r.detail.as_str(), r.member_of.as_ref())).collect();
    assert_eq!(told, [(Code::SeriesTooMany, "4 planes or more, the limit is 3", Some(&key(1)))]);
    assert_eq!(tree.load(&key(2)).expect("unchanged").instances.len(), 2);
}

/// The index has to say the same as a tree that saw only what is there now.
#[test]
fn after_any_changes_the_series_are_those_of_a_fresh_look() {
    let root = tempfile::tempdir().expect("folder");
    let at = |name: &str| root.path().join(name);
    ["a", "a/b", "a b", "c"].iter().for_each(|name| fs::create_dir(at(name)).expect("folder"));
    for (n, folder) in ["a", "a/b", "a b", "c", "."].into_iter().cycle().take(20).enumerate() {
        image(&at(folder).join(n.to_string()), n as u32 % 3, n as u32);
    }
    let mut tree = Tree::new(vec![root.path().to_path_buf()], ScanLimits::default());
    tree.look(Dirty::All);
    let check = |tree: &mut Tree, dirty: Dirty, files: usize| {
        tree.look(dirty);
        let mut fresh = Tree::new(vec![root.path().to_path_buf()], ScanLimits::default());
        fresh.look(Dirty::All);
        assert_eq!((tree.series(), tree.len()), (fresh.series(), files));
        for key in fresh.series().keys() {
            assert_eq!((tree.folders_of(key), tree.print(key)), (fresh.folders_of(key), fresh.print(key)));
            assert_eq!(tree.progress(std::slice::from_ref(key)), fresh.progress(std::slice::from_ref(key)));
        }
    };
    check(&mut tree, Dirty::All, 20);
    fs::remove_dir_all(at("a")).expect("removed");
    check(&mut tree, folders(&[root.path()]), 12);
    image(&at("a b/2"), 9, 2);
    std::process::Command::new("mv").arg(at("c")).arg(at("a")).status().expect("mv");
    check(&mut tree, Dirty::All, 12);
    fs::remove_dir_all(at("a b")).expect("removed");
    check(&mut tree, Dirty::All, 8);
    let known = tree.series();
    assert!(!known.contains_key(&key(9)) && tree.print(&key(9)).is_none());
}
