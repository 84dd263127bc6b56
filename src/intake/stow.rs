//! The body of a STOW-RS request (PS3.18 section 10.5): each part of it goes into the spool while it arrives, and has an
//! outcome of its own.

use super::arrivals::Delivery;
use super::dimse::Status;
use super::multipart::{Event, Multipart, MultipartError};
use super::reception::{Reception, Refused, status_of};
use super::spool::Incoming;
use crate::audit::Node;
use crate::dicom::{Identity, Uid};
use crate::telemetry::Transport;

/// The one media type of parts that is taken.
pub const DICOM: &str = "application/dicom";

/// What a request may hold.
#[derive(Clone, Copy, Debug)]
pub struct StowLimits {
    /// Bytes of the body.
    pub body: u64,
    /// Parts.
    pub parts: usize,
}

/// Why a request ends before its end. What was stored before stays.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StowError {
    /// The body is not what its Content-Type says.
    #[error("{0}")]
    Multipart(#[from] MultipartError),
    /// The body is longer than the limit.
    #[error("the body is longer than {0} bytes")]
    Body(u64),
    /// The body has more parts than the limit.
    #[error("the body has more than {0} parts")]
    Parts(usize),
}

/// What became of the parts.
#[derive(Default)]
pub struct Outcomes {
    /// Objects that are on disk.
    pub stored: Vec<Identity>,
    /// Objects that are not.
    pub refused: Vec<Refused>,
    /// How many of those were not of the media type [`DICOM`].
    pub other_type: usize,
}

/// A body on its way into the spool.
pub struct Store<'r> {
    parser: Multipart,
    parts: Parts<'r>,
    delivery: Delivery,
    limits: StowLimits,
    bytes: u64,
}

struct Parts<'r> {
    reception: &'r Reception,
    /// The study that every object has to belong to.
    study: Option<Uid>,
    count: usize,
    part: Option<Result<Incoming<'r>, Status>>,
    outcomes: Outcomes,
}

impl<'r> Store<'r> {
    /// Begins with a body of this Content-Type. With `study`, objects of other studies are refused; `from` is who sends it.
    pub fn begin(
        reception: &'r Reception,
        content_type: &str,
        study: Option<Uid>,
        limits: StowLimits,
        from: Node,
    ) -> Result<Store<'r>, MultipartError> {
        Ok(Store {
            parser: Multipart::from_content_type(content_type)?,
            parts: Parts { reception, study, count: 0, part: None, outcomes: Outcomes::default() },
            delivery: reception.deliver_from(from),
            limits,
            bytes: 0,
        })
    }

    /// Takes what arrived next.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), StowError> {
        let Store { parser, parts, delivery, limits, .. } = self;
        self.bytes += bytes.len() as u64;
        if self.bytes > limits.body {
            return Err(StowError::Body(limits.body));
        }
        parser.feed(bytes, &mut |event| {
            if parts.count <= limits.parts {
                parts.hear(event, delivery);
            }
        })?;
        if parts.count > limits.parts { Err(StowError::Parts(limits.parts)) } else { Ok(()) }
    }

    /// The body has ended: every object that was stored is on disk.
    pub fn finish(self) -> Result<Outcomes, StowError> {
        self.parser.finish()?;
        self.delivery.complete();
        Ok(self.parts.outcomes)
    }
}

impl Parts<'_> {
    fn hear(&mut self, event: Event<'_>, delivery: &Delivery) {
        match event {
            Event::Begin(headers) => {
                self.count += 1;
                self.part = Some(if is_dicom(headers) {
                    self.reception.begin_file()
                } else {
                    self.outcomes.other_type += 1;
                    Err(Status::CannotUnderstand)
                });
            }
            Event::Data(bytes) => {
                if let Some(Ok(incoming)) = &mut self.part
                    && let Err(fault) = incoming.write(bytes)
                {
                    self.part = Some(Err(status_of(&fault)));
                }
            }
            Event::End => {
                let kept = match self.part.take() {
                    Some(Ok(incoming)) => {
                        let study = self.study.as_ref();
                        self.reception.keep(incoming, delivery, Transport::Stow, |identity| {
                            let fits = study.is_none_or(|study| *study == identity.study_uid);
                            if fits { Ok(()) } else { Err(Status::DoesNotMatch) }
                        })
                    }
                    Some(Err(status)) => Err(status.into()),
                    // The parser ends only what it began.
                    None => return,
                };
                match kept {
                    Ok(identity) => self.outcomes.stored.push(identity),
                    Err(refused) => {
                        self.reception.refused(Transport::Stow, refused.status);
                        self.outcomes.refused.push(refused);
                    }
                }
            }
        }
    }
}

/// Whether a part says, by its header block, that it is a DICOM file. One without a Content-Type is taken for what the request announced.
fn is_dicom(headers: &[u8]) -> bool {
    let value = headers.split(|b| *b == b'\n').find_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let (name, value) = line.split_at(colon);
        name.trim_ascii().eq_ignore_ascii_case(b"content-type").then(|| value[1..].trim_ascii())
    });
    value.is_none_or(|value| {
        let essence = value.split(|b| *b == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(DICOM.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_of_parts() {
        for (headers, dicom) in [
            ("", true),
            ("Content-Location: x", true),
            ("Content-Type: application/dicom", true),
            ("A: b\r\nCONTENT-TYPE : Application/DICOM; transfer-syntax=1.2.840.10008.1.2.1\r\nC: d", true),
            ("Content-Type: application/dicom+json", false),
            ("Content-Type: image/jpeg", false),
            ("Content-Type:", false),
        ] {
            assert_eq!(is_dicom(headers.as_bytes()), dicom, "{headers}");
        }
    }
}
