//! Storage commitment, push model (PS3.4 annex J): the question whether a peer commits itself to keeping objects, and its report.

use super::command::{CommandError, CommandSet, CommandWriter, NO_DATA_SET, RESPONSE};
use super::encode::file_meta;
use super::guard::{Limits, walk_bytes};
use super::uid::Uid;
use dicom_dictionary_std::tags;

/// Storage Commitment Push Model SOP Class.
pub const PUSH_MODEL: &str = "1.2.840.10008.1.20.1";
/// Its well-known SOP Instance.
pub const INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Command Field (0000,0100) of N-ACTION.
pub const N_ACTION_RQ: u16 = 0x0130;
/// Command Field (0000,0100) of N-EVENT-REPORT.
pub const N_EVENT_REPORT_RQ: u16 = 0x0100;
/// Longest data set of a report that is read.
pub const MAX_REPORT: usize = 1 << 20;

/// Event Type ID (0000,1002): all of it is kept.
const ALL_KEPT: u16 = 1;

/// What a peer reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of which request: its Transaction UID.
    pub transaction: String,
    /// It keeps every object of it.
    pub kept: bool,
}

/// The command of a request: N-ACTION, action type 1 (PS3.4 section J.3.2).
pub fn request_command(message: u16) -> Vec<u8> {
    let mut command = CommandWriter::default();
    command.uid(0x0003, PUSH_MODEL).number(0x0100, N_ACTION_RQ).number(0x0110, message).number(0x0800, 1);
    command.uid(0x1001, INSTANCE).number(0x1008, 1).bytes()
}

/// The data set of a request, in implicit VR little endian: SOP Class and SOP Instance UID of each object.
pub fn request(transaction: &str, objects: &[(&str, &str)]) -> Vec<u8> {
    let mut items = Vec::new();
    for (class, instance) in objects {
        let mut item = Vec::new();
        put(&mut item, (0x0008, 0x1150), &padded(class));
        put(&mut item, (0x0008, 0x1155), &padded(instance));
        put(&mut items, (0xFFFE, 0xE000), &item);
    }
    let mut out = Vec::with_capacity(items.len() + 128);
    put(&mut out, (0x0008, 0x1195), &padded(transaction));
    put(&mut out, (0x0008, 0x1199), &items);
    out
}

/// Whether this status of an N-ACTION means that there will be a report.
pub fn is_accepted(status: u16) -> bool {
    matches!(status, 0x0000 | 0x0001 | 0x0107 | 0x0116)
}

/// The report in an N-EVENT-REPORT, its data set in this transfer syntax; none when it can not be read.
pub fn report(command: &CommandSet<'_>, data_set: &[u8], transfer_syntax: &str) -> Option<Report> {
    let event = command.number(0x1002).ok()?;
    // The guard reads files.
    let instance = Uid::parse(INSTANCE).ok()?;
    let file = [&file_meta(PUSH_MODEL, &instance, transfer_syntax), data_set].concat();
    let walked = walk_bytes(&file, &Limits::default(), &|_| Ok(()));
    if walked.error.is_some() {
        return None;
    }
    let root = walked.data.root();
    let transaction = Uid::parse(&root.text(tags::TRANSACTION_UID)?).ok()?.to_string();
    let failed = root.items(tags::FAILED_SOP_SEQUENCE).next().is_some();
    Some(Report { transaction, kept: event == ALL_KEPT && !failed })
}

/// The answer to an N-EVENT-REPORT.
pub fn report_response(command: &CommandSet<'_>, status: u16) -> Result<Vec<u8>, CommandError> {
    let mut response = CommandWriter::default();
    response.uid(0x0002, PUSH_MODEL).number(0x0100, N_EVENT_REPORT_RQ | RESPONSE).number(0x0120, command.number(0x0110)?);
    response.number(0x0800, NO_DATA_SET).number(0x0900, status).uid(0x1000, INSTANCE);
    if let Ok(event) = command.number(0x1002) {
        response.number(0x1002, event);
    }
    Ok(response.bytes())
}

fn padded(uid: &str) -> Vec<u8> {
    let mut value = uid.as_bytes().to_vec();
    if value.len() % 2 == 1 {
        value.push(0);
    }
    value
}

fn put(out: &mut Vec<u8>, tag: (u16, u16), value: &[u8]) {
    out.extend_from_slice(&tag.0.to_le_bytes());
    out.extend_from_slice(&tag.1.to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMPLICIT: &str = "1.2.840.10008.1.2";

    fn event(number: u16) -> Vec<u8> {
        let mut command = CommandWriter::default();
        command.uid(0x0002, PUSH_MODEL).number(0x0100, N_EVENT_REPORT_RQ).number(0x0110, 5).number(0x0800, 0);
        command.uid(0x1000, INSTANCE).number(0x1002, number).bytes()
    }

    #[test]
    fn a_report_says_whether_everything_is_kept() {
        // A report of success has the elements of the request.
        let kept = request("1.2.3", &[("1.2.840.10008.5.1.4.1.1.66.4", "1.2.3.4")]);
        let mut partly = kept.clone();
        let mut item = Vec::new();
        put(&mut item, (0xFFFE, 0xE000), &[]);
        let mut failed = Vec::new();
        put(&mut failed, (0x0008, 0x1198), &item);
        // Between Transaction UID and Referenced SOP Sequence.
        partly.splice(14..14, failed);
        for (number, data_set, expected) in [(1, &kept, true), (2, &kept, false), (1, &partly, false), (2, &partly, false)] {
            let command = event(number);
            let command = CommandSet::read(&command).expect("a command");
            let report = report(&command, data_set, IMPLICIT);
            assert_eq!(report, Some(Report { transaction: "1.2.3".into(), kept: expected }), "{number}");
            let response = report_response(&command, 0).expect("a response");
            let response = CommandSet::read(&response).expect("a command");
            assert_eq!((response.number(0x0100), response.number(0x0120), response.number(0x0900)), (Ok(0x8100), Ok(5), Ok(0)));
        }
        let command = event(1);
        assert_eq!(report(&CommandSet::read(&command).expect("a command"), &kept[14..], IMPLICIT), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), number in any::<u16>()) {
            let command = event(number);
            let _ = report(&CommandSet::read(&command).expect("a command"), &bytes, IMPLICIT);
        }
    }
}
