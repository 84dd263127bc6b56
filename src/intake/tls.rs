//! TLS for those who come to us.

use crate::config::Dimse;
use crate::fault::Fault;
use crate::sys::tls;
use rustls::ServerConfig;
use std::sync::Arc;

/// What the configuration says of TLS for DICOM; `None` without a certificate. With `tls_client_ca` only callers that show a certificate signed by
/// one of these authorities are let in.
pub fn server_config(config: &Dimse) -> Result<Option<Arc<ServerConfig>>, Fault> {
    if config.tls_certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    tls::server("dimse", &config.tls_certificate, &config.tls_key, &config.tls_client_ca).map(Some)
}
