//! `stunetd top`: how the daemon is, in the terminal. Asked of its control socket, which needs no port and no password.

use super::report::{print_json, print_line};
use crate::config;
use crate::fault::{Code, Fault};
use crate::pipeline::{Snapshot, control};
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use crate::telemetry::words::{age, bytes, percent, seconds};
use crossbeam::channel::{after, select};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Shows what the daemon is doing, again and again, until Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", default_value = super::doctor::USUAL_CONFIG)]
    config: PathBuf,
    /// Once only; so too when stdout is no terminal
    #[arg(long)]
    once: bool,
    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = interval)]
    every: f64,
    /// One JSON document on stdout, once
    #[arg(long)]
    pub json: bool,
}

/// Another screen of the terminal, without a cursor; and back.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

fn interval(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s| (0.1..=3600.0).contains(s)).ok_or_else(|| "from 0.1 to 3600".to_owned())
}

/// Exit code 0; `daemon.not_running` without a daemon.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let state = config::load(&args.config)?.state;
    if args.json {
        super::stdout_failed(print_json(&look(&state)?))?;
    } else if args.once || !std::io::stdout().is_terminal() {
        super::stdout_failed(print_line(&page(&look(&state)?, false)))?;
    } else {
        live(&state, Duration::from_secs_f64(args.every))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn look(state: &Path) -> Result<Snapshot, Fault> {
    let missing = || Fault::new(Code::DaemonNotRunning, format!("Nobody listens in {}.", state.display()));
    control::status(state)?.ok_or_else(missing)
}

fn live(state: &Path, every: Duration) -> Result<(), Fault> {
    let shutdown = Shutdown::default();
    signals::listen(shutdown.clone(), FirstSignal::Abandons, None).map_err(super::no_signals)?;
    let mut page_now = page(&look(state)?, true);
    let show = |text: &str| {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush())
    };
    super::stdout_failed(show(OPEN))?;
    let end = loop {
        // Each line is cleared to its end, and what is below too: nothing flickers.
        let lines = page_now.replace('\n', "\x1b[K\r\n");
        if let Err(error) = show(&format!("\x1b[H{lines}\x1b[K\x1b[J")) {
            break super::stdout_failed(Err(error));
        }
        select! {
            recv(after(every)) -> _ => {}
            recv(shutdown.draining()) -> _ => break Ok(()),
        }
        page_now = match look(state) {
            Ok(snapshot) => page(&snapshot, true),
            // It may be starting again.
            Err(fault) => format!("stunetd: {fault}\n{}", fault.code.action()),
        };
    };
    super::stdout_failed(show(CLOSE))?;
    end
}

/// The six blocks as lines.
fn page(now: &Snapshot, colours: bool) -> String {
    let paint = |text: &str, code: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let head = |text: &str| paint(&format!("{text:<9}"), "1");
    let (state, tone) = match now.fine.state.as_str() {
        "ready" if now.fine.attention.is_empty() => ("READY", "1;32"),
        "ready" => ("NEEDS A LOOK", "1;33"),
        "ending" => ("ENDING", "1;33"),
        _ => ("STARTING", "1;33"),
    };
    let (machine, flow, edges) = (&now.machine, &now.flow, &now.edges);
    let mut lines = vec![format!(
        "stunetd {}  {}  {}, {}, started {} ago",
        now.version,
        paint(state, tone),
        machine.device,
        machine.precision,
        age(Duration::from_secs(now.uptime_s))
    )];
    lines.extend(now.fine.attention.iter().map(|text| format!("  {} {text}", paint("!", "1;33"))));
    lines.push(String::new());
    let time = |s: Option<f64>| s.map_or("–".to_owned(), seconds);
    lines.push(format!(
        "{} oldest study {}, last slice to result {} (half) {} (95 of 100)",
        head("fine"),
        age(Duration::from_secs(now.fine.oldest_job_s)),
        time(now.fine.turnaround_p50_s),
        time(now.fine.turnaround_p95_s)
    ));
    let jobs: Vec<String> = ["queued", "working", "waiting", "parked"].iter().map(|s| format!("{} {s}", of(&flow.jobs, s))).collect();
    lines.push(format!(
        "{} {} coming, {} complete, {} not processed; {}; {} published, {} done in all",
        head("flow"),
        flow.series_open,
        flow.series_complete,
        flow.series_refused,
        jobs.join(", "),
        flow.published,
        flow.done
    ));
    let stages: Vec<String> = now.time.iter().map(|s| format!("{} {}", s.stage, time(s.mean_s))).collect();
    lines.push(format!("{} {}", head("time"), stages.join(", ")));
    let disks: Vec<String> = machine.disks.iter().map(|d| format!("{} {}", d.place, bytes(d.free_bytes))).collect();
    lines.push(format!(
        "{} at work {}, reserved {} of {}, process {}; free: {}",
        head("machine"),
        percent(machine.busy),
        bytes(machine.reserved_bytes),
        bytes(machine.host_memory_bytes),
        bytes(machine.resident_bytes),
        disks.join(", ")
    ));
    let dicom = edges.dicom.as_ref().map_or("no DICOM".to_owned(), |at| format!("DICOM at {at}, {} open", edges.associations_open));
    lines.push(format!(
        "{} {} folders, {} files; {dicom}{}",
        head("edges"),
        edges.folders,
        edges.files,
        counted(&edges.objects, "objects")
    ));
    for to in &edges.destinations {
        let state = if to.up { paint("up", "32") } else { paint("down", "1;31") };
        let oldest = if to.oldest_s > 0 { format!(", oldest {}", age(Duration::from_secs(to.oldest_s))) } else { String::new() };
        lines.push(format!("{} to {}: {state}{}{oldest}", head(""), to.name, counted(&to.results, "results")));
    }
    let models: Vec<String> = now.models.iter().map(|m| format!("{} {} ({})", m.name, m.version, m.digest)).collect();
    lines.push(format!("{} {}{}", head("models"), models.join(", "), counted(&now.failures, "failures")));

    if !now.work.is_empty() {
        lines.extend([String::new(), paint("in work", "1")]);
    }
    for one in &now.work {
        let job = one.job.map_or(String::new(), |job| format!("job {job}"));
        let bar = one.done.zip(one.of).filter(|(_, of)| *of > 0).map_or(String::new(), |(done, of)| {
            let full = usize::try_from(done * 24 / of).unwrap_or(24).min(24);
            format!("[{}{}] {done} of {of}", "█".repeat(full), "·".repeat(24 - full))
        });
        lines.push(format!("  {job:<10} {:<8} {:>7}  {bar}", one.stage, age(Duration::from_secs(one.seconds))));
    }
    if !now.waiting.is_empty() {
        lines.extend([String::new(), paint("next", "1")]);
    }
    for one in &now.waiting {
        let eta = one.eta_s.map_or(String::new(), |s| format!("result in about {}", age(Duration::from_secs(s))));
        lines.push(format!("  {:<10} {:>4}.  {eta}", format!("job {}", one.job), one.position));
    }
    if !now.parked.is_empty() {
        lines.extend([String::new(), paint("can not be done as they are", "1")]);
    }
    for case in &now.parked {
        lines.push(format!("  job {:<6} {} ({}, {})", case.job, case.meaning, case.code, case.kind));
        lines.push(format!("  {:<10} {}", "", case.action));
    }
    lines.join("\n")
}

fn of(counts: &BTreeMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

/// `; WHAT: 1 this, 2 that`, or nothing.
fn counted(counts: &BTreeMap<String, u64>, what: &str) -> String {
    let list: Vec<String> = counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    if list.is_empty() { String::new() } else { format!("; {what}: {}", list.join(", ")) }
}
