//! A destination by STOW-RS (PS3.18 section 10.5): each object is a request of its own, so that every answer is about one instance; and
//! QIDO-RS (section 10.6) to ask what is there.

use super::http::{Answer, Endpoint, HttpError, Request};
use super::parcel::{Item, Parcel};
use super::status::{Judged, judge, sentence};
use super::tls;
use super::transport::{Clerk, Confirmed, Failure, Transport, Verdict, unverified};
use crate::config::{Destination, Resend};
use crate::dicom::Identity;
use crate::fault::{Code, Fault};
use crate::sys::durable::{Step, StorageError};
use serde_json::Value;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io::Read;
use std::path::PathBuf;

/// Longest token that is read.
const MAX_TOKEN: u64 = 64 << 10;

/// Sends objects to a DICOMweb service.
pub struct Stow {
    endpoint: Endpoint,
    token: PathBuf,
    resend: Resend,
}

/// Whether something is there.
enum Found {
    Yes,
    No,
    Unknown,
}

/// Why something did not come to an answer.
enum StowError {
    Own(Fault),
    Http(HttpError),
}

impl From<Fault> for StowError {
    fn from(fault: Fault) -> StowError {
        StowError::Own(fault)
    }
}

impl From<HttpError> for StowError {
    fn from(error: HttpError) -> StowError {
        StowError::Http(error)
    }
}

impl Stow {
    /// To the service that the configuration names.
    pub fn new(destination: &Destination) -> Result<Stow, Fault> {
        let none = || Fault::new(Code::ConfigInvalid, format!("`destination.url`: `{}` has none", destination.name));
        let url = destination.url.as_ref().ok_or_else(none)?;
        let (host, port, base) = (url.host().to_string(), url.port(), url.path().to_string());
        let tls = url.is_https().then(|| tls::client_config(destination)).transpose()?;
        let endpoint = Endpoint { host, port, base, tls, timeout: destination.timeout.0 };
        Ok(Stow { endpoint, token: destination.token_file.clone(), resend: destination.resend })
    }

    /// The header that says who we are. The token is read anew for each request, so that it may change.
    fn authorization(&self) -> Result<Option<(&'static str, String)>, Fault> {
        if self.token.as_os_str().is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        let read = File::open(&self.token).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut text));
        read.map_err(StorageError::at(Step::Read, &self.token))?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::new(Code::ConfigInvalid, format!("`destination.token_file`: {}: no token in it", self.token.display())));
        }
        Ok(Some(("Authorization", format!("Bearer {token}"))))
    }

    fn store(&self, item: &Item) -> Result<Answer, StowError> {
        let mut file = File::open(&item.path).map_err(|e| Fault::from(StorageError::at(Step::Read, &item.path)(e)))?;
        // 128 random bits: not in the file.
        let random = || RandomState::new().build_hasher().finish();
        let boundary = format!("stunetd-{:016x}{:016x}", random(), random());
        let head = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n");
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = (head.len() + tail.len()) as u64 + item.bytes;
        let mut body = head.as_bytes().chain(file.by_ref().take(item.bytes)).chain(tail.as_bytes());
        let kind = format!("multipart/related; type=\"application/dicom\"; boundary={boundary}");
        let mut headers = vec![("Content-Type", kind), ("Accept", "application/dicom+json".to_string())];
        headers.extend(self.authorization()?);
        let path = "/studies".to_string();
        Ok(self.endpoint.exchange(Request { method: "POST", path, headers, body: Some((&mut body, length)) })?)
    }

    fn find(&self, identity: &Identity) -> Result<Found, StowError> {
        let (study, instance) = (identity.study_uid.as_str(), identity.sop_instance_uid.as_str());
        let path = format!("/instances?StudyInstanceUID={study}&SOPInstanceUID={instance}");
        let mut headers = vec![("Accept", "application/dicom+json".to_string())];
        headers.extend(self.authorization()?);
        let answer = self.endpoint.exchange(Request { method: "GET", path, headers, body: None })?;
        Ok(match (answer.status, serde_json::from_slice::<Value>(&answer.body)) {
            (200, Ok(Value::Array(all))) => match all.iter().any(|one| one["00080018"]["Value"][0] == *instance) {
                true => Found::Yes,
                false if all.is_empty() => Found::No,
                // It does not look at what it was asked.
                false => Found::Unknown,
            },
            (204, _) => Found::No,
            (408 | 429 | 500.., _) => {
                let what = format!("the query was answered with {}", answer.status);
                return Err(HttpError::Lost { what, whole: false }.into());
            }
            _ => Found::Unknown,
        })
    }

    fn send(&self, parcel: &Parcel, clerk: &mut dyn Clerk, any_stored: &mut bool) -> Result<Verdict, StowError> {
        let (mut confirmed, mut warning, mut counted) = (Confirmed::Status, None, false);
        for (item, identity) in parcel.items.iter().filter_map(|item| Some((item, item.identity.as_ref()?))) {
            if parcel.doubtful {
                match self.find(identity)? {
                    Found::Yes => {
                        confirmed = Confirmed::Query;
                        continue;
                    }
                    Found::No => {}
                    Found::Unknown if self.resend == Resend::Never => {
                        return Ok(unverified("The service can not be asked, and `resend` is \"never\"."));
                    }
                    Found::Unknown if parcel.resends > 0 => return Ok(unverified("The service can not be asked, and it was sent twice.")),
                    Found::Unknown if counted => {}
                    Found::Unknown => {
                        clerk.resend()?;
                        counted = true;
                    }
                }
            }
            match read(&self.store(item)?, identity.sop_instance_uid.as_str()) {
                (Judged::Stored, _) => {}
                (Judged::With(fault), _) => warning = Some(fault),
                (Judged::Not(failure, fault), doubtful) => return Ok(Verdict::Failed { failure, doubtful, fault }),
            }
            *any_stored = true;
        }
        Ok(Verdict::Delivered { confirmed, warning })
    }
}

impl Transport for Stow {
    fn deliver(&mut self, parcel: &Parcel, clerk: &mut dyn Clerk) -> Verdict {
        let mut any_stored = false;
        let verdict = match self.send(parcel, clerk, &mut any_stored) {
            Ok(verdict) => verdict,
            Err(StowError::Own(fault)) => Verdict::own(fault),
            Err(StowError::Http(HttpError::Unreachable(what))) => {
                Verdict::failed(Failure::Unreachable, Fault::new(Code::DeliveryUnreachable, sentence(&what)))
            }
            Err(StowError::Http(HttpError::Lost { what, whole })) => {
                let fault = Fault::new(Code::DeliveryInterrupted, sentence(&what));
                Verdict::Failed { failure: Failure::Passing, doubtful: whole, fault }
            }
        };
        verdict.after(any_stored)
    }
}

/// What an answer says of the one instance that was sent, and whether it may be there nevertheless.
fn read(answer: &Answer, instance: &str) -> (Judged, bool) {
    let status = answer.status;
    let said = |code| Fault::new(code, format!("HTTP status {status}."));
    let document = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    // Some services send a list of one.
    let document = document.get(0).cloned().unwrap_or(document);
    let entry = |sequence: &str| {
        let items = document[sequence]["Value"].as_array()?;
        items.iter().find(|item| item["00081155"]["Value"][0] == *instance).cloned()
    };
    let number = |item: &Value, tag: &str| item[tag]["Value"][0].as_u64().and_then(|n| u16::try_from(n).ok());
    match status {
        200 | 202 | 409 => match (entry("00081198"), entry("00081199")) {
            (Some(failed), _) => (judge(number(&failed, "00081197").unwrap_or(0xC000), &[]), false),
            (None, Some(stored)) => (number(&stored, "00081196").map_or(Judged::Stored, |reason| judge(reason, &[])), false),
            (None, None) if status == 200 => (Judged::Stored, false),
            // Accepted, and not a word of this instance: it is asked about.
            (None, None) if status == 202 => (Judged::Not(Failure::Passing, said(Code::DeliveryBusy)), true),
            (None, None) => (Judged::Not(Failure::Refused, said(Code::DeliveryRefused)), false),
        },
        429 | 503 => (Judged::Not(Failure::Passing, said(Code::DeliveryBusy)), false),
        // A gateway may have given up on a service that has it.
        408 | 500.. => (Judged::Not(Failure::Passing, said(Code::DeliveryBusy)), true),
        _ => (Judged::Not(Failure::Refused, said(Code::DeliveryRefused)), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_judged_for_the_instance() {
        let item = |uid: &str, more: &str| format!(r#"{{"00081155":{{"vr":"UI","Value":["{uid}"]}}{more}}}"#);
        let document = |sequence: &str, item: String| format!(r#"{{"{sequence}":{{"vr":"SQ","Value":[{item}]}}}}"#);
        let reason = |tag: &str, n: u16| format!(r#","{tag}":{{"vr":"US","Value":[{n}]}}"#);
        let failed = |n: u16| document("00081198", item("1.2", &reason("00081197", n)));
        let cases = [
            (200, document("00081199", item("1.2", "")), "Stored false"),
            (200, format!("[{}]", document("00081199", item("1.2", ""))), "Stored false"),
            (200, String::new(), "Stored false"),
            (202, document("00081199", item("1.2", &reason("00081196", 0xB000))), "With false"),
            (202, failed(0xA700), "Passing false"),
            (202, String::new(), "Passing true"),
            (409, failed(0x0110), "Doubted false"),
            (409, failed(0xC000), "Refused false"),
            (409, failed(0x0111), "Stored false"),
            (409, document("00081198", item("9.9", "")), "Refused false"),
            (503, String::new(), "Passing false"),
            (429, String::new(), "Passing false"),
            (504, String::new(), "Passing true"),
            (500, String::new(), "Passing true"),
            (401, String::new(), "Refused false"),
            (404, String::new(), "Refused false"),
            (301, String::new(), "Refused false"),
        ];
        for (status, body, meaning) in cases {
            let (judged, doubtful) = read(&Answer { status, body: body.clone().into() }, "1.2");
            let name = match judged {
                Judged::Stored => "Stored".to_string(),
                Judged::With(_) => "With".to_string(),
                Judged::Not(failure, _) => format!("{failure:?}"),
            };
            assert_eq!(format!("{name} {doubtful}"), meaning, "{status} {body}");
        }
    }
}
