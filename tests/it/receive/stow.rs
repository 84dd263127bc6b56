//! STOW-RS, sent by curl and by python.

use super::peers::files;
use super::{files_below, spooled};
use crate::need;
use crate::serve::daemon::{Daemon, World};
use crate::support::ct::Ct;
use crate::support::{eventually, on_path};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use stunetd::config::{ByteSize, Stow};
use stunetd::dicom::guard::Limits;
use stunetd::dicom::{Identity, read_identity};

const TYPE: &str = "multipart/related; type=\"application/dicom\"; boundary=b-42";

fn world(change: impl Fn(&mut Stow) + 'static) -> World {
    let mut world = World::new();
    world.configure = Box::new(move |config| {
        config.stow.enabled = true;
        change(&mut config.stow);
    });
    world
}

fn ct(number: u32, slices: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    Ct::new(number, slices).write(folder.path());
    folder
}

/// A body with these parts, each with its Content-Type.
fn body(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, bytes) in parts {
        out.extend(format!("--b-42\r\nContent-Type: {kind}\r\n\r\n").bytes());
        out.extend(bytes);
        out.extend(b"\r\n");
    }
    out.extend(b"--b-42--\r\n");
    out
}

fn dicom(file: &Path) -> (&'static str, Vec<u8>) {
    ("application/dicom", std::fs::read(file).expect("file"))
}

fn body_of(folder: &Path) -> Vec<u8> {
    body(&files(folder).iter().map(|f| dicom(f)).collect::<Vec<_>>())
}

fn identity(file: &Path) -> Identity {
    read_identity(file, &Limits::default()).expect("identity")
}

/// Posts by curl; status and document.
fn post(address: SocketAddr, path: &str, headers: &[&str], body: &[u8]) -> (u16, Value) {
    let folder = tempfile::tempdir().expect("folder");
    let (request, answer) = (folder.path().join("request"), folder.path().join("answer"));
    std::fs::write(&request, body).expect("file");
    let mut command = Command::new("curl");
    command.args(["-s", "-S", "-X", "POST", "-w", "%{http_code}", "-o"]).arg(&answer);
    for header in headers {
        command.args(["-H", header]);
    }
    let out = command.arg("--data-binary").arg(format!("@{}", request.display())).arg(format!("http://{address}{path}")).output();
    let out = out.expect("curl");
    let status = String::from_utf8_lossy(&out.stdout).trim().parse().unwrap_or_else(|_| panic!("{out:?}"));
    let text = std::fs::read(&answer).unwrap_or_default();
    (status, serde_json::from_slice(&text).unwrap_or(Value::Null))
}

fn content_type(kind: &str) -> String {
    format!("Content-Type: {kind}")
}

/// The SOP Instance UIDs in a sequence of the answer.
fn instances(answer: &Value, sequence: &str) -> Vec<String> {
    let items = answer[sequence]["Value"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["00081155"]["Value"][0].as_str().expect("a UID").to_owned()).collect()
}

#[test]
fn a_series_is_stored_and_processed_soon() {
    need!(on_path("curl"), "curl is not here");
    let world = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = ct(1, 6);
    let study = identity(&files(series.path())[0]).study_uid;
    // The second time in chunks, without a length.
    for (path, more) in [("/dicom-web/studies".to_owned(), ""), (format!("/dicom-web/studies/{study}"), "Transfer-Encoding: chunked")] {
        let (status, answer) = post(daemon.address(), &path, &[&content_type(TYPE), more], &body_of(series.path()));
        assert_eq!(status, 200, "{answer}");
        let expected: Vec<String> = files(series.path()).iter().map(|f| identity(f).sop_instance_uid.to_string()).collect();
        assert_eq!(instances(&answer, "00081199"), expected);
        assert_eq!((&answer["00081198"], &answer["0008119A"]), (&Value::Null, &Value::Null));
        assert_eq!(answer["00081199"]["Value"][0]["00081150"], json!({ "vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"] }));
    }
    let sent: Vec<Vec<u8>> = files(series.path()).iter().map(|f| std::fs::read(f).expect("file")).collect();
    let mut kept: Vec<Vec<u8>> = spooled(&world).0.iter().map(|f| std::fs::read(f).expect("file")).collect();
    kept.sort_by_key(|bytes| sent.iter().position(|s| s == bytes));
    assert_eq!(kept, sent, "byte for byte, and once");
    let folder = daemon.next_result();
    assert_eq!(world.shape(&folder)[0], 6);
    daemon.shows("stunetd_network_instances_total{result=\"duplicate\",transport=\"stow\"}", 6.0);
    daemon.end().expect("a clean end");
}

#[test]
fn every_object_has_an_outcome_of_its_own() {
    need!(on_path("curl"), "curl is not here");
    let world = world(|_| {});
    let daemon = Daemon::start(&world);
    let (one, other) = (ct(1, 2), ct(2, 1));
    let (first, second, stranger) = (&files(one.path())[0], &files(one.path())[1], &files(other.path())[0]);
    let study = identity(first).study_uid;
    let changed = |file: &Path, from: &[u8], to: &[u8]| {
        let mut bytes = std::fs::read(file).expect("file");
        let at = bytes.windows(from.len()).rposition(|w| w == from).expect("there");
        bytes[at..at + to.len()].copy_from_slice(to);
        ("application/dicom", bytes)
    };
    // The class of the data set, not that of the file meta information, as CR and as an MPEG syntax.
    let of_other_class = changed(second, b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.1\0");
    let mut cut = dicom(second);
    cut.1.truncate(cut.1.len() - 50);
    let parts =
        [dicom(first), dicom(stranger), of_other_class, cut, ("application/dicom", b"no DICOM".to_vec()), ("image/png", b"png".to_vec())];
    let path = format!("/dicom-web/studies/{study}");
    let (status, answer) = post(daemon.address(), &path, &[&content_type(TYPE)], &body(&parts));
    assert_eq!(status, 202, "{answer}");
    let uid = |file: &Path| identity(file).sop_instance_uid.to_string();
    assert_eq!(instances(&answer, "00081199"), [uid(first)]);
    assert_eq!(instances(&answer, "00081198"), [uid(stranger), uid(second)]);
    let reasons = |sequence: &str| -> Vec<u64> {
        let items = answer[sequence]["Value"].as_array().expect("items");
        items.iter().map(|i| i["00081197"]["Value"][0].as_u64().expect("a reason")).collect()
    };
    assert_eq!(reasons("00081198"), [0xA900, 0x0122]);
    assert_eq!(reasons("0008119A"), [0xC000, 0xC000, 0xC000]);

    // Nothing at all was kept.
    let (status, answer) = post(daemon.address(), &path, &[&content_type(TYPE)], &body(&[dicom(stranger)]));
    assert_eq!((status, instances(&answer, "00081198").len()), (409, 1));
    assert_eq!((spooled(&world).0.len(), spooled(&world).1.len()), (1, 0));
    daemon.end().expect("a clean end");
}

#[test]
fn requests_that_are_not_understood_or_too_large_are_refused() {
    need!(on_path("curl"), "curl is not here");
    let world = world(|stow| {
        stow.max_body = ByteSize(100_000);
        stow.max_parts = 3;
    });
    let daemon = Daemon::start(&world);
    let series = ct(1, 4);
    let three: Vec<_> = files(series.path()).iter().take(3).map(|f| dicom(f)).collect();
    let good = body(&three);
    let studies = "/dicom-web/studies";
    let other = "multipart/related; type=\"application/dicom+json\"; boundary=b-42";
    let cases: [(&str, &str, &str, &[u8], u16); 11] = [
        ("no multipart", studies, "application/dicom", &good, 415),
        ("another root type", studies, other, &good, 415),
        ("only parts of other types", studies, TYPE, &body(&[("image/png", b"png".to_vec())]), 415),
        ("an answer that does not exist", studies, "Accept: application/dicom+xml", &good, 406),
        ("no boundary", studies, "multipart/related; type=\"application/dicom\"", &good, 400),
        ("no parts", studies, TYPE, b"--b-42--\r\n", 400),
        ("cut off", studies, TYPE, &good[..good.len() - 20], 400),
        ("no UID", "/dicom-web/studies/..%2F..%2Fetc", TYPE, &good, 400),
        ("too many parts", studies, TYPE, &body_of(series.path()), 413),
        ("too long", studies, TYPE, &vec![b'-'; 100_001], 413),
        ("good", studies, TYPE, &good, 200),
    ];
    for (name, path, header, bytes, status) in cases {
        let kind = content_type(TYPE);
        let headers = if header.starts_with("Accept") { vec![kind.as_str(), header] } else { vec![] };
        let own = content_type(header);
        let headers = if headers.is_empty() { vec![own.as_str()] } else { headers };
        assert_eq!(post(daemon.address(), path, &headers, bytes).0, status, "{name}");
    }
    // Without a length the limit holds too.
    let chunked = [&content_type(TYPE), "Transfer-Encoding: chunked"];
    assert_eq!(post(daemon.address(), studies, &chunked, &vec![b'-'; 200_000]).0, 413);
    assert_eq!(daemon.get("/dicom-web/studies").0, 405);
    daemon.end().expect("a clean end");
}

#[test]
fn nothing_is_there_unless_it_is_enabled() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    assert_eq!(daemon.get("/dicom-web/studies").0, 404);
    daemon.end().expect("a clean end");
}

#[test]
fn without_room_or_place_a_sender_comes_again() {
    need!(on_path("curl"), "curl is not here");
    let mut world = world(|stow| stow.max_requests = 1);
    let series = ct(1, 3);
    let whole = body_of(series.path());
    let daemon = Daemon::start(&world);
    // One request stops half way.
    let mut slow = TcpStream::connect(daemon.address()).expect("connected");
    let head = format!("POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {}\r\n\r\n", whole.len());
    slow.write_all(head.as_bytes()).expect("sent");
    slow.write_all(&whole[..whole.len() / 2]).expect("sent");
    eventually("one part is stored", || spooled(&world).0.len() == 1);
    assert_eq!(post(daemon.address(), "/dicom-web/studies", &[&content_type(TYPE)], &whole).0, 503);
    // It goes away: what was whole stays, and the place is free again.
    drop(slow);
    eventually("there is a place", || post(daemon.address(), "/dicom-web/studies", &[&content_type(TYPE)], &whole).0 == 200);
    eventually("nothing is half stored", || spooled(&world).1.is_empty());
    assert_eq!(spooled(&world).0.len(), 3);
    let folder = daemon.next_result();
    assert_eq!((world.shape(&folder)[0], world.engine.calls()), (3, 1));
    daemon.end().expect("a clean end");

    let before = std::mem::replace(&mut world.configure, Box::new(|_| {}));
    world.configure = Box::new(move |config| {
        before(config);
        config.spool.min_free = ByteSize(1 << 52);
    });
    let daemon = Daemon::start(&world);
    assert_eq!(post(daemon.address(), "/dicom-web/studies", &[&content_type(TYPE)], &whole).0, 503);
    daemon.end().expect("a clean end");
}

#[test]
fn a_sender_that_falls_silent_is_disconnected() {
    let world = world(|stow| stow.idle.0 = std::time::Duration::from_millis(200));
    let daemon = Daemon::start(&world);
    let mut silent = TcpStream::connect(daemon.address()).expect("connected");
    let head = format!("POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: 5000\r\n\r\n--b-42\r\n");
    silent.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    silent.read_to_string(&mut answer).expect("an answer and the end");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    daemon.end().expect("a clean end");
}

/// Another client than curl, and a body larger than all buffers.
#[test]
fn python_sends_what_is_larger_than_the_buffers() {
    let python = need!(on_path("python3"), "python3 is not here");
    let world = world(|_| {});
    let daemon = Daemon::start(&world);
    let series = ct(1, 400);
    let program = r#"
import sys, urllib.request, pathlib
parts = b"".join(b"--b-42\r\nContent-Type: application/dicom\r\n\r\n" + f.read_bytes() + b"\r\n" for f in sorted(pathlib.Path(sys.argv[2]).iterdir()))
request = urllib.request.Request(sys.argv[1], data=parts + b"--b-42--", headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary="b-42"', "Accept": "application/dicom+json"})
answer = urllib.request.urlopen(request)
print(answer.status, answer.headers["Content-Type"])
"#;
    let url = format!("http://{}/dicom-web/studies", daemon.address());
    let out = Command::new(python).args(["-c", program, &url]).arg(series.path()).output().expect("python");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "200 application/dicom+json", "{out:?}");
    assert_eq!(files_below(&world.spool().join("series")).len(), 400);
    let folder = daemon.next_result();
    assert_eq!(world.shape(&folder)[0], 400);
    daemon.end().expect("a clean end");
}
