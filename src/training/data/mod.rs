//! From prepared cases to batches: where patches are cut, how they are changed, and the threads that do it ahead of time.
//!
//! Arrays are in network axis order `[c, a0, a1, a2]`. Everything is drawn from generators that are made of the run's seed
//! and the number of a sample: the same batch comes out whichever thread makes it, and after any interruption.

mod augment;
mod case;
mod intensity;
mod loader;
mod random;
mod sampling;
mod smooth;
mod spatial;
mod supervision;

pub use augment::{Augmentation, Drawn};
pub use case::{CaseFile, NewCase, OUTSIDE, Patch, Region};
pub use loader::{Batch, BatchPlan, Loader, TrainingSet};
pub use random::Random;
pub use sampling::{Geometry, is_forced};
pub use supervision::{Level, head_weights, lower_targets};
