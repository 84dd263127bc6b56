//! Which callers may associate.

use crate::audit::{Audit, Event, Node};
use crate::config::{AeTitle, Dimse, Network};
use crate::telemetry::metrics::OTHER;
use dicom_ul::association::server::AccessControl;
use dicom_ul::pdu::{AssociationRJServiceUserReason, UserIdentity};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

/// Who may associate; can be changed while the server listens, for associations that come after.
#[derive(Clone)]
pub struct Doors(Arc<RwLock<Allowed>>);

/// Empty: all.
struct Allowed {
    titles: Vec<AeTitle>,
    addresses: Vec<Network>,
}

impl Doors {
    pub(super) fn new(config: &Dimse) -> Doors {
        Doors(Arc::new(RwLock::new(Allowed::new(config))))
    }

    /// Those of this configuration may, from now on.
    pub fn set(&self, config: &Dimse) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Allowed::new(config);
    }

    pub(super) fn lets_in(&self, address: IpAddr) -> bool {
        let allowed = &self.0.read().unwrap_or_else(PoisonError::into_inner).addresses;
        allowed.is_empty() || allowed.iter().any(|network| network.contains(address))
    }

    /// How metrics call a caller: by its title if the configuration has it, and not by what a stranger calls himself.
    pub(super) fn source(&self, title: &str) -> String {
        let allowed = &self.0.read().unwrap_or_else(PoisonError::into_inner).titles;
        allowed.iter().find(|a| a.as_str() == title).map_or_else(|| OTHER.to_owned(), ToString::to_string)
    }

    fn lets_call(&self, title: &str) -> bool {
        let allowed = &self.0.read().unwrap_or_else(PoisonError::into_inner).titles;
        allowed.is_empty() || allowed.iter().any(|a| a.as_str() == title)
    }
}

impl Allowed {
    fn new(config: &Dimse) -> Allowed {
        Allowed { titles: config.allow_ae_titles.clone(), addresses: config.allow_addresses.clone() }
    }
}

/// The doors as one caller finds them.
pub(super) struct Door<'a> {
    doors: &'a Doors,
    peer: SocketAddr,
    audit: &'a Audit,
}

impl<'a> Door<'a> {
    pub fn new(doors: &'a Doors, peer: SocketAddr, audit: &'a Audit) -> Door<'a> {
        Door { doors, peer, audit }
    }
}

impl AccessControl for Door<'_> {
    fn check_access(
        &self,
        ours: &str,
        calling: &str,
        called: &str,
        _: Option<&UserIdentity>,
    ) -> Result<(), AssociationRJServiceUserReason> {
        let reason = if called.trim() != ours {
            AssociationRJServiceUserReason::CalledAETitleNotRecognized
        } else if !self.doors.lets_call(calling.trim()) {
            AssociationRJServiceUserReason::CallingAETitleNotRecognized
        } else {
            return Ok(());
        };
        let node = Node { name: calling.trim().to_owned(), address: self.peer.ip().to_string() };
        self.audit.record(&Event::Refused { node: &node, why: &format!("an association was rejected: {reason}") });
        let (calling, called) = (calling.escape_debug(), called.escape_debug());
        tracing::warn!(peer = %self.peer, %calling, %called, "an association was rejected: {reason}");
        Err(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_call_can_change() {
        let mut config = Dimse::default();
        let doors = Doors::new(&config);
        let other = doors.clone();
        let address = |text: &str| text.parse::<IpAddr>().expect(text);
        assert!(other.lets_call("ANY") && other.lets_in(address("192.0.2.1")));
        config.allow_ae_titles = vec!["CT1".parse().expect("a title")];
        config.allow_addresses = vec!["10.0.0.0/8".parse().expect("a network")];
        doors.set(&config);
        assert!(other.lets_call("CT1") && !other.lets_call("ANY"));
        assert!(other.lets_in(address("10.1.2.3")) && !other.lets_in(address("192.0.2.1")));
    }
}
