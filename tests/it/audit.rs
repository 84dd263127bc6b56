//! What the audit repository hears: a small receiver of syslog over TLS stands for it, and a strict judge reads every message.

use crate::jobs::Place;
use crate::need;
use crate::receive::dimse::certificates;
use crate::receive::peers::{echoscu, send};
use crate::serve::daemon::{Daemon, World, free_port};
use crate::support::ct::Ct;
use crate::support::{eventually, on_path, python_with};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use stunetd::audit::{Audit, Event, Node, Study};
use stunetd::config::{Accepts, AuditTransport, ByteSize, Config, Destination, DestinationKind, Format, Listen};
use stunetd::pipeline::control::{self, Command as Verb};
use stunetd::sys::clock::SimulatedClock;
use stunetd::telemetry::Metrics;

/// A repository that listens until it is dropped.
struct Repository {
    port: u16,
    read: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repository {
    /// With the certificate of a folder, or without TLS.
    fn listen(port: u16, certificates: Option<&Path>) -> Repository {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
        let tls = certificates.map(|folder| {
            let chain: Vec<CertificateDer<'static>> =
                CertificateDer::pem_file_iter(folder.join("server.pem")).expect("file").map(|c| c.expect("certificate")).collect();
            let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("key");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
            Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("usable"))
        });
        let (read, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (heard, stopped) = (read.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                hear(stream.expect("a caller"), tls.as_ref(), |bytes| heard.lock().expect("lock").extend(frames(bytes)));
            }
        });
        Repository { port, read, stop, thread: Some(thread) }
    }

    fn messages(&self) -> Vec<String> {
        self.read.lock().expect("lock").clone()
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

/// Keeps all that a caller says until it is done; then we are, too.
fn hear(mut socket: TcpStream, tls: Option<&Arc<ServerConfig>>, keep: impl FnOnce(&[u8])) {
    let mut bytes = Vec::new();
    match tls {
        None => {
            socket.read_to_end(&mut bytes).expect("read");
            keep(&bytes);
        }
        Some(config) => {
            let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).expect("TLS"), socket);
            stream.read_to_end(&mut bytes).expect("read to the end");
            keep(&bytes);
            stream.conn.send_close_notify();
            stream.flush().expect("flushed");
        }
    }
}

/// Octet counting (RFC 5425 section 4.3): the length in decimal, a blank, the message.
fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|b| *b == b' ').expect("a length");
        let text = std::str::from_utf8(&bytes[..blank]).expect("digits");
        assert!(!text.starts_with('0'), "{text}");
        let length: usize = text.parse().expect("a length");
        let (message, rest) = bytes[blank + 1..].split_at(length);
        messages.push(String::from_utf8(message.to_vec()).expect("UTF-8"));
        bytes = rest;
    }
    messages
}

/// What each message says, in a line; every one of them keeps the standards.
fn judged(python: &Path, messages: &[String]) -> Vec<String> {
    let mut judge = Command::new(python)
        .args(["-c", include_str!("audit/judge.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python");
    let text = serde_json::to_vec(messages).expect("JSON");
    judge.stdin.take().expect("open").write_all(&text).expect("written");
    let output = judge.wait_with_output().expect("ended");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn tell(config: &mut Config, port: u16, certificates: Option<&Path>) {
    config.audit.repository = format!("localhost:{port}");
    config.audit.source = "ward 3".into();
    match certificates {
        Some(folder) => config.audit.tls_ca = folder.join("ca.pem"),
        None => config.audit.transport = AuditTransport::Tcp,
    }
}

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const SEG: &str = "1.2.840.10008.5.1.4.1.1.66.4";

#[test]
fn the_repository_hears_of_everything_once() {
    for program in ["openssl", "storescu", "echoscu"] {
        need!(on_path(program), "openssl or dcmtk is not here");
    }
    let python = need!(python_with("xml.etree.ElementTree"), "no python");
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path(), &["server"]);
    std::fs::create_dir(folder.path().join("share")).expect("folder");
    let (audit_port, dicom, place) = (free_port(), free_port(), folder.path().to_owned());
    let mut world = World::new();
    world.configure = Box::new(move |config| {
        tell(config, audit_port, Some(&place));
        config.dimse.listen = Listen(Some(([127, 0, 0, 1], dicom).into()));
        config.destination = vec![Destination {
            name: "share".into(),
            kind: DestinationKind::Folder,
            accepts: Accepts::Research,
            formats: vec![Format::Seg],
            path: place.join("share"),
            ..Destination::default()
        }];
    });
    let repository = Repository::listen(audit_port, Some(folder.path()));
    let daemon = Daemon::start(&world);
    let sent = tempfile::tempdir().expect("folder");
    Ct::new(1, 4).write(sent.path());
    send(dicom, &[], sent.path());
    daemon.next_result();
    daemon.shows("stunetd_delivery_attempts_total{destination=\"share\",result=\"delivered\"}", 1.0);
    assert!(!echoscu(dicom, "STRANGER", "OTHER").status.success());
    // A job that is in work when a person ends it.
    let go = world.engine.next_waits();
    Ct::new(2, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 2);
    assert!(control::ask(&world.state(), Verb::Cancel { job: 2 }).expect("answered").is_some());
    // It may have been told to stop before it hears this.
    let _ = go.send(());
    daemon.shows("stunetd_jobs{state=\"working\"}", 0.0);
    daemon.shows("stunetd_audit_spooled_messages", 0.0);
    daemon.end().expect("a clean end");

    let studies: Vec<String> = (1..=2).map(|number| study(number, sent.path(), &world)).collect();
    let (first, second) = (&studies[0], &studies[1]);
    let patient = "| 1.1 2 CANARY-ID CANARY^NAME";
    let me = stunetd::sys::person::own();
    let expected = [
        format!("110100 110120 E 0 | stunetd=STUNETD@here 110150 | {me}! 110151 > ward 3"),
        format!("110104 - C 0 | CT1!=CT1@127.0.0.1 110153 | stunetd=STUNETD@here 110152 > ward 3 | 2.3 110180 {first} {CT}x4 {patient}"),
        format!("110103 - R 0 | stunetd!=STUNETD@here > ward 3 | 2.3 110180 {first} {patient}"),
        format!("110103 - C 0 | stunetd!=STUNETD@here > ward 3 | 2.3 110180 {first} {SEG}x1 {patient}"),
        format!("110102 - E 0 | stunetd!=STUNETD@here 110153 | share=share 110152 > ward 3 | 2.3 110180 {first} {SEG}x1 {patient}"),
        format!("110104 - C 0 | stunetd!=STUNETD@here 110153 | share=share 110152 > ward 3 | 2.3 110180 {first} {SEG}x1 {patient}"),
        "110113 110126 E 4 (an association was rejected: called AE title not recognized) | stunetd=STUNETD@here \
         | STRANGER!=STRANGER@127.0.0.1 > ward 3 | 2.13 110182 127.0.0.1 \
         Alert Description: an association was rejected: called AE title not recognized"
            .to_owned(),
        format!("110103 - R 0 | stunetd!=STUNETD@here > ward 3 | 2.3 110180 {second} {patient}"),
        format!("110113 110132 E 0 | stunetd=STUNETD@here | {me}! > ward 3 | 2.13 110180 {second} Alert Description: cancel job 2"),
        format!("110100 110121 E 0 | stunetd=STUNETD@here 110150 | {me}! 110151 > ward 3"),
    ];
    let mut told = judged(&python, &repository.messages());
    // Outbox and intake tell beside each other.
    let mut expected = expected.to_vec();
    assert_eq!((told.first(), told.last()), (expected.first(), expected.last()));
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

/// The study of a fed series: what was sent tells of the first, the watched folder of the second.
fn study(number: u32, sent: &Path, world: &World) -> String {
    let folder = if number == 1 { sent.to_owned() } else { world.incoming() };
    let file: PathBuf = std::fs::read_dir(folder).expect("folder").next().expect("a file").expect("entry").path();
    let identity = stunetd::dicom::read_identity(&file, &stunetd::dicom::guard::Limits::default()).expect("identity");
    identity.study_uid.to_string()
}

#[test]
fn nothing_is_lost_while_the_repository_is_away() {
    let python = need!(python_with("xml.etree.ElementTree"), "no python");
    let port = free_port();
    let mut world = World::new();
    world.configure = Box::new(move |config| tell(config, port, None));
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    daemon.shows("stunetd_audit_repository_up", 0.0);
    daemon.shows("stunetd_audit_spooled_messages", 3.0);
    assert_eq!(daemon.metric("stunetd_audit_events_total{kind=\"accessed\",result=\"recorded\"}"), 2.0);
    daemon.end().expect("a clean end");
    // A caller that ends before it has read everything has read nothing.
    let rude = TcpListener::bind(("127.0.0.1", port)).expect("a port");
    let ruder = std::thread::spawn(move || {
        let (mut socket, _) = rude.accept().expect("a caller");
        socket.read_exact(&mut [0; 10]).expect("some bytes");
    });
    let daemon = Daemon::start(&world);
    eventually("somebody answered and hung up", || ruder.is_finished());
    daemon.shows("stunetd_audit_repository_up", 0.0);
    let repository = Repository::listen(port, None);
    daemon.shows("stunetd_audit_spooled_messages", 0.0);
    assert_eq!(daemon.metric("stunetd_audit_repository_up"), 1.0);
    daemon.end().expect("a clean end");
    let told = judged(&python, &repository.messages());
    let kinds: Vec<String> = told.iter().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(kinds, ["110100 110120 E", "110103 - R", "110103 - C", "110100 110121 E", "110100 110120 E", "110100 110121 E"]);
    assert!(!world.state().join("audit").read_dir().expect("folder").any(|_| true), "messages stay on disk");
}

#[test]
fn what_waits_is_bounded_and_a_gap_is_told() {
    let python = need!(python_with("xml.etree.ElementTree"), "no python");
    let (dir, port) = (tempfile::tempdir().expect("folder"), free_port());
    let mut config = Config { state: dir.path().join("state"), ..Config::default() };
    tell(&mut config, port, None);
    config.audit.spool_limit = ByteSize(1 << 20);
    let clock = Arc::new(SimulatedClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let study = Study::named("1.2.3");
    let record = |audit: &Audit, count: usize| (0..count).for_each(|_| audit.record(&Event::Read(&study)));
    // Nobody listens yet.
    let (audit, courier) = Audit::start(&config, clock.clone(), metrics.clone()).expect("started");
    // A message takes a block of the disk.
    record(&audit, 300);
    let count = |sample: &str| {
        let text = metrics.text().expect("text");
        let value = text.lines().find_map(|l| l.strip_prefix(sample)?.strip_prefix(' ').map(str::to_owned));
        value.unwrap_or_else(|| panic!("no {sample} in {text}")).parse::<u32>().expect("a number")
    };
    assert_eq!(count("stunetd_audit_events_total{kind=\"accessed\",result=\"recorded\"}"), 256);
    assert_eq!(count("stunetd_audit_events_total{kind=\"accessed\",result=\"lost\"}"), 44);
    assert_eq!(count("stunetd_audit_spool_bytes"), count("stunetd_audit_spool_limit_bytes"));
    let repository = Repository::listen(port, None);
    eventually("all that was kept is read", || {
        clock.advance(Duration::from_secs(1));
        count("stunetd_audit_spooled_messages") == 0
    });
    assert_eq!(count("stunetd_audit_messages_sent_total"), 256);
    record(&audit, 1);
    eventually("the rest is read", || count("stunetd_audit_spooled_messages") == 0);
    // Whoever knocks at every door tells of sixty alerts a minute at most.
    let node = Node { name: "STRANGER".into(), address: "192.0.2.1".into() };
    (0..100).for_each(|_| audit.record(&Event::Refused { node: &node, why: "unknown" }));
    assert_eq!(count("stunetd_audit_events_total{kind=\"security_alert\",result=\"suppressed\"}"), 40);
    drop((audit, courier));
    let told = judged(&python, &repository.messages());
    assert_eq!(told.len(), 256 + 2 + 60);
    assert!(told[256].starts_with("110113 110133 E 8 (messages were lost) | stunetd!"), "{}", told[256]);
    assert!(told[256].ends_with("Alert Description: 44 audit messages were lost"), "{}", told[256]);
    assert!(told[257].starts_with("110103 - R 0") && told[258].starts_with("110113 110126 E 4 (unknown)"), "{}", told[257]);
}

#[test]
fn what_people_do_without_a_daemon_is_told_by_the_next_one() {
    let python = need!(python_with("xml.etree.ElementTree"), "no python");
    let (place, port) = (Place::new(), free_port());
    let config = std::fs::read_to_string(place.path("stunetd.toml")).expect("read");
    let audit = format!("\n[audit]\nrepository = \"localhost:{port}\"\ntransport = \"tcp\"\n");
    std::fs::write(place.path("stunetd.toml"), config + &audit).expect("written");
    Ct::new(1, 4).write(&place.path("incoming"));
    let daemon = place.daemon();
    eventually("a result", || place.json("jobs-list", 0, &["jobs", "list", "--all"])["counts"]["done"] == 1);
    drop(daemon);
    std::fs::remove_dir_all(place.path("incoming")).expect("removed");
    std::fs::create_dir(place.path("incoming")).expect("folder");
    let study = place.json("jobs-show", 0, &["jobs", "show", "1"])["job"]["series"]["study"].as_str().expect("a UID").to_string();
    place.json("purge", 0, &["purge", "--study", &study]);
    let repository = Repository::listen(port, None);
    let _daemon = place.daemon();
    eventually("both starts are told", || repository.messages().iter().filter(|m| m.contains("110120")).count() == 2);
    let told = judged(&python, &repository.messages());
    let (me, host) = (stunetd::sys::person::own(), std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name"));
    let (host, patient) = (host.trim(), "| 1.1 2 CANARY-ID CANARY^NAME");
    let deleted = format!("110105 - D 0 | {me}! | stunetd=STUNETD@here > {host} | 2.3 110180 {study} {patient}");
    assert!(told.contains(&deleted), "{deleted} is not in {told:?}");
}
