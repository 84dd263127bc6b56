//! `stunetd doctor`: is this machine, and this configuration, fit for work?

use super::doctor_ledger;
use super::report::{print_json, print_line};
use crate::config::{self, After, ByteSize, Config};
use crate::fault::{Code, Fault};
use crate::stunet::DeviceChoice;
use crate::stunet::runtime::{LIBTORCH_VERSION, Runtime, runtime};
use crate::sys::clock::Accuracy;
use crate::sys::cores::Cores;
use crate::sys::durable::{StagingDir, parent};
use crate::sys::libtorch::{self, Libtorch};
use crate::sys::machine;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Looked at when no file is named.
pub const USUAL_CONFIG: &str = "/etc/stunetd/stunetd.toml";
/// Free space below which results may soon not fit.
const LITTLE_SPACE: u64 = 2 << 30;

/// Checks libtorch, processor, device, memory, disk, and what a configuration names.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file [default: /etc/stunetd/stunetd.toml, if it is there]
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Compare every result with the ledger, not only the recent ones
    #[arg(long)]
    pub deep: bool,
    /// Mend what is safe to mend: sweep leftovers, have damaged results made again, set a damaged ledger aside. No daemon may run
    #[arg(long)]
    pub repair: bool,
    /// A GPU has to be there
    #[arg(long)]
    pub cuda: bool,
    /// One JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works, but not well.
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
}

impl Check {
    pub fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Ok, found: found.into(), code: None, action: None }
    }

    pub fn warn(name: &'static str, found: impl Into<String>) -> Check {
        Check { verdict: Verdict::Warn, ..Check::ok(name, found) }
    }

    pub fn fail(name: &'static str, fault: &Fault) -> Check {
        let found = if fault.detail.is_empty() { fault.code.meaning() } else { &fault.detail };
        Check { verdict: Verdict::Fail, code: Some(fault.code), action: Some(fault.code.action()), ..Check::ok(name, found) }
    }
}

/// Exit code 0 when nothing failed; else that of the first failure.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let named = args.config.clone().or_else(|| Some(PathBuf::from(USUAL_CONFIG)).filter(|p| p.is_file()));
    let config = named.as_deref().map(config::load).transpose();
    let dir = config.as_ref().ok().and_then(|c| c.as_ref()).map(|c| c.libtorch_dir.clone()).filter(|d| !d.as_os_str().is_empty());
    // May start the process again, so nothing has been printed yet.
    let libtorch = libtorch::choose(dir.as_deref());

    let mut checks = vec![processor(), clock(Accuracy::of_the_machine())];
    match libtorch {
        Ok(which) => {
            let runtime = runtime();
            checks.push(libtorch_check(&which, &runtime));
            checks.push(device(&runtime, args.cuda, config.as_ref().ok().and_then(|c| c.as_ref())));
        }
        Err(fault) => checks.push(Check::fail("libtorch", &fault)),
    }
    match &config {
        Ok(Some(config)) => {
            checks.push(Check::ok("configuration", named.as_deref().unwrap_or(Path::new("")).display().to_string()));
            checks.push(memory(Some(config.host_memory)));
            checks.extend(places(config));
            checks.extend(doctor_ledger::checks(config, args.repair, args.deep));
        }
        Ok(None) => {
            checks.push(Check::ok("configuration", "none named, and no /etc/stunetd/stunetd.toml"));
            checks.push(memory(None));
        }
        Err(fault) => {
            checks.push(Check::fail("configuration", fault));
            checks.push(memory(None));
        }
    }
    let first = checks.iter().find_map(|c| c.code);
    let told = if args.json {
        print_json(&serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "healthy": first.is_none(), "checks": checks }))
    } else {
        print_line(&page(&checks))
    };
    super::stdout_failed(told)?;
    Ok(first.map_or(ExitCode::SUCCESS, |code| super::exit_code_as_configured(&Fault::new(code, "")).into()))
}

fn page(checks: &[Check]) -> String {
    let lines = checks.iter().map(|c| {
        let verdict = match c.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let mut line = format!("{verdict}  {:14} {}", c.name, c.found.replace('\n', "\n                     "));
        if let (Some(code), Some(action)) = (c.code, c.action) {
            line += &format!("\n                     {code}. Next: {action}");
        }
        line
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn processor() -> Check {
    let model = machine::processor().unwrap_or_else(|| "unknown processor".into());
    let (has, lacks): (Vec<_>, Vec<_>) = machine::instructions().into_iter().partition(|(_, there)| *there);
    let names = |list: Vec<(&str, bool)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ");
    let slow = lacks.iter().any(|(name, _)| *name == "avx2");
    let found = format!("{model}, {} cores, {}", Cores::available(), names(has));
    if slow { Check::warn("processor", format!("{found}; without avx2 the CPU is very slow")) } else { Check::ok("processor", found) }
}

/// Dates of results and of audit messages are compared with those of other machines.
fn clock(accuracy: std::io::Result<Accuracy>) -> Check {
    match accuracy {
        Err(e) => Check::warn("clock", format!("the system does not say whether it is right: {e}")),
        Ok(clock) if !clock.synchronized => {
            Check::warn("clock", "not synchronised: run chrony or systemd-timesyncd, or nobody knows how far it is off")
        }
        Ok(clock) if !clock.is_good() => Check::warn("clock", format!("may be off by {:.1} s", clock.off)),
        Ok(clock) => Check::ok("clock", format!("synchronised, off by {:.1} ms at most as far as is known", 1e3 * clock.off)),
    }
}

fn libtorch_check(which: &Libtorch, runtime: &Runtime) -> Check {
    let place = match which {
        Libtorch::Slim => "CPU build".to_string(),
        Libtorch::Full(lib) => format!("full set in {}", lib.display()),
    };
    let found = format!("{LIBTORCH_VERSION}, {place}, {} threads", runtime.threads);
    if runtime.mkldnn {
        Check::ok("libtorch", found)
    } else {
        Check::warn("libtorch", format!("{found}, without oneDNN: convolutions are slow"))
    }
}

fn device(runtime: &Runtime, needed: bool, config: Option<&Config>) -> Check {
    let count = runtime.cuda_devices;
    let wanted = match config.map(|c| c.model.device) {
        Some(DeviceChoice::Cuda(n)) => Some(n + 1),
        _ if needed => Some(1),
        _ => None,
    };
    match wanted {
        Some(wanted) if (count as usize) < wanted => {
            let detail = format!(
                "{count} CUDA devices; libtorch_dir or {} has to name a full libtorch, and the driver has to be there.",
                libtorch::VARIABLE
            );
            Check::fail("device", &Fault::new(Code::DeviceUnavailable, detail))
        }
        _ if count == 0 => Check::ok("device", "cpu"),
        _ => Check::ok("device", format!("cpu, {count} CUDA devices")),
    }
}

fn memory(budget: Option<ByteSize>) -> Check {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    match machine::memory() {
        Err(e) => Check::warn("memory", e.to_string()),
        Ok(m) => {
            let found = format!("{} of {} available", gib(m.available), gib(m.total));
            match budget {
                Some(budget) if budget.0 > m.total => {
                    Check::warn("memory", format!("{found}; host_memory = {budget} is more than there is"))
                }
                Some(budget) => Check::ok("memory", format!("{found}; host_memory = {budget}")),
                None => Check::ok("memory", found),
            }
        }
    }
}

/// Everything on disk that the configuration names.
fn places(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    match crate::intake::select::rules(config) {
        Ok(rules) => {
            let mut models: Vec<_> = rules.into_iter().filter_map(|rule| rule.model).collect();
            models.dedup_by(|a, b| a.dir == b.dir);
            let found = |m: &crate::models::Generation| format!("{} {} in {}", m.manifest.name, m.manifest.version, m.dir.display());
            checks.extend(models.iter().map(|model| Check::ok("model", found(model))));
        }
        Err(fault) => checks.push(Check::fail("model", &fault)),
    }
    for watch in &config.watch {
        checks.push(match std::fs::read_dir(&watch.path) {
            Ok(_) if watch.after == After::Keep => Check::ok("watched folder", watch.path.display().to_string()),
            Ok(_) => match StagingDir::new_in(&watch.path) {
                Ok(_) => Check::ok("watched folder", format!("{}, which files leave (after = \"{}\")", watch.path.display(), watch.after)),
                Err(e) => Check::fail("watched folder", &e.into()),
            },
            Err(e) => Check::fail("watched folder", &Fault::new(Code::ConfigInputMissing, format!("{}: {e}", watch.path.display()))),
        });
    }
    checks.push(output(&config.output.path));
    checks
}

/// The output folder, or the nearest folder above it that is there, takes files; how much space is left.
fn output(path: &Path) -> Check {
    let mut existing = path;
    while !existing.exists() && parent(existing) != existing {
        existing = parent(existing);
    }
    if let Err(e) = StagingDir::new_in(existing) {
        return Check::fail("output folder", &e.into());
    }
    match machine::disk_free(existing) {
        Ok(free) if free < LITTLE_SPACE => Check::warn("output folder", format!("{}: only {} MiB free", path.display(), free >> 20)),
        Ok(free) => Check::ok("output folder", format!("{}: {} GiB free", path.display(), free >> 30)),
        Err(e) => Check::fail("output folder", &e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_told_of() {
        let told = |synchronized, off| clock(Ok(Accuracy { synchronized, off }));
        assert_eq!((told(true, 0.0005).verdict, told(true, 0.0005).found.contains("0.5 ms")), (Verdict::Ok, true));
        assert_eq!((told(true, 1.25).verdict, told(true, 1.25).found.as_str()), (Verdict::Warn, "may be off by 1.2 s"));
        assert_eq!(told(false, 0.0).verdict, Verdict::Warn);
        assert_eq!(clock(Err(std::io::Error::other("no"))).verdict, Verdict::Warn);
    }
}
