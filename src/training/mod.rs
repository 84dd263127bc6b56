//! Teaches new weights: the recipe of nnU-Net and STU-Net, exactly.
//!
//! libtorch is used in the child process that trains, nowhere else in this room.

pub mod campaign;
pub mod cases;
pub mod data;
mod error;
pub mod evaluation;
pub mod gates;
mod initial;
mod loss;
pub mod night;
mod optimizer;
pub mod run;
mod schedule;
pub mod store;
mod transfer;

pub use error::Error;
pub use initial::initial_weights;
pub use loss::{Counting, Flavour, Loss, LossValue, Outputs, loss};
pub use optimizer::{Sgd, SgdSettings};
pub use schedule::poly_learning_rate;
pub use transfer::transfer;
