//! The operating system behind small seams: clock, durable files, locks, shutdown, signals, service manager, cores, libraries, crash points, certificates.

pub mod access;
mod certificate;
pub mod child;
pub mod civil;
pub mod clock;
pub mod cores;
pub mod crash;
pub mod durable;
pub mod hang;
pub mod libtorch;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod notify;
pub mod person;
pub mod shutdown;
pub mod signals;
pub mod tls;
