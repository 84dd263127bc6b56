//! `stunetd case-worker`: the child process in which cases are made.

use crate::fault::Fault;
use crate::sys::libtorch;
use crate::training::store::worker;
use crate::volume::decode::{Decoder, DecoderConfig};
use std::io::BufReader;
use std::process::ExitCode;

/// Makes cases of folders. Reads requests from stdin and writes answers to stdout, one JSON object a line; the first line says how.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Exit code 0 at the end of stdin.
pub fn run(_: Args) -> Result<ExitCode, Fault> {
    libtorch::choose(None)?;
    // Two threads and two codecs at most: everything else on the machine goes first.
    let decoder = Decoder::new(DecoderConfig { workers: 2, ..DecoderConfig::default() })?;
    worker::serve(BufReader::new(std::io::stdin()), std::io::stdout(), &decoder)?;
    Ok(ExitCode::SUCCESS)
}
