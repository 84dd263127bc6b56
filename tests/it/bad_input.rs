//! Every kind of bad input, given to the real program: a stable code, its sentence, the next step, the right exit code, and
//! nothing half-written.

use crate::support::ct::Ct;
use crate::support::disk::on_disk;
use crate::support::{golden, note_skipped, schema};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use stunetd::fault::Code;
use stunetd::volume::nifti::{self, NiftiGeometry};
use stunetd::volume::{Affine, Quantity, Source, Volume};

const STUNETD: &str = env!("CARGO_BIN_EXE_stunetd");

/// A folder with inputs of every kind; results go to `out`.
struct Bench {
    dir: tempfile::TempDir,
}

/// What is given, and what has to come of it.
struct Case {
    what: &'static str,
    arguments: Vec<String>,
    code: Code,
    exit: i32,
    /// Part of the detail.
    says: &'static str,
    /// Mount options of the disk that `out` lies on.
    disk: Option<&'static str>,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().expect("folder") };
        for folder in ["ct", "empty", "text", "out"] {
            std::fs::create_dir(bench.path(folder)).expect("folder");
        }
        Ct::new(1, 6).write(&bench.path("ct"));
        bench.file("text/letter.txt", b"Dear colleague");
        bench.file("letter.nii.gz", b"not NIfTI");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }

    /// The demo model, changed.
    fn model(&self, name: &str, change: impl FnOnce(&Path)) -> String {
        let folder = self.path(name);
        std::fs::create_dir(&folder).expect("folder");
        let demo = demo();
        for file in ["manifest.toml", "weights.safetensors"] {
            std::fs::copy(demo.join(file), folder.join(file)).expect("copied");
        }
        change(&folder);
        text(&folder)
    }

    /// A NIfTI volume of zeros.
    fn nifti(&self, name: &str, channels: usize) -> String {
        let affine = Affine::new([2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [0.0; 3]).expect("affine");
        let source = Source::Nifti { path: "x".into(), digest: [0; 32], geometry: Box::new(NiftiGeometry::from_affine(&affine)) };
        let quantity = vec![Quantity::Hu; channels];
        let volume = Volume { data: vec![0.0; channels * 1000], channels, shape: [10; 3], affine, quantity, source };
        let mut bytes = Vec::new();
        nifti::write_volume(&mut bytes, &volume).expect("written");
        text(&self.file(name, &bytes))
    }

    /// A header that promises 32767³ voxels, and none of them.
    fn liar(&self) -> String {
        let mut bytes = vec![0u8; 352];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &348i32.to_le_bytes());
        [3i16, 32767, 32767, 32767, 1, 1, 1, 1].iter().enumerate().for_each(|(i, d)| put(40 + 2 * i, &d.to_le_bytes()));
        put(70, &2i16.to_le_bytes());
        put(72, &8i16.to_le_bytes());
        put(108, &352f32.to_le_bytes());
        put(254, &1i16.to_le_bytes());
        for (row, at) in [280, 296, 312].into_iter().enumerate() {
            put(at + 4 * row, &1f32.to_le_bytes());
        }
        put(344, b"n+1\0");
        text(&self.file("liar.nii", &bytes))
    }

    /// `segment INPUT --model MODEL --out out`.
    fn segment(&self, input: &str, model: &str) -> Vec<String> {
        let words = ["segment", input, "--model", model, "--device", "cpu", "--format", "seg,nifti,preview", "--out"];
        words.iter().map(|w| w.to_string()).chain([text(&self.path("out"))]).collect()
    }

    fn config(&self, name: &str, toml: &str) -> String {
        text(&self.file(name, toml.as_bytes()))
    }
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_string()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

fn replace(folder: &Path, from: &str, to: &str) {
    let path = folder.join("manifest.toml");
    let old = std::fs::read_to_string(&path).expect("manifest");
    let new = old.replacen(from, to, 1);
    assert_ne!(old, new, "{from}");
    std::fs::write(path, new).expect("written");
}

fn change_weights(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join("weights.safetensors");
    let mut bytes = std::fs::read(&path).expect("weights");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("written");
}

/// Every path below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("entry").path();
        found.extend(below(&path));
        found.push(path);
    }
    found
}

fn run(bench: &Bench, case: &Case, json: bool) -> Option<Output> {
    let mut arguments = case.arguments.clone();
    if json {
        arguments.push("--json".into());
    }
    let out = bench.path("out");
    let (output, left) = match case.disk {
        Some(options) => on_disk(options, &out, STUNETD, &arguments)?,
        // A daemon that starts after all is ended, and the test fails.
        None => (Command::new("timeout").args(["60", STUNETD]).args(&arguments).output().expect("runs"), Vec::new()),
    };
    assert_eq!((left, below(&out)), (Vec::new(), Vec::new()), "{}: something was left", case.what);
    Some(output)
}

/// The case as people see it, and, unless the verb is `serve`, as scripts do.
fn check(bench: &Bench, case: &Case) {
    let Some(output) = run(bench, case, false) else {
        return note_skipped(&format!("bad_input: {}", case.what), "needs mount namespaces");
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(case.exit), "{}: {told}", case.what);
    for part in [case.code.name(), case.code.meaning(), case.says, &format!("next: {}", case.code.action())] {
        assert!(told.contains(part), "{}: {part:?} is not in {told:?}", case.what);
    }
    assert!(!told.contains("CANARY"), "{}: patient data in {told:?}", case.what);
    if case.arguments[0] == "serve" {
        return;
    }
    let output = run(bench, case, true).expect("ran before");
    assert_eq!(output.status.code(), Some(case.exit), "{}", case.what);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{}: {e}", case.what));
    let said = if let Some(error) = answer.get("error") {
        schema::conforms("error", &answer);
        error
    } else if case.arguments[0] == "segment" {
        schema::conforms("segment", &answer);
        &answer["refused"][0]
    } else {
        schema::conforms("check-config", &answer);
        &answer["mistakes"][0]
    };
    assert_eq!(said["code"], case.code.name(), "{}", case.what);
}

fn cases(bench: &Bench) -> Vec<Case> {
    let demo = text(&demo());
    let ct = text(&bench.path("ct"));
    let case = |what, arguments, code, exit, says| Case { what, arguments, code, exit, says, disk: None };
    let from = |name: &str| bench.segment(&text(&bench.path(name)), &demo);
    let with = |model: String| bench.segment(&ct, &model);
    let mut cases = vec![
        case("a folder that is not there", from("absent"), Code::ConfigInputMissing, 78, "absent"),
        case("an empty folder", from("empty"), Code::InputEmpty, 1, "empty"),
        case("a folder without DICOM", from("text"), Code::InputNotDicom, 1, "text"),
        case("a file that is no NIfTI", from("letter.nii.gz"), Code::InputNifti, 1, "letter.nii.gz"),
        case("no model folder", with(text(&bench.path("absent"))), Code::ModelMissing, 1, "manifest.toml does not exist"),
        case(
            "no weights",
            with(bench.model("no_weights", |m| std::fs::remove_file(m.join("weights.safetensors")).expect("removed"))),
            Code::ModelMissing,
            1,
            "weights.safetensors does not exist",
        ),
        case(
            "a manifest that is no TOML",
            with(bench.model("no_toml", |m| std::fs::write(m.join("manifest.toml"), "{").expect("written"))),
            Code::ModelManifest,
            1,
            "line 1",
        ),
        case(
            "a flipped bit in the weights",
            with(bench.model("flipped", |m| change_weights(m, |bytes| *bytes.last_mut().expect("bytes") ^= 1))),
            Code::ModelDigest,
            1,
            "SHA-256",
        ),
        case(
            "weights cut short",
            with(bench.model("short", |m| change_weights(m, |bytes| bytes.truncate(1000)))),
            Code::ModelDigest,
            1,
            "1000 bytes",
        ),
        case(
            "weights of another architecture",
            with(bench.model("other", |m| {
                let names = |bytes: &mut Vec<u8>| {
                    let at = bytes.windows(5).position(|w| w == b"conv1").expect("a name");
                    bytes[at + 4] = b'9';
                };
                let before = stunetd::results::file_digest(&m.join("weights.safetensors")).expect("digest").1;
                change_weights(m, names);
                replace(m, &before, &stunetd::results::file_digest(&m.join("weights.safetensors")).expect("digest").1);
            })),
            Code::ModelMismatch,
            1,
            "weights.safetensors",
        ),
        case("two channels for a model of one", bench.segment(&bench.nifti("two.nii.gz", 2), &demo), Code::ModelChannels, 1, "2"),
        case(
            "a CT for a model of PET",
            with(bench.model("pet", |m| replace(m, "modality = [\"CT\"]", "modality = [\"PT\"]"))),
            Code::ScopeModality,
            1,
            "is for PT",
        ),
        case("a header that promises 32767³ voxels", bench.segment(&bench.liar(), &demo), Code::MemoryTooLarge, 1, ""),
        case(
            "a volume beyond the memory",
            [with(demo.clone()), words(&["--host-memory", "1 MiB"])].concat(),
            Code::MemoryTooLarge,
            1,
            "GiB",
        ),
        case("a verb of a later version", words(&["worklist"]), Code::ConfigNotAvailable, 2, "worklist"),
        case("a model verb of a later version", words(&["model", "retire"]), Code::ConfigNotAvailable, 2, "retire"),
    ];
    let swap = |option: &str, value: &str| {
        let mut arguments = with(demo.clone());
        let at = arguments.iter().position(|a| a == option).expect("there") + 1;
        arguments[at] = value.into();
        arguments
    };
    cases.push(case("a device that is not there", swap("--device", "cuda:77"), Code::DeviceUnavailable, 70, "cuda:77"));
    cases.push(case("no device", swap("--device", "gpu"), Code::ConfigUsage, 2, "cuda:N"));
    cases.push(case("a format of a later version", swap("--format", "seg,sr"), Code::ConfigNotAvailable, 2, "`sr`"));
    let letter = text(&bench.path("text/letter.txt"));
    cases.push(case("a file as output folder", swap("--out", &letter), Code::DiskUnwritable, 74, "letter.txt"));
    cases.extend(disks(bench, &demo));
    cases.extend(configurations(bench, &demo));
    cases
}

/// Output on a disk that takes nothing, or not enough.
fn disks(bench: &Bench, demo: &str) -> Vec<Case> {
    let ct = text(&bench.path("ct"));
    let out = text(&bench.path("out"));
    let checkpoint = text(&golden("stunet/tiny.model").expect("in tests/goldens"));
    let made = format!("{out}/made");
    let import = words(&["model", "import", &checkpoint, "--out", &made]);
    let inspect = words(&["inspect", &ct, "--nifti", &out]);
    let segment = bench.segment(&ct, demo);
    let case = |what, arguments, code, says, disk| Case { what, arguments, code, exit: 74, says, disk: Some(disk) };
    vec![
        case("a read-only disk: segment", segment.clone(), Code::DiskUnwritable, "Read-only", "ro"),
        case("a read-only disk: import", import.clone(), Code::DiskUnwritable, "Read-only", "ro"),
        case("a full disk: segment", segment, Code::DiskFull, "No space", "size=8k"),
        case("a full disk: import", import, Code::DiskFull, "No space", "size=64k"),
        case("a full disk: inspect", inspect, Code::DiskFull, "No space", "nr_inodes=1"),
    ]
}

/// Configurations, checked and served.
fn configurations(bench: &Bench, demo: &str) -> Vec<Case> {
    let case = |what, verb: &str, file: &str, code, exit, says| {
        let arguments = if verb == "serve" { words(&["serve", "--config", file]) } else { words(&[verb, file]) };
        Case { what, arguments, code, exit, says, disk: None }
    };
    let ct = text(&bench.path("ct"));
    let whole = |name: &str, watch: &str, output: &str, model: &str, listen: &str| {
        let state = bench.path(&format!("state of {name}"));
        let toml = format!(
            "state = {state:?}\n[[watch]]\npath = {watch:?}\n[output]\npath = {output:?}\n[model]\npath = {model:?}\ndevice = \"cpu\"\n[http]\nlisten = {listen:?}\n"
        );
        bench.config(name, &toml)
    };
    let unknown = bench.config("unknown.toml", "host_memory = \"1 GiB\"\n\n[intake]\nquite = \"1 s\"\n");
    let invalid = bench.config("invalid.toml", "[intake]\nquiet = \"1 fortnight\"\n");
    let broken = bench.config("broken.toml", "[intake\n");
    let out = text(&bench.path("out"));
    let below_a_file = text(&bench.path("text/letter.txt/results"));
    let local = "127.0.0.1:0";
    let nearest = "unknown.toml:4: unknown key `quite` in [intake]; did you mean `quiet`?";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = taken.local_addr().expect("address").to_string();
    // Held until the tests end.
    std::mem::forget(taken);
    let absent = text(&bench.path("absent"));
    vec![
        case("an unknown key, checked", "check-config", &unknown, Code::ConfigUnknownKey, 78, nearest),
        case("an unknown key, served", "serve", &unknown, Code::ConfigUnknownKey, 78, nearest),
        case("a value that does not fit", "check-config", &invalid, Code::ConfigInvalid, 78, "invalid.toml:2:"),
        case("no TOML", "check-config", &broken, Code::ConfigInvalid, 78, "broken.toml:1:"),
        case("no configuration", "serve", &absent, Code::ConfigUnreadable, 78, "absent"),
        case("no model", "serve", &whole("a.toml", &ct, &out, &absent, local), Code::ModelMissing, 78, "manifest.toml"),
        case("output below a file", "serve", &whole("c.toml", &ct, &below_a_file, demo, local), Code::DiskUnwritable, 74, "letter.txt"),
        case("an address in use", "serve", &whole("d.toml", &ct, &out, demo, &busy), Code::ConfigListen, 78, "127.0.0.1"),
    ]
}

#[test]
fn each_has_its_code_and_nothing_is_half_written() {
    let bench = Bench::new();
    for case in cases(&bench) {
        check(&bench, &case);
    }
}

#[test]
fn what_is_good_is_done_beside_what_is_refused() {
    let bench = Bench::new();
    let mut arguments = bench.segment(&text(&bench.path("ct")), &text(&demo()));
    arguments.extend([text(&bench.path("text")), bench.liar(), "--json".into()]);
    let output = Command::new(STUNETD).args(&arguments).output().expect("runs");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    schema::conforms("segment", &answer);
    assert_eq!(output.status.code(), Some(1), "{answer:#}");
    let mut codes: Vec<_> = answer["refused"].as_array().expect("list").iter().map(|r| r["code"].as_str().expect("code")).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["input.not_dicom", "memory.volume_too_large"]);
    let results = answer["results"].as_array().expect("list");
    assert_eq!((results.len(), results[0]["outcome"].as_str()), (1, Some("published")));
    assert!(Path::new(results[0]["folder"].as_str().expect("path")).join("seg.dcm").is_file());
}
