//! The configuration: one TOML file, every key documented in `config/stunetd.toml`, every mistake reported at once with
//! its line and, for a wrong name, the nearest right one.

mod audit;
mod choices;
mod destination;
mod network;
mod reader;
mod reload;
mod schema;
mod select;
mod units;
mod windows;

pub use audit::{Audit, AuditTransport};
pub use choices::{After, Format, Irregular, LogFormat, LogLevel, Share};
pub use destination::{Accepts, Destination, DestinationKind, Resend};
pub use network::{AeTitle, Listen, LoopbackAddress, Network, WebAddress};
pub use reader::{Mistake, nearest};
pub use reload::RELOADABLE;
pub use schema::{Config, Dimse, Http, Intake, Jobs, Log, Model, Output, Retention, Spool, Stow, Training, Watch};
pub use select::{Accept, Modality, Orientation, Pattern, PerStudy, Preference, Priority, Range, Select, USUAL_PREFERENCES};
pub use units::{Allowance, ByteSize, HumanDuration, Keep};
pub use windows::Windows;

use crate::fault::{Code, Fault};
use std::path::Path;

/// The documented default file; its values are the defaults.
pub const DEFAULT_FILE: &str = include_str!("../../config/stunetd.toml");

/// Largest configuration file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a configuration file; relative paths in it start from its folder.
pub fn load(path: &Path) -> Result<Config, Fault> {
    let text = read(path)?;
    match parse(&text) {
        Ok(config) => Ok(config.relative_to(crate::sys::durable::parent(path))),
        Err(mistakes) => Err(fault(path, &mistakes)),
    }
}

/// The text of a configuration file.
pub fn read(path: &Path) -> Result<String, Fault> {
    let unreadable = |e: std::io::Error| Fault::new(Code::ConfigUnreadable, format!("{}: {e}", path.display())).caused_by(e);
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(Fault::new(Code::ConfigUnreadable, format!("{}: not a file of at most {MAX_BYTES} bytes", path.display())));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// The configuration in a text, or all its mistakes in the order of their lines.
pub fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    reader::parse(text)
}

/// One fault for all mistakes of a file, a line each.
pub fn fault(path: &Path, mistakes: &[Mistake]) -> Fault {
    let code = if mistakes.iter().all(|m| m.code == Code::ConfigUnknownKey) { Code::ConfigUnknownKey } else { Code::ConfigInvalid };
    let lines: Vec<String> = mistakes.iter().map(|m| format!("{}:{m}", path.display())).collect();
    Fault::new(code, lines.join("\n"))
}

#[cfg(test)]
mod tests;
