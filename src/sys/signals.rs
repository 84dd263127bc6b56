//! Signals from the outside: the first SIGTERM or SIGINT asks to end, the second ends at once.

use super::shutdown::Shutdown;
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

/// Listens on a thread of its own until the process ends. The second signal ends the process with 128 + its number, as a
/// shell would report it; temporary files may then stay behind and are swept at the next start.
pub fn listen(shutdown: Shutdown, first: FirstSignal) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut term, mut int) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let wait = async move {
        let mut asked = false;
        loop {
            let number = tokio::select! {
                _ = term.recv() => SignalKind::terminate(),
                _ = int.recv() => SignalKind::interrupt(),
            }
            .as_raw_value();
            if asked {
                tracing::warn!(signal = number, "second signal: ending at once");
                std::process::exit(128 + number);
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
