//! TLS for the DICOM port (PS3.15 annex B: BCP 195): versions 1.2 and 1.3 by rustls, nothing older.

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

/// What the configuration says of TLS; `None` without a certificate. With `tls_client_ca` only callers that show a certificate signed by
/// one of these authorities are let in.
pub fn server_config(config: &Dimse) -> Result<Option<Arc<ServerConfig>>, Fault> {
    if config.tls_certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates("dimse.tls_certificate", &config.tls_certificate)?;
    let key = private_key("dimse.tls_key", &config.tls_key)?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::new(Code::InternalBug, format!("TLS: {e}")))?;
    let builder = if config.tls_client_ca.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let (key, path) = ("dimse.tls_client_ca", &config.tls_client_ca);
        let roots = authorities(key, path)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| wrong(key, path, &e.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    };
    let server =
        builder.with_single_cert(chain, key).map_err(|e| wrong("dimse.tls_certificate", &config.tls_certificate, &e.to_string()))?;
    Ok(Some(Arc::new(server)))
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
