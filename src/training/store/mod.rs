//! Where curated cases are kept: `<state>/training`.
//!
//! ```text
//! secret            32 random bytes: pseudonyms are made with it
//! links.jsonl       which person and which files a case came from; the only place that says so
//! cases/<name>/     one case, without any person's name
//! ```
//!
//! A case's folder is written whole or not at all. What becomes of a case, and on which side of the split its patient is, stands in the ledger.

mod admit;
mod links;
mod place;
mod plausible;
mod record;
pub mod registry;
mod roles;
mod sign;
mod sources;
mod stored;
pub mod worker;

pub use admit::{Admitted, Curator};
pub use links::Link;
pub use place::Store;
pub use plausible::range;
pub use record::{CaseRecord, LabelRecord, Technical};
pub use roles::{Shown, locked_share, positives};
pub use sign::{Word, rfc3339};
pub use stored::Stored;

use sign::changed;
