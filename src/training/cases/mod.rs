//! Curated cases: labels of people, from segmentation objects, structure sets and NIfTI files, onto the grid of the image they
//! belong to; what may be learned from them; and in which half of the patients they are for ever.

mod admission;
mod contours;
mod error;
mod grid;
mod likeness;
mod mapping;
mod network;
mod signoff;
mod split;
mod structures;

pub use admission::{Admission, Plausible, admit, millilitres};
pub use contours::from_contours;
pub use error::CaseError;
pub use grid::ImageGrid;
pub use likeness::Likeness;
pub use mapping::{Mapped, map_structures};
pub use network::{ignore_unreviewed, to_network_grid};
pub use signoff::{Decision, Origin, SignOff, changed_nothing, changed_share, label_digest};
pub use split::{CaseKeys, Role, Roles, patient_key};
pub use structures::{Concept, Structure, from_label_volume, from_segmentation};
