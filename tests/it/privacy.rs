//! Patients' names and numbers stand in every object that the tests make, and in whatever else comes from outside. DICOM objects repeat them, as
//! they must; nothing else does: no log line at the finest level, no metric, no page, no answer, no file name, no argument, nothing in the
//! ledger or in a manifest.

use crate::delivery::scp::{Act, Scp};
use crate::need;
use crate::receive::peers::{CT, Client, EXPLICIT, files as files_in, send};
use crate::serve::daemon::{Daemon, World, free_port};
use crate::serve::program::{Program, Site};
use crate::serve::scripted;
use crate::support::ct::Ct;
use crate::support::{eventually, on_path};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

const CANARIES: [&str; 4] = ["CANARY", "NAME^OF", "042Y", "20260102"];

/// Files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Fails when a canary is in the text.
fn said(what: &str, text: &str) {
    for canary in CANARIES {
        if let Some(at) = text.find(canary) {
            let near: String = text.chars().skip(text[..at].chars().count().saturating_sub(120)).take(200).collect();
            panic!("{canary} is in {what}: …{near}…");
        }
    }
}

fn stunetd(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stunetd")).args(arguments).output().expect("runs");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The program, with a log as fine as can be.
fn talkative(site: &Site) -> Program<'_> {
    Program::start_with(site, &[("STUNETD_LOG", "trace,hyper=info".as_ref())])
}

/// Looks at all that the program shows, ends it, and looks at all that it wrote.
fn names_nobody(site: &Site, program: Program<'_>) {
    let incoming = site.incoming();
    for path in ["/", "/status.json", "/metrics", "/livez"] {
        said(path, &program.get(path));
    }
    let config = site.dir.path().join("stunetd.toml").to_str().expect("UTF-8").to_owned();
    for arguments in [&["jobs", "list", "--all"][..], &["jobs", "show", "1"], &["jobs", "explain", "1"], &["top", "--once"]] {
        said(&format!("{arguments:?}"), &stunetd(&[arguments, &["--config", &config]].concat()));
    }
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if arguments.windows(7).any(|w| w == b"stunetd") {
            said("the arguments of a process", &String::from_utf8_lossy(&arguments));
        }
    }
    said("the log", &program.log());
    assert!(program.log().contains("TRACE") || program.log().contains("DEBUG"), "the log was not at its finest");
    assert_eq!(program.terminate(), Some(0));
    let mut written = Vec::new();
    files(site.dir.path(), &mut written);
    let mut looked = 0;
    for path in written.iter().filter(|path| !path.starts_with(&incoming)) {
        said("a file name", &path.strip_prefix(site.dir.path()).expect("below").to_string_lossy());
        if path.extension().is_some_and(|e| e == "dcm") {
            continue;
        }
        looked += 1;
        said(&path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(path).expect("file")));
    }
    assert!(looked >= 8, "{looked} files were looked at");
}

#[test]
fn nobody_is_named_whose_study_came_in_a_folder() {
    let site = Site::new("");
    let program = talkative(&site);
    let incoming = site.incoming();
    Ct::new(1, 8).write(&incoming);
    // One that lacks a slice, one that is cut off, one whose text is not what it should be.
    let gap = Ct::new(2, 8);
    [0, 1, 2, 4, 5, 6, 7].iter().for_each(|slice| gap.write_slice(&incoming, *slice));
    let spare = tempfile::tempdir().expect("folder");
    Ct::new(3, 4).write(spare.path());
    let mut copies = Vec::new();
    files(spare.path(), &mut copies);
    for (i, path) in copies.iter().enumerate() {
        let bytes = std::fs::read(path).expect("file");
        std::fs::write(incoming.join(format!("cut-{i}.dcm")), &bytes[..bytes.len() / (i + 2)]).expect("written");
    }
    Ct::new(4, 8).of("CANARY^NAME^OF^ANOTHER").write(&incoming);
    eventually("two results", || site.results().len() == 2);
    program.shows("stunetd_series_refused_total{code=\"series.missing_slice\"}", 1.0);
    names_nobody(&site, program);
}

/// A web service that takes nothing, and quotes patients in whatever it says.
fn indiscreet(socket: TcpListener) {
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                length = line.to_ascii_lowercase().strip_prefix("content-length:").map_or(length, |n| n.trim().parse().expect("a number"));
                line.clear();
            }
            let _ = std::io::copy(&mut reader.take(length), &mut std::io::sink());
            let body = "CANARY^NAME can not be stored, CANARY-ID is merged";
            let head = format!("HTTP/1.1 409 CANARY^NAME\r\nX-Why: CANARY-ID\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = (&stream).write_all((head + body).as_bytes());
        }
    });
}

/// The whole answer to a request.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    // It may be answered before all of it was read.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 "), "no answer to {}", String::from_utf8_lossy(request));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn nobody_is_named_whose_study_came_over_the_network_and_went_on() {
    need!(on_path("storescu"), "dcmtk is not here");
    let (port, scp) = (free_port(), Scp::listening(free_port()));
    let service = TcpListener::bind("127.0.0.1:0").expect("a port");
    let web = service.local_addr().expect("address");
    indiscreet(service);
    let site = Site::new(&format!(
        "[dimse]\nlisten = \"127.0.0.1:{port}\"\n[stow]\nenabled = true\n[spool]\npath = \"spool\"\nmin_free = \"0 B\"\nlow_free = \"0 B\"\n\
         [[destination]]\nname = \"pacs\"\naccepts = \"research\"\naddress = \"127.0.0.1:{}\"\nae_title = \"PACS\"\n\
         [[destination]]\nname = \"web\"\nkind = \"stow\"\naccepts = \"research\"\nurl = \"http://{web}/web\"\n\
         [[destination]]\nname = \"share\"\nkind = \"folder\"\naccepts = \"research\"\npath = \"share\"\nformats = [\"seg\", \"preview\"]",
        scp.port
    ));
    std::fs::create_dir(site.dir.path().join("share")).expect("folder");
    // The archive refuses the first object, and says whose it was.
    scp.script(&[Act::Answer(0xC000)]);
    let program = talkative(&site);

    let series: Vec<_> = (1..=3)
        .map(|number| {
            let folder = tempfile::tempdir().expect("folder");
            Ct::new(number, 8).write(folder.path());
            folder
        })
        .collect();
    send(port, &["-xe"], series[0].path());
    // Objects that are not what they should be.
    let whole = std::fs::read(&files_in(series[1].path())[0]).expect("file");
    let meta = 132 + 12 + u32::from_le_bytes(whole[140..144].try_into().expect("four")) as usize;
    let mut client = Client::associate(port, CT, EXPLICIT).expect("an association");
    for (instance, bytes) in [
        ("CANARY^NAME", &whole[meta..]),
        ("1.2.3", &whole[meta..]),
        ("1.2.3", &whole[meta..whole.len() - 99]),
        ("1.2.3", &b"CANARY^NAME"[..]),
    ] {
        assert!(client.store(CT, instance, bytes).is_some_and(|status| status != 0));
    }
    client.release();

    let part = |bytes: &[u8]| {
        let head = "--b\r\nContent-Type: application/dicom\r\nContent-Disposition: attachment; filename=\"CANARY^NAME.dcm\"\r\n\r\n";
        [head.as_bytes(), bytes, b"\r\n"].concat()
    };
    let post = |path: &str, kind: &str, parts: &[Vec<u8>]| {
        let body = [parts.concat(), b"--b--\r\n".to_vec()].concat();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: CANARY\r\nConnection: close\r\nUser-Agent: CANARY\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = exchange(site.address, &[head.as_bytes(), &body].concat());
        said(&format!("the answer to {path}"), &answer);
        answer[9..12].parse::<u16>().expect("a status")
    };
    let kind = "multipart/related; type=\"application/dicom\"; boundary=b";
    let good: Vec<Vec<u8>> = files_in(series[2].path()).iter().map(|file| part(&std::fs::read(file).expect("file"))).collect();
    assert_eq!(post("/dicom-web/studies?PatientName=CANARY", kind, &good), 200);
    for (path, kind, parts) in [
        ("/dicom-web/studies", kind, [part(&whole[..whole.len() - 99]), part(b"CANARY^NAME")].concat()),
        ("/dicom-web/studies/CANARY%5ENAME", kind, good.concat()),
        ("/dicom-web/studies/1.2.3", kind, good.concat()),
        ("/dicom-web/studies", "multipart/related; type=\"CANARY\"; boundary=b", good.concat()),
        ("/dicom-web/studies", "multipart/related; type=\"application/dicom\"; boundary=CANARY", good.concat()),
        ("/CANARY^NAME", kind, Vec::new()),
        ("/metrics?CANARY", kind, Vec::new()),
    ] {
        assert!(post(path, kind, &[parts]) >= 400, "{path}");
    }
    for line in [
        "GET /CANARY^NAME HTTP/1.1",
        "DELETE /status.json?CANARY HTTP/1.1",
        "GET /dicom-web/studies?PatientName=CANARY HTTP/1.1",
        "CANARY^NAME",
    ] {
        let answer = exchange(site.address, format!("{line}\r\nHost: x\r\nConnection: close\r\nX-Patient: CANARY\r\n\r\n").as_bytes());
        assert!(answer[9..10] == *"4", "{line}: {answer}");
        said(&format!("the answer to {line}"), &answer);
    }

    eventually("two results", || site.results().len() == 2);
    program.shows("stunetd_delivery_attempts_total{destination=\"pacs\",result=\"delivered\"}", 2.0);
    program.shows("stunetd_delivery_attempts_total{destination=\"share\",result=\"delivered\"}", 2.0);
    eventually("the service has refused", || {
        program.metric("stunetd_delivery_attempts_total{destination=\"web\",result=\"refused\"}") > Some(0.0)
    });
    names_nobody(&site, program);
}

/// Whatever a panic says, it stays with the process.
#[test]
fn nobody_is_named_by_a_panic() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    world.engine.next(scripted::Act::PanicSaying("CANARY^NAME"));
    Ct::new(1, 4).write(&world.incoming());
    daemon.shows("stunetd_jobs{state=\"parked\"}", 1.0);
    for path in ["/", "/status.json", "/metrics", "/livez"] {
        said(path, &daemon.get(path).1);
    }
    daemon.end().expect("a clean end");
    let mut written = Vec::new();
    files(&world.state(), &mut written);
    assert!(!written.is_empty());
    for path in written {
        said(&path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&path).expect("file")));
    }
}
