//! The unit for systemd and its account and folders, judged by systemd's own programs.

use crate::need;
use crate::support::on_path;
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
