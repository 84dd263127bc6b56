//! The ledger of a single machine: one SQLite file in WAL mode with `synchronous = FULL`.
//!
//! ```text
//! <state>/ledger.sqlite (+ -wal, -shm)   the tables
//! <state>/ledger.lock                    held by the one process that writes
//! <state>/ledger.mark                    how far the ledger was, to know an older copy
//! ```
//! One thread writes; whoever waits at the same time shares one transaction and one sync of the disk (group commit).

mod apply;
mod deliveries;
mod mark;
mod open;
mod read;
mod refused;
mod retention;
mod rows;
mod schema;
mod training;
mod writer;

pub use open::{FILE, Options, SqliteLedger, remove_copies, set_aside};
pub use read::SqliteReader;
