//! A storage SCP that does as it is told: statuses, a death in the middle of an association, a network that comes and goes.

use dicom_ul::association::ServerAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu, PresentationContextResultReason};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use stunetd::dicom::command::{CommandSet, CommandWriter, NO_DATA_SET, RESPONSE};
use stunetd::dicom::commitment::{INSTANCE, N_ACTION_RQ, N_EVENT_REPORT_RQ, PUSH_MODEL};
use stunetd::dicom::query::{image_identifier, sop_instance_of};

pub const SEG: &str = "1.2.840.10008.5.1.4.1.1.66.4";
pub const LABEL_MAP: &str = "1.2.840.10008.5.1.4.1.1.66.7";
pub const KEY_OBJECTS: &str = "1.2.840.10008.5.1.4.1.1.88.59";
const FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";

/// What happens to the next object.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// It is answered with this status; kept when that says so.
    Answer(u16),
    /// The peer is gone after its first fragment.
    DieDuring,
    /// It is kept, and the peer is gone before it has said so.
    DieAfter,
    /// After its first fragment nothing more is read, and nothing said.
    Stall,
    /// It is heard to its end, kept or not, and nothing is said.
    Silent { kept: bool },
}

/// What the peer does when it is asked to commit itself to keeping something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// It reports on the same association that it keeps it, or not; before it answers the request, or after.
    Here { kept: bool, first: bool },
    /// It loses the object, and reports that.
    Loses,
    /// It will report later.
    Later,
    /// It answers the request with this status.
    Refuses(u16),
}

#[derive(Default)]
pub struct State {
    /// By SOP Instance UID: the digest of every data set that was kept.
    pub kept: BTreeMap<String, Vec<[u8; 32]>>,
    pub script: VecDeque<Act>,
    /// Whether C-FIND is offered.
    pub answers_queries: bool,
    pub queries: u32,
    pub associations: u32,
    /// Objects that began to arrive.
    pub begun: u32,
    /// What it stores beside segmentations.
    pub more_classes: Vec<&'static str>,
    /// Storage commitment, if it is offered.
    pub commits: Option<Commits>,
    /// The data sets of requests for it.
    pub asked: Vec<Vec<u8>>,
    /// Statuses of the answers to its reports.
    pub answers: Vec<u16>,
    /// Who stalls, until this goes.
    stalled: Vec<Sender<()>>,
    /// Before an object is answered.
    pub pause: std::time::Duration,
    /// Everybody dies after so many more objects.
    pub objects_left: Option<u32>,
    open: Vec<TcpStream>,
}

/// The peer; gone when dropped.
pub struct Scp {
    pub port: u16,
    state: Arc<Mutex<State>>,
    listener: Option<JoinHandle<()>>,
}

impl Scp {
    /// Not listening yet.
    pub fn new(port: u16) -> Scp {
        let state = State { answers_queries: true, ..State::default() };
        Scp { port, state: Arc::new(Mutex::new(state)), listener: None }
    }

    pub fn listening(port: u16) -> Scp {
        let mut scp = Scp::new(port);
        scp.up();
        scp
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn script(&self, acts: &[Act]) {
        self.state().script.extend(acts);
    }

    /// How often each object was kept.
    pub fn times_kept(&self) -> Vec<usize> {
        self.state().kept.values().map(Vec::len).collect()
    }

    pub fn up(&mut self) {
        let socket = TcpListener::bind(("127.0.0.1", self.port)).expect("the port is free");
        let state = self.state.clone();
        self.state().objects_left = None;
        self.listener = Some(std::thread::spawn(move || {
            for stream in socket.incoming() {
                let stream = stream.expect("a connection");
                // A connection to ourselves ends the listening.
                if state.lock().expect("state").objects_left == Some(0) {
                    return;
                }
                let state = state.clone();
                std::thread::spawn(move || attend(stream, &state));
            }
        }));
    }

    /// Nobody listens any more, and open associations are cut.
    pub fn down(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let open = {
            let mut state = self.state();
            state.objects_left = Some(0);
            state.stalled.clear();
            std::mem::take(&mut state.open)
        };
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        listener.join().expect("the listener");
        open.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

/// An N-EVENT-REPORT of this event type; its data set is that of the request.
pub fn report_command(event: u16) -> Vec<u8> {
    let mut command = CommandWriter::default();
    command.uid(0x0002, PUSH_MODEL).number(0x0100, N_EVENT_REPORT_RQ).number(0x0110, 77).number(0x0800, 1);
    command.uid(0x1000, INSTANCE).number(0x1002, event).bytes()
}

impl Drop for Scp {
    fn drop(&mut self) {
        self.down();
    }
}

fn attend(stream: TcpStream, state: &Mutex<State>) {
    let cut = stream.try_clone().expect("a socket");
    let (queries, commits, more) = {
        let mut state = state.lock().expect("state");
        state.associations += 1;
        state.open.push(stream.try_clone().expect("a socket"));
        (state.answers_queries, state.commits, state.more_classes.clone())
    };
    let mut options = ServerAssociationOptions::new().accept_any().ae_title("PACS").with_abstract_syntax(SEG);
    if queries {
        options = options.with_abstract_syntax(FIND);
    }
    for class in more {
        options = options.with_abstract_syntax(class);
    }
    if commits.is_some() {
        options = options.with_abstract_syntax(PUSH_MODEL);
    }
    options = options.with_transfer_syntax("1.2.840.10008.1.2").with_transfer_syntax("1.2.840.10008.1.2.1");
    let Ok(mut association) = options.establish(stream) else { return };
    let accepted = association.presentation_contexts().iter().any(|c| c.reason == PresentationContextResultReason::Acceptance);
    assert!(accepted, "something is accepted");
    let (mut command, mut data) = (Vec::new(), Vec::new());
    loop {
        let values = match association.receive() {
            Ok(Pdu::PData { data }) => data,
            Ok(Pdu::ReleaseRQ) => return drop(association.send(&Pdu::ReleaseRP)),
            _ => return,
        };
        for value in values {
            let context = value.presentation_context_id;
            let mut say = |response: Vec<u8>, identifier: Option<Vec<u8>>| {
                let one = |value_type, data| PDataValue { presentation_context_id: context, value_type, is_last: true, data };
                let mut sent = association.send(&Pdu::PData { data: vec![one(PDataValueType::Command, response)] });
                if let (Ok(()), Some(identifier)) = (&sent, identifier) {
                    sent = association.send(&Pdu::PData { data: vec![one(PDataValueType::Data, identifier)] });
                }
                sent.is_ok()
            };
            match value.value_type {
                PDataValueType::Command => {
                    command.extend(value.data);
                    let set = CommandSet::read(&command).expect("a command");
                    let mut state = state.lock().expect("state");
                    state.begun += u32::from(set.number(0x0100) == Ok(0x0001));
                    if set.number(0x0100) == Ok(N_EVENT_REPORT_RQ | RESPONSE) {
                        state.answers.push(set.number(0x0900).expect("status"));
                        command.clear();
                    }
                }
                PDataValueType::Data => {
                    data.extend(value.data);
                    let request = CommandSet::read(&command).expect("a command");
                    let (field, message) = (request.number(0x0100).expect("field"), request.number(0x0110).expect("message"));
                    if field == N_ACTION_RQ {
                        let act = {
                            let mut state = state.lock().expect("state");
                            state.asked.push(data.clone());
                            if state.commits == Some(Commits::Loses) {
                                let kept: Vec<String> = state.kept.keys().cloned().collect();
                                let named = |uid: &String| data.windows(uid.len()).any(|w| w == uid.as_bytes());
                                kept.iter().filter(|uid| named(uid)).for_each(|uid| drop(state.kept.remove(uid)));
                            }
                            state.commits.expect("offered")
                        };
                        let status = if let Commits::Refuses(status) = act { status } else { 0 };
                        let mut response = CommandWriter::default();
                        response.uid(0x0002, PUSH_MODEL).number(0x0100, N_ACTION_RQ | RESPONSE).number(0x0120, message);
                        let response = response.number(0x0800, NO_DATA_SET).number(0x0900, status).uid(0x1000, INSTANCE).bytes();
                        let report = match act {
                            Commits::Here { kept, .. } => Some(report_command(if kept { 1 } else { 2 })),
                            Commits::Loses => Some(report_command(2)),
                            _ => None,
                        };
                        if let (Some(report), Commits::Here { first: true, .. }) = (&report, act) {
                            say(report.clone(), Some(data.clone()));
                        }
                        say(response, None);
                        if let (Some(report), Commits::Here { first: false, .. } | Commits::Loses) = (report, act) {
                            say(report, Some(data.clone()));
                        }
                        command.clear();
                        data.clear();
                        continue;
                    }
                    let class = request.text(0x0002).expect("class");
                    let answer = |status: u16, data_set: u16| {
                        let mut response = CommandWriter::default();
                        response.uid(0x0002, &class).number(0x0100, field | RESPONSE).number(0x0120, message);
                        response.number(0x0800, data_set).number(0x0900, status);
                        if field == 0x0001 && status != 0 {
                            // Error Comment: archives like to say whose it is.
                            response.uid(0x0902, "CANARY^NAME");
                        }
                        response.bytes()
                    };
                    if field == 0x0020 && value.is_last {
                        let instance = sop_instance_of(&data).expect("a UID").to_string();
                        let found = {
                            let mut state = state.lock().expect("state");
                            state.queries += 1;
                            state.kept.contains_key(&instance)
                        };
                        if found {
                            say(answer(0xFF00, 1), Some(image_identifier("1.2", "1.2.3", &instance)));
                        }
                        say(answer(0x0000, NO_DATA_SET), None);
                    } else if field == 0x0001 {
                        let instance = request.text(0x1000).expect("instance");
                        let mut state = state.lock().expect("state");
                        if matches!(state.script.front(), Some(Act::DieDuring)) {
                            state.script.pop_front();
                            return drop(cut.shutdown(Shutdown::Both));
                        }
                        if matches!(state.script.front(), Some(Act::Stall)) {
                            state.script.pop_front();
                            let (until, gone) = channel();
                            state.stalled.push(until);
                            drop(state);
                            let _ = gone.recv();
                            return;
                        }
                        if !value.is_last {
                            continue;
                        }
                        let act = match state.objects_left {
                            Some(0) => return,
                            Some(left) => {
                                state.objects_left = Some(left - 1);
                                if left == 1 { Act::DieAfter } else { Act::Answer(0) }
                            }
                            None => state.script.pop_front().unwrap_or(Act::Answer(0)),
                        };
                        let keep = matches!(act, Act::DieAfter | Act::Silent { kept: true } | Act::Answer(0 | 0xB000..=0xBFFF));
                        let pause = state.pause;
                        if keep {
                            state.kept.entry(instance).or_default().push(Sha256::digest(&data).into());
                        }
                        drop(state);
                        std::thread::sleep(pause);
                        match act {
                            Act::Answer(status) => drop(say(answer(status, NO_DATA_SET), None)),
                            Act::Silent { .. } => {}
                            _ => return drop(cut.shutdown(Shutdown::Both)),
                        }
                    }
                    if value.is_last {
                        command.clear();
                        data.clear();
                    }
                }
            }
        }
    }
}
