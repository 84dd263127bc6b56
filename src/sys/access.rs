//! What this process could do to a file that it must not change.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether this process' user could change what is read at a path: write the file, give itself the right to, or put another file or folder in
/// the place of it or of a folder above it. The superuser could.
///
/// # Errors
/// The file or a folder above it is not there or can not be looked at.
pub fn could_change(path: &Path) -> io::Result<bool> {
    let path = path.canonicalize()?;
    // SAFETY: has no arguments and can not fail.
    let us = unsafe { libc::geteuid() };
    let file = std::fs::metadata(&path)?;
    if file.uid() == us || may_write(&path)? {
        return Ok(true);
    }
    let mut below = file.uid();
    for folder in path.ancestors().skip(1) {
        let meta = std::fs::metadata(folder)?;
        // In a sticky folder only the owner of an entry, or of the folder, may replace it.
        let sticky = meta.mode() & libc::S_ISVTX != 0 && below != us;
        if meta.uid() == us || (may_write(folder)? && !sticky) {
            return Ok(true);
        }
        below = meta.uid();
    }
    Ok(false)
}

fn may_write(path: &Path) -> io::Result<bool> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the text ends with a zero and lives for the call.
    if unsafe { libc::faccessat(libc::AT_FDCWD, name.as_ptr(), libc::W_OK, libc::AT_EACCESS) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) => Ok(false),
        e => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_files_can_be_changed_and_the_kernels_can_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("plan");
        std::fs::write(&path, "x").expect("file");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).expect("mode");
        assert!(could_change(&path).expect("looked"), "the owner can give itself the right");
        assert!(could_change(&folder.path().join("none")).is_err());
        // SAFETY: has no arguments and can not fail.
        let root = unsafe { libc::geteuid() } == 0;
        assert_eq!(could_change(Path::new("/etc/passwd")).expect("looked"), root);
    }
}
