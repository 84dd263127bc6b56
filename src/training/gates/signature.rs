//! The daemon's signature under a report: whoever changed it afterwards has not the site's secret.

use crate::fault::{Code, Fault};
use crate::sys::durable::{self, Step, StorageError};
use crate::training::cases::patient_key;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest report.
const MAX_FILE: u64 = 256 << 20;
/// Names of the files in a run's folder.
const JSON: &str = "report.json";
const HTML: &str = "report.html";
const SIGNATURE: &str = "report.sig";

/// HMAC-SHA-256 of a report's bytes under the site's secret, hexadecimal.
pub fn sign(secret: &[u8], report: &str) -> String {
    // Pseudonyms are made with the same secret; this text stands in front of no issuer.
    patient_key(secret, "\0report", report)
}

/// Writes a report and its signature into a run's folder.
///
/// # Errors
/// `disk.*`.
pub fn write_signed(folder: &Path, secret: &[u8], json: &str, html: &str) -> Result<(), Fault> {
    durable::write_file(&folder.join(HTML), html.as_bytes())?;
    durable::write_file(&folder.join(JSON), json.as_bytes())?;
    durable::write_file(&folder.join(SIGNATURE), sign(secret, json).as_bytes())?;
    Ok(())
}

/// Reads a report whose signature holds.
///
/// # Errors
/// `training.report_changed` where it does not; `disk.*`.
pub fn read_signed(folder: &Path, secret: &[u8]) -> Result<serde_json::Value, Fault> {
    let read = |name: &str| {
        let path = folder.join(name);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text));
        read.map_err(StorageError::at(Step::Read, &path)).map(|_| text)
    };
    let (json, signature) = (read(JSON)?, read(SIGNATURE)?);
    let changed = |why: &str| Fault::new(Code::TrainingReportChanged, format!("{}: {why}", folder.join(JSON).display()));
    // Both are digests of the same length; how long a comparison takes tells nobody anything of use.
    if signature.trim() != sign(secret, &json) {
        return Err(changed("the signature does not hold"));
    }
    serde_json::from_str(&json).map_err(|_| changed("not a report"))
}
