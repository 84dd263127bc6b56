//! `stunetd train-worker`: the child process in which a run learns.

use crate::fault::Fault;
use crate::stunet::DeviceChoice;
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use crate::sys::{cores::Cores, libtorch};
use crate::training::Error;
use crate::training::run::{Event, Machine, listen, work};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs one training run in its folder. Reads `pause`, `resume` and `evict` from stdin, a line each, and writes one JSON
/// object a line to stdout. Ends as if evicted when stdin ends or at SIGTERM.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's folder
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Threads of the network on the CPU; 0: all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// Exit code 0 when the run is finished, or was asked to go and has saved; the last line tells which.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    libtorch::choose(None)?;
    let cores = Cores::available();
    let threads = if args.threads == 0 { cores } else { args.threads };
    let device = args.device.resolve().map_err(Fault::from)?;
    let shutdown = Shutdown::default();
    signals::listen(shutdown.clone(), FirstSignal::Drains, None).map_err(super::no_signals)?;
    let commands = listen(&shutdown)?;
    let loaders = if device == crate::stunet::Device::Cpu { cores.div_ceil(2) } else { cores.saturating_sub(2).max(1) };
    work(&args.run, Machine { device, threads, loaders }, &commands, &mut tell)?;
    Ok(ExitCode::SUCCESS)
}

/// One JSON object a line to the parent.
pub(super) fn tell(event: &Event) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let written = serde_json::to_writer(&mut out, event).map_err(std::io::Error::from).and_then(|()| out.write_all(b"\n"));
    written.and_then(|()| out.flush()).map_err(|e| Error::Settings(format!("stdout: {e}")))
}
