//! TLS towards destinations (PS3.15 annex B: BCP 195): versions 1.2 and 1.3 by rustls, nothing older; the peer's certificate is always checked.

use crate::config::Destination;
use crate::fault::{Code, Fault};
use crate::intake::tls::{authorities, certificates, private_key, wrong};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Where Debian keeps the authorities that the machine trusts.
const OF_THE_SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the configuration says of TLS towards a destination.
pub fn client_config(destination: &Destination) -> Result<Arc<ClientConfig>, Fault> {
    let given = |path: &Path| !path.as_os_str().is_empty();
    let roots = match given(&destination.tls_ca) {
        true => authorities("destination.tls_ca", &destination.tls_ca)?,
        false => {
            // Authorities of the system that rustls does not take are none that a peer could use.
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("destination.tls_ca", Path::new(OF_THE_SYSTEM))?);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::new(Code::InternalBug, format!("TLS: {e}")))?
        .with_root_certificates(roots);
    let config = match given(&destination.tls_certificate) {
        false => builder.with_no_client_auth(),
        true => {
            let (key, path) = ("destination.tls_certificate", &destination.tls_certificate);
            let chain = certificates(key, path)?;
            let private = private_key("destination.tls_key", &destination.tls_key)?;
            builder.with_client_auth_cert(chain, private).map_err(|e| wrong(key, path, &e.to_string()))?
        }
    };
    Ok(Arc::new(config))
}
