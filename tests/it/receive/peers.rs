//! Peers that send: dcmtk's programs, and a small client that can misbehave.

use dicom_ul::association::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

pub const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// `storescu` with what every call needs; files are added by the caller.
pub fn storescu(port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new("storescu");
    command.args(["-aec", "STUNETD", "-aet", "CT1"]).args(arguments).args(["127.0.0.1", &port.to_string()]);
    command
}

pub fn echoscu(port: u16, calling: &str, called: &str) -> Output {
    Command::new("echoscu").args(["-aet", calling, "-aec", called, "127.0.0.1", &port.to_string()]).output().expect("echoscu")
}

/// All files of a folder, by name.
pub fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("folder").map(|e| e.expect("entry").path()).collect();
    files.sort();
    files
}

/// Sends a folder and expects success.
pub fn send(port: u16, arguments: &[&str], folder: &Path) {
    let out = storescu(port, arguments).args(files(folder)).output().expect("storescu");
    assert!(out.status.success(), "storescu {arguments:?}: {}", said(&out));
}

pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

/// An association of our own making.
pub struct Client(ClientAssociation<TcpStream>);

impl Client {
    pub fn associate(port: u16, class: &str, syntax: &str) -> Result<Client, String> {
        ClientAssociationOptions::new()
            .calling_ae_title("CT1")
            .called_ae_title("STUNETD")
            .with_presentation_context(class.to_owned(), vec![syntax.to_owned()])
            .establish(("127.0.0.1", port))
            .map(Client)
            .map_err(|e| e.to_string())
    }

    fn value(&mut self, value_type: PDataValueType, is_last: bool, data: &[u8]) -> Result<(), String> {
        let presentation_context_id = self.0.presentation_contexts().first().expect("a context").id;
        let value = PDataValue { presentation_context_id, value_type, is_last, data: data.to_vec() };
        self.0.send(&Pdu::PData { data: vec![value] }).map_err(|e| e.to_string())
    }

    /// A C-STORE command for a data set that follows.
    pub fn command(&mut self, class: &str, instance: &str) {
        self.value(PDataValueType::Command, true, &store_request(class, instance)).expect("sent");
    }

    /// Part of a data set.
    pub fn data(&mut self, is_last: bool, bytes: &[u8]) {
        self.value(PDataValueType::Data, is_last, bytes).expect("sent");
    }

    /// Any command.
    pub fn raw_command(&mut self, bytes: &[u8]) {
        self.value(PDataValueType::Command, true, bytes).expect("sent");
    }

    /// The status of the next response; none when the association is gone.
    pub fn status(&mut self) -> Option<u16> {
        let Ok(Pdu::PData { data }) = self.0.receive() else { return None };
        let bytes = &data.first()?.data;
        let at = bytes.windows(8).position(|w| w == [0, 0, 0, 9, 2, 0, 0, 0])? + 8;
        Some(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
    }

    /// One C-STORE from beginning to end.
    pub fn store(&mut self, class: &str, instance: &str, data_set: &[u8]) -> Option<u16> {
        self.command(class, instance);
        let pieces: Vec<&[u8]> = data_set.chunks(8192).collect();
        for (i, piece) in pieces.iter().enumerate() {
            self.data(i + 1 == pieces.len(), piece);
        }
        self.status()
    }

    pub fn release(self) {
        self.0.release().expect("released");
    }
}

/// A C-STORE-RQ (PS3.7 section 9.3.1.1).
fn store_request(class: &str, instance: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut put = |element: u16, value: &[u8]| {
        body.extend([0, 0]);
        body.extend(element.to_le_bytes());
        body.extend((value.len() as u32 + value.len() as u32 % 2).to_le_bytes());
        body.extend(value);
        body.extend(vec![0; value.len() % 2]);
    };
    put(0x0002, class.as_bytes());
    put(0x0100, &1u16.to_le_bytes());
    put(0x0110, &7u16.to_le_bytes());
    put(0x0700, &0u16.to_le_bytes());
    put(0x0800, &1u16.to_le_bytes());
    put(0x1000, instance.as_bytes());
    let mut out = vec![0, 0, 0, 0, 4, 0, 0, 0];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}
