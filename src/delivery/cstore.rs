//! A destination by C-STORE, and how it is asked what it has.

use super::parcel::{Item, Parcel};
use super::scu::{Found, Offer, Peer, Scu, ScuError};
use super::status::{Judged, judge, sentence};
use super::tls;
use super::transport::{Clerk, Confirmed, Failure, REFUSALS, Transport, Verdict, unverified};
use crate::config::{Destination, Resend};
use crate::dicom::commitment::{Report, is_accepted};
use crate::dicom::seg::Kind;
use crate::dicom::{Identity, Uid};
use crate::fault::{Code, Fault};
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// How long reports of storage commitment are waited for on an association before it is released.
const REPORTS: Duration = Duration::from_secs(2);

/// Sends objects to a storage SCP. The association is kept while there is more to send.
pub struct Cstore {
    peer: Peer,
    resend: Resend,
    open: Option<Scu>,
    /// Reports of storage commitment that nobody took yet.
    reports: Vec<Report>,
}

impl Cstore {
    /// To the peer that the configuration names.
    pub fn new(destination: &Destination) -> Result<Cstore, Fault> {
        let peer = Peer {
            address: destination.address.clone(),
            called: destination.ae_title.as_ref().map(|title| title.as_str().to_string()).unwrap_or_default(),
            calling: destination.calling_ae_title.as_str().to_string(),
            timeout: destination.timeout.0,
            tls: destination.tls.then(|| tls::client_config(destination)).transpose()?,
            commitment: destination.commitment,
        };
        Ok(Cstore { peer, resend: destination.resend, open: None, reports: Vec::new() })
    }

    /// The open association, or a new one, on which these were offered.
    fn scu(&mut self, offers: &[Offer]) -> Result<&mut Scu, ScuError> {
        if let Some(other) = self.open.take_if(|scu| !scu.has_offered(offers)) {
            other.release();
        }
        match &mut self.open {
            Some(scu) => Ok(scu),
            none => Ok(none.insert(Scu::open(&self.peer, offers)?)),
        }
    }

    /// Sends what is not there. The verdict of a failure says whether *it* leaves a doubt.
    fn send(&mut self, parcel: &Parcel, clerk: &mut dyn Clerk, any_stored: &mut bool) -> Result<Verdict, ScuError> {
        let (never, commitment) = (self.resend == Resend::Never, self.peer.commitment);
        let every = parcel.items.iter().chain(parcel.otherwise.iter().flatten());
        let offers: BTreeSet<Offer> = every.filter_map(|item| item.identity.as_ref()).map(offer).collect();
        let scu = self.scu(&offers.into_iter().collect::<Vec<_>>())?;
        let mut objects = with_identity(&parcel.items);
        let refused = |scu: &Scu, objects: &[(&Item, &Identity)]| {
            objects.iter().filter(|(item, _)| !item.is_note()).map(|(_, id)| offer(id)).find(|offer| !scu.accepts(offer))
        };
        if let (Some(_), Some(otherwise)) = (refused(scu, &objects), &parcel.otherwise) {
            objects = with_identity(otherwise);
        }
        if let Some(offer) = refused(scu, &objects) {
            if parcel.shrunk && offer.0 == Kind::LabelMap.sop_class() {
                let what = "It is larger than `max_object_mb`, the peer accepts no label maps, and it can not be sent in parts.";
                return Ok(Verdict::failed(Failure::Final, Fault::new(Code::DeliveryTooLarge, what)));
            }
            return Ok(Verdict::failed(Failure::Refused, not_accepted(&offer)));
        }
        let uncommitted = |why: &str| Fault::new(Code::DeliveryUncommitted, why);
        let (mut confirmed, mut warning, mut counted) = (Confirmed::Status, None, false);
        for &(item, identity) in &objects {
            if parcel.doubtful {
                match scu.find(identity)? {
                    Found::Yes => {
                        confirmed = Confirmed::Query;
                        continue;
                    }
                    Found::No if parcel.asked && parcel.refusals >= REFUSALS => {
                        let fault = uncommitted("It reported again and again that it does not keep it, and does not have it.");
                        return Ok(Verdict::failed(Failure::Refused, fault));
                    }
                    Found::No => {}
                    // It said that it has it, and did not commit itself to keeping it: for a person to look.
                    Found::Unknown if parcel.asked => {
                        return Ok(unverified("The peer did not commit itself to keeping it, and can not be asked."));
                    }
                    Found::Unknown if never => return Ok(unverified("The peer can not be asked, and `resend` is \"never\".")),
                    Found::Unknown if parcel.resends > 0 => return Ok(unverified("The peer can not be asked, and it was sent twice.")),
                    Found::Unknown if counted => {}
                    Found::Unknown => {
                        clerk.resend()?;
                        counted = true;
                    }
                }
            }
            if !scu.accepts(&offer(identity)) {
                return Ok(Verdict::failed(Failure::Refused, not_accepted(&offer(identity))));
            }
            let (file, length) = item.data_set()?;
            let stored = scu.store(identity, file, length, &mut || clerk.moved())?;
            match judge(stored.status, &stored.elements) {
                Judged::Stored => {}
                Judged::With(fault) => warning = Some(fault),
                Judged::Not(failure, fault) => return Ok(Verdict::failed(failure, fault)),
            }
            *any_stored = true;
        }
        if !commitment {
            return Ok(Verdict::Delivered { confirmed, warning });
        }
        if !scu.commits() {
            let warning = warning.or_else(|| Some(uncommitted("The peer does not offer storage commitment.")));
            return Ok(Verdict::Delivered { confirmed, warning });
        }
        if parcel.asked && !*any_stored {
            // All of it is there: that is what there is to know, and asking once more would have no end.
            let warning = Some(uncommitted("The peer has it, and did not commit itself to keeping it."));
            return Ok(Verdict::Delivered { confirmed, warning });
        }
        let transaction = new_transaction();
        clerk.asks(transaction.as_str())?;
        let identities: Vec<&Identity> = objects.iter().map(|(_, identity)| *identity).collect();
        match scu.ask_commitment(transaction.as_str(), &identities)? {
            Some(status) if is_accepted(status) => Ok(Verdict::Asked { warning }),
            status => {
                let fault = uncommitted(&format!("It was asked to, and answered {:04X}.", status.unwrap_or_default()));
                Ok(Verdict::Failed { failure: Failure::Refused, doubtful: true, fault })
            }
        }
    }
}

fn with_identity(items: &[Item]) -> Vec<(&Item, &Identity)> {
    items.iter().filter_map(|item| Some((item, item.identity.as_ref()?))).collect()
}

fn offer(identity: &Identity) -> Offer {
    (identity.sop_class_uid.to_string(), identity.transfer_syntax.clone())
}

fn not_accepted(offer: &Offer) -> Fault {
    Fault::new(Code::DeliveryRefused, format!("The peer does not accept SOP class {} in transfer syntax {}.", offer.0, offer.1))
}

/// A Transaction UID that nobody can guess: whoever knows it is believed.
fn new_transaction() -> Uid {
    // The keys of every thread's first hasher are random numbers of the operating system.
    let mut digest = [0; 32];
    for part in digest.chunks_exact_mut(8) {
        part.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    Uid::from_digest(&digest)
}

impl Transport for Cstore {
    fn deliver(&mut self, parcel: &Parcel, clerk: &mut dyn Clerk) -> Verdict {
        let mut any_stored = false;
        let kept = self.open.is_some();
        let mut sent = self.send(parcel, clerk, &mut any_stored);
        // The peer may have ended the kept association in the meantime; that says nothing of this parcel.
        if kept && !any_stored && matches!(sent, Err(ScuError::Lost { whole: false, .. })) {
            self.open = None;
            sent = self.send(parcel, clerk, &mut any_stored);
        }
        self.reports.extend(self.open.iter_mut().flat_map(Scu::take_reports));
        let verdict = match sent {
            Ok(verdict) => verdict,
            Err(error) => {
                // Nothing more is said on it.
                self.open = None;
                match error {
                    ScuError::Own(fault) => Verdict::own(fault),
                    ScuError::Unreachable(what) => {
                        Verdict::failed(Failure::Unreachable, Fault::new(Code::DeliveryUnreachable, sentence(&what)))
                    }
                    ScuError::NothingAccepted => {
                        Verdict::failed(Failure::Refused, Fault::new(Code::DeliveryRefused, sentence(&error.to_string())))
                    }
                    ScuError::Lost { what, whole } => {
                        let fault = Fault::new(Code::DeliveryInterrupted, sentence(&what));
                        Verdict::Failed { failure: Failure::Passing, doubtful: whole, fault }
                    }
                }
            }
        };
        verdict.after(any_stored)
    }

    fn rest(&mut self) {
        if let Some(mut scu) = self.open.take() {
            scu.await_reports(self.peer.timeout.min(REPORTS));
            self.reports.extend(scu.take_reports());
            scu.release();
        }
    }

    fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }
}
