//! When a run computes: a state machine without threads, clocks or processes.
//!
//! It hears what happens ([`Heard`]) and answers with what is to be done ([`Act`]). Clinical work goes first, in two depths: the child
//! pauses within one step of its work, and if it stays paused for long it saves and ends, which gives the device's memory back.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::{Act, Ended, Heard, Night, Posture, Settings};
