//! Debian's Orthanc, started with a folder and ports of its own.

use crate::serve::daemon::free_port;
use crate::support::{eventually, on_path};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const PLUGIN: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";

/// What outlives a process of it.
pub struct Orthanc {
    dir: tempfile::TempDir,
    program: PathBuf,
    pub http: u16,
    pub dicom: u16,
    child: Option<Child>,
}

impl Orthanc {
    /// Not started yet; none when it is not installed.
    pub fn new() -> Option<Orthanc> {
        Orthanc::knowing(1)
    }

    /// The same; it calls us at this port with what it has to say.
    pub fn knowing(port: u16) -> Option<Orthanc> {
        let program = on_path("Orthanc").or_else(|| Some(PathBuf::from("/usr/sbin/Orthanc")).filter(|p| p.is_file()))?;
        PathBuf::from(PLUGIN).is_file().then_some(())?;
        let (dir, http, dicom) = (tempfile::tempdir().expect("folder"), free_port(), free_port());
        let config = serde_json::json!({
            "Name": "stunetd test", "StorageDirectory": dir.path().join("storage"), "IndexDirectory": dir.path().join("storage"),
            "HttpPort": http, "DicomPort": dicom, "DicomAet": "PACS", "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
            "DicomCheckCalledAet": false, "DicomAlwaysAllowEcho": true, "DicomAlwaysAllowStore": true, "DicomAlwaysAllowFind": true,
            "DicomModalities": { "us": { "AET": "STUNETD", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": true } },
            "LuaScripts": [dir.path().join("count.lua")],
            "OverwriteInstances": false, "StorageCompression": false, "Plugins": [PLUGIN],
            "DicomWeb": { "Enable": true, "Root": "/dicom-web/", "EnableWado": false }
        });
        std::fs::write(dir.path().join("orthanc.json"), config.to_string()).expect("written");
        // Called for all that comes, before it is known whether it is there.
        let count = format!(
            "function ReceivedInstanceFilter(dicom, origin, info)\n local file = io.open({:?}, 'a')\n \
             file:write(dicom.SOPInstanceUID .. '\\n')\n file:close()\n return true\nend\n",
            dir.path().join("came")
        );
        std::fs::write(dir.path().join("count.lua"), count).expect("written");
        Some(Orthanc { dir, program, http, dicom, child: None })
    }

    /// Starts it and waits until it answers.
    pub fn up(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg(self.dir.path().join("orthanc.json")).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("Orthanc"));
        eventually("Orthanc answers", || {
            self.request("GET", "/system", &[]).is_some() && TcpStream::connect(("127.0.0.1", self.dicom)).is_ok()
        });
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It stands still, its sockets open.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// How often each instance came, also when it was there already.
    pub fn came(&self) -> std::collections::BTreeMap<String, usize> {
        let lines = std::fs::read_to_string(self.dir.path().join("came")).unwrap_or_default();
        let mut all = std::collections::BTreeMap::new();
        lines.lines().for_each(|uid| *all.entry(uid.to_string()).or_default() += 1);
        all
    }

    /// The answer to a request, when there is one that is no error.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Option<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).ok()?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: orthanc\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
        answer.starts_with(b"HTTP/1.").then_some(())?;
        serde_json::from_slice(&answer[at + 4..]).ok()
    }

    /// How many instances it has.
    pub fn instances(&self) -> usize {
        self.request("GET", "/instances", &[]).and_then(|all| all.as_array().map(Vec::len)).expect("a list")
    }

    /// How often it was given an instance that it had not.
    pub fn arrivals(&self) -> usize {
        let (mut since, mut count) = (0, 0);
        loop {
            let page = self.request("GET", &format!("/changes?since={since}&limit=1000"), &[]).expect("changes");
            count += page["Changes"].as_array().expect("a list").iter().filter(|c| c["ChangeType"] == "NewInstance").count();
            since = page["Last"].as_u64().expect("a number");
            if page["Done"] == true {
                return count;
            }
        }
    }

    /// The SOP Instance UIDs of what it stored, in this order.
    pub fn stored(&self) -> Vec<String> {
        let page = self.request("GET", "/changes?limit=1000", &[]).expect("changes");
        let new = page["Changes"].as_array().expect("a list").iter().filter(|c| c["ChangeType"] == "NewInstance");
        let uid = |id: &str| {
            self.request("GET", &format!("/instances/{id}"), &[]).expect("an instance")["MainDicomTags"]["SOPInstanceUID"].clone()
        };
        new.map(|c| uid(c["ID"].as_str().expect("an ID")).as_str().expect("a UID").to_string()).collect()
    }

    /// The attributes of an instance by name.
    pub fn tags(&self, uid: &str) -> Value {
        let id = self.request("POST", "/tools/lookup", uid.as_bytes()).expect("found")[0]["ID"].as_str().expect("an ID").to_string();
        self.request("GET", &format!("/instances/{id}/simplified-tags"), &[]).expect("attributes")
    }

    /// The SOP Instance UIDs that it has.
    pub fn uids(&self) -> std::collections::BTreeSet<String> {
        let all = self.request("GET", "/instances?expand", &[]).expect("a list");
        let uid = |i: &Value| i["MainDicomTags"]["SOPInstanceUID"].as_str().expect("a UID").to_string();
        all.as_array().expect("a list").iter().map(uid).collect()
    }
}

impl Drop for Orthanc {
    fn drop(&mut self) {
        self.kill();
    }
}
