//! Signals from the outside: the first SIGTERM or SIGINT asks to end, the second ends at once; SIGHUP asks to read the configuration again.

use super::shutdown::Shutdown;
use crossbeam::channel::Sender;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// What the first signal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstSignal {
    /// Finish work in flight, then end.
    Drains,
    /// Give up work in flight, clean up, then end.
    Abandons,
}

/// Ends the process without running anything more. `exit` would take libtorch's globals from under threads that still compute, and what
/// they then fail with would be written down as the fault of their study.
fn end_now(code: i32) -> ! {
    // SAFETY: takes a number and returns never; no code of this process runs after it.
    unsafe { libc::_exit(code) }
}

/// Listens on a thread of its own until the process ends. The second signal ends the process with 128 + its number, as a
/// shell would report it; temporary files may then stay behind and are swept at the next start. `hangup` is told of each
/// SIGHUP; without it that signal ends the process, as is usual.
pub fn listen(shutdown: Shutdown, first: FirstSignal, hangup: Option<Sender<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut term, mut int, hup) = {
        let _inside = runtime.enter();
        let hup = hangup.map(|tell| signal(SignalKind::hangup()).map(|hup| (hup, tell))).transpose()?;
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, hup)
    };
    let wait = async move {
        if let Some((mut hup, tell)) = hup {
            tokio::spawn(async move {
                while hup.recv().await.is_some() {
                    // Full: it is going to be read again anyway.
                    let _ = tell.try_send(());
                }
            });
        }
        let mut asked = false;
        loop {
            let number = tokio::select! {
                _ = term.recv() => SignalKind::terminate(),
                _ = int.recv() => SignalKind::interrupt(),
            }
            .as_raw_value();
            if asked {
                tracing::warn!(signal = number, "second signal: ending at once");
                end_now(128 + number);
            }
            asked = true;
            tracing::info!(signal = number, "signal: ending");
            match first {
                FirstSignal::Drains => shutdown.drain(),
                FirstSignal::Abandons => shutdown.abandon(),
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(wait)).map(drop)
}
