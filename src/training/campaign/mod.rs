//! From cases in the store to a run's folder, and from its result to a candidate.
//!
//! The daemon writes `plan.toml` and `assignment.json` into `runs/<n>/`; children do the rest, each step from where the one before was interrupted:
//!
//! ```text
//! prepare    curated/, rehearsal/ (cases on the network's grid), start and teacher, run.toml, request.json
//! train      checkpoint.safetensors, result.safetensors
//! evaluate   candidate/ (a model folder), evaluation.json, pictures.json
//! ```

mod assignment;
mod candidate;
mod census;
mod prepare;
mod promote;

pub use assignment::{Assignment, PLAN};
pub use candidate::make_candidate;
pub use census::{Census, ClassCount};
pub use prepare::prepare_run;
pub use promote::promotable;
