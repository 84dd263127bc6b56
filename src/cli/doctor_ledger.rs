//! What `stunetd doctor` says of the ledger: is it sound, and does it fit what lies in the folders? `--repair` mends what is safe to mend.

use super::doctor::Check;
use crate::config::Config;
use crate::fault::{Code, Fault};
use crate::intake::readmit;
use crate::ledger::{Change, FILE, Ledger, LedgerError, Limits, Options, Reader, SqliteLedger, SqliteReader, State, set_aside};
use crate::pipeline::reconcile::{self, Depth};
use crate::sys::clock::SystemClock;
use crate::sys::{durable, person};
use std::path::Path;
use std::sync::Arc;

/// Received instances that are read from the ledger at a time.
const PAGE: u64 = 1000;

/// The checks. Repairing needs the ledger for itself: no daemon may run.
pub fn checks(config: &Config, repair: bool, deep: bool) -> Vec<Check> {
    let depth = if deep { Depth::All } else { Depth::Recent };
    let mut checks = Vec::new();
    let result = if repair { mend(config, depth, &mut checks) } else { look(config, depth, &mut checks) };
    if let Err(fault) = result {
        checks.push(Check::fail("ledger", &fault));
    }
    checks
}

fn look(config: &Config, depth: Depth, checks: &mut Vec<Check>) -> Result<(), Fault> {
    let Some(ledger) = SqliteReader::open(&config.state, Arc::new(SystemClock))? else {
        let file = config.state.join(FILE);
        checks.push(match file.with_extension("mark").exists() {
            true => Check::fail("ledger", &LedgerError::Missing(file).into()),
            false => Check::ok("ledger", "none yet: no daemon has run"),
        });
        return Ok(());
    };
    ledger.check()?;
    checks.push(Check::ok("ledger", counts(&ledger)?));
    compare(&ledger, config, depth, checks)
}

/// How many jobs are in which state.
fn counts(ledger: &dyn Reader) -> Result<String, Fault> {
    let counts = ledger.counts()?;
    let words: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(state, n)| format!("{n} {state}")).collect();
    let crashed = counts.iter().any(|(state, n)| *state == State::Running && *n > 0);
    let words = if words.is_empty() { "sound, no jobs".to_string() } else { format!("sound; jobs: {}", words.join(", ")) };
    Ok(if crashed { format!("{words} (if no daemon runs, the next start takes those in work up again)") } else { words })
}

fn compare(ledger: &dyn Reader, config: &Config, depth: Depth, checks: &mut Vec<Check>) -> Result<(), Fault> {
    let (looked_at, findings) = reconcile::compare(ledger, &config.output.path, depth)?;
    checks.push(match findings.first() {
        None => Check::ok("results", format!("{looked_at} compared with the ledger byte for byte")),
        Some(first) => {
            let detail = format!("{} of {looked_at}, the first of job {}: {}", findings.len(), first.job, first.problem.detail);
            Check::fail("results", &Fault::new(Code::ResultsChanged, detail))
        }
    });
    checks.push(received(ledger, &config.spool.path)?);
    checks.push(strays(ledger, &config.output.path)?);
    Ok(())
}

/// Results that are no job's.
fn strays(ledger: &dyn Reader, output: &Path) -> Result<Check, Fault> {
    let (damaged, unknown): (Vec<_>, Vec<_>) =
        reconcile::strays(ledger, output)?.into_iter().partition(|name| reconcile::damaged_of(name).is_some());
    Ok(match (unknown.len(), damaged.len()) {
        (0, 0) => Check::ok("strays", "every result in the output folder is a job's"),
        (0, damaged) => Check::ok("strays", format!("{damaged} damaged results lie set aside in the output folder")),
        (unknown, damaged) => Check::warn(
            "strays",
            format!(
                "{unknown} results are no job's: they become one's when their series is found again ({damaged} damaged ones lie set aside)"
            ),
        ),
    })
}

/// Everything that was acknowledged is there, and nothing else.
fn received(ledger: &dyn Reader, spool: &Path) -> Result<Check, Fault> {
    let (mut seen, mut missing) = (0u64, 0u64);
    loop {
        let page = ledger.received(seen, PAGE)?;
        if page.is_empty() {
            break;
        }
        seen += page.len() as u64;
        let there = |path: &str, bytes: u64| std::fs::metadata(spool.join(path)).is_ok_and(|meta| meta.len() == bytes);
        missing += page.iter().filter(|r| !there(&r.path, r.bytes)).count() as u64;
    }
    let unknown = readmit::unknown(ledger, spool)?;
    Ok(match missing {
        0 if unknown > 0 => Check::warn(
            "received",
            format!("{unknown} files in the spool are not in the ledger: the next start, or --repair, takes in what can be read of them"),
        ),
        0 => Check::ok("received", format!("{seen} acknowledged instances are in the spool")),
        n => Check::fail("received", &Fault::new(Code::SpoolInstanceMissing, format!("{n} of {seen} in {}", spool.display()))),
    })
}

fn mend(config: &Config, depth: Depth, checks: &mut Vec<Check>) -> Result<(), Fault> {
    let limits = Limits { suspect_after: config.jobs.suspect_after, park_after: config.jobs.park_after };
    let who = person::own();
    let options = Options { state: config.state.clone(), limits, clock: Arc::new(SystemClock), who: who.clone() };
    let (ledger, opening) = match SqliteLedger::open(&options) {
        Err(error @ (LedgerError::Corrupt { .. } | LedgerError::Missing(_))) => {
            let names: Vec<String> = set_aside(&config.state)?.iter().map(|p| p.display().to_string()).collect();
            checks.push(Check::warn("ledger", format!("{error}; set aside as {}; begun anew from the folders", names.join(", "))));
            SqliteLedger::open(&options)?
        }
        other => other?,
    };
    checks.push(Check::ok("ledger", format!("{}; {} put back into the line", counts(&ledger)?, opening.requeued)));
    if config.output.path.is_dir() {
        let swept = durable::remove_leftovers(&config.output.path)?;
        checks.push(Check::ok("leftovers", format!("{swept} removed")));
    }
    let (looked_at, findings) = reconcile::compare(&ledger, &config.output.path, depth)?;
    let damaged = findings.len();
    reconcile::mend(&ledger, &config.output.path, findings, &who)?;
    checks.push(match damaged {
        0 => Check::ok("results", format!("{looked_at} compared with the ledger byte for byte")),
        n => Check::warn("results", format!("{n} of {looked_at} were damaged or gone; they are made again")),
    });
    readmit::readmit(&ledger, &config.spool.path, config.spool.max_instance.0)?;
    checks.push(received(&ledger, &config.spool.path)?);
    checks.push(strays(&ledger, &config.output.path)?);
    ledger.commit(vec![Change::Verified])?;
    Ok(ledger.close()?)
}
