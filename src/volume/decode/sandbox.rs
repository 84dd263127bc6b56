//! What a decode worker gives up before it touches a code stream: signals, core dumps, files, memory, and nearly all system calls.

use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;
use std::io;

/// Processor time of one worker's whole life, s. The daemon retires workers long before; this ends one whose daemon hangs.
const CPU_SECONDS: u64 = 3600;

/// Leaves the terminal and the daemon's fate: signals meant for the daemon are its own to act on, and the worker dies with the thread
/// that made it. Closes every descriptor but 0, 1 and 2.
pub(super) fn detach() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE] {
        // SAFETY: sets a disposition that runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: these calls take numbers only and change this process alone.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0))?;
        check(libc::close_range(3, libc::c_uint::MAX, 0))
    }
}

/// Limits this process: no core file, no file output, few descriptors, at most `memory` bytes of address space beyond what it has now.
pub(super) fn limit(memory: u64) -> io::Result<()> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').next().and_then(|p| p.parse().ok()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: asks for a constant.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // When memory runs out the kernel takes the worker before it takes the daemon. Not allowed in every container.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
    for (resource, limit) in [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_NOFILE, 16),
        (libc::RLIMIT_CPU, CPU_SECONDS),
        (libc::RLIMIT_AS, (pages * page).saturating_add(memory)),
    ] {
        let value = libc::rlimit { rlim_cur: limit, rlim_max: limit };
        // SAFETY: the pointer is to a live, initialised structure.
        check(unsafe { libc::setrlimit(resource, &value) })?;
    }
    Ok(())
}

/// From here on: computing, memory without execution rights, and talking over descriptors that are open. Any other system call
/// kills the process.
pub(super) fn confine() -> io::Result<()> {
    let plain = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_tgkill,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_sigaltstack,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = plain.into_iter().map(|call| (call, Vec::new())).collect();
    // The third argument of both is the protection.
    let executable = SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64);
    let never_executable = SeccompCondition::new(2, SeccompCmpArgLen::Dword, executable, 0).map_err(other)?;
    let never_executable = SeccompRule::new(vec![never_executable]).map_err(other)?;
    rules.insert(libc::SYS_mmap, vec![never_executable.clone()]);
    rules.insert(libc::SYS_mprotect, vec![never_executable]);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch).map_err(other)?;
    let program = BpfProgram::try_from(filter).map_err(other)?;
    // Sets no_new_privs too.
    seccompiler::apply_filter(&program).map_err(other)
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
