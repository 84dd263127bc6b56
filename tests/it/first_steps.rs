//! A machine that lacks something is told what, before anything is downloaded or built.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Programs that the script itself is made of.
const BASICS: [&str; 10] = ["bash", "env", "dirname", "uname", "sed", "cut", "sort", "head", "mkdir", "date"];

/// What `tools/setup-libtorch.sh` says on a machine with only these programs: (name, what it does).
fn says(tools: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("folder");
    for name in BASICS {
        let real = crate::support::on_path(name).unwrap_or_else(|| panic!("{name} is not on PATH"));
        symlink(real, dir.path().join(name)).expect("link");
    }
    for (name, script) in tools {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/usr/bin/env bash\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("permissions");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/setup-libtorch.sh");
    let out = Command::new(script).env_clear().env("PATH", dir.path()).env("HOME", dir.path()).output().expect("runs");
    (out.status.code(), String::from_utf8(out.stderr).expect("text"))
}

const ALL: [(&str, &str); 5] =
    [("gcc", ":"), ("g++", ":"), ("make", ":"), ("python3", "exit 0"), ("cargo", "echo cargo 9.0.0 (0 1970-01-01)")];

#[test]
fn the_setup_names_everything_that_is_missing() {
    let without = |names: &[&str]| ALL.into_iter().filter(|(name, _)| !names.contains(name)).collect::<Vec<_>>();
    let mut no_pip = without(&["python3"]);
    no_pip.push(("python3", "exit 1"));
    let mut old_rust = without(&["cargo"]);
    old_rust.push(("cargo", "echo cargo 1.63.0"));
    let rust = env!("CARGO_PKG_RUST_VERSION");
    let newer = format!("Rust {rust} or newer: https://rustup.rs");
    let cases = [
        (without(&["gcc"]), "missing: gcc\n", "On Debian: apt-get install gcc\n".to_string()),
        (without(&["g++"]), "missing: g++\n", "On Debian: apt-get install g++\n".into()),
        (without(&["python3"]), "missing: python3\n", "On Debian: apt-get install python3 python3-pip\n".into()),
        (no_pip, "missing: pip\n", "On Debian: apt-get install python3-pip\n".into()),
        (without(&["cargo"]), "missing: cargo\n", newer.clone()),
        (old_rust, &format!("missing: Rust {rust} (cargo here is 1.63.0)\n"), "rustup update".into()),
        (vec![], "missing: gcc, g++, make, python3, cargo\n", newer),
    ];
    for (tools, missing, advice) in &cases {
        let (code, text) = says(tools);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(missing) && text.contains(advice), "{text:?} lacks {missing:?} or {advice:?}");
    }
}
