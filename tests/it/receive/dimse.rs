//! C-STORE and C-ECHO.

use super::peers::{CT, Client, EXPLICIT, echoscu, files, said, send, storescu};
use super::{files_below, spooled, world};
use crate::ledger::Site;
use crate::need;
use crate::serve::daemon::Daemon;
use crate::support::ct::Ct;
use crate::support::{cases, eventually, on_path};
use std::path::{Path, PathBuf};
use std::process::Command;
use stunetd::config::ByteSize;
use stunetd::dicom::guard::Limits;
use stunetd::dicom::{read_identity, read_instance};
use stunetd::volume::decode::plane_digest;

fn ct(number: u32, slices: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    Ct::new(number, slices).write(folder.path());
    folder
}

/// The data set of a file that we wrote, with its SOP Instance UID.
fn data_set(file: &Path) -> (String, Vec<u8>) {
    let identity = read_identity(file, &Limits::default()).expect("identity");
    let bytes = std::fs::read(file).expect("file");
    let meta = 132 + 12 + u32::from_le_bytes(bytes[140..144].try_into().expect("four")) as usize;
    (identity.sop_instance_uid.to_string(), bytes[meta..].to_vec())
}

fn transfer_syntax(file: &Path) -> String {
    read_identity(file, &Limits::default()).expect("identity").transfer_syntax
}

#[test]
fn only_those_who_may_are_let_in() {
    need!(on_path("echoscu"), "dcmtk is not here");
    let (world, port) = world(|dimse| {
        dimse.allow_ae_titles = vec!["CT1".parse().expect("title")];
        dimse.allow_addresses = vec!["127.0.0.0/8".parse().expect("network")];
    });
    let daemon = Daemon::start(&world);
    for (calling, called, answer) in [
        ("CT1", "STUNETD", None),
        ("CT1", "OTHER", Some("Called AE Title Not Recognized")),
        ("CT2", "STUNETD", Some("Calling AE Title Not Recognized")),
    ] {
        let out = echoscu(port, calling, called);
        match answer {
            None => assert!(out.status.success(), "{}", said(&out)),
            Some(reason) => assert!(!out.status.success() && said(&out).contains(reason), "{}", said(&out)),
        }
    }
    let series = ct(1, 3);
    let out = storescu(port, &["-aec", "OTHER"]).args(files(series.path())).output().expect("storescu");
    assert!(!out.status.success());
    daemon.shows("stunetd_associations_total{result=\"rejected_ae\",source=\"other\"}", 3.0);
    daemon.shows("stunetd_associations_total{result=\"released\",source=\"CT1\"}", 1.0);
    assert_eq!(spooled(&world), (vec![], vec![]));
    daemon.end().expect("a clean end");
}

#[test]
fn an_unknown_address_is_not_heard() {
    let (world, port) = world(|dimse| dimse.allow_addresses = vec!["192.0.2.0/24".parse().expect("network")]);
    let daemon = Daemon::start(&world);
    assert!(Client::associate(port, CT, EXPLICIT).is_err());
    daemon.shows("stunetd_associations_total{result=\"rejected_address\",source=\"other\"}", 1.0);
    daemon.end().expect("a clean end");
}

/// A released association says that the series is complete: no quiet time has to pass.
#[test]
fn a_released_series_is_processed_soon() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = ct(1, 8);
    send(port, &["-xe"], series.path());
    let folder = daemon.next_result();
    assert_eq!(daemon.metric("stunetd_series_closed_total{evidence=\"association\"}"), 1.0, "it waited for the quiet time");
    world.check_result(&folder, &["manifest.json", "preview.png", "seg.dcm"]);
    // Sent again, nothing happens; the same bytes are the same file.
    send(port, &["-xe"], series.path());
    daemon.shows("stunetd_network_instances_total{result=\"duplicate\",transport=\"dimse\"}", 8.0);
    daemon.clock.advance(crate::serve::daemon::QUIET * 3);
    assert_eq!((spooled(&world).0.len(), daemon.metric("stunetd_series_reopened_total")), (8, 0.0));
    daemon.end().expect("a clean end");
    // What was received is known after a restart, and done.
    let daemon = Daemon::start(&world);
    daemon.shows("stunetd_series_closed_total{evidence=\"timer\"}", 1.0);
    daemon.end().expect("a clean end");
    assert_eq!((world.engine.calls(), world.results().len()), (1, 1));
}

/// One series, in every syntax in turn: one result. The bytes lie in the spool as they were sent.
#[test]
fn one_series_in_every_uncompressed_and_lossless_syntax_is_one_job() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = ct(1, 4);
    let make: [(&str, &[&str], &str, &str); 7] = [
        ("", &[], "-xe", "1.2.840.10008.1.2.1"),
        ("dcmconv", &["+ti"], "-xi", "1.2.840.10008.1.2"),
        ("dcmconv", &["+tb"], "-xb", "1.2.840.10008.1.2.2"),
        ("dcmconv", &["+td"], "-xd", "1.2.840.10008.1.2.1.99"),
        ("dcmcrle", &[], "-xr", "1.2.840.10008.1.2.5"),
        ("dcmcjpeg", &["+e1"], "-xs", "1.2.840.10008.1.2.4.70"),
        ("dcmcjpls", &["+el"], "-xt", "1.2.840.10008.1.2.4.80"),
    ];
    let mut sent = Vec::new();
    for (program, arguments, propose, syntax) in make {
        let folder = tempfile::tempdir().expect("folder");
        for file in files(series.path()) {
            let to = folder.path().join(file.file_name().expect("name"));
            if program.is_empty() {
                std::fs::copy(&file, &to).expect("copied");
            } else {
                let out = Command::new(program).args(arguments).arg(&file).arg(&to).output().expect(program);
                assert!(out.status.success(), "{program}: {}", said(&out));
            }
        }
        send(port, &[propose], folder.path());
        sent.push(syntax);
        daemon.shows("stunetd_series_open", 0.0);
        daemon.shows("stunetd_jobs{state=\"working\"}", 0.0);
        let mut kept: Vec<String> = spooled(&world).0.iter().map(|file| transfer_syntax(file)).collect();
        kept.sort();
        kept.dedup();
        let mut expected: Vec<String> = sent.iter().map(|s| s.to_string()).collect();
        expected.sort();
        assert_eq!(kept, expected);
        daemon.shows("stunetd_jobs_ended_total{result=\"published\"}", 1.0);
    }
    assert_eq!((world.engine.calls(), world.results().len(), spooled(&world).0.len()), (1, 1, 4 * sent.len()));
    daemon.shows("stunetd_faults_total{code=\"series.conflicting_duplicate\"}", 0.0);
    daemon.shows("stunetd_series_refused_total{code=\"series.conflicting_duplicate\"}", 0.0);
    daemon.end().expect("a clean end");
}

/// The generated series, one a codec, sent as they are: those that storescu can propose by storescu, the others by our own client.
#[test]
fn every_syntax_that_is_read_is_accepted_and_kept_byte_for_byte() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/dicom/syntax");
    let propose = [
        ("1.2.840.10008.1.2", "-xi"),
        ("1.2.840.10008.1.2.1", "-xe"),
        ("1.2.840.10008.1.2.2", "-xb"),
        ("1.2.840.10008.1.2.1.99", "-xd"),
        ("1.2.840.10008.1.2.5", "-xr"),
        ("1.2.840.10008.1.2.4.50", "-xy"),
        ("1.2.840.10008.1.2.4.51", "-xx"),
        ("1.2.840.10008.1.2.4.70", "-xs"),
        ("1.2.840.10008.1.2.4.80", "-xt"),
        ("1.2.840.10008.1.2.4.81", "-xu"),
        ("1.2.840.10008.1.2.4.90", "-xv"),
        ("1.2.840.10008.1.2.4.91", "-xw"),
    ];
    let (mut count, mut seen) = (0, std::collections::BTreeSet::new());
    for folder in files(&goldens) {
        let syntax = transfer_syntax(&files(&folder)[0]);
        count += files(&folder).len();
        match propose.iter().find(|(uid, _)| *uid == syntax) {
            Some((_, propose)) => send(port, &[propose], &folder),
            None => {
                let mut client = Client::associate(port, CT, &syntax).expect(&syntax);
                for file in files(&folder) {
                    let (instance, bytes) = data_set(&file);
                    assert_eq!(client.store(CT, &instance, &bytes), Some(0), "{}", file.display());
                }
                client.release();
            }
        }
        seen.insert(syntax);
    }
    let kept: std::collections::BTreeSet<String> = spooled(&world).0.iter().map(|f| transfer_syntax(f)).collect();
    assert_eq!((spooled(&world).0.len(), kept), (count, seen));
    // Decoded, they are what they were.
    let (decoder, limits) = (cases::decoder(), Limits::default());
    let decoded = |files: Vec<PathBuf>| {
        let one = |file: &PathBuf| {
            let instance = read_instance(file, file.clone(), &limits).expect("an instance");
            let digest = plane_digest(file, 1, &instance.pixels, &limits, &decoder).expect("decoded");
            (transfer_syntax(file), instance.sop_instance_uid.to_string(), digest)
        };
        let mut all: Vec<_> = files.iter().map(one).collect();
        all.sort();
        all
    };
    assert_eq!(decoded(spooled(&world).0), decoded(files_below(&goldens)));
    daemon.end().expect("a clean end");
}

#[test]
fn several_senders_at_once_are_served() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let series: Vec<_> = (1..=6).map(|n| ct(n, 12)).collect();
    // Two senders share each series: odd and even slices.
    let senders: Vec<_> = series
        .iter()
        .flat_map(|s| [0, 1].map(|odd| files(s.path()).into_iter().skip(odd).step_by(2).collect::<Vec<_>>()))
        .map(|part| storescu(port, &["-xe"]).args(part).spawn().expect("storescu"))
        .collect();
    for mut sender in senders {
        assert!(sender.wait().expect("ended").success());
    }
    daemon.passes("all are done", || world.results().len() == 6);
    for result in world.results() {
        assert_eq!(world.shape(&result)[0], 12);
    }
    daemon.shows("stunetd_network_instances_total{result=\"stored\",transport=\"dimse\"}", 72.0);
    assert_eq!(world.engine.calls(), 6);
    daemon.end().expect("a clean end");
}

#[test]
fn more_associations_than_allowed_are_told_to_come_again() {
    need!(on_path("echoscu"), "dcmtk is not here");
    let (world, port) = world(|dimse| dimse.max_associations = 1);
    let daemon = Daemon::start(&world);
    let first = Client::associate(port, CT, EXPLICIT).expect("an association");
    let out = echoscu(port, "CT1", "STUNETD");
    assert!(!out.status.success() && said(&out).contains("Rejected Transient"), "{}", said(&out));
    first.release();
    eventually("there is room again", || echoscu(port, "CT1", "STUNETD").status.success());
    daemon.end().expect("a clean end");
}

/// A sender dies half way: what was acknowledged is there, what was not leaves nothing, and the whole sent again gives one result.
#[test]
fn a_sender_that_dies_half_way_leaves_whole_instances_only() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = ct(1, 300);
    let mut sender = storescu(port, &["-xe"]).args(files(series.path())).spawn().expect("storescu");
    eventually("some have come", || daemon.metric("stunetd_network_instances_total{result=\"stored\",transport=\"dimse\"}") >= 20.0);
    sender.kill().expect("killed");
    sender.wait().expect("ended");
    // Another one dies in the middle of a data set.
    let (instance, bytes) = data_set(&files(series.path())[299]);
    let mut client = Client::associate(port, CT, EXPLICIT).expect("an association");
    client.command(CT, &instance);
    client.data(false, &bytes[..bytes.len() / 2]);
    drop(client);
    eventually("both are noticed", || daemon.metric("stunetd_associations_total{result=\"aborted\",source=\"other\"}") == 2.0);
    let (whole, partial) = spooled(&world);
    assert!(partial.is_empty() && (20..300).contains(&whole.len()), "{} {partial:?}", whole.len());
    for file in &whole {
        let identity = read_identity(file, &Limits::default()).expect("whole");
        assert_ne!(identity.sop_instance_uid.as_str(), instance);
    }
    send(port, &["-xe"], series.path());
    let folder = daemon.next_result();
    assert_eq!(world.shape(&folder)[0], 300);
    daemon.clock.advance(crate::serve::daemon::QUIET * 3);
    assert_eq!((world.engine.calls(), world.results().len()), (1, 1));
    daemon.end().expect("a clean end");
}

#[test]
fn what_can_not_be_kept_is_refused_with_its_status() {
    let (world, port) = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = ct(1, 1);
    let (instance, good) = data_set(&files(series.path())[0]);
    let other = "1.2.3.4";
    let without_series: Vec<u8> = {
        // Series Instance UID (0020,000E) under another element number of its group.
        let at = good.windows(4).position(|w| w == [0x20, 0, 0x0E, 0]).expect("there");
        let mut bytes = good.clone();
        bytes[at + 2] = 0x0F;
        bytes
    };
    let cases: [(&str, &str, &str, &[u8], u16); 7] = [
        ("good", CT, &instance, &good, 0x0000),
        ("another instance than announced", CT, other, &good, 0xA900),
        ("another class than the context's", "1.2.840.10008.5.1.4.1.1.128", &instance, &good, 0x0122),
        ("an instance that is no UID", CT, "../../etc/passwd", &good, 0x0117),
        ("cut off", CT, &instance, &good[..good.len() - 100], 0xC000),
        ("noise", CT, &instance, &[0x5A; 4000], 0xC000),
        ("no series", CT, &instance, &without_series, 0xC001),
    ];
    let mut client = Client::associate(port, CT, EXPLICIT).expect("an association");
    for (name, class, instance, bytes, status) in cases {
        assert_eq!(client.store(class, instance, bytes), Some(status), "{name}");
    }
    // Nothing that a storage SCP does: N-ACTION, without a data set.
    client.raw_command(&[
        0, 0, 0, 0, 4, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0x30, 1, 0, 0, 0x10, 1, 2, 0, 0, 0, 9, 0, 0, 0, 0, 8, 2, 0, 0, 0, 1, 1,
    ]);
    assert_eq!(client.status(), Some(0x0211));
    assert_eq!(client.store(CT, &instance, &good), Some(0), "the association goes on");
    client.release();
    // Storage commitment is not offered.
    assert!(Client::associate(port, "1.2.840.10008.1.20.1", EXPLICIT).is_err());
    // Data before its command ends the association.
    let mut client = Client::associate(port, CT, EXPLICIT).expect("an association");
    client.data(true, &good);
    assert_eq!(client.status(), None);
    assert_eq!((spooled(&world).0.len(), spooled(&world).1.len()), (1, 0));
    daemon.shows("stunetd_network_instances_total{result=\"refused\",transport=\"dimse\"}", 6.0);
    daemon.end().expect("a clean end");
}

#[test]
fn without_room_nothing_is_taken_and_too_large_is_too_large() {
    let (mut world, port) = world(|_| {});
    let series = ct(1, 1);
    let (instance, good) = data_set(&files(series.path())[0]);
    for (min_free, max_instance, status) in [(1 << 52, 1 << 30, 0xA700), (0, 1024, 0xC002)] {
        let before = std::mem::replace(&mut world.configure, Box::new(|_| {}));
        world.configure = Box::new(move |config| {
            before(config);
            (config.spool.min_free, config.spool.low_free) = (ByteSize(min_free), ByteSize(min_free));
            config.spool.max_instance = ByteSize(max_instance);
        });
        let daemon = Daemon::start(&world);
        let mut client = Client::associate(port, CT, EXPLICIT).expect("an association");
        assert_eq!(client.store(CT, &instance, &good), Some(status));
        client.release();
        assert_eq!((spooled(&world).0.len(), spooled(&world).1.len()), (0, 0));
        daemon.end().expect("a clean end");
    }
}

/// A certificate authority of our own, and a certificate for each name.
pub fn certificates(folder: &Path, names: &[&str]) {
    let openssl = |arguments: &[&str]| {
        let out = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
        assert!(out.status.success(), "{}", said(&out));
    };
    let new = ["req", "-newkey", "rsa:2048", "-nodes", "-days", "2"];
    openssl(&[&new[..], &["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"]].concat());
    for name in names {
        let (key, request, certificate, subject) =
            (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"), format!("/CN={name}"));
        openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj", &subject]);
        std::fs::write(folder.join("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("file");
        let sign = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions"];
        openssl(&[&sign[..], &["-in", &request, "-out", &certificate]].concat());
    }
}

#[test]
fn tls_with_and_without_certificates_of_callers() {
    need!(on_path("openssl"), "openssl is not here");
    need!(on_path("storescu"), "dcmtk is not here");
    let help = Command::new("storescu").arg("--help").output().expect("storescu");
    need!(said(&help).contains("--enable-tls").then_some(()), "storescu was built without TLS");
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path(), &["server", "caller"]);
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str| at(name).to_str().expect("a path").to_owned();
    let series = ct(1, 3);
    for callers in [false, true] {
        let (certificate, key, ca) = (at("server.pem"), at("server.key"), at("ca.pem"));
        let (world, port) = world(move |dimse| {
            (dimse.tls_certificate, dimse.tls_key) = (certificate.clone(), key.clone());
            if callers {
                dimse.tls_client_ca = ca.clone();
            }
        });
        let daemon = Daemon::start(&world);
        let with_certificate = ["-xe", "+tls", &text("caller.key"), &text("caller.pem"), "+cf", &text("ca.pem")];
        send(port, &with_certificate, series.path());
        let anonymous = storescu(port, &["-xe", "+tla", "+cf", &text("ca.pem")]).args(files(series.path())).output().expect("storescu");
        assert_eq!(anonymous.status.success(), !callers, "{}", said(&anonymous));
        let plain = storescu(port, &["-xe", "-ta", "5"]).args(files(series.path())).output().expect("storescu");
        assert!(!plain.status.success(), "plain DICOM at a TLS port");
        daemon.next_result();
        daemon.end().expect("a clean end");
    }
}

#[test]
fn certificates_that_can_not_be_used_end_the_start_with_the_key() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, b"nothing").expect("file");
    for path in [file, folder.path().join("absent.pem")] {
        let mut dimse = stunetd::config::Dimse::default();
        dimse.listen.0 = Some(([127, 0, 0, 1], 0).into());
        (dimse.tls_certificate, dimse.tls_key) = (path.clone(), path);
        let metrics = std::sync::Arc::new(stunetd::telemetry::Metrics::new().expect("metrics"));
        let spool = stunetd::config::Spool { path: folder.path().join("spool"), ..Default::default() };
        let ledger = crate::ledger::InMemory::new().open().0.into();
        let clock = std::sync::Arc::new(stunetd::sys::clock::SystemClock);
        let disks =
            stunetd::intake::disks::Disks::watch(&stunetd::config::Config::default(), stunetd::machine_space(), clock, metrics.clone());
        let reception = stunetd::intake::reception::Reception::open(
            &spool,
            ledger,
            disks.expect("a thread").into(),
            metrics,
            stunetd::audit::Audit::none(),
        )
        .expect("reception");
        let fault = stunetd::intake::scp::Scp::start(&dimse, reception.into(), None).err().expect("refused");
        assert!(fault.code.name() == "config.invalid" && fault.detail.contains("dimse.tls_certificate"), "{fault}");
    }
}
