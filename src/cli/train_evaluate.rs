//! `stunetd train-evaluate`: the child process that measures a candidate beside the model that serves.

use super::train_prepare::start;
use super::train_worker::tell;
use crate::fault::Fault;
use crate::models::Generation;
use crate::stunet::DeviceChoice;
use crate::training::campaign::{Assignment, make_candidate};
use crate::training::evaluation::measure;
use std::path::PathBuf;
use std::process::ExitCode;

/// Makes a run's candidate and compares it on the locked cases. Hears and says what `train-worker` does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run's folder
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// The run's number
    #[arg(long)]
    pub number: u64,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: DeviceChoice,
    /// Threads of the network on the CPU; 0: all cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// Exit code 0 when everything is measured, or it was asked to go; the last line tells which.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let (commands, mut open) = start(args.device, args.threads)?;
    let assignment = Assignment::read(&args.run)?;
    make_candidate(&args.run, &Generation::open(&assignment.base)?, args.number)?;
    measure(&args.run, &assignment.state.join("training/scores"), &mut open, &commands, &mut tell)?;
    Ok(ExitCode::SUCCESS)
}
