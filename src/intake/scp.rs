//! A storage SCP (PS3.4 annex B) and verification SCP: instances from the network into the spool.
//!
//! One listener thread, one thread an association. A C-STORE is answered Success only after file and folder are on
//! disk. Storage commitment is never done as an SCP: a scanner might delete its images on our word. Where we ask destinations for it, their
//! reports are taken here too, in reversed roles.

use super::arrivals::Delivery;
use super::commitment::Commitments;
use super::dimse::{self, Request, Status};
use super::doors::{Door, Doors};
use super::reception::{Reception, STORAGE_SOP_CLASSES, status_of};
use super::spool::Incoming;
use super::tls;
use crate::audit::{Event, Node};
use crate::config::Dimse;
use crate::dicom::command::{CommandSet, MAX_COMMAND};
use crate::dicom::commitment::{MAX_REPORT, PUSH_MODEL, report};
use crate::dicom::syntax;
use crate::fault::{Code, Fault};
use crate::telemetry::metrics::OTHER;
use crate::telemetry::{Association, Transport};
use dicom_ul::association::server::Negotiation;
use dicom_ul::association::{self, Association as _, CloseSocket, ServerAssociation, ServerAssociationOptions};
use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason, AssociationRJSource, PDataValue, PDataValueType,
    PresentationContextResultReason, RequestorRoles,
};
use dicom_ul::{Pdu, write_pdu};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Verification SOP Class.
const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Largest A-ASSOCIATE-RQ that is read from a peer that is turned away.
const MAX_REQUEST: u64 = 256 * 1024;

/// A running SCP. Dropped or stopped, it takes no new association; those open end with their current instance.
pub struct Scp {
    address: SocketAddr,
    doors: Doors,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Scp {
    /// Binds `dimse.listen` and starts listening; `None` when it is empty. `commitments` takes reports of storage commitment, where
    /// destinations are asked for it.
    ///
    /// # Errors
    /// `config.can_not_listen`; `config.invalid` for certificates that can not be used.
    pub fn start(config: &Dimse, reception: Arc<Reception>, commitments: Option<Commitments>) -> Result<Option<Scp>, Fault> {
        let Some(listen) = config.listen.0 else { return Ok(None) };
        let tls = tls::server_config(config)?;
        let failed = |e: std::io::Error| Fault::new(Code::ConfigListen, format!("`dimse.listen`: {listen}: {e}")).caused_by(e);
        let socket = TcpListener::bind(listen).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let doors = Doors::new(config);
        config.allow_ae_titles.iter().for_each(|title| reception.metrics().source(title.as_str()));
        let (config, open) = (config.clone(), AtomicUsize::new(0));
        let server = Arc::new(Server { config, doors: doors.clone(), tls, reception, commitments, stop: stop.clone(), open });
        let listener = std::thread::Builder::new()
            .name("dicom-listen".into())
            .spawn(move || server.listen(&socket))
            .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for the DICOM listener: {e}")).caused_by(e))?;
        Ok(Some(Scp { address, doors, stop, listener: Some(listener) }))
    }

    /// Where it listens; the port is the system's choice when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who may associate.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Takes no new association, and waits for the listener.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            // `accept` has no deadline of its own: one connection wakes it.
            let mut address = self.address;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
            }
            // Without that connection the listener thread would be waited for in vain; it ends with the process.
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                let _ = listener.join();
            }
        }
    }
}

impl Drop for Scp {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Server {
    config: Dimse,
    doors: Doors,
    tls: Option<Arc<ServerConfig>>,
    reception: Arc<Reception>,
    commitments: Option<Commitments>,
    stop: Arc<AtomicBool>,
    open: AtomicUsize,
}

impl Server {
    fn listen(self: &Arc<Self>, socket: &TcpListener) {
        for stream in socket.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok((stream, peer)) = stream.and_then(|stream| stream.peer_addr().map(|peer| (stream, peer))) else { continue };
            let open = Open::new(self);
            // Twice the limit may wait to be told that we are full; beyond it a connection is dropped unheard.
            let unheard = open.others >= 2 * self.config.max_associations;
            if unheard || !self.doors.lets_in(peer.ip()) {
                tracing::warn!(%peer, "a connection was dropped: {}", if unheard { "too many are open" } else { "unknown address" });
                self.count(OTHER, if unheard { Association::RejectedResources } else { Association::RejectedAddress });
                if !unheard {
                    self.turned_away(peer, "a connection was dropped: unknown address");
                }
                continue;
            }
            let spawned =
                std::thread::Builder::new().name("dicom-assoc".into()).spawn(move || open.server.serve(stream, peer, open.others));
            if let Err(e) = spawned {
                tracing::error!(%peer, "no thread for an association: {e}");
                self.count(OTHER, Association::RejectedResources);
            }
        }
    }

    fn count(&self, source: &str, what: Association) {
        self.reception.metrics().association(source, what);
    }

    /// Tells the audit repository of somebody who is not let in.
    fn turned_away(&self, peer: SocketAddr, why: &str) {
        let node = Node { name: String::new(), address: peer.ip().to_string() };
        self.reception.audit().record(&Event::Refused { node: &node, why });
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, others: usize) {
        // An answer of a few bytes must not wait for more to come.
        let _ = stream.set_nodelay(true);
        if others >= self.config.max_associations {
            tracing::warn!(%peer, "an association was rejected: {others} are open");
            self.count(OTHER, Association::RejectedResources);
            // A peer that is gone meanwhile needs no answer.
            return drop(self.turn_away(stream));
        }
        let mut options = ServerAssociationOptions::new()
            .ae_access_control(Door::new(&self.doors, peer, self.reception.audit()))
            .ae_title(self.config.ae_title.as_str())
            .max_pdu_length(self.config.max_pdu.0.try_into().unwrap_or(u32::MAX))
            .read_timeout(self.config.idle.0)
            .write_timeout(self.config.idle.0)
            .with_abstract_syntax(VERIFICATION)
            .with_negotiation(Roles { reports: self.commitments.is_some() });
        if self.commitments.is_some() {
            options = options.with_abstract_syntax(PUSH_MODEL);
        }
        for (uid, _) in STORAGE_SOP_CLASSES {
            options = options.with_abstract_syntax(*uid);
        }
        for uid in syntax::readable() {
            options = options.with_transfer_syntax(uid);
        }
        let ended = match &self.tls {
            None => options.establish(stream).map(|association| self.attend(association, peer)),
            Some(tls) => options.tls_config(tls.clone()).establish_tls(stream).map(|association| self.attend(association, peer)),
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, "no association: {error}");
            // The door has told of those that it rejected.
            if self.tls.is_some() && is_of_tls(&error) {
                self.turned_away(peer, &format!("no TLS: {error}"));
            }
            let by_title = matches!(error, association::Error::Rejected { .. });
            self.count(OTHER, if by_title { Association::RejectedTitle } else { Association::RejectedProtocol });
        }
    }

    /// Reads the peer's request and rejects it for now (PS3.8 section 9.3.4: transient, local limit exceeded), so that it comes again.
    fn turn_away(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(self.config.idle.0))?;
        stream.set_write_timeout(Some(self.config.idle.0))?;
        let source = AssociationRJSource::ServiceProviderPresentation(AssociationRJServiceProviderPresentationReason::LocalLimitExceeded);
        let mut answer = Vec::new();
        write_pdu(&mut answer, &Pdu::AssociationRJ(AssociationRJ { result: AssociationRJResult::Transient, source }))
            .map_err(std::io::Error::other)?;
        fn exchange(mut stream: impl Read + Write, answer: &[u8]) -> std::io::Result<()> {
            let mut head = [0; 6];
            stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
            std::io::copy(&mut Read::by_ref(&mut stream).take(MAX_REQUEST.min(length.into())), &mut std::io::sink())?;
            stream.write_all(answer)?;
            stream.flush()
        }
        match &self.tls {
            None => exchange(&stream, &answer),
            Some(tls) => {
                let connection = ServerConnection::new(tls.clone()).map_err(std::io::Error::other)?;
                exchange(StreamOwned::new(connection, &stream), &answer)
            }
        }
    }

    /// Answers a peer until it releases or is lost.
    fn attend<S: Read + Write + CloseSocket>(&self, association: ServerAssociation<S>, peer: SocketAddr) {
        let title = association.peer_ae_title().trim().to_owned();
        let source = self.doors.source(&title);
        self.count(&source, Association::Accepted);
        let delivery = self.reception.deliver_from(Node { name: title, address: peer.ip().to_string() });
        self.reception.metrics().association_open(true);
        if self.converse(association, &delivery) {
            delivery.complete();
            self.count(&source, Association::Released);
        } else {
            self.count(&source, Association::Aborted);
        }
        self.reception.metrics().association_open(false);
    }

    /// Whether it ended with a release.
    fn converse<S: Read + Write + CloseSocket>(&self, mut association: ServerAssociation<S>, delivery: &Delivery) -> bool {
        let contexts = association
            .presentation_contexts()
            .iter()
            .filter(|c| c.reason == PresentationContextResultReason::Acceptance)
            .map(|c| (c.id, Context { abstract_syntax: c.abstract_syntax.clone(), transfer_syntax: trimmed(&c.transfer_syntax) }))
            .collect();
        let mut talk = Talk { server: self, delivery, contexts, command: Vec::new(), pending: None };
        loop {
            match association.receive() {
                Ok(Pdu::PData { data }) => {
                    for value in data {
                        let presentation_context_id = value.presentation_context_id;
                        match talk.hear(value) {
                            Next::Listen => {}
                            Next::Answer(data) => {
                                let value =
                                    PDataValue { presentation_context_id, value_type: PDataValueType::Command, is_last: true, data };
                                if association.send(&Pdu::PData { data: vec![value] }).is_err() {
                                    return false;
                                }
                            }
                            Next::Abort => {
                                let _ = association.abort();
                                return false;
                            }
                        }
                    }
                    if self.stop.load(Ordering::SeqCst) && talk.pending.is_none() {
                        let _ = association.abort();
                        return false;
                    }
                }
                Ok(Pdu::ReleaseRQ) => return association.send(&Pdu::ReleaseRP).is_ok() && talk.pending.is_none(),
                Ok(_) => {
                    let _ = association.abort();
                    return false;
                }
                Err(_) => return false,
            }
        }
    }
}

/// Whether TLS failed, or what was to come over it: a certificate that is not taken is told of when the first bytes are read.
fn is_of_tls(error: &association::Error) -> bool {
    use association::Error;
    matches!(error, Error::TlsConnection { .. } | Error::TlsHandshake { .. } | Error::ReceivePdu { .. } | Error::WireRead { .. })
}

/// Who may be what: a caller reports on storage commitment as an SCP, and is an SCU in everything else.
struct Roles {
    /// Whether reports are taken.
    reports: bool,
}

impl Negotiation for Roles {
    fn negotiate_roles(&self, sop_class: &str, _: bool, scp: bool) -> Option<RequestorRoles> {
        (self.reports && trimmed(sop_class) == PUSH_MODEL).then_some(RequestorRoles { scu: false, scp })
    }
}

fn trimmed(uid: &str) -> String {
    uid.trim_matches(['\0', ' ']).to_owned()
}

/// An accepted presentation context.
struct Context {
    abstract_syntax: String,
    transfer_syntax: String,
}

/// What follows from something heard.
enum Next {
    Listen,
    Answer(Vec<u8>),
    Abort,
}

impl Next {
    fn answer(request: &Request, status: Status) -> Next {
        dimse::response(request, status).map_or(Next::Listen, Next::Answer)
    }
}

/// A request whose data set is on its way.
struct Pending<'a> {
    context: u8,
    request: Request,
    /// Where the data set goes, or the status that its sender gets once all of it has been read and thrown away.
    sink: Result<Sink<'a>, Status>,
}

/// Where a data set goes.
enum Sink<'a> {
    /// An object.
    Spool(Incoming<'a>),
    /// A report of storage commitment.
    Report(Vec<u8>),
}

/// The messages of one association.
struct Talk<'a> {
    server: &'a Server,
    delivery: &'a Delivery,
    contexts: HashMap<u8, Context>,
    command: Vec<u8>,
    pending: Option<Pending<'a>>,
}

impl<'a> Talk<'a> {
    fn hear(&mut self, value: PDataValue) -> Next {
        let PDataValue { presentation_context_id: context, value_type, is_last, data } = value;
        match (value_type, &mut self.pending) {
            (PDataValueType::Command, None) => {
                self.command.extend_from_slice(&data);
                match is_last {
                    _ if self.command.len() > MAX_COMMAND => Next::Abort,
                    false => Next::Listen,
                    true => self.begin(context),
                }
            }
            (PDataValueType::Data, Some(pending)) if pending.context == context => {
                pending.receive(&data);
                match self.pending.take_if(|_| is_last) {
                    Some(pending) => self.end(pending),
                    None => Next::Listen,
                }
            }
            _ => Next::Abort,
        }
    }

    /// A command is complete: it is answered, or its data set awaited.
    fn begin(&mut self, context: u8) -> Next {
        let command = std::mem::take(&mut self.command);
        let (Ok(request), Some(Context { abstract_syntax, transfer_syntax })) = (dimse::request(&command), self.contexts.get(&context))
        else {
            return Next::Abort;
        };
        let sink = match &request {
            Request::Cancel => return Next::Listen,
            Request::Echo { .. } => return Next::answer(&request, Status::Success),
            Request::Other { has_data_set: false, .. } => return Next::answer(&request, Status::UnrecognizedOperation),
            Request::Other { .. } => Err(Status::UnrecognizedOperation),
            Request::Store { sop_class_uid, .. } if sop_class_uid != abstract_syntax => Err(Status::SopClassNotSupported),
            Request::Store { sop_class_uid, sop_instance_uid, .. } => {
                self.server.reception.begin_data_set(sop_class_uid, sop_instance_uid, transfer_syntax).map(Sink::Spool)
            }
            Request::Event { .. } if abstract_syntax == PUSH_MODEL && self.server.commitments.is_some() => Ok(Sink::Report(Vec::new())),
            Request::Event { .. } => Err(Status::UnrecognizedOperation),
        };
        self.pending = Some(Pending { context, request, sink });
        Next::Listen
    }

    /// A data set is complete: it is brought to the disk, then answered.
    fn end(&mut self, pending: Pending<'a>) -> Next {
        let Pending { context, request, sink } = pending;
        let reception = &self.server.reception;
        let kept = match (sink, &request) {
            (Ok(Sink::Report(data_set)), Request::Event { command }) => {
                return Next::answer(&request, self.reported(context, command, &data_set));
            }
            (Ok(Sink::Spool(incoming)), Request::Store { sop_class_uid, sop_instance_uid, .. }) => reception
                .keep(incoming, self.delivery, Transport::Dimse, |identity| {
                    let same = identity.sop_class_uid.as_str() == sop_class_uid && identity.sop_instance_uid.as_str() == sop_instance_uid;
                    if same { Ok(()) } else { Err(Status::DoesNotMatch) }
                })
                .map_err(|refused| refused.status),
            (Ok(_), _) => Err(Status::UnrecognizedOperation),
            (Err(status), _) => Err(status),
        };
        let status = kept.err().unwrap_or(Status::Success);
        if status != Status::Success {
            reception.refused(Transport::Dimse, status);
        }
        Next::answer(&request, status)
    }

    /// Takes a report of storage commitment.
    fn reported(&self, context: u8, command: &[u8], data_set: &[u8]) -> Status {
        let (Some(commitments), Some(context)) = (&self.server.commitments, self.contexts.get(&context)) else {
            return Status::UnrecognizedOperation;
        };
        let report = CommandSet::read(command).ok().and_then(|command| report(&command, data_set, &context.transfer_syntax));
        let taken = match &report {
            None => Ok(false),
            Some(report) => commitments.take(report),
        };
        match taken {
            Ok(true) => Status::Success,
            Ok(false) => {
                tracing::warn!("a report of storage commitment was refused: {}", Status::InvalidArgument);
                Status::InvalidArgument
            }
            Err(fault) => {
                self.server.reception.metrics().fault(fault.code);
                tracing::warn!(code = %fault.code, "a report of storage commitment could not be written down: {}", fault.detail);
                Status::ProcessingFailure
            }
        }
    }
}

impl Pending<'_> {
    /// Takes a fragment; after the first failure the rest is read and thrown away.
    fn receive(&mut self, bytes: &[u8]) {
        match &mut self.sink {
            Ok(Sink::Spool(incoming)) => {
                if let Err(fault) = incoming.write(bytes) {
                    self.sink = Err(status_of(&fault));
                }
            }
            Ok(Sink::Report(data_set)) if data_set.len() + bytes.len() > MAX_REPORT => self.sink = Err(Status::InvalidArgument),
            Ok(Sink::Report(data_set)) => data_set.extend_from_slice(bytes),
            Err(_) => {}
        }
    }
}

/// One connection, counted as long as it lasts.
struct Open {
    server: Arc<Server>,
    /// Connections that were open before this one.
    others: usize,
}

impl Open {
    fn new(server: &Arc<Server>) -> Open {
        Open { server: server.clone(), others: server.open.fetch_add(1, Ordering::SeqCst) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, Ordering::SeqCst);
    }
}
