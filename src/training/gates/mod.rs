//! The proof that a candidate is nowhere worse than the model that serves, as functions of measured scores.
//!
//! What is measured comes in as an [`Evaluation`], what is asked as a [`ChangePlan`], and what comes out is a [`Verdict`] that
//! names every gate, what it found and whether it passed. Nothing here runs a network or changes a model.

mod agreement;
mod bootstrap;
mod evaluation;
mod facts;
mod plan;
mod report;
mod signature;
mod verdict;

pub use agreement::{dice, surface_dice};
pub use bootstrap::{Bounds, mean_difference};
pub use evaluation::{Emptiness, Evaluation, Patient, Perturbation, Score, Technical};
pub use facts::Facts;
pub use plan::{ChangePlan, Conditions, Limits, Mode, Numbers, PlanClass, Recipe};
pub use report::{Picture, report};
pub use signature::{read_signed, sign, write_signed};
pub use verdict::{Finding, Gate, Outcome, Verdict, judge};
