//! Who did what with whose images, for the hospital's audit repository: messages by DICOM PS3.15 A.5, sent by syslog over TLS (RFC 5424, 5425).
//!
//! The one channel that names patients, as A.5 demands. A message is on disk, in the state folder, before the work that it tells of goes on;
//! it leaves the disk when the repository has read it. While the repository is away messages wait, up to a limit; beyond it they are counted
//! as lost, and the repository is told so. Clinical work never waits for the repository, and never fails because of it.

mod courier;
mod event;
mod line;
mod message;
mod office;
mod spool;
mod xml;

pub use courier::Courier;
pub use event::{Event, Node, Study};
pub use office::Audit;
