//! The operating system behind small seams: clock, durable files, shutdown, signals, cores.

pub mod clock;
pub mod durable;
pub mod shutdown;
pub mod signals;
