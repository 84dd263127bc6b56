//! The real program receives, is killed, and loses nothing that it acknowledged.

use super::files_below;
use super::peers::send;
use crate::need;
use crate::serve::daemon::free_port;
use crate::serve::program::{Program, Site};
use crate::support::ct::Ct;
use crate::support::{eventually, on_path};

#[test]
fn what_was_acknowledged_survives_a_kill() {
    need!(on_path("storescu"), "dcmtk is not here");
    let port = free_port();
    let site =
        Site::new(&format!("[dimse]\nlisten = \"127.0.0.1:{port}\"\n[spool]\npath = \"spool\"\nmin_free = \"0 B\"\nlow_free = \"0 B\""));
    let series = tempfile::tempdir().expect("folder");
    Ct::new(1, 8).write(series.path());
    let program = Program::start(&site);
    send(port, &["-xe"], series.path());
    // SIGKILL, the moment the last Success has been said.
    drop(program);
    assert_eq!(files_below(&site.dir.path().join("spool/series")).len(), 8);
    assert_eq!(site.results().len(), 0);
    let program = Program::start(&site);
    eventually("a result", || site.results().len() == 1);
    assert_eq!(program.terminate(), Some(0));
    assert_eq!(site.results().len(), 1);
}
