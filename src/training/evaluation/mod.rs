//! A candidate against the model that serves: both segment the same locked cases whole, as the daemon would, and changed and empty inputs too.
//!
//! ```text
//! request.json                     what is compared on what; in the run's folder, written when the run is prepared
//! scores/<model>/<case>.<change>.json   one model's scores of one case under one change of the input; never computed twice
//! scores/<model>/<case>.nii.gz     its labels of the unchanged input
//! technical.json, evaluation.json, pictures.json   in the run's folder, at the end
//! ```
//!
//! Every score is in a file of its own, so that an evaluation that was interrupted goes on where it was.

mod gather;
mod inputs;
mod measure;
mod pictures;
mod request;
mod score;

pub use gather::gather;
pub use inputs::{CHANGES, Change, empty_inputs};
pub use measure::{OpenEngine, measure};
pub use request::{Request, Subject};
pub use score::{CaseScore, score};
