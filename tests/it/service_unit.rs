//! The unit for systemd and its account and folders, judged by systemd's own programs.

use crate::need;
use crate::serve::daemon::free_port;
use crate::serve::program::Site;
use crate::support::ct::Ct;
use crate::support::{eventually, http_get, on_path};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The most exposure that the unit may have, by the measure of `systemd-analyze security` (0 safe, 10 open).
const EXPOSURE: f64 = 2.0;

#[test]
fn the_unit_is_little_exposed() {
    need!(on_path("systemd-analyze"), "systemd is not here");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(file("stunetd.service"))
        .output()
        .expect("systemd-analyze");
    let said = text(&output);
    let score =
        said.lines().find_map(|l| l.split_once("Overall exposure level for stunetd.service: ")?.1.split(' ').next()?.parse::<f64>().ok());
    let score = score.unwrap_or_else(|| panic!("no score in {said}"));
    println!("exposure {score}");
    assert!(score <= EXPOSURE, "{said}");
    assert!(!said.contains("Unknown"), "{said}");
}

#[test]
fn the_unit_is_sound() {
    need!(on_path("systemd-analyze"), "systemd is not here");
    let dir = tempfile::tempdir().expect("folder");
    let unit = std::fs::read_to_string(file("stunetd.service")).expect("unit");
    // Programs have to be where the unit says.
    let unit = unit.replace("/usr/bin/stunetd", env!("CARGO_BIN_EXE_stunetd"));
    let path = dir.path().join("stunetd.service");
    std::fs::write(&path, unit).expect("written");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().expect("systemd-analyze");
    let said = text(&output);
    let ours: Vec<&str> = said.lines().filter(|l| l.contains("stunetd")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// A GPU is reached, code can be generated, and workers can lock themselves in: without these the daemon starts and can not work.
#[test]
fn the_unit_lets_the_daemon_work() {
    let unit = std::fs::read_to_string(file("stunetd.service")).expect("unit");
    let has = |line: &str| unit.lines().any(|l| l == line);
    for line in
        ["Type=notify", "DevicePolicy=closed", "DeviceAllow=char-nvidia* rw", "SystemCallFilter=@system-service seccomp", "LimitCORE=0"]
    {
        assert!(has(line), "{line}");
    }
    for forbidden in ["PrivateDevices=yes", "MemoryDenyWriteExecute=yes", "ProcSubset=pid", "PrivateNetwork=yes"] {
        assert!(!has(forbidden), "{forbidden}");
    }
}

#[test]
fn the_account_and_its_folders_are_made() {
    for program in ["systemd-sysusers", "systemd-tmpfiles"] {
        need!(on_path(program), "systemd is not here");
    }
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return crate::support::note_skipped(module_path!(), "only root can make accounts");
    }
    let root = tempfile::tempdir().expect("folder");
    std::fs::create_dir(root.path().join("etc")).expect("folder");
    let made = |program: &str, arguments: &[&str], name: &str| {
        let output = Command::new(program).args(arguments).arg("--root").arg(root.path()).arg(file(name)).output().expect(program);
        assert!(output.status.success(), "{program}: {}", text(&output));
    };
    made("systemd-sysusers", &[], "sysusers.conf");
    let accounts = std::fs::read_to_string(root.path().join("etc/passwd")).expect("accounts");
    assert!(accounts.lines().any(|l| l.starts_with("stunetd:") && l.ends_with("nologin")), "{accounts}");
    made("systemd-tmpfiles", &["--create"], "tmpfiles.conf");
    for (folder, mode) in [("", 0o750), ("incoming", 0o2770), ("results", 0o2750), ("spool", 0o700), ("state", 0o700), ("models", 0o755)] {
        use std::os::unix::fs::PermissionsExt;
        let meta = std::fs::metadata(root.path().join("var/lib/stunetd").join(folder)).expect(folder);
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{folder}");
    }
}

/// System calls of a group of systemd's, those of the groups in it included.
fn group(name: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output().expect("systemd-analyze");
    let mut calls = BTreeSet::new();
    for word in text(&output).lines().skip(1).map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if word.starts_with('@') {
            calls.extend(group(word))
        } else {
            calls.insert(word.to_owned());
        }
    }
    calls
}

/// From its start over a compressed study to its end, decode workers and generated code included, the daemon makes no system call that the unit
/// forbids, and calls no other machine.
#[test]
fn a_whole_study_needs_no_system_call_that_the_unit_forbids() {
    for program in ["strace", "systemd-analyze", "dcmcjpls"] {
        need!(on_path(program), "strace, systemd or dcmtk is not here");
    }
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output().expect("strace");
    if !traced.status.success() {
        return crate::support::note_skipped(module_path!(), "processes may not be traced here");
    }
    let unit = std::fs::read_to_string(file("stunetd.service")).expect("unit");
    // As systemd does it: line by line, each adds to the list or takes from it.
    let (usual, mut allowed) = (group("@default"), BTreeSet::new());
    for words in unit.lines().filter_map(|l| l.strip_prefix("SystemCallFilter=")) {
        let (adds, words) = words.strip_prefix('~').map_or((true, words), |words| (false, words));
        for word in words.split(' ') {
            let calls = if word.starts_with('@') { group(word) } else { BTreeSet::from([word.to_owned()]) };
            match adds {
                true => allowed.extend(calls),
                false => allowed.retain(|call| !calls.contains(call)),
            }
        }
    }
    allowed.extend(usual);

    let dicom = free_port();
    let site = Site::new(&format!("[dimse]\nlisten = \"127.0.0.1:{dicom}\""));
    let (plain, trace) = (tempfile::tempdir().expect("folder"), site.dir.path().join("trace"));
    Ct::new(1, 8).write(plain.path());
    let mut daemon = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_stunetd"))
        .args(["serve", "--config"])
        .arg(site.dir.path().join("stunetd.toml"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("strace");
    eventually("the daemon is ready", || http_get(site.address, "/readyz").is_some_and(|(status, _)| status == 200));
    for entry in std::fs::read_dir(plain.path()).expect("folder").flatten() {
        let done = Command::new("dcmcjpls").arg(entry.path()).arg(site.incoming().join(entry.file_name())).status().expect("dcmcjpls");
        assert!(done.success());
    }
    eventually("a result", || site.results().len() == 1);
    http_get(site.address, "/").expect("a page");
    // The daemon is the process that strace started: the first that the trace names.
    let first = std::fs::read_to_string(&trace).expect("trace");
    let number = first.split(' ').next().expect("a number").to_owned();
    assert!(Command::new("kill").args(["-TERM", &number]).status().expect("kill").success());
    assert!(daemon.wait().expect("ended").success());

    let trace = std::fs::read_to_string(&trace).expect("trace");
    let name = |line: &str| {
        let call = line.split_once(' ')?.1.trim_start();
        call.split_once('(')
            .map(|(name, _)| name.to_owned())
            .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
    };
    let mut used: BTreeSet<String> = trace.lines().filter_map(name).collect();
    assert!(used.contains("seccomp") && used.len() > 50, "not a whole study: {used:?}");
    // SQLite gives its files to their owner, when it runs as root.
    used.remove("fchown");
    let refused: Vec<_> = used.iter().filter(|call| !allowed.contains(*call)).collect();
    println!("{} system calls, {} allowed", used.len(), allowed.len());
    assert!(refused.is_empty(), "{refused:?}");
    assert!(used.contains("clock_adjtime") || used.contains("adjtimex"), "the clock was not asked about");
    // Without destinations nobody is called: the one connection that leads out of the process wakes its own listener when it ends.
    let leads_out = |line: &&str| {
        ["connect(", "sendto(", "sendmsg(", "sendmmsg("].iter().any(|call| line.contains(call)) && line.contains("sa_family=AF_INET")
    };
    let own = format!("sin_port=htons({dicom}), sin_addr=inet_addr(\"127.0.0.1\")");
    let out: Vec<&str> = trace.lines().filter(leads_out).filter(|line| !line.contains(&own)).collect();
    assert_eq!(out, Vec::<&str>::new());
    assert!(trace.lines().filter(leads_out).count() <= 1);
    // Why MemoryDenyWriteExecute= is off.
    println!("code is generated: {}", trace.contains("PROT_READ|PROT_WRITE|PROT_EXEC"));
}
