//! Runs the street: stages on threads joined by bounded channels, a byte budget, one outcome for every job.

mod board;
pub mod budget;
pub mod channels;
mod work;

pub use board::{Beat, Board, Seat};
pub use work::{Envelope, JobId, Times, Work};
