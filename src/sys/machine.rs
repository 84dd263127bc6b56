//! What the machine has: memory, disk, processor.

use super::durable::{Step, StorageError};
use std::io;
use std::path::Path;

/// Memory of the machine or of the control group that this process runs in, whichever is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that can be had without swapping.
    pub available: u64,
}

/// Reads `/proc/meminfo` and the control group's limit.
pub fn memory() -> io::Result<Memory> {
    let info = std::fs::read_to_string("/proc/meminfo")?;
    let field = |name: &str| {
        let line = info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal and MemAvailable");
    let (total, available) = field("MemTotal").zip(field("MemAvailable")).ok_or_else(missing)?;
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let Some(limit) = number("/sys/fs/cgroup/memory.max") else { return Ok(Memory { total, available }) };
    let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
    Ok(Memory { total: total.min(limit), available: available.min(limit.saturating_sub(used)) })
}

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Free for this user.
    pub free: u64,
    /// In use.
    pub used: u64,
}

/// Bytes free for this user on the file system that holds `path`.
pub fn disk_free(path: &Path) -> Result<u64, StorageError> {
    Ok(disk_space(path)?.free)
}

/// What the file system that holds `path` has.
pub fn disk_space(path: &Path) -> Result<Space, StorageError> {
    use std::os::unix::ffi::OsStrExt;
    let failed = StorageError::at(Step::Read, path);
    let Ok(name) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let mut answer = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` ends with a zero byte and `answer` is large enough for what statvfs writes.
    if unsafe { libc::statvfs(name.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: statvfs returned 0, so it has filled the whole structure.
    let answer = unsafe { answer.assume_init() };
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Ok(Space { free: bytes(answer.f_bavail), used: bytes(answer.f_blocks.saturating_sub(answer.f_bfree)) })
}

/// The processor's model, as the kernel names it.
pub fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    info.lines().find_map(|l| l.strip_prefix("model name")).map(|l| l.trim_start_matches([' ', '\t', ':']).to_string())
}

/// Instructions that make the network fast, each with whether this processor has it.
pub fn instructions() -> Vec<(&'static str, bool)> {
    #[cfg(target_arch = "x86_64")]
    {
        vec![
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        ]
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers() {
        let memory = memory().expect("memory");
        assert!(memory.available > 0 && memory.available <= memory.total);
        assert!(disk_free(Path::new("/")).is_ok());
        assert!(disk_free(Path::new("/does/not/exist")).is_err());
    }
}
