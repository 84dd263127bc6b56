//! Memory that the daemon shares with one decode worker.
//!
//! A memory file that can grow but never shrink, so that a mapping of it can never fault. The daemon writes compressed frames, the
//! worker writes decoded ones beside them; they take turns by messages (`protocol`). The daemon touches the memory only by copying, and
//! never trusts what it finds there: a hostile code stream may have taken the worker over.

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// The worker's place for the index of the frame that it decodes: what is to blame when it dies.
const HEADER: usize = 64;

/// A growing piece of shared memory.
pub(super) struct Arena {
    file: File,
    map: MmapRaw,
}

impl Arena {
    /// A new arena, for the daemon.
    pub(super) fn create(bytes: usize) -> io::Result<Arena> {
        // SAFETY: the name is NUL-terminated; the call only makes a file descriptor.
        let fd = unsafe { libc::memfd_create(c"stunetd-decode".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes.max(HEADER) as u64)?;
        // SAFETY: the descriptor is live; sealing against shrinking is what makes the mapping below sound.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Arena::open(file)
    }

    /// Maps an arena that the daemon has made, for the worker.
    pub(super) fn open(file: File) -> io::Result<Arena> {
        let map = MmapOptions::new().map_raw(&file)?;
        if map.len() < HEADER {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(Arena { file, map })
    }

    /// The memory file, to hand to the worker.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Where frames may lie.
    pub(super) fn start(&self) -> usize {
        HEADER
    }

    /// Grows it to at least `bytes`. The other side sees it after [`Arena::follow`].
    pub(super) fn grow(&mut self, bytes: usize) -> io::Result<()> {
        if bytes > self.len() {
            self.file.set_len(bytes as u64)?;
            self.map = MmapOptions::new().map_raw(&self.file)?;
        }
        Ok(())
    }

    /// Maps it anew when the daemon has grown it to `bytes`, for the worker.
    pub(super) fn follow(&mut self, bytes: usize) -> io::Result<()> {
        if bytes > self.len() {
            self.map = MmapOptions::new().len(bytes).map_raw(&self.file)?;
        }
        Ok(())
    }

    /// Copies bytes in. Panics outside the arena: the caller has grown it.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.len()));
        // SAFETY: the range was checked; the source is ordinary memory of this process and can not overlap the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(at), bytes.len()) }
    }

    /// Copies bytes out. Panics outside the arena.
    pub(super) fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.len()));
        // SAFETY: the range was checked; the target is ordinary memory of this process. A worker that writes meanwhile against the
        // protocol changes which bytes are copied, nothing else: they are numbers without validity rules.
        unsafe { std::ptr::copy_nonoverlapping(self.map.as_ptr().add(at), bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Which frame is being decoded.
    pub(super) fn progress(&self) -> &AtomicU32 {
        // SAFETY: a mapping is page-aligned and at least `HEADER` bytes long, and both sides use this place as an atomic only.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast()) }
    }

    /// Notes which frame is being decoded, for the worker.
    pub(super) fn set_progress(&self, frame: u32) {
        self.progress().store(frame, Ordering::Relaxed);
    }

    /// A compressed frame and the place of its decoded form, for the worker; `None` if they lie outside or overlap.
    pub(super) fn frame(&mut self, input: (u64, u64), output: (u64, u64)) -> Option<(&[u8], &mut [u8])> {
        let range = |(at, len): (u64, u64)| {
            let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
            let end = at.checked_add(len)?;
            (at >= HEADER && end <= self.len()).then_some(at..end)
        };
        let (input, output) = (range(input)?, range(output)?);
        if input.start < output.end && output.start < input.end {
            return None;
        }
        // SAFETY: both ranges lie inside the mapping behind the header and do not overlap; the daemon does not touch them until the
        // worker has answered.
        unsafe {
            let base = self.map.as_mut_ptr();
            let input = std::slice::from_raw_parts(base.add(input.start), input.len());
            let output = std::slice::from_raw_parts_mut(base.add(output.start), output.len());
            Some((input, output))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes_and_nothing_lies_outside() {
        let mut ours = Arena::create(4096).unwrap();
        let mut theirs = Arena::open(File::from(ours.file().try_clone_to_owned().unwrap())).unwrap();
        ours.write(64, b"code stream");
        let (input, output) = theirs.frame((64, 11), (128, 4)).unwrap();
        assert_eq!(input, b"code stream");
        output.copy_from_slice(b"done");
        let mut got = [0; 4];
        ours.read(128, &mut got);
        assert_eq!(&got, b"done");
        for (input, output) in
            [((0, 8), (64, 8)), ((64, 8), (70, 8)), ((64, 8), (4090, 8)), ((u64::MAX, 8), (64, 8)), ((64, u64::MAX), (64, 1))]
        {
            assert!(theirs.frame(input, output).is_none(), "{input:?} {output:?}");
        }
        ours.grow(1 << 20).unwrap();
        assert!(theirs.frame((64, 8), (1 << 19, 8)).is_none());
        theirs.follow(1 << 20).unwrap();
        assert!(theirs.frame((64, 8), (1 << 19, 8)).is_some());
        assert!(ours.file.set_len(4096).is_err(), "sealed");
    }
}
