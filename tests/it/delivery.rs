//! Publication into a folder: whole or not at all, the first bytes win, nothing half-written stays. And the way of results to others.

mod archive;
mod commitment;
mod dimse;
pub mod office;
mod orthanc;
mod outages;
pub mod scp;
mod shares;
mod storescp;
mod stow;
mod whole;

use crate::seg_object::phantom::{Grid, blobs, generation, label_map, request, series, table, volume};
use std::collections::BTreeMap;
use std::path::Path;
use stunetd::config::Format;
use stunetd::delivery::{Outcome, publish};
use stunetd::fault::Code;
use stunetd::results::{ResultRequest, build};
use stunetd::sys::durable::StagingDir;

/// Results of the phantom, staged in `out`, with one change to the request and one to the labels.
fn staged(out: &Path, formats: &[Format], change: impl FnOnce(&mut ResultRequest<'_>), relabel: impl FnOnce(&mut Vec<u8>)) -> StagingDir {
    let series = series(&Grid::axial([5, 12, 10]));
    let mut labels = blobs([5, 12, 10], 2);
    relabel(&mut labels);
    let map = label_map(&series, labels, table(2));
    let model = generation(map.table());
    let mut request = request(&model, formats);
    change(&mut request);
    let staging = StagingDir::new_in(out).expect("staging");
    build(&map, &volume(&map), &request, staging.path()).expect("built");
    staging
}

fn plainly(out: &Path, formats: &[Format]) -> StagingDir {
    staged(out, formats, |_| {}, |_| {})
}

/// Names and bytes of everything below a folder.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(k, v)| (format!("{name}/{k}"), v)));
        } else {
            all.insert(name, std::fs::read(path).expect("file"));
        }
    }
    all
}

#[test]
fn a_result_appears_whole_and_publishing_again_changes_nothing() {
    let out = tempfile::tempdir().expect("folder");
    let to = out.path().join("new/abababab");
    let first = publish(plainly(out.path(), &[Format::Seg, Format::Nifti]), &to).expect("published");
    assert_eq!(first.outcome, Outcome::Published);
    let names: Vec<&str> = first.files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["seg.dcm", "labels.nii.gz"]);
    let there = contents(out.path());
    let listed = ["new/abababab/labels.nii.gz", "new/abababab/manifest.json", "new/abababab/seg.dcm"];
    assert_eq!(there.keys().collect::<Vec<_>>(), listed);
    for file in &first.files {
        assert_eq!(there[&format!("new/abababab/{}", file.name)].len() as u64, file.bytes);
    }
    let again = publish(plainly(out.path(), &[Format::Seg, Format::Nifti]), &to).expect("published");
    assert_eq!((again.outcome, again.files), (Outcome::AlreadyThere, first.files));
    assert!(contents(out.path()) == there);
}

#[test]
fn the_first_published_bytes_win() {
    let out = tempfile::tempdir().expect("folder");
    let to = out.path().join("r");
    publish(plainly(out.path(), &[Format::Seg, Format::Nifti]), &to).expect("published");
    let there = contents(out.path());
    let later = staged(out.path(), &[Format::Seg, Format::Nifti], |r| r.dates.unix_seconds += 86_400, |_| {});
    let receipt = publish(later, &to).expect("published");
    assert_eq!(receipt.outcome, Outcome::FirstKept(vec!["seg.dcm".into()]));
    assert!(contents(out.path()) == there);
}

#[test]
fn formats_that_are_missing_are_added_and_damaged_files_mended() {
    let out = tempfile::tempdir().expect("folder");
    let to = out.path().join("r");
    publish(plainly(out.path(), &[Format::Seg]), &to).expect("published");
    let seg = contents(&to)["seg.dcm"].clone();
    let added = publish(plainly(out.path(), &[Format::Seg, Format::Preview]), &to).expect("published");
    assert_eq!(added.outcome, Outcome::Added(vec!["preview.png".into()]));
    assert_eq!(added.files.len(), 2);
    std::fs::write(to.join("seg.dcm"), &seg[..seg.len() / 2]).expect("damaged");
    std::fs::remove_file(to.join("preview.png")).expect("removed");
    let mended = publish(plainly(out.path(), &[Format::Seg, Format::Preview]), &to).expect("published");
    assert_eq!(mended.outcome, Outcome::Added(vec!["seg.dcm".into(), "preview.png".into()]));
    let there = contents(out.path());
    assert!(there["r/seg.dcm"] == seg);
    assert_eq!(there.keys().collect::<Vec<_>>(), ["r/manifest.json", "r/preview.png", "r/seg.dcm"]);
    let last = publish(plainly(out.path(), &[Format::Seg, Format::Preview]), &to).expect("published");
    assert_eq!(last.outcome, Outcome::AlreadyThere);
}

#[test]
fn what_is_another_result_or_not_ours_is_left_alone() {
    let out = tempfile::tempdir().expect("folder");
    let to = out.path().join("r");
    publish(plainly(out.path(), &[Format::Nifti]), &to).expect("published");
    let there = contents(out.path());
    let refused = |staging: StagingDir, to: &Path| publish(staging, to).expect_err("refused").code;

    let other_settings = staged(out.path(), &[Format::Nifti], |r| r.settings.mirror = true, |_| {});
    assert_eq!(refused(other_settings, &to), Code::DeliveryConflict);
    // Other labels under the same identity: kept apart from the first ones.
    let relabelled = |labels: &mut Vec<u8>| labels[0] = 1;
    assert_eq!(refused(staged(out.path(), &[Format::Seg], |_| {}, relabelled), &to), Code::DeliveryConflict);
    assert!(contents(out.path()) == there);

    let foreign = out.path().join("foreign");
    std::fs::create_dir(&foreign).expect("folder");
    let empty = publish(plainly(out.path(), &[Format::Nifti]), &foreign).expect("an empty folder is taken");
    assert_eq!(empty.outcome, Outcome::Published);
    std::fs::write(foreign.join("manifest.json"), b"{}").expect("overwritten");
    assert_eq!(refused(plainly(out.path(), &[Format::Nifti]), &foreign), Code::DeliveryConflict);
    assert_eq!(refused(plainly(out.path(), &[Format::Nifti]), &foreign.join("manifest.json")), Code::DeliveryConflict);
}

#[test]
fn a_place_that_can_not_be_written_is_said_and_nothing_stays() {
    let out = tempfile::tempdir().expect("folder");
    let file = out.path().join("file");
    std::fs::write(&file, b"x").expect("written");
    let fault = publish(plainly(out.path(), &[Format::Nifti]), &file.join("deep/r")).expect_err("refused");
    assert_eq!(fault.code, Code::DiskUnwritable);
    assert_eq!(contents(out.path()).keys().collect::<Vec<_>>(), ["file"]);
    assert_eq!(StagingDir::new_in(&file).map(|_| ()).map_err(|e| stunetd::fault::Fault::from(e).code), Err(Code::DiskUnwritable));
}
