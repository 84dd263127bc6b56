//! What tests share: where goldens and shared data lie, how a skipped check says so, golden tensors.
#![allow(dead_code, reason = "each module uses a part of it")]

pub mod cases;
pub mod ct;
pub mod disk;
pub mod made;
pub mod manifest;
pub mod place;
pub mod schema;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use place::{root, shared, stunetd};

/// A golden by its path below `goldens/`: the copy in `tests/goldens` first, then the shared one.
pub fn golden(name: &str) -> Option<PathBuf> {
    let own = root().join("tests/goldens").join(name);
    if own.exists() {
        return Some(own);
    }
    Some(shared()?.join("goldens").join(name)).filter(|p| p.exists())
}

/// Real data below `shared/data`.
pub fn data(name: &str) -> Option<PathBuf> {
    Some(shared()?.join("data").join(name)).filter(|p| p.exists())
}

/// How many cases a property is tried with: as many as `PROPTEST_CASES` says, or these.
pub fn cases_of(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

/// Notes a skipped check: printed, and counted by `make test` from `$STUNETD_SKIPPED`.
pub fn note_skipped(test: &str, why: &str) {
    use std::io::Write;
    eprintln!("skipped: {test}: {why}");
    if let Some(path) = std::env::var_os("STUNETD_SKIPPED")
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{test}: {why}");
    }
}

/// `let path = need!(golden("x"), "x is not in this clone");` returns from the test, and says so, when there is none.
#[macro_export]
macro_rules! need {
    ($value:expr, $why:expr) => {
        match $value {
            Some(value) => value,
            None => {
                $crate::support::note_skipped(module_path!(), $why);
                return;
            }
        }
    };
}

/// Whether a program is on PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|d| d.join(program)).find(|p| p.is_file())
}

/// A python that has these modules: `$STUNETD_PYTHON`, else `python3`.
pub fn python_with(modules: &str) -> Option<PathBuf> {
    let python = std::env::var_os("STUNETD_PYTHON").map(PathBuf::from).or_else(|| on_path("python3"))?;
    let has = std::process::Command::new(&python).args(["-c", &format!("import {modules}")]).output().is_ok_and(|o| o.status.success());
    has.then_some(python)
}

/// A safetensors file in memory: numbers widened to f64, by name.
pub struct Tensors {
    bytes: Vec<u8>,
    index: HashMap<String, ()>,
}

/// One golden array.
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Tensors {
    pub fn open(path: &Path) -> Tensors {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let index =
            safetensors::SafeTensors::deserialize(&bytes).expect("safetensors").names().into_iter().map(|n| (n.to_string(), ())).collect();
        Tensors { bytes, index }
    }

    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.index.keys().cloned().collect();
        names.sort();
        names
    }

    pub fn get(&self, name: &str) -> Array {
        let file = safetensors::SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data = view.data();
        use safetensors::Dtype as D;
        macro_rules! wide {
            ($t:ty) => {
                data.chunks_exact(size_of::<$t>()).map(|c| <$t>::from_le_bytes(c.try_into().expect("size")) as f64).collect()
            };
        }
        let values = match view.dtype() {
            D::F64 => wide!(f64),
            D::F32 => wide!(f32),
            D::F16 => data.chunks_exact(2).map(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f64()).collect(),
            D::I64 => wide!(i64),
            D::I32 => wide!(i32),
            D::I16 => wide!(i16),
            D::I8 => wide!(i8),
            D::U8 | D::BOOL => data.iter().map(|&b| b as f64).collect(),
            other => panic!("{name}: dtype {other:?}"),
        };
        Array { shape: view.shape().to_vec(), values }
    }

    pub fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let a = self.get(name);
        (a.shape, a.values.into_iter().map(|v| v as f32).collect())
    }
}

/// Largest absolute difference over the largest absolute golden value.
pub fn relative_error(got: impl IntoIterator<Item = f64>, golden: &[f64]) -> f64 {
    let max = golden.iter().fold(0f64, |m, v| m.max(v.abs()));
    let mut n = 0;
    let worst = got.into_iter().zip(golden).fold(0f64, |w, (a, b)| {
        n += 1;
        if a.is_finite() { w.max((a - b).abs()) } else { f64::INFINITY }
    });
    assert_eq!(n, golden.len(), "number of values");
    worst / max.max(f64::MIN_POSITIVE)
}

/// Waits until a condition holds, looking often; fails the test when it does not within two minutes.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = stunetd::sys::clock::Stopwatch::start();
    while !condition() {
        assert!(start.seconds() < 120.0, "not within two minutes: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Status and body of a GET; none when nobody answers.
pub fn http_get(address: std::net::SocketAddr, path: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: stunetd\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_string()))
}
