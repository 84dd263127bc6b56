//! A destination by C-STORE: what its answers mean (PS3.4 table B.2-1, PS3.7 annex C), and how it is asked what it has.

use super::parcel::{Item, Parcel};
use super::scu::{Found, Offer, Peer, Scu, ScuError, Stored};
use super::tls;
use super::transport::{Clerk, Confirmed, Failure, Transport, Verdict, unverified};
use crate::config::{Destination, Resend};
use crate::dicom::Identity;
use crate::fault::{Code, Fault};

/// Sends objects to a storage SCP. The association is kept while there is more to send.
pub struct Cstore {
    peer: Peer,
    resend: Resend,
    open: Option<Scu>,
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
        };
        Ok(Cstore { peer, resend: destination.resend, open: None })
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
        let never = self.resend == Resend::Never;
        let objects: Vec<(&Item, &Identity)> = parcel.items.iter().filter_map(|item| Some((item, item.identity.as_ref()?))).collect();
        let offers: Vec<Offer> = objects.iter().map(|(_, id)| (id.sop_class_uid.to_string(), id.transfer_syntax.clone())).collect();
        let scu = self.scu(&offers)?;
        if let Some(offer) = offers.iter().find(|offer| !scu.accepts(offer)) {
            let fault = Fault::new(
                Code::DeliveryRefused,
                format!("The peer does not accept SOP class {} in transfer syntax {}.", offer.0, offer.1),
            );
            return Ok(Verdict::failed(Failure::Refused, fault));
        }
        let (mut confirmed, mut warning, mut counted) = (Confirmed::Status, None, false);
        for (item, identity) in objects {
            if parcel.doubtful {
                match scu.find(identity)? {
                    Found::Yes => {
                        confirmed = Confirmed::Query;
                        continue;
                    }
                    Found::No => {}
                    Found::Unknown if never => return Ok(unverified("The peer can not be asked, and `resend` is \"never\".")),
                    Found::Unknown if parcel.resends > 0 => return Ok(unverified("The peer can not be asked, and it was sent twice.")),
                    Found::Unknown if counted => {}
                    Found::Unknown => {
                        clerk.resend()?;
                        counted = true;
                    }
                }
            }
            let (file, length) = item.data_set()?;
            match judge(&scu.store(identity, file, length, &mut || clerk.moved())?) {
                Judged::Stored => {}
                Judged::With(fault) => warning = Some(fault),
                Judged::Not(failure, fault) => return Ok(Verdict::failed(failure, fault)),
            }
            *any_stored = true;
        }
        Ok(Verdict::Delivered { confirmed, warning })
    }
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
        if let Some(scu) = self.open.take() {
            scu.release();
        }
    }
}

/// What a status means.
#[derive(Debug)]
enum Judged {
    Stored,
    With(Fault),
    Not(Failure, Fault),
}

fn judge(stored: &Stored) -> Judged {
    let said = format!("Status {:04X}.", stored.status);
    match stored.status {
        // 0111: an instance with this UID is there already, and this UID names these bytes.
        0x0000 | 0x0111 => Judged::Stored,
        0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => {
            let tags: Vec<String> = stored.elements.iter().map(|(g, e)| format!("({g:04X},{e:04X})")).collect();
            let named = if tags.is_empty() { String::new() } else { format!(" It names {}.", tags.join(" ")) };
            Judged::With(Fault::new(Code::DeliveryCoerced, said + &named))
        }
        0xA700..=0xA7FF => Judged::Not(Failure::Passing, Fault::new(Code::DeliveryBusy, said)),
        0x0110 => Judged::Not(Failure::Doubted, Fault::new(Code::DeliveryBusy, said)),
        _ => Judged::Not(Failure::Refused, Fault::new(Code::DeliveryRefused, said)),
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + chars.as_str().trim_end_matches('.') + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_means_what_the_standard_says() {
        let cases = [
            (0x0000, "stored"),
            (0x0111, "stored"),
            (0xB000, "with"),
            (0xB007, "with"),
            (0x0107, "with"),
            (0xA700, "Passing"),
            (0xA7FF, "Passing"),
            (0x0110, "Doubted"),
            (0xA900, "Refused"),
            (0xC000, "Refused"),
            (0x0122, "Refused"),
            (0x0124, "Refused"),
            (0x0211, "Refused"),
        ];
        for (status, meaning) in cases {
            let judged = match judge(&Stored { status, elements: vec![(0x0010, 0x0010)] }) {
                Judged::Stored => "stored".to_string(),
                Judged::With(fault) => {
                    assert!(fault.detail.contains("(0010,0010)"), "{fault}");
                    "with".to_string()
                }
                Judged::Not(failure, _) => format!("{failure:?}"),
            };
            assert_eq!(judged, meaning, "{status:04X}");
        }
    }
}
