//! The same study over and over, over many associations at once, and slices that come late.

use super::peers::{CT, Client, EXPLICIT, files};
use super::world;
use crate::serve::daemon::Daemon;
use crate::support::ct::Ct;
use std::path::Path;
use stunetd::dicom::guard::Limits;
use stunetd::dicom::read_identity;

const ASSOCIATIONS: usize = 5;
const TIMES: usize = 100;

/// The data sets of a series, with their UIDs.
fn data_sets(series: &Ct, slices: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().expect("folder");
    slices.for_each(|slice| series.write_slice(folder.path(), slice));
    let one = |path: &Path| {
        let bytes = std::fs::read(path).expect("file");
        let meta = 132 + 12 + u32::from_le_bytes(bytes[140..144].try_into().expect("four")) as usize;
        (read_identity(path, &Limits::default()).expect("identity").sop_instance_uid.to_string(), bytes[meta..].to_vec())
    };
    files(folder.path()).iter().map(|path| one(path)).collect()
}

/// Sends all of them `times` times over associations at once, each from another one on.
fn send_at_once(port: u16, objects: &[(String, Vec<u8>)], times: usize) {
    std::thread::scope(|scope| {
        for number in 0..ASSOCIATIONS {
            scope.spawn(move || {
                let mut client = Client::associate(port, CT, EXPLICIT).expect("an association");
                for time in 0..times / ASSOCIATIONS {
                    for i in 0..objects.len() {
                        let (instance, data) = &objects[(i + number + time) % objects.len()];
                        assert_eq!(client.store(CT, instance, data), Some(0));
                    }
                }
                client.release();
            });
        }
    });
}

#[test]
fn a_study_sent_a_hundred_times_is_one_result_and_late_slices_are_one_more() {
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = Ct::new(1, 58);
    send_at_once(port, &data_sets(&series, 0..8), TIMES);
    let first = daemon.next_result();
    assert_eq!((world.results().len(), world.shape(&first)[0], world.engine.calls()), (1, 8, 1));
    assert_eq!(daemon.metric("stunetd_network_instances_total{result=\"stored\",transport=\"dimse\"}"), 8.0);
    assert_eq!(daemon.metric("stunetd_network_instances_total{result=\"duplicate\",transport=\"dimse\"}"), (8 * (TIMES - 1)) as f64);

    // Fifty more, by all associations at once.
    send_at_once(port, &data_sets(&series, 8..58), ASSOCIATIONS);
    let second = daemon.next_result();
    daemon.shows("stunetd_jobs{state=\"working\"}", 0.0);
    daemon.shows("stunetd_jobs{state=\"queued\"}", 0.0);
    daemon.shows("stunetd_series_open", 0.0);
    assert_eq!((world.results().len(), world.shape(&second)[0], world.engine.calls()), (2, 58, 2));
    let instance = |folder: &str| world.manifest(folder).outputs.iter().find_map(|o| Some(o.dicom.as_ref()?.sop_instance.clone()));
    let replaced = world.manifest(&second).replaces.expect("the first");
    assert_eq!((replaced.revision, replaced.instances), (2, Vec::from_iter(instance(&first))));
    daemon.end().expect("a clean end");
}
