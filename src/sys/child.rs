//! Children that work in the background: they give way to everybody, and end with the thread that started them.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The lowest priority for the processor.
const NICE: libc::c_int = 19;
/// When memory runs out the kernel takes this process first.
const OOM: &[u8] = b"1000";
const OOM_FILE: &CStr = c"/proc/self/oom_score_adj";

/// A child in the background, with pipes to and from it. Killed and reaped when dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
}

impl Background {
    /// Starts a program with stdin and stdout piped, stderr ours. It runs at the lowest priority, is the first to go when memory runs out, and is
    /// killed when the calling thread ends: one thread has to live as long as the children that it starts.
    ///
    /// # Errors
    /// The program can not be started.
    pub fn start(command: &mut Command) -> io::Result<(Background, ChildStdin, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let parent = std::process::id();
        // SAFETY: between fork and exec the closure makes system calls only, all of them async-signal-safe, on constants and numbers; it
        // allocates nothing.
        unsafe { command.pre_exec(move || give_way(parent)) };
        let mut child = command.spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok((Background { child }, stdin, stdout)),
            _ => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }

    /// Waits for its end: the exit code, none where a signal ended it.
    ///
    /// # Errors
    /// The system can not tell.
    pub fn wait(&mut self) -> io::Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

fn give_way(parent: u32) -> io::Result<()> {
    // SAFETY: system calls on numbers and a constant, in a process with one thread.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before that call.
        if libc::getppid() as u32 != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        // Neither is worth failing for: some containers allow neither.
        let _ = libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        let file = libc::open(OOM_FILE.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            let _ = libc::write(file, OOM.as_ptr().cast(), OOM.len());
            let _ = libc::close(file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn it_gives_way_and_is_reaped() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read x; nice; cat /proc/self/oom_score_adj; exit 3"]);
        let (mut child, mut stdin, mut stdout) = Background::start(&mut shell).expect("sh");
        stdin.write_all(b"go\n").expect("told");
        let mut said = String::new();
        stdout.read_to_string(&mut said).expect("heard");
        assert_eq!(said, "19\n1000\n");
        assert_eq!(child.wait().expect("its end"), Some(3));
    }

    #[test]
    fn it_ends_with_its_owner_and_with_its_thread() {
        let lives = |id: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        let sleeper = || Background::start(Command::new("sleep").arg("1000")).expect("sleep");
        let (child, _stdin, _stdout) = sleeper();
        let id = child.id();
        assert!(lives(id));
        drop(child);
        assert!(!lives(id));
        // A thread that ends without dropping its child.
        let (id, mut stdout) = std::thread::spawn(move || {
            let (child, stdin, stdout) = sleeper();
            let id = child.id();
            std::mem::forget((child, stdin));
            (id, stdout)
        })
        .join()
        .expect("a thread");
        // Its pipe closes when it is gone.
        assert_eq!(stdout.read(&mut [0]).expect("the end"), 0);
        // SAFETY: the child is ours and nobody else waits for it; its status is not asked for.
        assert_eq!(unsafe { libc::waitpid(id as i32, std::ptr::null_mut(), 0) }, id as i32);
    }
}
