//! Delivery by STOW-RS to a service that answers as it is told.

use super::office::{Office, instance, object_file, web};
use crate::support::eventually;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use stunetd::ledger::DeliveryState;

#[derive(Default)]
struct State {
    /// Answers to the next requests to store; none: the object is kept.
    script: VecDeque<Act>,
    kept: BTreeMap<String, u32>,
    queries: u32,
    tokens: Vec<String>,
}

enum Act {
    /// Status and body.
    Answer(u16, String),
    /// It is kept, and this is the status all the same.
    Keep(u16),
    /// It is kept, and nothing is said.
    KeepAndDie,
    /// It is kept or not, and nothing is said until the caller has gone.
    Silent { kept: bool },
}

/// A service that lives as long as the test.
struct Service {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Service {
    fn start() -> Service {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let service = Service { port: socket.local_addr().expect("address").port(), state: Arc::default() };
        let state = service.state.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let (stream, state) = (stream.expect("a connection"), state.clone());
                std::thread::spawn(move || attend(stream, &state));
            }
        });
        service
    }

    fn says(&self, act: Act) {
        self.state.lock().expect("state").script.push_back(act);
    }

    fn kept(&self) -> Vec<u32> {
        self.state.lock().expect("state").kept.values().copied().collect()
    }
}

fn attend(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_string()),
        }
    }
    let header = |name: &str| lines.iter().find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_string()));
    let mut body = vec![0; header("content-length:").map_or(0, |n| n.parse().expect("a number"))];
    reader.read_exact(&mut body).expect("a body");
    let mut state = state.lock().expect("state");
    state.tokens.extend(lines.iter().find_map(|l| l.strip_prefix("Authorization: ").map(str::to_owned)));
    let (status, answer) = if lines[0].starts_with("GET") {
        state.queries += 1;
        assert!(lines[0].starts_with("GET /web/instances?StudyInstanceUID="), "{}", lines[0]);
        let uid = lines[0].split("SOPInstanceUID=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a UID").to_string();
        let found = state.kept.contains_key(&uid).then(|| format!(r#"{{"00080018":{{"vr":"UI","Value":["{uid}"]}}}}"#));
        (200, format!("[{}]", found.unwrap_or_default()))
    } else {
        assert_eq!(lines[0], "POST /web/studies HTTP/1.1");
        let number = (1..100).find(|n| body.windows(object_file(*n).len()).any(|w| w == object_file(*n))).expect("the published bytes");
        let act = state.script.pop_front().unwrap_or(Act::Keep(200));
        if matches!(act, Act::Keep(_) | Act::KeepAndDie | Act::Silent { kept: true }) {
            *state.kept.entry(instance(number)).or_default() += 1;
        }
        match act {
            Act::Answer(status, text) => (status, text),
            Act::Keep(200) => {
                (200, format!(r#"{{"00081199":{{"vr":"SQ","Value":[{{"00081155":{{"vr":"UI","Value":["{}"]}}}}]}}}}"#, instance(number)))
            }
            Act::Keep(status) => (status, String::new()),
            Act::KeepAndDie => return,
            Act::Silent { .. } => {
                drop(state);
                return drop(reader.read_to_end(&mut Vec::new()));
            }
        }
    };
    // In chunks, as proxies like to.
    let _ = write!(stream, "HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{answer}\r\n0\r\n\r\n", answer.len().max(1));
}

fn failed(number: u32, reason: u16) -> String {
    let uid = instance(number);
    format!(
        r#"{{"00081198":{{"vr":"SQ","Value":[{{"00081155":{{"vr":"UI","Value":["{uid}"]}},"00081197":{{"vr":"US","Value":[{reason}]}}}}]}}}}"#
    )
}

#[test]
fn answers_are_judged_for_the_instance_and_nothing_is_stored_twice() {
    let service = Service::start();
    let token = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(token.path(), "secret\n").expect("written");
    let mut destination = web(&format!("http://127.0.0.1:{}/web/", service.port));
    destination.token_file = token.path().into();
    let mut office = Office::new(vec![destination]);
    // Not now, said in four ways; once it had been kept nevertheless.
    service.says(Act::Answer(503, " ".into()));
    service.says(Act::Answer(429, " ".into()));
    service.says(Act::Answer(409, failed(1, 0xA700)));
    service.says(Act::Keep(504));
    office.publish(1, 1);
    office.start();
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 1);
    assert_eq!((service.kept(), office.attempts("postponed"), office.attempts("already_there")), (vec![1], 4.0, 1.0));
    // The connection is lost after the last byte.
    service.says(Act::KeepAndDie);
    office.publish(2, 1);
    office.passes("delivered", || office.count(DeliveryState::Delivered) == 2);
    assert_eq!((service.kept(), service.state.lock().expect("state").queries), (vec![1, 1], 2));
    // No, said in three ways.
    service.says(Act::Answer(409, failed(3, 0xC000)));
    service.says(Act::Answer(401, " ".into()));
    service.says(Act::Answer(301, " ".into()));
    office.publish(3, 1);
    office.passes("parked", || office.count(DeliveryState::Parked) == 1);
    assert_eq!(office.delivery(3).problem.map(|p| p.code).as_deref(), Some("delivery.refused"));
    // A new token is read without a restart.
    std::fs::write(token.path(), "other").expect("written");
    office.retry(3);
    office.passes("delivered after all", || office.count(DeliveryState::Delivered) == 3);
    office.stop();
    let tokens = service.state.lock().expect("state").tokens.clone();
    assert!(tokens[0] == "Bearer secret" && tokens.last().is_some_and(|t| t == "Bearer other"), "{tokens:?}");
    eventually("nobody hangs", || Arc::strong_count(&service.state) <= 2);
}

#[test]
fn a_silent_service_is_given_up_and_asked() {
    let service = Service::start();
    let mut destination = web(&format!("http://127.0.0.1:{}/web/", service.port));
    destination.timeout = stunetd::config::HumanDuration(std::time::Duration::from_secs(2));
    let mut office = Office::new(vec![destination]);
    service.says(Act::Silent { kept: true });
    service.says(Act::Silent { kept: false });
    office.publish(1, 2);
    office.start();
    office.passes("both are there", || office.count(DeliveryState::Delivered) == 2);
    office.stop();
    assert_eq!((service.kept(), service.state.lock().expect("state").queries), (vec![1, 1], 2));
    assert_eq!((office.attempts("postponed"), office.attempts("already_there"), office.attempts("delivered")), (2.0, 1.0, 1.0));
}
