//! Certificates and keys from PEM files, and TLS with them (PS3.15 annex B: BCP 195): versions 1.2 and 1.3 by rustls, nothing older; the
//! certificate of who is called is always checked. Every message names the key of the configuration that is wrong.

use super::certificate;
use crate::fault::{Code, Fault};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// Largest file of certificates or keys.
const MAX_PEM: u64 = 1 << 20;
/// Where Debian keeps the authorities that the machine trusts.
const OF_THE_SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A client with the `tls_ca` (empty: the system's authorities) and, unless empty, `tls_certificate` and `tls_key` of a table of the
/// configuration.
pub fn client(table: &str, ca: &Path, certificate: &Path, key: &Path) -> Result<Arc<ClientConfig>, Fault> {
    let name = |key: &str| format!("{table}.{key}");
    let given = |path: &Path| !path.as_os_str().is_empty();
    let roots = match given(ca) {
        true => authorities(&name("tls_ca"), ca)?,
        false => {
            // Authorities of the system that rustls does not take are none that a peer could use.
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(&name("tls_ca"), Path::new(OF_THE_SYSTEM))?);
            roots
        }
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::new(Code::InternalBug, format!("TLS: {e}")))?
        .with_root_certificates(roots);
    let config = match given(certificate) {
        false => builder.with_no_client_auth(),
        true => {
            let named = name("tls_certificate");
            let chain = certificates(&named, certificate)?;
            let private = private_key(&name("tls_key"), key)?;
            builder.with_client_auth_cert(chain, private).map_err(|e| wrong(&named, certificate, &e.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

/// When the first certificate of a PEM file to end does so, in seconds since 1970.
pub fn ends(key: &str, path: &Path) -> Result<i64, Fault> {
    let ends: Option<Vec<i64>> = certificates(key, path)?.iter().map(|c| certificate::not_after(c)).collect();
    ends.and_then(|all| all.into_iter().min()).ok_or_else(|| wrong(key, path, "no certificate with an end"))
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
