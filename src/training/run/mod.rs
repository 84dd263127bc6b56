//! One training run in a folder of its own, in a child process: `stunetd train-worker`.
//!
//! ```text
//! run.toml                 settings, written before the run and never changed
//! start.safetensors        the weights that it begins with
//! teacher.safetensors      the weights that it must not forget, when it distils
//! curated/*.safetensors    cases with people's labels
//! rehearsal/*.safetensors  cases with the base model's labels
//! checkpoint.safetensors   where it stands; replaced whole
//! result.safetensors       the weights that it ends with
//! ```

mod checkpoint;
mod commands;
mod settings;
mod trainer;
mod worker;

pub use commands::{Command, listen, may_go_on};
pub use settings::{AgainstForgetting, RunSettings};
pub use trainer::{StepReport, Trainer};
pub use worker::{Event, Machine, work};
