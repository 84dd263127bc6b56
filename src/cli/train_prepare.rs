//! `stunetd train-prepare`: the child process that makes a run's folder.

use super::train_worker::tell;
use crate::fault::Fault;
use crate::models::Generation;
use crate::segment::{Engine, TorchEngine};
use crate::stunet::{DeviceChoice, Precision};
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use crate::sys::{cores::Cores, libtorch};
use crate::training::campaign::prepare_run;
use crate::training::run::{Command, listen};
use crossbeam::channel::Receiver;
use std::path::PathBuf;
use std::process::ExitCode;

/// Brings the cases of a run onto the network's grid. Hears and says what `train-worker` does.
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

/// Exit code 0 when the folder is ready, or it was asked to go; the last line tells which.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let (commands, mut open) = start(args.device, args.threads)?;
    prepare_run(&args.run, &mut open, &commands, &mut tell)?;
    Ok(ExitCode::SUCCESS)
}

/// What opens the engine of a model.
pub(super) type Open = Box<dyn FnMut(&Generation) -> Result<Box<dyn Engine>, Fault>>;

/// Listens to the parent; engines are opened on this device, their weights verified first.
pub(super) fn start(device: DeviceChoice, threads: usize) -> Result<(Receiver<Command>, Open), Fault> {
    libtorch::choose(None)?;
    let threads = if threads == 0 { Cores::available() } else { threads };
    let shutdown = Shutdown::default();
    signals::listen(shutdown.clone(), FirstSignal::Drains, None).map_err(super::no_signals)?;
    let commands = listen(&shutdown)?;
    let open = move |model: &Generation| {
        model.verify(&mut |_, _| {})?;
        let engine: Box<dyn Engine> = Box::new(TorchEngine::open(model, device, Precision::Auto, Some(threads))?);
        Ok(engine)
    };
    Ok((commands, Box::new(open)))
}
