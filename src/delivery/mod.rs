//! Publication of results, and their way to others: a folder appears whole or not at all, publishing again changes nothing, and what a
//! destination may have already is asked about before it is sent again.

mod copy;
mod cstore;
mod folder;
mod http;
mod parcel;
mod scu;
mod status;
mod stow;
mod tls;
mod transport;

pub use folder::{Outcome, Receipt, ReceiptFile, all_published, conflict, publish, published};
pub use parcel::{Item, Parcel};
pub use transport::{Clerk, Confirmed, Failure, REFUSALS, Transport, Verdict, open, recipients};
