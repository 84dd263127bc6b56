//! How this process gets memory from the kernel.

/// Makes freed memory stay with the process, for reuse by the next tensor: a network frees and reserves the same
/// hundreds of megabytes for every window, and having the kernel clear those pages anew costs about a third of the time.
///
/// One arena for all threads, so that memory freed by one thread serves the others; no mappings of single
/// allocations; nothing trimmed from the top. Must be the first statement of `main`, before there are threads. Returns
/// whether glibc took all settings; without them everything works, slower. Memory that a phase no longer needs goes
/// back through [`give_back`].
pub fn keep_freed_memory() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let settings =
            [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, 32 << 20), (libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_MMAP_MAX, 0)];
        // SAFETY: mallopt only stores numbers; it is called before other threads exist.
        settings.into_iter().map(|(name, value)| unsafe { libc::mallopt(name, value) } == 1).fold(true, |all, one| all & one)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        false
    }
}

/// Gives memory that is free inside the allocator back to the kernel: for the end of a study, not for the middle of one.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim has no preconditions and takes the allocator's own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}
