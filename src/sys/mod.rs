//! The operating system behind small seams: clock, durable files, shutdown, signals, cores, libraries.

pub mod clock;
pub mod cores;
pub mod durable;
pub mod libtorch;
pub mod machine;
pub mod memory;
pub mod shutdown;
pub mod signals;
