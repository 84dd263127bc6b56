//! `[audit]`: who hears of who did what with whose images.

use super::choices::choice;
use super::reader::{FromToml, Reader, Value};
use super::schema::table;
use super::units::{ByteSize, HumanDuration, by_text};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

table! {
    /// The audit repository.
    Audit {
        /// Its host and port; empty: nobody is told.
        repository: String = String::new(),
        /// How messages get there.
        transport: AuditTransport = AuditTransport::Tls,
        /// How we are called in messages; empty: by the name of this machine.
        source: String = String::new(),
        /// Bytes on disk that messages may take while the repository is away.
        spool_limit: ByteSize = ByteSize(256 << 20),
        /// A repository that is silent for this long is given up for now.
        timeout: HumanDuration = HumanDuration(Duration::from_secs(20)),
        /// Authorities, PEM; empty: those of the system.
        tls_ca: PathBuf = PathBuf::new(),
        /// Our certificate and those above it, PEM; empty: none is shown.
        tls_certificate: PathBuf = PathBuf::new(),
        /// Its private key, PEM.
        tls_key: PathBuf = PathBuf::new(),
    }
}

choice! {
    /// How messages get to the audit repository.
    AuditTransport {
        /// Syslog over TLS, RFC 5425.
        Tls = "tls",
        /// Syslog over TCP, RFC 6587, to this machine only.
        Tcp = "tcp",
    }
}

impl Audit {
    /// The host of the repository, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        self.repository.rsplit_once(':').map_or(self.repository.as_str(), |(host, _)| host).trim_matches(['[', ']'])
    }

    /// The paths that start from the folder of the configuration file, as far as they are given.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.tls_ca, &mut self.tls_certificate, &mut self.tls_key].into_iter().filter(|p| !p.as_os_str().is_empty())
    }

    pub(super) fn check(&self) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        let has = |path: &Path| !path.as_os_str().is_empty();
        if !self.repository.is_empty() {
            let port = self.repository.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if self.host().is_empty() || port.is_none_or(|port| port == 0) {
                wrong.push(("audit.repository", 0, "a host and a port, such as \"audit.example:6514\"".into()));
            }
            let near = self.host() == "localhost" || self.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
            if self.transport == AuditTransport::Tcp && !near {
                wrong.push(("audit.transport", 0, "messages name patients: other machines get them over TLS only".into()));
            }
        }
        if has(&self.tls_certificate) != has(&self.tls_key) {
            let key = if has(&self.tls_key) { "audit.tls_key" } else { "audit.tls_certificate" };
            wrong.push((key, 0, "`tls_certificate` and `tls_key` are given together".into()));
        }
        if self.spool_limit.0 < 1 << 20 {
            wrong.push(("audit.spool_limit", 0, "at least 1 MiB".into()));
        }
        if self.timeout.0.is_zero() {
            wrong.push(("audit.timeout", 0, "at least 1 ms".into()));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn patients_are_named_over_tls_only() {
        let said = |text: &str| match parse(text) {
            Ok(_) => Vec::new(),
            Err(mistakes) => mistakes.iter().map(|m| m.to_string()).collect::<Vec<_>>(),
        };
        for fine in ["repository = \"audit.example:6514\"", "repository = \"[::1]:601\"\ntransport = \"tcp\"", ""] {
            assert_eq!(said(&format!("[audit]\n{fine}\n")), Vec::<String>::new());
        }
        for (text, key) in [
            ("repository = \"audit.example\"", "`audit.repository`"),
            ("repository = \":6514\"", "`audit.repository`"),
            ("repository = \"audit.example:6514\"\ntransport = \"tcp\"", "`audit.transport`"),
            ("tls_key = \"k\"", "`audit.tls_key`"),
            ("spool_limit = \"1 KiB\"", "`audit.spool_limit`"),
        ] {
            let said = said(&format!("[audit]\n{text}\n"));
            assert!(said.len() == 1 && said[0].contains(key), "{said:?}");
        }
    }
}
