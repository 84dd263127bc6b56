//! Which libtorch this process runs on.
//!
//! The binary is linked against the slim CPU build and finds it by its run path. A full set with CUDA is chosen at run
//! time: the process starts itself again with `LD_LIBRARY_PATH` leading to that set, and opens `libtorch_cuda.so` before
//! libtorch is first asked for a device. After that question it would be too late: the answer is cached.

use crate::fault::{Code, Fault};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// The environment variable that names the folder of a full libtorch; it goes before the configuration.
pub const VARIABLE: &str = "STUNETD_LIBTORCH";

/// Set in the process that was started again, to the folder of libraries it was started for.
const STARTED_FOR: &str = "STUNETD_LIBTORCH_STARTED";

/// The library that makes the difference.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// What this process runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Libtorch {
    /// The CPU build that the binary was linked against.
    Slim,
    /// A full set with CUDA: its folder of libraries.
    Full(PathBuf),
}

/// Chooses the libtorch that [`VARIABLE`] or else `configured` names; must come before the first use of libtorch and
/// before threads are started, because it may start the process again with the same arguments.
pub fn choose(configured: Option<&Path>) -> Result<Libtorch, Fault> {
    let named = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let Some(folder) = named.as_deref().or(configured) else { return Ok(Libtorch::Slim) };
    let lib = libraries(folder)?;
    if std::env::var_os(STARTED_FOR).is_some_and(|v| v == lib.as_os_str()) {
        open_for_everybody(&lib.join(CUDA_LIBRARY))?;
        return Ok(Libtorch::Full(lib));
    }
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let search = std::env::join_paths([lib.clone()].into_iter().chain(std::env::split_paths(&before)))
        .map_err(|e| unavailable(folder, &e.to_string()))?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let error = std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .env("LD_LIBRARY_PATH", search)
        .env(STARTED_FOR, &lib)
        .exec();
    Err(unavailable(folder, &format!("the process could not start itself again: {error}")))
}

/// The folder of libraries in a full set: the set may be named by its top (`…/cuda`), its `torch` folder or that one's
/// `lib`.
fn libraries(folder: &Path) -> Result<PathBuf, Fault> {
    let folder = std::path::absolute(folder).map_err(|e| unavailable(folder, &e.to_string()))?;
    [folder.clone(), folder.join("lib"), folder.join("torch/lib")]
        .into_iter()
        .find(|f| f.join(CUDA_LIBRARY).is_file())
        .ok_or_else(|| unavailable(&folder, &format!("no {CUDA_LIBRARY} in it, its lib or its torch/lib")))
}

/// The version of CUDA that the full set was built for, as the set itself says: `version.py` of a wheel, `build-version` of an archive. None for
/// the CPU build, and for a set that does not say.
pub fn cuda(configured: &Path) -> Option<String> {
    let named = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = named.unwrap_or_else(|| configured.to_path_buf());
    let lib = Some(folder).filter(|f| !f.as_os_str().is_empty()).and_then(|folder| libraries(&folder).ok())?;
    let beside = |name: &str| std::fs::read_to_string(lib.parent()?.join(name)).ok();
    let wheel = beside("version.py").and_then(|text| {
        let value = text.lines().find_map(|line| line.strip_prefix("cuda")?.split_once('='))?.1;
        Some(value.trim().trim_matches(['\'', '"']).to_owned())
    });
    let archive = || {
        let digits = beside("build-version")?.trim().split_once("+cu")?.1.to_owned();
        let (major, minor) = digits.split_at_checked(digits.len().checked_sub(1)?)?;
        Some(format!("{major}.{minor}"))
    };
    let version = wheel.or_else(archive)?;
    version.bytes().all(|b| b.is_ascii_digit() || b == b'.').then_some(version)
}

fn open_for_everybody(library: &Path) -> Result<(), Fault> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the initialisers of a libtorch library register its operators and are made to run at any time before use;
    // no other thread uses libtorch yet, as `choose` demands.
    let opened = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    match opened {
        Ok(library) => {
            // Its operators stay registered, so it has to stay loaded.
            std::mem::forget(library);
            Ok(())
        }
        Err(e) => Err(unavailable(library, &e.to_string())),
    }
}

fn unavailable(what: &Path, why: &str) -> Fault {
    Fault::new(Code::DeviceUnavailable, format!("libtorch with CUDA, {}: {why}", what.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_is_found_by_its_top_or_its_library_folder() {
        let dir = tempfile::tempdir().expect("folder");
        assert_eq!(libraries(dir.path()).expect_err("empty").code, Code::DeviceUnavailable);
        let lib = dir.path().join("torch/lib");
        std::fs::create_dir_all(&lib).expect("folders");
        std::fs::write(lib.join(CUDA_LIBRARY), b"").expect("file");
        for named in [dir.path().to_path_buf(), dir.path().join("torch"), lib.clone()] {
            assert_eq!(libraries(&named).expect("found"), lib);
        }
        assert_eq!((cuda(dir.path()), cuda(Path::new(""))), (None, None));
        std::fs::write(dir.path().join("torch/build-version"), "2.11.0+cu128\n").expect("file");
        assert_eq!(cuda(dir.path()).as_deref(), Some("12.8"));
        std::fs::write(dir.path().join("torch/version.py"), "debug = False\ncuda: Optional[str] = '12.6'\n").expect("file");
        assert_eq!(cuda(dir.path()).as_deref(), Some("12.6"));
    }
}
