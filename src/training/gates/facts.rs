//! What is known of a run beside scores: where its plan, its cases and its weights came from.

use serde::{Deserialize, Serialize};

/// Facts about a run, gathered by the daemon and not by the trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Digest of the plan that the run began with.
    pub plan: String,
    /// The plan in force now is that one.
    pub plan_unchanged: bool,
    /// The daemon's user could have written the plan.
    pub plan_writable: bool,
    /// The plan is for this model.
    pub plan_covers: bool,
    /// Labelled cases of the training and of the locked side.
    pub cases: [usize; 2],
    /// Cases whose sign-off does not hold, or whose labels are another's than those signed for.
    pub unsigned: Vec<String>,
    /// Persons with cases on both sides.
    pub on_both_sides: Vec<String>,
    /// Digest over the names and label digests of the locked cases.
    pub locked: String,
    /// How often candidates were measured on locked cases in the last 365 days, this time included.
    pub openings: usize,
    /// Rehearsal cases that would teach a target class with the base model's labels.
    pub teaching_targets: Vec<String>,
    /// The run started from the base model, and not from an earlier candidate.
    pub from_base: bool,
    /// Studies that were rehearsed, and the share of samples from them.
    pub rehearsal: (usize, f64),
    /// The candidate is a research model.
    pub research: bool,
    /// Every line of the audit is what was written there.
    pub audit_whole: bool,
}
