//! How the command line tells what happened.

use crate::fault::{Code, Fault};
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;

/// A failure as `--json` shows it, under the key `error`.
#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
    detail: &'a str,
    action: &'a str,
}

/// Tells a fault, what it means and what to do next, on stderr; with `json` also as one document on stdout. Returns the
/// exit code.
pub fn fault(fault: &Fault, json: bool) -> ExitCode {
    let code = fault.code;
    if json {
        let failure = Failure { code: code.name(), message: code.meaning(), detail: &fault.detail, action: code.action() };
        // The exit code tells the same, should nobody read stdout.
        let _ = print_json(&serde_json::json!({ "error": failure }));
    }
    let mut text = format!("stunetd: {code}: {}\n", code.meaning());
    for line in fault.detail.lines() {
        text += &format!("  {line}\n");
    }
    text += &format!("  next: {}\n", code.action());
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(fault.exit_code())
}

/// Writes one JSON document and a line end to stdout.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes a line to stdout.
pub fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Tells on stderr that an input was refused, and what to do next.
pub fn refusal(subject: &str, code: Code, detail: &str) {
    note(&format!("stunetd: refused: {code}: {subject}: {} {detail}\n  next: {}", code.meaning(), code.action()));
}

/// A line on stderr.
pub fn note(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
