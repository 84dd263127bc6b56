//! Which series are segmented, by which model, and why: an ordered list of rules, the first that matches decides.
//!
//! A chest CT has six to twelve reconstructions; a rule with `best` takes one of them for each scan of a study and names the winner to
//! the others. A rule whose model takes PET and CT matches where both are there. Free text of a header (descriptions) is
//! matched, never repeated in an answer: it may hold a name.

mod acquisitions;
mod conditions;
mod kernels;
mod pairs;
mod rules;
mod scope;
mod verdict;

pub use conditions::Miss;
pub use rules::{Rule, rules};
pub use verdict::{Verdict, needs_study, select};
