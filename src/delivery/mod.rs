//! Publication of results: a folder appears whole or not at all, and publishing again changes nothing.

mod folder;

pub use folder::{Outcome, Receipt, ReceiptFile, all_published, conflict, publish, published};
