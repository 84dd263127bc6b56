//! Events as messages: the schema of PS3.15 A.5.1, the contents of A.5.3, and the syslog header of RFC 5424.

use super::event::{Event, Node, Study};
use super::xml::Element;
use crate::sys::civil;
use std::net::IpAddr;
use std::time::SystemTime;

/// Facility "security/authorization messages" of syslog.
const FACILITY: u32 = 10;
/// Severity of what went as it should: notice.
const NOTICE: u32 = 5;
/// Severity of what did not: warning.
const WARNING: u32 = 4;
/// What DICOM's audit messages are marked with.
const MESSAGE_ID: &str = "DICOM+RFC3881";

/// Who tells.
#[derive(Clone, Debug)]
pub struct Teller {
    /// The name of this machine.
    pub host: String,
    /// AuditSourceID.
    pub source: String,
    /// Our AE title.
    pub title: String,
    /// Number of this process.
    pub process: u32,
}

/// A code of a coding scheme.
struct Coded(&'static str, &'static str, &'static str);

const fn dcm(code: &'static str, meaning: &'static str) -> Coded {
    Coded(code, "DCM", meaning)
}

const STUDY_UID: Coded = dcm("110180", "Study Instance UID");
const PATIENT_NUMBER: Coded = Coded("2", "RFC-3881", "Patient Number");
const NODE_ID: Coded = dcm("110182", "Node ID");
const APPLICATION: Coded = dcm("110150", "Application");
const LAUNCHER: Coded = dcm("110151", "Application Launcher");
const DESTINATION: Coded = dcm("110152", "Destination Role ID");
const SOURCE: Coded = dcm("110153", "Source Role ID");

impl Coded {
    fn element(&self, name: &'static str) -> Element {
        Element::new(name).with("csd-code", self.0).with("codeSystemName", self.1).with("originalText", self.2)
    }
}

/// How an event ended.
enum Outcome<'a> {
    Success,
    Minor(&'a str),
    Serious(&'a str),
}

impl Teller {
    /// A message of syslog: header, byte order mark, XML.
    pub fn message(&self, event: &Event<'_>, at: SystemTime) -> Vec<u8> {
        let parts = self.parts(event);
        let severity = if matches!(parts.outcome, Outcome::Success) { NOTICE } else { WARNING };
        let time = civil::rfc3339(at);
        let host = header(&self.host);
        let head = format!("<{}>1 {time} {host} stunetd {} {MESSAGE_ID} - \u{FEFF}", FACILITY * 8 + severity, self.process);
        (head + &self.xml(parts, &time)).into_bytes()
    }

    fn xml(&self, parts: Parts<'_>, time: &str) -> String {
        let (outcome, described) = match parts.outcome {
            Outcome::Success => ("0", None),
            Outcome::Minor(why) => ("4", Some(why)),
            Outcome::Serious(why) => ("8", Some(why)),
        };
        let event = Element::new("EventIdentification")
            .with("EventActionCode", parts.action)
            .with("EventDateTime", time)
            .with("EventOutcomeIndicator", outcome)
            .child(parts.id.element("EventID"))
            .children(parts.kind.map(|kind| kind.element("EventTypeCode")))
            .children(described.map(|why| Element::new("EventOutcomeDescription").text(why)));
        let source = Element::new("AuditSourceIdentification")
            .with("AuditSourceID", &self.source)
            // An application server process.
            .child(Element::new("AuditSourceTypeCode").with("csd-code", "4"));
        Element::new("AuditMessage").child(event).children(parts.participants).child(source).children(parts.objects).document()
    }

    /// What differs from event to event.
    fn parts<'a>(&self, event: &Event<'a>) -> Parts<'a> {
        let transferred = dcm("110104", "DICOM Instances Transferred");
        let accessed = dcm("110103", "DICOM Instances Accessed");
        let access = |action, study: &'a Study| Parts::new(accessed, action).by(self.ours(None, true)).about(study);
        match event {
            Event::Started | Event::Stopped => {
                let kind = match event {
                    Event::Started => dcm("110120", "Application Start"),
                    _ => dcm("110121", "Application Stop"),
                };
                let launcher = participant(&crate::sys::person::own(), None, Some(LAUNCHER), true);
                Parts::new(dcm("110100", "Application Activity"), "E").of(kind).by(self.ours(Some(APPLICATION), false)).by(launcher)
            }
            Event::Received { study, from } => {
                Parts::new(transferred, "C").by(theirs(from, Some(SOURCE), true)).by(self.ours(Some(DESTINATION), false)).about(study)
            }
            Event::Begun { study, to } => Parts::new(dcm("110102", "Begin Transferring DICOM Instances"), "E")
                .by(self.ours(Some(SOURCE), true))
                .by(theirs(to, Some(DESTINATION), false))
                .about(study),
            Event::Sent { study, to, already, failed } => Parts::new(transferred, if *already { "R" } else { "C" })
                .ended(failed.map_or(Outcome::Success, Outcome::Serious))
                .by(self.ours(Some(SOURCE), true))
                .by(theirs(to, Some(DESTINATION), false))
                .about(study),
            Event::Read(study) => access("R", study),
            Event::Created(study) => access("C", study),
            Event::Removed(study) => access("D", study),
            Event::Deleted { study, who } => Parts::new(dcm("110105", "DICOM Study Deleted"), "D")
                .by(participant(who, None, None, true))
                .by(self.ours(None, false))
                .about(study),
            Event::Refused { node, why } => Parts::new(dcm("110113", "Security Alert"), "E")
                .of(dcm("110126", "Node Authentication"))
                .ended(Outcome::Minor(why))
                .by(self.ours(None, false))
                .by(theirs(node, None, true))
                .object(alert(&NODE_ID, if node.address.is_empty() { &node.name } else { &node.address }, why)),
            Event::Command { who, what, study } => Parts::new(dcm("110113", "Security Alert"), "E")
                .of(dcm("110132", "Use of Restricted Function"))
                .by(self.ours(None, false))
                .by(participant(who, None, None, true))
                .object(alert(&STUDY_UID, &study.uid, what)),
            Event::Gap { lost } => Parts::new(dcm("110113", "Security Alert"), "E")
                .of(dcm("110133", "Audit Recording Stopped"))
                .ended(Outcome::Serious("messages were lost"))
                .by(self.ours(None, true))
                .object(alert(&NODE_ID, &self.host, &format!("{lost} audit messages were lost"))),
        }
    }

    /// This process as one who takes part.
    fn ours(&self, role: Option<Coded>, requestor: bool) -> Element {
        let title = format!("AETITLES={}", self.title);
        let us = participant(&self.process.to_string(), Some(&title), None, requestor).with("UserName", "stunetd");
        access_point(us, &self.host).children(role.map(|role| role.element("RoleIDCode")))
    }
}

/// The parts of a message.
struct Parts<'a> {
    id: Coded,
    kind: Option<Coded>,
    action: &'static str,
    outcome: Outcome<'a>,
    participants: Vec<Element>,
    objects: Vec<Element>,
}

impl<'a> Parts<'a> {
    fn new(id: Coded, action: &'static str) -> Parts<'a> {
        Parts { id, kind: None, action, outcome: Outcome::Success, participants: Vec::new(), objects: Vec::new() }
    }

    fn of(mut self, kind: Coded) -> Parts<'a> {
        self.kind = Some(kind);
        self
    }

    fn ended(mut self, outcome: Outcome<'a>) -> Parts<'a> {
        self.outcome = outcome;
        self
    }

    fn by(mut self, participant: Element) -> Parts<'a> {
        self.participants.push(participant);
        self
    }

    fn object(mut self, object: Element) -> Parts<'a> {
        self.objects.push(object);
        self
    }

    /// A study and, where it is known, its patient.
    fn about(self, study: &Study) -> Parts<'a> {
        let classes = study
            .classes
            .iter()
            .map(|(class, count)| Element::new("SOPClass").with("UID", class.as_str()).with("NumberOfInstances", count.to_string()));
        let classes: Vec<Element> = classes.collect();
        let described = (!classes.is_empty()).then(|| Element::new("ParticipantObjectDescription").children(classes));
        // A system object that is a report.
        let about = object("2", "3", &STUDY_UID, &study.uid, &study.uid).children(described);
        let mut parts = self.object(about);
        if let Some(patient) = &study.patient {
            parts.objects.push(object("1", "1", &PATIENT_NUMBER, &patient.id, &patient.name));
        }
        parts
    }
}

fn participant(user: &str, alternative: Option<&str>, role: Option<Coded>, requestor: bool) -> Element {
    Element::new("ActiveParticipant")
        .with("UserID", user)
        .with_some("AlternativeUserID", alternative.unwrap_or_default())
        .with("UserIsRequestor", requestor.to_string())
        .children(role.map(|role| role.element("RoleIDCode")))
}

/// Another system as one who takes part.
fn theirs(node: &Node, role: Option<Coded>, requestor: bool) -> Element {
    let user = if node.name.is_empty() { &node.address } else { &node.name };
    let title = format!("AETITLES={}", node.name);
    let title = (!node.name.is_empty()).then_some(title.as_str());
    access_point(participant(user, title, role, requestor), &node.address)
}

/// Where somebody is reached: 1 by a name, 2 by an address, 5 by a URI.
fn access_point(participant: Element, place: &str) -> Element {
    if place.is_empty() {
        return participant;
    }
    let kind = match place {
        uri if uri.contains("://") => "5",
        address if address.parse::<IpAddr>().is_ok() => "2",
        _ => "1",
    };
    participant.with("NetworkAccessPointID", place).with("NetworkAccessPointTypeCode", kind)
}

fn object(kind: &'static str, role: &'static str, id_kind: &Coded, id: &str, name: &str) -> Element {
    Element::new("ParticipantObjectIdentification")
        .with("ParticipantObjectID", id)
        .with("ParticipantObjectTypeCode", kind)
        .with("ParticipantObjectTypeCodeRole", role)
        .child(id_kind.element("ParticipantObjectIDTypeCode"))
        .child(Element::new("ParticipantObjectName").text(name))
}

/// The subject of an alert (A.5.3.11): a security resource, with a description.
fn alert(id_kind: &Coded, id: &str, description: &str) -> Element {
    let detail = Element::new("ParticipantObjectDetail").with("type", "Alert Description").with("value", base64(description.as_bytes()));
    object("2", "13", id_kind, id, id).child(detail)
}

/// A field of a syslog header: printable ASCII without blanks, `-` for nothing.
pub fn header(text: &str) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(255).collect();
    if field.is_empty() { "-".into() } else { field }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn headers_hold_what_they_may() {
        assert_eq!([header("ct-1.example"), header("a b\n\u{e4}"), header("")], ["ct-1.example", "ab", "-"]);
    }
}
