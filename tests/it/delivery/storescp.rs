//! dcmtk's `storescp`. Every object that it gets is a file of its own, also one that it got before.

use crate::support::eventually;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The running program; killed when dropped.
pub struct Storescp {
    pub port: u16,
    child: Child,
}

impl Storescp {
    /// At a port of its own, a process for each association.
    pub fn start(folder: &Path, arguments: &[&str]) -> Storescp {
        Storescp::at(crate::serve::daemon::free_port(), folder, &[&["--fork"], arguments].concat())
    }

    /// At this port, one process for everything.
    pub fn at(port: u16, folder: &Path, arguments: &[&str]) -> Storescp {
        let mut command = Command::new("storescp");
        command.args(["-aet", "PACS", "+uf", "-od"]).arg(folder).args(arguments).arg(port.to_string());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("storescp");
        let peer = Storescp { port, child };
        eventually("storescp listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        peer
    }
}

impl Drop for Storescp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Objects in a folder of `storescp`.
pub fn objects(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("folder").filter(|e| e.as_ref().is_ok_and(|e| e.path().extension().is_none_or(|x| x != "cfg"))).count()
}
