//! Bytes that nobody meant as an image, through the daemon's own doors: none of them ends it, all of them have a verdict, and the next study
//! is done as ever. `PROPTEST_CASES` sets their number.

use crate::receive::peers::{CT, Client, EXPLICIT};
use crate::serve::daemon::free_port;
use crate::serve::program::{Program, Site};
use crate::support::ct::Ct;
use crate::support::{eventually, made};
use std::path::Path;
use stunetd::dicom::guard::Limits;
use stunetd::dicom::read_identity;

/// Files that lie in a folder together.
const TOGETHER: usize = 500;
/// What the process may hold: `host_memory`, and libtorch with the demo model.
const MOST: u64 = 2 << 30;

/// How many are made.
fn cases() -> usize {
    std::env::var("PROPTEST_CASES").map_or(2000, |cases| cases.parse().expect("a number"))
}

/// Images of several series, and changes to them from a seed.
struct Mutations {
    originals: Vec<(String, Vec<u8>)>,
    noise: Box<dyn FnMut() -> f32>,
}

impl Mutations {
    fn new() -> Mutations {
        let folder = tempfile::tempdir().expect("folder");
        (100..104).for_each(|number| Ct::new(number, 3).write(folder.path()));
        let files = std::fs::read_dir(folder.path()).expect("folder").map(|entry| entry.expect("entry").path());
        let read = |path: &Path| {
            let identity = read_identity(path, &Limits::default()).expect("identity");
            (identity.sop_instance_uid.to_string(), std::fs::read(path).expect("file"))
        };
        Mutations { originals: files.map(|path| read(&path)).collect(), noise: Box::new(made::noise(17)) }
    }

    /// Below a limit.
    fn below(&mut self, limit: usize) -> usize {
        (((self.noise)().abs() * 1e6) as usize) % limit.max(1)
    }

    /// A changed file, with the UID that its original has. Most changes are in the header: there are few ways to be wrong in pixels.
    fn next(&mut self) -> (String, Vec<u8>) {
        let which = self.below(self.originals.len());
        let (uid, mut bytes) = self.originals[which].clone();
        for _ in 0..1 + self.below(6) {
            let reach = if self.below(4) == 0 { bytes.len() } else { bytes.len().min(1400) };
            let at = self.below(reach);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => {
                    let value = self.below(256) as u8;
                    let count = self.below(64);
                    bytes.splice(at..at, std::iter::repeat_n(value, count));
                }
                2 => {
                    let end = bytes.len().min(at + self.below(64));
                    bytes.drain(at..end);
                }
                // Lengths of values are what hurts most: all ones.
                3 => bytes.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
                _ => {
                    let value = self.below(256) as u8;
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value);
                }
            }
        }
        (uid, bytes)
    }
}

/// Bytes of the data set of a file, as far as it has one.
fn data_set(bytes: &[u8]) -> &[u8] {
    bytes.get(350..).unwrap_or(bytes)
}

/// Headers that were read, and files that can not be used.
fn seen(program: &Program) -> f64 {
    let text = program.get("/metrics");
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    let counted = ["stunetd_instances_received_total", "stunetd_instances_rejected_total"];
    text.lines().filter(|line| counted.iter().any(|name| line.starts_with(name))).filter_map(value).sum()
}

fn resident(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("resident memory");
    line.split_whitespace().next().expect("a number").parse::<u64>().expect("a number") << 10
}

#[test]
fn hostile_bytes_through_every_door_harm_nobody() {
    let port = free_port();
    let site = Site::with_rules(&format!("[dimse]\nlisten = \"127.0.0.1:{port}\""));
    let program = Program::start(&site);
    let (mut mutations, count) = (Mutations::new(), cases());
    let mut written = 0;
    while written < count {
        let folder = site.incoming().join(format!("batch-{written}"));
        std::fs::create_dir(&folder).expect("folder");
        for n in 0..TOGETHER.min(count - written) {
            std::fs::write(folder.join(format!("{n}.dcm")), mutations.next().1).expect("written");
        }
        written += TOGETHER.min(count - written);
        eventually("every file has a verdict", || seen(&program) >= written as f64);
        std::fs::remove_dir_all(&folder).expect("removed");
    }
    // Over the network each has a status, or its sender is cut off; then another association works.
    let (mut answered, mut cut) = (0, 0);
    let mut client = None;
    for _ in 0..count / 10 {
        let (uid, bytes) = mutations.next();
        let mut open = client.take().unwrap_or_else(|| Client::associate(port, CT, EXPLICIT).expect("an association"));
        match open.store(CT, &uid, data_set(&bytes)) {
            Some(_) => {
                answered += 1;
                client = Some(open);
            }
            None => cut += 1,
        }
    }
    assert_eq!(answered + cut, count / 10);
    Ct::new(1, 8).write(&site.incoming());
    eventually("the next study has its result", || {
        site.results().iter().any(|folder| {
            let text = std::fs::read_to_string(folder.join("manifest.json")).expect("manifest");
            text.contains(Ct::new(1, 8).series_uid().as_str())
        })
    });
    let most = resident(&program);
    assert!(most <= MOST, "{} MiB", most >> 20);
    assert_eq!(program.metric("stunetd_faults_total{code=\"internal.bug\"}"), Some(0.0), "{}", program.log());
    assert_eq!(program.terminate(), Some(0));
    println!("tally R3 hostile bytes: {written} files, {answered} objects answered, {cut} cut off, at most {} MiB resident", most >> 20);
}
