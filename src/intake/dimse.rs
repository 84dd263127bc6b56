//! The few DIMSE messages (PS3.7) of a storage SCP.

use crate::dicom::command::{CommandError, CommandSet, CommandWriter, NO_DATA_SET, RESPONSE};
use crate::dicom::commitment::{self, N_EVENT_REPORT_RQ};

/// Command Field (0000,0100).
const C_STORE_RQ: u16 = 0x0001;
const C_ECHO_RQ: u16 = 0x0030;
const C_CANCEL_RQ: u16 = 0x0FFF;

/// Status (0000,0900) of a C-STORE response (PS3.4 B.2.3, PS3.7 C), and Failure Reason (0008,1197) of STOW-RS (PS3.18 annex I).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Stored, and on disk.
    Success,
    /// Refused: out of resources; the sender tries again later.
    OutOfResources,
    /// Data set does not match SOP class (or the UIDs of the command).
    DoesNotMatch,
    /// Cannot understand: the data set can not be read.
    CannotUnderstand,
    /// Cannot understand: an identifying UID is missing or not valid.
    BadUid,
    /// Cannot understand: larger than the limit.
    TooLarge,
    /// The transfer syntax is not supported (STOW-RS only: a C-STORE has negotiated it).
    TransferSyntaxNotSupported,
    /// SOP class not supported.
    SopClassNotSupported,
    /// Invalid SOP instance UID.
    InvalidInstance,
    /// Unrecognized operation.
    UnrecognizedOperation,
    /// Processing failure: a report could not be written down.
    ProcessingFailure,
    /// Invalid argument value: a report that can not be read, or that nobody asked for.
    InvalidArgument,
}

impl Status {
    /// The value in the response.
    pub fn code(self) -> u16 {
        match self {
            Status::Success => 0x0000,
            Status::OutOfResources => 0xA700,
            Status::DoesNotMatch => 0xA900,
            Status::CannotUnderstand => 0xC000,
            Status::BadUid => 0xC001,
            Status::TooLarge => 0xC002,
            Status::TransferSyntaxNotSupported => 0xC122,
            Status::SopClassNotSupported => 0x0122,
            Status::InvalidInstance => 0x0117,
            Status::UnrecognizedOperation => 0x0211,
            Status::ProcessingFailure => 0x0110,
            Status::InvalidArgument => 0x0115,
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Success => "stored",
            Status::OutOfResources => "no room, or the disk failed",
            Status::DoesNotMatch => "its UIDs are not those that were announced",
            Status::CannotUnderstand => "it can not be read",
            Status::BadUid => "an identifying UID is missing or not valid",
            Status::TooLarge => "it is larger than the limit",
            Status::TransferSyntaxNotSupported => "its transfer syntax is not supported",
            Status::SopClassNotSupported => "its SOP class is not accepted",
            Status::InvalidInstance => "the announced SOP Instance UID is not valid",
            Status::UnrecognizedOperation => "the operation is not supported",
            Status::ProcessingFailure => "it could not be written down",
            Status::InvalidArgument => "it can not be read, or nobody asked for it",
        })
    }
}

/// A request that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Verification.
    Echo {
        /// Message ID (0000,0110).
        message_id: u16,
    },
    /// Storage; the data set follows in the same presentation context.
    Store {
        /// Message ID (0000,0110).
        message_id: u16,
        /// Affected SOP Class UID (0000,0002).
        sop_class_uid: String,
        /// Affected SOP Instance UID (0000,1000).
        sop_instance_uid: String,
    },
    /// An N-EVENT-REPORT; its data set follows.
    Event {
        /// The command set, as it came.
        command: Vec<u8>,
    },
    /// A cancel: has no response.
    Cancel,
    /// Something that a storage SCP does not do.
    Other {
        /// Command Field (0000,0100).
        command: u16,
        /// Message ID (0000,0110).
        message_id: u16,
        /// Affected SOP Class UID, if there is one.
        sop_class_uid: String,
        /// Whether a data set follows.
        has_data_set: bool,
    },
}

/// Reads a command set: implicit little endian, group 0000 (PS3.7 section 6.3.1).
pub fn request(bytes: &[u8]) -> Result<Request, CommandError> {
    let set = CommandSet::read(bytes)?;
    let command = set.number(0x0100)?;
    if command == C_CANCEL_RQ {
        return Ok(Request::Cancel);
    }
    let message_id = set.number(0x0110)?;
    match command {
        C_ECHO_RQ => Ok(Request::Echo { message_id }),
        C_STORE_RQ => {
            if set.number(0x0800)? == NO_DATA_SET {
                return Err(CommandError::Missing(0x0800));
            }
            Ok(Request::Store { message_id, sop_class_uid: set.text(0x0002)?, sop_instance_uid: set.text(0x1000)? })
        }
        N_EVENT_REPORT_RQ if set.number(0x0800)? != NO_DATA_SET => Ok(Request::Event { command: bytes.to_vec() }),
        _ => Ok(Request::Other {
            command,
            message_id,
            sop_class_uid: set.text(0x0002).unwrap_or_default(),
            has_data_set: set.number(0x0800).is_ok_and(|t| t != NO_DATA_SET),
        }),
    }
}

/// The response to a request, as the bytes of a command set; `None` for a cancel.
pub fn response(request: &Request, status: Status) -> Option<Vec<u8>> {
    let (command, message_id, class, instance) = match request {
        Request::Echo { message_id } => (C_ECHO_RQ, *message_id, "1.2.840.10008.1.1", None),
        Request::Store { message_id, sop_class_uid, sop_instance_uid } => {
            (C_STORE_RQ, *message_id, sop_class_uid.as_str(), Some(sop_instance_uid.as_str()))
        }
        Request::Other { command, message_id, sop_class_uid, .. } => (*command, *message_id, sop_class_uid.as_str(), None),
        Request::Event { command } => {
            return CommandSet::read(command).and_then(|set| commitment::report_response(&set, status.code())).ok();
        }
        Request::Cancel => return None,
    };
    let mut set = CommandWriter::default();
    if !class.is_empty() {
        set.uid(0x0002, class);
    }
    set.number(0x0100, command | RESPONSE).number(0x0120, message_id).number(0x0800, NO_DATA_SET).number(0x0900, status.code());
    if let Some(instance) = instance {
        set.uid(0x1000, instance);
    }
    Some(set.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store(class: &str, instance: &str) -> Vec<u8> {
        let mut set = CommandWriter::default();
        set.uid(0x0002, class).number(0x0100, C_STORE_RQ).number(0x0110, 7).number(0x0800, 0).uid(0x1000, instance);
        // without the group length, which no reader needs
        set.bytes().split_off(12)
    }

    #[test]
    fn store_request_is_read_and_answered() {
        let read = request(&store("1.2.3", "1.2.3.4")).expect("a command");
        assert_eq!(read, Request::Store { message_id: 7, sop_class_uid: "1.2.3".into(), sop_instance_uid: "1.2.3.4".into() });
        let answer = response(&read, Status::OutOfResources).expect("an answer");
        // group length counts what follows it
        assert_eq!(u32::from_le_bytes(answer[8..12].try_into().expect("4 bytes")) as usize, answer.len() - 12);
        let status = answer.windows(8).position(|w| w == [0, 0, 0, 9, 2, 0, 0, 0]).expect("a status") + 8;
        assert_eq!(u16::from_le_bytes([answer[status], answer[status + 1]]), 0xA700);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = request(&bytes);
        }

        #[test]
        fn cut_commands_are_refused(n in 0usize..60) {
            let whole = store("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5.6");
            prop_assume!(n < whole.len());
            prop_assert!(request(&whole[..n]).is_err());
        }
    }
}
