//! Where studies come in: scanning and watching folders, receiving from the network, deciding when a series is complete.

mod account;
mod arrivals;
pub mod commitment;
pub mod dimse;
pub mod disks;
pub mod doors;
pub mod multipart;
pub mod readmit;
pub mod reception;
pub mod scan;
pub mod scp;
pub mod select;
pub mod settle;
pub mod spool;
pub mod stow;
pub mod tls;
pub mod tree;
pub mod unusable;
pub mod watch;
