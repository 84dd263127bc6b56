//! TLS towards destinations.

use crate::config::Destination;
use crate::fault::Fault;
use crate::sys::tls;
use rustls::ClientConfig;
use std::sync::Arc;

/// What the configuration says of TLS towards a destination.
pub fn client_config(destination: &Destination) -> Result<Arc<ClientConfig>, Fault> {
    tls::client("destination", &destination.tls_ca, &destination.tls_certificate, &destination.tls_key)
}
