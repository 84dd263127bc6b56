//! A service class user: one association with a peer, on which objects are stored and asked about.
//!
//! Errors of the network say what happened, never what a peer sent: that may hold patient data.

use crate::dicom::command::{CommandSet, CommandWriter, MAX_COMMAND, NO_DATA_SET, RESPONSE};
use crate::dicom::commitment::{self, MAX_REPORT, N_ACTION_RQ, N_EVENT_REPORT_RQ, PUSH_MODEL, Report};
use crate::dicom::{Identity, query};
use dicom_ul::Pdu;
use dicom_ul::association::client::TlsStream;
use dicom_ul::association::{ClientAssociation, ClientAssociationOptions, Error};
use dicom_ul::pdu::{PDataValue, PDataValueType};
use rustls::ClientConfig;
use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Study Root Query/Retrieve Information Model - FIND.
const FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
const IMPLICIT_LE: &str = "1.2.840.10008.1.2";
/// Command Field (0000,0100).
const C_STORE_RQ: u16 = 0x0001;
const C_FIND_RQ: u16 = 0x0020;
/// Largest PDU that we receive.
const MAX_PDU: u32 = 128 << 10;
/// Largest PDU that we send, whatever the peer takes.
const MAX_SENT: usize = 256 << 10;
/// With less than this a peer can not be talked to.
const MIN_SENT: usize = 128;
/// Longest data set that is read: the identifier of a C-FIND response, or a report.
const MAX_DATA_SET: usize = MAX_REPORT;
/// Status of an answer to a report that can not be read.
const INVALID_ARGUMENT: u16 = 0x0115;
/// Matches after which a peer that answers to a unique key is not listened to.
const MAX_MATCHES: usize = 100;

/// Who is called, and how.
#[derive(Clone)]
pub struct Peer {
    /// Host and port.
    pub address: String,
    /// Its AE title.
    pub called: String,
    /// Ours.
    pub calling: String,
    /// How long it may be silent.
    pub timeout: Duration,
    /// TLS, if it is wanted.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whether storage commitment is offered.
    pub commitment: bool,
}

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// There is no association.
    #[error("{0}")]
    Unreachable(String),
    /// The peer takes nothing of what was offered.
    #[error("the peer accepts none of the presentation contexts offered")]
    NothingAccepted,
    /// The association is lost.
    #[error("{what}")]
    Lost {
        /// How.
        what: String,
        /// The whole object had been sent, so that it may be there.
        whole: bool,
    },
    /// Our own file can not be read.
    #[error("{0}")]
    Own(#[from] crate::fault::Fault),
}

/// A response to a C-STORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Status (0000,0900).
    pub status: u16,
    /// Offending Element (0000,0901): tags.
    pub elements: Vec<(u16, u16)>,
}

/// What a peer says when it is asked for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has it.
    Yes,
    /// It has not.
    No,
    /// It can not tell.
    Unknown,
}

/// A presentation context: SOP class and transfer syntax.
pub type Offer = (String, String);

enum Line {
    Plain(Box<ClientAssociation<TcpStream>>),
    Tls(Box<ClientAssociation<TlsStream>>),
}

impl Line {
    fn send(&mut self, pdu: &Pdu) -> Result<(), Error> {
        match self {
            Line::Plain(line) => line.send(pdu),
            Line::Tls(line) => line.send(pdu),
        }
    }

    fn receive(&mut self) -> Result<Pdu, Error> {
        match self {
            Line::Plain(line) => line.receive(),
            Line::Tls(line) => line.receive(),
        }
    }

    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Line::Plain(line) => line.inner_stream(),
            Line::Tls(line) => line.inner_stream().get_mut(),
        }
    }
}

/// An open association.
pub struct Scu {
    line: Line,
    /// Accepted ones by what was offered.
    contexts: Vec<(u8, Offer)>,
    offered: Vec<Offer>,
    chunk: usize,
    messages: u16,
    /// Reports of storage commitment that came and were not taken yet.
    reports: Vec<Report>,
    /// Requests for storage commitment on this association that nobody reported on.
    awaited: usize,
}

/// A command that came, and the data set behind it.
struct Message {
    context: u8,
    command: Vec<u8>,
    data: Vec<u8>,
}

impl Scu {
    /// Associates, offering each of these, C-FIND and, where it is wanted, storage commitment.
    pub fn open(peer: &Peer, offers: &[Offer]) -> Result<Scu, ScuError> {
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(peer.calling.as_str())
            .called_ae_title(peer.called.as_str())
            .max_pdu_length(MAX_PDU)
            .connection_timeout(peer.timeout)
            .read_timeout(peer.timeout)
            .write_timeout(peer.timeout);
        let all: Vec<Offer> = offers.iter().cloned().chain([find_offer()]).chain(peer.commitment.then(commitment_offer)).collect();
        for (class, syntax) in &all {
            options = options.with_presentation_context(class.clone(), vec![syntax.clone()]);
        }
        let mut line = match &peer.tls {
            None => Line::Plain(Box::new(options.establish(peer.address.as_str()).map_err(not_open)?)),
            Some(tls) => {
                let host = peer.address.rsplit_once(':').map_or(peer.address.as_str(), |(host, _)| host);
                let options = options.tls_config(tls.clone()).server_name(host.trim_matches(['[', ']']));
                Line::Tls(Box::new(options.establish_tls(peer.address.as_str()).map_err(not_open)?))
            }
        };
        let (stream, accepted, longest) = match &mut line {
            Line::Plain(a) => {
                let (contexts, longest) = (a.presentation_contexts().to_vec(), a.acceptor_max_pdu_length());
                (a.inner_stream(), contexts, longest)
            }
            Line::Tls(a) => {
                let (contexts, longest) = (a.presentation_contexts().to_vec(), a.acceptor_max_pdu_length());
                (a.inner_stream().get_mut(), contexts, longest)
            }
        };
        // A command of a few bytes must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let contexts = accepted.iter().filter_map(|c| {
            // Offered in this order with odd numbers from 1; the syntax that comes back has to be the one that was offered.
            let offer = all.get(usize::from(c.id).checked_sub(1)? / 2)?;
            (c.transfer_syntax.trim_matches(['\0', ' ']) == offer.1).then(|| (c.id, offer.clone()))
        });
        let contexts: Vec<_> = contexts.collect();
        // A PDU holds six bytes of its item's header beside the fragment.
        let chunk = (longest as usize).min(MAX_SENT).saturating_sub(6);
        if chunk < MIN_SENT {
            return Err(ScuError::Unreachable(format!("the peer takes PDUs of {longest} bytes only")));
        }
        Ok(Scu { line, contexts, offered: offers.to_vec(), chunk, messages: 0, reports: Vec::new(), awaited: 0 })
    }

    /// Whether all of these were offered when it was opened.
    pub fn has_offered(&self, offers: &[Offer]) -> bool {
        offers.iter().all(|offer| self.offered.contains(offer))
    }

    /// Whether the peer takes this.
    pub fn accepts(&self, offer: &Offer) -> bool {
        self.context(offer).is_some()
    }

    fn context(&self, offer: &Offer) -> Option<u8> {
        self.contexts.iter().find(|(_, accepted)| accepted == offer).map(|(id, _)| *id)
    }

    /// C-STORE (PS3.7 section 9.1.1): the bytes of a data set as they stand in its file. `moved` is called with every fragment.
    pub fn store(
        &mut self,
        identity: &Identity,
        mut data_set: impl Read,
        length: u64,
        moved: &mut dyn FnMut(),
    ) -> Result<Stored, ScuError> {
        let offer = (identity.sop_class_uid.to_string(), identity.transfer_syntax.clone());
        let context = self.context(&offer).ok_or(ScuError::NothingAccepted)?;
        let message = self.next_message();
        let mut command = CommandWriter::default();
        command.uid(0x0002, identity.sop_class_uid.as_str()).number(0x0100, C_STORE_RQ).number(0x0110, message);
        command.number(0x0700, 0).number(0x0800, 1).uid(0x1000, identity.sop_instance_uid.as_str());
        self.put(context, PDataValueType::Command, true, command.bytes(), false)?;
        let mut left = length;
        while left > 0 {
            let size = (self.chunk as u64).min(left);
            let mut piece = vec![0; size as usize];
            data_set.read_exact(&mut piece).map_err(|e| ScuError::Lost { what: format!("our file: {e}"), whole: false })?;
            left -= size;
            self.put(context, PDataValueType::Data, left == 0, piece, left == 0)?;
            moved();
        }
        let answer = self.answer(message, C_STORE_RQ, true)?;
        let lost = || ScuError::Lost { what: "the peer's answer can not be read".into(), whole: true };
        let set = CommandSet::read(&answer.command).map_err(|_| lost())?;
        let tags = set.value(0x0901).unwrap_or_default().chunks_exact(4);
        let elements = tags.map(|t| (u16::from_le_bytes([t[0], t[1]]), u16::from_le_bytes([t[2], t[3]]))).collect();
        Ok(Stored { status: set.number(0x0900).map_err(|_| lost())?, elements })
    }

    /// C-FIND at the image level (PS3.4 section C.4.1): whether the peer has an instance.
    pub fn find(&mut self, identity: &Identity) -> Result<Found, ScuError> {
        let Some(context) = self.context(&find_offer()) else { return Ok(Found::Unknown) };
        let message = self.next_message();
        let mut command = CommandWriter::default();
        command.uid(0x0002, FIND).number(0x0100, C_FIND_RQ).number(0x0110, message).number(0x0700, 0).number(0x0800, 1);
        let instance = identity.sop_instance_uid.as_str();
        let identifier = query::image_identifier(identity.study_uid.as_str(), identity.series_uid.as_str(), instance);
        self.put(context, PDataValueType::Command, true, command.bytes(), false)?;
        self.put(context, PDataValueType::Data, true, identifier, false)?;
        let mut found = Found::No;
        for _ in 0..MAX_MATCHES {
            let answer = self.answer(message, C_FIND_RQ, false)?;
            let status = CommandSet::read(&answer.command).and_then(|set| set.number(0x0900));
            match status {
                Ok(0xFF00 | 0xFF01) if query::sop_instance_of(&answer.data) == Some(instance) => found = Found::Yes,
                Ok(0xFF00 | 0xFF01) => {}
                Ok(0x0000) => return Ok(found),
                // It does not support the question, or can not answer it now.
                Ok(_) => return Ok(if found == Found::Yes { found } else { Found::Unknown }),
                Err(_) => break,
            }
        }
        Err(ScuError::Lost { what: "the peer's answers to a query make no sense".into(), whole: false })
    }

    /// Asks the peer to commit itself to keeping these objects, in a transaction of this UID (PS3.4 section J.3.2): the status of its answer;
    /// none when it does not offer storage commitment. Its report comes later.
    pub fn ask_commitment(&mut self, transaction: &str, objects: &[&Identity]) -> Result<Option<u16>, ScuError> {
        let Some(context) = self.context(&commitment_offer()) else { return Ok(None) };
        let message = self.next_message();
        let objects: Vec<(&str, &str)> = objects.iter().map(|o| (o.sop_class_uid.as_str(), o.sop_instance_uid.as_str())).collect();
        self.put(context, PDataValueType::Command, true, commitment::request_command(message), true)?;
        self.put(context, PDataValueType::Data, true, commitment::request(transaction, &objects), true)?;
        self.awaited += 1;
        let answer = self.answer(message, N_ACTION_RQ, true)?;
        let status = CommandSet::read(&answer.command).and_then(|set| set.number(0x0900));
        let status = status.map_err(|_| lost("the peer's answer can not be read", true))?;
        if !commitment::is_accepted(status) {
            self.awaited = self.awaited.saturating_sub(1);
        }
        Ok(Some(status))
    }

    /// Whether the peer offers storage commitment.
    pub fn commits(&self) -> bool {
        self.accepts(&commitment_offer())
    }

    /// Reports of storage commitment that came on this association.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Waits for the reports that may still come on this association, each at most this long. Nothing more can be sent on it then.
    pub fn await_reports(&mut self, patience: Duration) {
        if self.awaited == 0 || self.line.socket().set_read_timeout(Some(patience)).is_err() {
            return;
        }
        while self.awaited > 0 {
            let Ok(message) = self.message(false) else { return };
            if !self.take_event(&message).is_ok_and(|event| event) {
                return;
            }
        }
    }

    /// Ends it. A peer that is gone meanwhile is not missed.
    pub fn release(self) {
        let _ = match self.line {
            Line::Plain(line) => line.release(),
            Line::Tls(line) => line.release(),
        };
    }

    fn next_message(&mut self) -> u16 {
        self.messages = self.messages.wrapping_add(1).max(1);
        self.messages
    }

    /// Sends a fragment. `whole`: with it the peer has all of an object, should it get it.
    fn put(&mut self, context: u8, value_type: PDataValueType, is_last: bool, data: Vec<u8>, whole: bool) -> Result<(), ScuError> {
        let value = PDataValue { presentation_context_id: context, value_type, is_last, data };
        self.line.send(&Pdu::PData { data: vec![value] }).map_err(|e| ScuError::Lost { what: why(&e), whole })
    }

    /// The response to a message. Reports of storage commitment that come before it are taken on the way.
    fn answer(&mut self, number: u16, command: u16, whole: bool) -> Result<Message, ScuError> {
        loop {
            let message = self.message(whole)?;
            if self.take_event(&message)? {
                continue;
            }
            let set = CommandSet::read(&message.command).map_err(|_| lost("the peer's answer can not be read", whole))?;
            let fits = set.number(0x0100) == Ok(command | RESPONSE) && set.number(0x0120) == Ok(number);
            return if fits { Ok(message) } else { Err(lost("the peer answered something that it was not asked", whole)) };
        }
    }

    /// Takes a message if it is a report of storage commitment, and answers it: the report is in our hands then, and if it is lost, the
    /// peer is asked what it has.
    fn take_event(&mut self, message: &Message) -> Result<bool, ScuError> {
        let set = CommandSet::read(&message.command).map_err(|_| lost("the peer's message can not be read", false))?;
        if set.number(0x0100) != Ok(N_EVENT_REPORT_RQ) {
            return Ok(false);
        }
        let report = commitment::report(&set, &message.data, IMPLICIT_LE);
        let status = if report.is_some() { 0x0000 } else { INVALID_ARGUMENT };
        let response = commitment::report_response(&set, status).map_err(|_| lost("the peer's message can not be read", false))?;
        self.awaited = self.awaited.saturating_sub(1);
        self.reports.extend(report);
        self.put(message.context, PDataValueType::Command, true, response, false)?;
        Ok(true)
    }

    /// The next message: a command, and the data set that follows it.
    fn message(&mut self, whole: bool) -> Result<Message, ScuError> {
        let mut message = Message { context: 0, command: Vec::new(), data: Vec::new() };
        let mut has_command = false;
        loop {
            let values = match self.line.receive() {
                Ok(Pdu::PData { data }) => data,
                Ok(Pdu::AbortRQ { .. }) => return Err(lost("the peer aborted the association", whole)),
                Ok(_) => return Err(lost("the peer ended the association", whole)),
                Err(e) => return Err(ScuError::Lost { what: why(&e), whole }),
            };
            for value in values {
                match value.value_type {
                    PDataValueType::Command if !has_command && message.command.len() + value.data.len() <= MAX_COMMAND => {
                        message.context = value.presentation_context_id;
                        message.command.extend_from_slice(&value.data);
                        has_command = value.is_last;
                        if !has_command {
                            continue;
                        }
                        let set = CommandSet::read(&message.command).map_err(|_| lost("the peer's answer can not be read", whole))?;
                        if set.number(0x0800) == Ok(NO_DATA_SET) {
                            return Ok(message);
                        }
                    }
                    PDataValueType::Data if has_command && message.data.len() + value.data.len() <= MAX_DATA_SET => {
                        message.data.extend_from_slice(&value.data);
                        if value.is_last {
                            return Ok(message);
                        }
                    }
                    _ => return Err(lost("the peer's answer is out of order, or too long", whole)),
                }
            }
        }
    }
}

fn lost(what: &str, whole: bool) -> ScuError {
    ScuError::Lost { what: what.into(), whole }
}

fn find_offer() -> Offer {
    (FIND.to_string(), IMPLICIT_LE.to_string())
}

fn commitment_offer() -> Offer {
    (PUSH_MODEL.to_string(), IMPLICIT_LE.to_string())
}

fn not_open(error: Error) -> ScuError {
    match error {
        Error::NoAcceptedPresentationContexts { .. } => ScuError::NothingAccepted,
        other => ScuError::Unreachable(why(&other)),
    }
}

/// What happened, in words of our own.
fn why(error: &Error) -> String {
    match error {
        Error::ToAddress { source, .. } => format!("its name is not known: {source}"),
        Error::Connect { source, .. } => format!("no connection: {source}"),
        Error::Rejected { association_rj, .. } => format!("the association was rejected: {}", association_rj.source),
        Error::WireSend { source, .. } | Error::WireRead { source, .. } | Error::Timeout { source, .. } => source.to_string(),
        Error::ConnectionClosed { .. } => "the connection was closed".into(),
        Error::Aborted { .. } => "the association was aborted".into(),
        Error::TlsHandshake { source, .. } => format!("no TLS: {source}"),
        Error::TlsConnection { source, .. } => format!("no TLS: {source}"),
        Error::TlsNotSupported | Error::TlsConfigMissing { .. } => "the peer speaks TLS".into(),
        Error::InvalidServerName { .. } => "its name can not be in a certificate".into(),
        _ => "the peer does not speak the DICOM upper layer protocol".into(),
    }
}
