//! The status page, metrics, health and STOW-RS over HTTP: for this machine, and, with TLS and a token, for others.
//!
//! | Path | Answers |
//! |---|---|
//! | `/` | the status page |
//! | `/status.json` | the same for scripts |
//! | `/metrics` | Prometheus text |
//! | `/livez` | 200 as long as the process answers, with what its stages are doing |
//! | `/readyz` | 200 when series are taken; 503 before the model is loaded and while the daemon ends |
//! | `POST /dicom-web/studies` | takes objects, when `stow.enabled` |

mod page;
mod remote;
mod server;
mod stow;

pub use server::{Server, serve};
