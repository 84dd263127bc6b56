//! The decode worker: a child process of the same binary that decodes untrusted code streams and can do nothing else.

use super::arena::Arena;
use super::codec;
use super::protocol::{Answer, Failure, receive_batch, send_answer};
use super::sandbox;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// Runs the hidden verb `decode-worker BYTES`: descriptor 0 is a stream socket to the daemon, descriptor 1 the arena. `BYTES` is the
/// memory that it may use. Ends when the daemon closes the socket.
pub fn worker_main() -> ExitCode {
    match std::env::args().nth(2).and_then(|m| m.parse().ok()) {
        Some(memory) => ExitCode::from(run(memory)),
        None => ExitCode::from(2),
    }
}

/// Becomes a worker in a process that has just been forked, and ends it.
pub(super) fn forked(socket: OwnedFd, arena: OwnedFd, memory: u64) -> ! {
    let placed = [(socket, 0), (arena, 1)].iter().all(|(from, to)| {
        // SAFETY: replaces this process's standard descriptors; it has one thread and returns to no code that uses them.
        unsafe { libc::dup2(from.as_raw_fd(), *to) == *to }
    });
    let code = if placed { run(memory) } else { 70 };
    // SAFETY: ends the process without running what the parent has registered for its own end.
    unsafe { libc::_exit(code.into()) }
}

/// Serves until the daemon goes; the exit code. Nobody reads a message of this process: the daemon reports that it has gone.
fn run(memory: u64) -> u8 {
    let served = std::panic::catch_unwind(|| start(memory).and_then(|(mut daemon, mut arena)| serve(&mut daemon, &mut arena)));
    if matches!(served, Ok(Ok(()))) { 0 } else { 70 }
}

fn start(memory: u64) -> io::Result<(UnixStream, Arena)> {
    sandbox::detach()?;
    let daemon = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let arena = Arena::open(File::from(io::stdout().as_fd().try_clone_to_owned()?))?;
    silence()?;
    std::panic::set_hook(Box::new(|_| {}));
    sandbox::limit(memory)?;
    sandbox::confine()?;
    Ok((daemon, arena))
}

/// Puts /dev/null where a codec could print: descriptor 1 was the arena.
fn silence() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for target in 0..3 {
        // SAFETY: replaces this process's standard descriptors, which nothing owns as a value.
        if unsafe { libc::dup2(null.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn serve(daemon: &mut UnixStream, arena: &mut Arena) -> io::Result<()> {
    // Ready.
    send_answer(daemon, &Answer::Decoded)?;
    while let Some((length, jobs)) = receive_batch(daemon)? {
        arena.follow(length)?;
        let mut answer = Answer::Decoded;
        for (index, job) in jobs.iter().enumerate() {
            arena.set_progress(index as u32);
            let place = (job.output, job.spec.bytes() as u64);
            let (input, output) = arena.frame(job.input, place).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| codec::decode(job.codec, input, job.spec, output)));
            let (kind, text) = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => (Failure::of(&error), error.to_string()),
                Err(_) => (Failure::Panicked, "the codec panicked".to_owned()),
            };
            answer = Answer::Failed { frame: index, kind, text };
            break;
        }
        send_answer(daemon, &answer)?;
    }
    Ok(())
}
