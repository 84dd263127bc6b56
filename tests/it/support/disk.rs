//! A disk of its own for one command: a small or read-only tmpfs, seen by nobody else.

use std::path::Path;
use std::process::{Command, Output};

/// Mounts, runs, lists what the command left there, and passes on how it ended.
const SCRIPT: &str = r#"
options=$1 disk=$2 left=$3; shift 3
mount -t tmpfs -o "$options" none "$disk" || exit 125
"$@"; rc=$?
find "$disk" -mindepth 1 > "$left"
exit $rc"#;

/// What the program answers with the folder `disk` on a tmpfs with these mount options, and every path that lies there at the
/// end. None where such a disk can not be had (needs root, or user namespaces).
pub fn on_disk(options: &str, disk: &Path, program: &str, arguments: &[String]) -> Option<(Output, Vec<String>)> {
    let left = tempfile::NamedTempFile::new().expect("file");
    let run = |namespace: &[&str], command: &[&str], arguments: &[String]| {
        let mut unshare = Command::new("unshare");
        unshare.args(namespace).args(["sh", "-c", SCRIPT, "sh", options]).arg(disk).arg(left.path()).args(command).args(arguments);
        unshare.output().ok()
    };
    let namespaces: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let possible = |namespace: &&&[&str]| run(namespace, &["true"], &[]).is_some_and(|o| o.status.success());
    let namespace = namespaces.iter().find(possible)?;
    let output = run(namespace, &[program], arguments)?;
    let listed = std::fs::read_to_string(left.path()).expect("list");
    Some((output, listed.lines().map(String::from).collect()))
}
