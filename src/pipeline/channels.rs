//! How much may wait between the stages. Drawn in `docs/architecture.md`; a test compares.
//!
//! The bytes that wait are bounded by the budget (`host_memory`); these bound the pieces. The channel in front of the
//! device holds one prepared volume: the device never waits and memory does not pile up.

/// Cases that wait for their turn: headers only. More stay with the intake, on disk.
pub const WAITING: usize = 64;
/// Dispatcher to prepare: handed over directly, a case is claimed only when it can begin.
pub const TO_PREPARE: usize = 0;
/// Prepare to device.
pub const TO_DEVICE: usize = 1;
/// Device to finish.
pub const TO_FINISH: usize = 2;
/// Finish to deliver.
pub const TO_DELIVER: usize = 2;
/// Outcomes on their way to whoever submitted the case.
pub const OUTCOMES: usize = 16;
