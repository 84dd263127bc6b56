//! The real program with the real network, as an operator runs it: started, watched over HTTP, stopped with a signal.

use crate::support::ct::Ct;
use crate::support::{eventually, http_get};
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use stunetd::results::{ResultManifest, file_digest};

/// What outlives a process.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
}

impl Site {
    /// A configuration with short times; `model` is what stands under `[model]` beside the path.
    pub fn new(model: &str) -> Site {
        Site::of(model, "")
    }

    /// The same with these rules on which series are segmented.
    pub fn with_rules(rules: &str) -> Site {
        Site::of("", rules)
    }

    fn of(model: &str, rules: &str) -> Site {
        let dir = tempfile::tempdir().expect("folder");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let text = format!(
            "drain = \"5 min\"\nstate = \"state\"\nhost_memory = \"1 GiB\"\n[[watch]]\npath = \"incoming\"\n[intake]\nquiet = \"1 s\"\nstudy_quiet = \"1 s\"\nrescan = \"1 s\"\n\
             [model]\npath = {demo:?}\ndevice = \"cpu\"\n{model}\n[output]\npath = \"results\"\nformats = [\"seg\", \"nifti\", \"preview\"]\n\
             [http]\nlisten = \"{address}\"\n{rules}"
        );
        // Whatever the disk has that the tests run on.
        let text = if text.contains("[spool]") { text } else { text + "\n[spool]\nmin_free = \"0 B\"\nlow_free = \"0 B\"\n" };
        std::fs::write(dir.path().join("stunetd.toml"), text).expect("written");
        std::fs::create_dir(dir.path().join("incoming")).expect("folder");
        Site { dir, address }
    }

    pub fn incoming(&self) -> PathBuf {
        self.dir.path().join("incoming")
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("results")
    }

    /// Published folders. What can be seen is whole: every file is there, and is what the manifest says.
    pub fn results(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.output()).into_iter().flatten().map(|e| e.expect("entry").path());
        let mut seen: Vec<_> = entries.filter(|p| !p.file_name().expect("name").as_encoded_bytes().starts_with(b".")).collect();
        seen.sort();
        for folder in &seen {
            let text = std::fs::read(folder.join("manifest.json")).expect("a published folder has its manifest");
            let manifest: ResultManifest = serde_json::from_slice(&text).expect("manifest");
            let files: Vec<_> = manifest.outputs.iter().map(|o| o.file.as_str()).collect();
            assert_eq!(files, ["seg.dcm", "labels.nii.gz", "preview.png"]);
            for output in &manifest.outputs {
                assert_eq!(file_digest(&folder.join(&output.file)).expect("file"), (output.bytes, output.sha256.clone()));
            }
        }
        seen
    }

    /// What a verb of the program answers.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        let output = command.args(arguments).arg("--config").arg(self.dir.path().join("stunetd.toml")).output().expect("runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn hidden(&self) -> usize {
        let entries = std::fs::read_dir(self.output()).into_iter().flatten();
        entries.filter(|e| e.as_ref().expect("entry").file_name().as_encoded_bytes().starts_with(b".")).count()
    }
}

/// A running daemon, killed when dropped.
pub struct Program<'s> {
    site: &'s Site,
    child: Child,
}

impl<'s> Program<'s> {
    /// Starts it and waits until it says that it is ready.
    pub fn start(site: &'s Site) -> Program<'s> {
        Program::start_with(site, &[])
    }

    /// The same, with more in its environment.
    pub fn start_with(site: &'s Site, environment: &[(&str, &OsStr)]) -> Program<'s> {
        let log = std::fs::File::create(site.dir.path().join("log")).expect("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        command.args(["serve", "--config"]).arg(site.dir.path().join("stunetd.toml")).envs(environment.iter().copied()).stderr(log);
        let mut program = Program { site, child: command.spawn().expect("starts") };
        eventually("the daemon is ready", || {
            assert!(program.child.try_wait().expect("state").is_none(), "it ended:\n{}", program.log());
            http_get(site.address, "/readyz").is_some_and(|(status, _)| status == 200)
        });
        program
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.site.dir.path().join("log")).expect("log")
    }

    pub fn get(&self, path: &str) -> String {
        http_get(self.site.address, path).unwrap_or_else(|| panic!("no answer:\n{}", self.log())).1
    }

    /// A metric, once it is there.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.get("/metrics");
        text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub fn shows(&self, name: &str, value: f64) {
        eventually(&format!("{name} {value}"), || self.metric(name) == Some(value));
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// SIGTERM; the exit code.
    pub fn terminate(self) -> Option<i32> {
        self.signal("TERM");
        self.ended()
    }

    /// The exit code, once it has ended.
    pub fn ended(mut self) -> Option<i32> {
        let mut ended = None;
        eventually("the daemon ends", || {
            ended = self.child.try_wait().expect("state");
            ended.is_some()
        });
        ended.and_then(|status| status.code())
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PUBLISHED: &str = "stunetd_jobs_ended_total{result=\"published\"}";
const CLOSED: &str = "stunetd_series_closed_total{evidence=\"timer\"}";

#[test]
fn a_study_becomes_a_segmentation_once() {
    let site = Site::new("");
    // What a killed process left.
    std::fs::create_dir_all(site.output().join(format!(".stunetd-{}-0.part", u32::MAX))).expect("folder");
    let program = Program::start(&site);
    assert_eq!(site.hidden(), 0, "leftovers are removed at the start");
    Ct::new(1, 8).write(&site.incoming());
    // The folder is looked at all the time: it appears whole or not at all.
    eventually("a result", || !site.results().is_empty());
    program.shows(PUBLISHED, 1.0);
    program.shows("stunetd_jobs{state=\"working\"}", 0.0);
    assert!(program.get("/livez").starts_with("live\n"));
    let log = program.log();
    assert!(!log.contains("CANARY"), "patient data in the log: {log}");
    assert_eq!(program.terminate(), Some(0));
    assert_eq!(site.hidden(), 0);
    let seg = site.results()[0].join("seg.dcm");
    let written = std::fs::metadata(&seg).expect("SEG").modified().expect("time");

    let program = Program::start(&site);
    program.shows(CLOSED, 1.0);
    // A second study shows that the first one had its turn.
    Ct::new(2, 8).write(&site.incoming());
    eventually("a second result", || site.results().len() == 2);
    program.shows(PUBLISHED, 1.0);
    assert_eq!(program.terminate(), Some(0));
    assert_eq!(std::fs::metadata(&seg).expect("SEG").modified().expect("time"), written, "published work is not done again");
}

#[test]
fn a_signal_in_the_middle_of_a_study_lets_it_finish() {
    // Many windows, eight times each: long enough to be caught at it.
    let site = Site::new("precision = \"f32\"\nmirror = true\nstep = 0.1");
    let program = Program::start(&site);
    Ct::new(1, 40).write(&site.incoming());
    eventually("the study is in work", || program.get("/livez").contains("segment") || !site.results().is_empty());
    assert_eq!(program.terminate(), Some(0));
    assert_eq!((site.results().len(), site.hidden()), (1, 0));
}
