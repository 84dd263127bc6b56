//! Who runs a process: for the journal of what people did.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The user that this process runs as, e.g. `anna (uid 1000)`.
pub fn own() -> String {
    // SAFETY: has no arguments and can not fail.
    named(unsafe { libc::geteuid() })
}

/// The user at the other end of a local socket, as the system vouches for.
pub fn peer(stream: &UnixStream) -> io::Result<String> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the call; the buffer is a `ucred` of the size told, and both live for the call.
    let got = unsafe {
        let buffer = (&raw mut credentials).cast();
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, buffer, &mut size)
    };
    if got == 0 { Ok(named(credentials.uid)) } else { Err(io::Error::last_os_error()) }
}

/// The name of a user number in the machine's own list, and the number.
fn named(uid: u32) -> String {
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    match name {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_socket_are_the_same_person() {
        let (a, b) = UnixStream::pair().expect("sockets");
        assert_eq!((peer(&a).expect("told"), peer(&b).expect("told")), (own(), own()));
        assert!(own().contains("uid "));
        assert_eq!(named(u32::MAX - 7), format!("uid {}", u32::MAX - 7));
    }
}
