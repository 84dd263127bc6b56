//! The operating system behind small seams: clock, durable files, locks, shutdown, signals, service manager, cores, libraries, crash points.

pub mod access;
pub mod child;
pub mod clock;
pub mod cores;
pub mod crash;
pub mod durable;
pub mod libtorch;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod notify;
pub mod person;
pub mod shutdown;
pub mod signals;
