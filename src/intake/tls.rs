//! TLS for those who come to us (PS3.15 annex B: BCP 195): versions 1.2 and 1.3 by rustls, nothing older.

use crate::config::Dimse;
use crate::fault::{Code, Fault};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// Largest file of certificates or keys.
const MAX_PEM: u64 = 1 << 20;

/// What the configuration says of TLS for DICOM; `None` without a certificate. With `tls_client_ca` only callers that show a certificate signed by
/// one of these authorities are let in.
pub fn server_config(config: &Dimse) -> Result<Option<Arc<ServerConfig>>, Fault> {
    if config.tls_certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    server("dimse", &config.tls_certificate, &config.tls_key, &config.tls_client_ca).map(Some)
}

/// A server with the `tls_certificate`, `tls_key` and, unless empty, `tls_client_ca` of a table of the configuration.
pub fn server(table: &str, certificate: &Path, key: &Path, client_ca: &Path) -> Result<Arc<ServerConfig>, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let name = |key: &str| format!("{table}.{key}");
    let chain = certificates(&name("tls_certificate"), certificate)?;
    let key = private_key(&name("tls_key"), key)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::new(Code::InternalBug, format!("TLS: {e}")))?;
    let builder = if client_ca.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let name = name("tls_client_ca");
        let roots = authorities(&name, client_ca)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| wrong(&name, client_ca, &e.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    };
    let server = builder.with_single_cert(chain, key).map_err(|e| wrong(&name("tls_certificate"), certificate, &e.to_string()))?;
    Ok(Arc::new(server))
}

/// The private key of a PEM file; `key` names it in messages.
pub fn private_key(key: &str, path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    PrivateKeyDer::from_pem_slice(&read(key, path)?).map_err(|e| wrong(key, path, &format!("no private key: {e}")))
}

/// The certificates of a PEM file; `key` names it in messages.
pub fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(key, path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(wrong(key, path, "no certificate in it")),
        Err(e) => Err(wrong(key, path, &e.to_string())),
    }
}

/// The authorities of a PEM file; `key` names it in messages.
pub fn authorities(key: &str, path: &Path) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        roots.add(certificate).map_err(|e| wrong(key, path, &e.to_string()))?;
    }
    Ok(roots)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Fault> {
    let meta = std::fs::metadata(path).map_err(|e| wrong(key, path, &e.to_string()))?;
    if !meta.is_file() || meta.len() > MAX_PEM {
        return Err(wrong(key, path, "not a file of at most 1 MiB"));
    }
    std::fs::read(path).map_err(|e| wrong(key, path, &e.to_string()))
}

/// What is wrong with a file that a key names.
pub fn wrong(key: &str, path: &Path, why: &str) -> Fault {
    Fault::new(Code::ConfigInvalid, format!("`{key}`: {}: {why}", path.display()))
}
