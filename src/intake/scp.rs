//! A storage SCP (PS3.4 annex B) and verification SCP: instances from the network into the spool.
//!
//! One listener thread, one thread an association. A C-STORE is answered Success only after file and folder are on
//! disk (invariant 2). Storage commitment is never offered as an SCP: a scanner might delete its images on our word.

use super::dimse::{self, Request, Status};
use super::spool::{FileMeta, Identity, Incoming, Spool, Stored};
use crate::dicom::Uid;
use crate::fault::{Code, Fault};
use dicom_ul::Pdu;
use dicom_ul::association::server::AccessControl;
use dicom_ul::association::{ServerAssociation, ServerAssociationOptions};
use dicom_ul::pdu::{AssociationRJServiceUserReason, PDataValue, PDataValueType, UserIdentity};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Verification SOP Class.
const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Storage SOP classes that are accepted: what can be segmented, and label objects for curation.
pub const STORAGE_SOP_CLASSES: &[(&str, &str)] = &[
    ("1.2.840.10008.5.1.4.1.1.2", "CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.2.1", "Enhanced CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.2.2", "Legacy Converted Enhanced CT Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.128", "Positron Emission Tomography Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.130", "Enhanced PET Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.128.1", "Legacy Converted Enhanced PET Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage"),
    ("1.2.840.10008.5.1.4.1.1.66.4", "Segmentation Storage"),
    ("1.2.840.10008.5.1.4.1.1.66.7", "Label Map Segmentation Storage"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage"),
];

/// Transfer syntaxes that are accepted: all that `volume` decodes.
pub const TRANSFER_SYNTAXES: &[(&str, &str)] = &[
    ("1.2.840.10008.1.2.1", "Explicit VR Little Endian"),
    ("1.2.840.10008.1.2", "Implicit VR Little Endian"),
    ("1.2.840.10008.1.2.2", "Explicit VR Big Endian"),
    ("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian"),
    ("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian"),
    ("1.2.840.10008.1.2.5", "RLE Lossless"),
    ("1.2.840.10008.1.2.4.50", "JPEG Baseline"),
    ("1.2.840.10008.1.2.4.51", "JPEG Extended"),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless"),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless SV1"),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless"),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Near Lossless"),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless"),
    ("1.2.840.10008.1.2.4.91", "JPEG 2000"),
    ("1.2.840.10008.1.2.4.201", "HTJ2K Lossless"),
    ("1.2.840.10008.1.2.4.202", "HTJ2K Lossless RPCL"),
    ("1.2.840.10008.1.2.4.203", "HTJ2K"),
    ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression"),
];

/// How the SCP listens, and to whom.
#[derive(Clone, Debug)]
pub struct ScpConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Our AE title; a caller has to name it.
    pub ae_title: String,
    /// Calling AE titles that may associate; empty: all.
    pub allow_ae_titles: Vec<String>,
    /// Addresses that may connect; empty: all.
    pub allow_addresses: Vec<IpAddr>,
    /// Associations at a time; one more is rejected.
    pub max_associations: usize,
    /// Largest PDU that is received, bytes.
    pub max_pdu: u32,
    /// A peer that is silent this long is disconnected.
    pub idle: Duration,
}

/// What the SCP needs from the rest of the daemon.
pub struct ScpSeams {
    /// Where instances go.
    pub spool: Arc<Spool>,
    /// Reads the UIDs of a data set that has been received.
    pub identify: fn(&Path) -> Result<Identity, Fault>,
    /// Whether there is room; `false` answers out-of-resources before a byte is written.
    pub has_room: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Told of what happens, for metrics, the ledger and settling.
    pub events: Arc<dyn Fn(ScpEvent) + Send + Sync>,
}

/// What happened at the SCP.
#[derive(Clone, Debug)]
pub enum ScpEvent {
    /// An association was accepted.
    Opened,
    /// An association ended; `released` tells an orderly release from a lost or aborted one.
    Closed {
        /// Whether the peer released it.
        released: bool,
    },
    /// An association was refused.
    Refused,
    /// An instance is on disk; the sender is told after this returns.
    Stored(Stored, Identity),
    /// An instance was answered with this status.
    Failed(Status),
}

/// A running SCP. Dropped or stopped, it takes no new association; those open end with their current instance.
pub struct Scp {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Scp {
    /// Binds and starts listening.
    pub fn start(config: ScpConfig, seams: ScpSeams) -> Result<Scp, Fault> {
        let cannot =
            |e: std::io::Error| Fault::new(Code::ConfigInvalid, format!("The DICOM port {} can not be opened: {e}.", config.listen));
        let socket = TcpListener::bind(config.listen).map_err(cannot)?;
        let address = socket.local_addr().map_err(cannot)?;
        let stop = Arc::new(AtomicBool::new(false));
        let server = Arc::new(Server { config, seams, stop: stop.clone(), open: AtomicUsize::new(0) });
        let listener = std::thread::Builder::new()
            .name("dicom-listen".into())
            .spawn(move || server.listen(&socket))
            .map_err(|e| Fault::new(Code::InternalBug, format!("no thread for the DICOM listener: {e}")))?;
        Ok(Scp { address, stop, listener: Some(listener) })
    }

    /// Where it listens; the port is the system's choice when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new association, and waits for the listener.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            // `accept` has no deadline of its own: one connection wakes it.
            let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
            let _ = listener.join();
        }
    }
}

impl Drop for Scp {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Server {
    config: ScpConfig,
    seams: ScpSeams,
    stop: Arc<AtomicBool>,
    open: AtomicUsize,
}

/// Who may associate. `full` rejects everybody: too many associations are open.
struct Door<'a> {
    config: &'a ScpConfig,
    full: bool,
}

impl AccessControl for Door<'_> {
    fn check_access(
        &self,
        ours: &str,
        calling: &str,
        called: &str,
        _: Option<&UserIdentity>,
    ) -> Result<(), AssociationRJServiceUserReason> {
        if self.full {
            Err(AssociationRJServiceUserReason::NoReasonGiven)
        } else if called.trim() != ours {
            Err(AssociationRJServiceUserReason::CalledAETitleNotRecognized)
        } else if !self.config.allow_ae_titles.is_empty() && !self.config.allow_ae_titles.iter().any(|a| a == calling.trim()) {
            Err(AssociationRJServiceUserReason::CallingAETitleNotRecognized)
        } else {
            Ok(())
        }
    }
}

impl Server {
    fn listen(self: &Arc<Self>, socket: &TcpListener) {
        for stream in socket.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let allowed = &self.config.allow_addresses;
            let known = stream.peer_addr().is_ok_and(|peer| allowed.is_empty() || allowed.contains(&peer.ip().to_canonical()));
            let open = self.open.fetch_add(1, Ordering::SeqCst);
            // Twice the limit may wait to be told that we are full; beyond it a connection is dropped unheard.
            if !known || open >= 2 * self.config.max_associations {
                self.open.fetch_sub(1, Ordering::SeqCst);
                (self.seams.events)(ScpEvent::Refused);
                continue;
            }
            let server = self.clone();
            let full = open >= self.config.max_associations;
            let spawned = std::thread::Builder::new().name("dicom-assoc".into()).spawn(move || {
                let guard = OpenGuard(&server.open);
                server.serve(stream, full);
                drop(guard);
            });
            if spawned.is_err() {
                self.open.fetch_sub(1, Ordering::SeqCst);
                (self.seams.events)(ScpEvent::Refused);
            }
        }
    }

    fn serve(&self, stream: TcpStream, full: bool) {
        // An answer of a few bytes must not wait for more to come.
        let _ = stream.set_nodelay(true);
        let mut options = ServerAssociationOptions::new()
            .ae_access_control(Door { config: &self.config, full })
            .ae_title(self.config.ae_title.as_str())
            .max_pdu_length(self.config.max_pdu)
            .read_timeout(self.config.idle)
            .write_timeout(self.config.idle)
            .with_abstract_syntax(VERIFICATION);
        for (uid, _) in STORAGE_SOP_CLASSES {
            options = options.with_abstract_syntax(*uid);
        }
        for (uid, _) in TRANSFER_SYNTAXES {
            options = options.with_transfer_syntax(*uid);
        }
        match options.establish(stream) {
            Ok(association) => {
                (self.seams.events)(ScpEvent::Opened);
                let released = self.converse(association);
                (self.seams.events)(ScpEvent::Closed { released });
            }
            Err(_) => (self.seams.events)(ScpEvent::Refused),
        }
    }

    /// Answers a peer until it releases (`true`) or is lost.
    fn converse(&self, mut association: ServerAssociation<TcpStream>) -> bool {
        let syntaxes: HashMap<u8, String> =
            association.presentation_contexts().iter().map(|c| (c.id, c.transfer_syntax.trim_matches(['\0', ' ']).to_owned())).collect();
        let mut command: Vec<u8> = Vec::new();
        let mut pending: Option<Pending<'_>> = None;
        loop {
            match association.receive() {
                Ok(Pdu::PData { data }) => {
                    for value in data {
                        let context = value.presentation_context_id;
                        let answer = match value.value_type {
                            PDataValueType::Command if pending.is_some() => None,
                            PDataValueType::Command => {
                                command.extend_from_slice(&value.data);
                                if command.len() > dimse::MAX_COMMAND {
                                    None
                                } else if !value.is_last {
                                    Some(None)
                                } else {
                                    self.begin(&std::mem::take(&mut command), syntaxes.get(&context), &mut pending)
                                }
                            }
                            PDataValueType::Data => match pending.as_mut() {
                                None => None,
                                Some(p) => {
                                    p.receive(&value.data);
                                    Some(if value.is_last { pending.take().and_then(|p| self.end(p)) } else { None })
                                }
                            },
                        };
                        match answer {
                            Some(None) => {}
                            Some(Some(bytes)) => {
                                let reply = PDataValue {
                                    presentation_context_id: context,
                                    value_type: PDataValueType::Command,
                                    is_last: true,
                                    data: bytes,
                                };
                                if association.send(&Pdu::PData { data: vec![reply] }).is_err() {
                                    return false;
                                }
                            }
                            None => {
                                let _ = association.abort();
                                return false;
                            }
                        }
                        if self.stop.load(Ordering::SeqCst) && pending.is_none() {
                            let _ = association.abort();
                            return false;
                        }
                    }
                }
                Ok(Pdu::ReleaseRQ) => return association.send(&Pdu::ReleaseRP).is_ok(),
                Ok(_) => {
                    let _ = association.abort();
                    return false;
                }
                Err(_) => return false,
            }
        }
    }

    /// A command is complete: answers it, or prepares for its data set. `None` aborts the association.
    fn begin<'s>(&'s self, command: &[u8], syntax: Option<&String>, pending: &mut Option<Pending<'s>>) -> Option<Option<Vec<u8>>> {
        let request = dimse::request(command).ok()?;
        match &request {
            Request::Cancel => Some(None),
            Request::Echo { .. } => Some(dimse::response(&request, Status::Success)),
            Request::Other { has_data_set: false, .. } => Some(dimse::response(&request, Status::UnrecognizedOperation)),
            Request::Other { .. } => {
                *pending = Some(Pending { request, sink: Err(Status::UnrecognizedOperation) });
                Some(None)
            }
            Request::Store { sop_class_uid, sop_instance_uid, .. } => {
                let sink = self.sink(sop_class_uid, sop_instance_uid, syntax?);
                *pending = Some(Pending { request, sink });
                Some(None)
            }
        }
    }

    /// The place for a data set, or the status that its sender gets once all of it has been read and thrown away.
    fn sink(&self, class: &str, instance: &str, syntax: &str) -> Result<Incoming<'_>, Status> {
        if !STORAGE_SOP_CLASSES.iter().any(|(uid, _)| *uid == class) {
            return Err(Status::SopClassNotSupported);
        }
        let meta = FileMeta {
            sop_class_uid: Uid::parse(class).map_err(|_| Status::SopClassNotSupported)?,
            sop_instance_uid: Uid::parse(instance).map_err(|_| Status::InvalidInstance)?,
            transfer_syntax_uid: Uid::parse(syntax).map_err(|_| Status::CannotUnderstand)?,
        };
        if !(self.seams.has_room)() {
            return Err(Status::OutOfResources);
        }
        self.seams.spool.begin(&meta).map_err(|_| Status::OutOfResources)
    }

    /// A data set is complete: brings it to the disk, then answers.
    fn end(&self, pending: Pending<'_>) -> Option<Vec<u8>> {
        let status = match (pending.sink, &pending.request) {
            (Ok(incoming), Request::Store { sop_class_uid, sop_instance_uid, .. }) => {
                match self.keep(incoming, sop_class_uid, sop_instance_uid) {
                    Ok(()) => Status::Success,
                    Err(status) => status,
                }
            }
            (Err(status), _) => status,
            (Ok(_), _) => Status::UnrecognizedOperation,
        };
        if status != Status::Success {
            (self.seams.events)(ScpEvent::Failed(status));
        }
        dimse::response(&pending.request, status)
    }

    fn keep(&self, mut incoming: Incoming<'_>, class: &str, instance: &str) -> Result<(), Status> {
        let path = incoming.finish().map_err(|_| Status::OutOfResources)?;
        let identity = (self.seams.identify)(path).map_err(|_| Status::CannotUnderstand)?;
        if identity.sop_class_uid.as_str() != class || identity.sop_instance_uid.as_str() != instance {
            return Err(Status::DoesNotMatch);
        }
        let stored = incoming.commit(&identity).map_err(|_| Status::OutOfResources)?;
        (self.seams.events)(ScpEvent::Stored(stored, identity));
        Ok(())
    }
}

/// A request whose data set is on its way.
struct Pending<'a> {
    request: Request,
    sink: Result<Incoming<'a>, Status>,
}

impl Pending<'_> {
    /// Takes a fragment; after the first failure the rest is read and thrown away.
    fn receive(&mut self, bytes: &[u8]) {
        if let Ok(incoming) = &mut self.sink
            && let Err(fault) = incoming.write(bytes)
        {
            self.sink = Err(if fault.code == Code::InputTooLarge { Status::CannotUnderstand } else { Status::OutOfResources });
        }
    }
}

struct OpenGuard<'a>(&'a AtomicUsize);

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
