//! What `stunetd jobs` says of jobs: tables and words for people, documents for scripts (`docs/json/jobs.schema.json`).

use crate::fault::{Code, Fault, Kind};
use crate::ledger::{Delivery, DeliveryState, Entry, Job, JobId, Moment, Object, Problem, Reader, SeriesRecord, State, Which};
use crate::telemetry::words::age;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Jobs, each with its deliveries.
pub fn with_deliveries(ledger: &dyn Reader, jobs: Vec<Job>) -> Result<Vec<(Job, Vec<Delivery>)>, Fault> {
    let both = |job: Job| Ok(ledger.deliveries(job.id).map(|deliveries| (job, deliveries))?);
    jobs.into_iter().map(both).collect()
}

/// A table of jobs with a line of totals.
pub fn list(jobs: &[(Job, Vec<Delivery>)], counts: &[(State, u64)], now: Moment) -> String {
    let mut text = String::new();
    if !jobs.is_empty() {
        text += &format!("{:>8}  {:<10} {:<8} {:>5}  {:>8}  {}\n", "job", "state", "priority", "tries", "age", "why");
    }
    for (job, deliveries) in jobs {
        let p = &job.progress;
        let kind = |problem: &Problem| kind(problem).map_or(String::new(), |kind| format!(" ({})", kind.name()));
        let mut why: Vec<String> = p.problem.iter().map(|problem| problem.code.clone() + &kind(problem)).collect();
        why.extend(deliveries.iter().filter(|d| d.state != DeliveryState::Delivered).map(|d| {
            let code = d.problem.as_ref().map_or(String::new(), |problem| format!(" ({})", problem.code));
            format!("to {}: {}{code}", d.destination, d.state)
        }));
        let why = why.join(", ");
        let mark = if p.suspect { " (suspect: runs alone)" } else { "" };
        let age = age(now.since(job.created));
        text += &format!("{:>8}  {:<10} {:<8} {:>5}  {age:>8}  {why}{mark}\n", job.id, p.state, job.priority, p.attempts);
    }
    let totals: Vec<String> = counts.iter().filter(|(_, n)| *n > 0).map(|(state, n)| format!("{n} {state}")).collect();
    text + &if totals.is_empty() { "no jobs".to_string() } else { format!("in all: {}", totals.join(", ")) }
}

/// The same for scripts.
pub fn list_json(jobs: &[(Job, Vec<Delivery>)], counts: &[(State, u64)]) -> Value {
    let counts: serde_json::Map<String, Value> = counts.iter().map(|(state, n)| (state.name().into(), json!(n))).collect();
    let jobs = jobs.iter().map(|(job, deliveries)| {
        let mut document = json!(job);
        document["deliveries"] = brief(deliveries);
        document["kind"] = json!(job.progress.problem.as_ref().and_then(kind).map(Kind::name));
        document
    });
    json!({ "jobs": jobs.collect::<Vec<_>>(), "counts": counts })
}

fn brief(deliveries: &[Delivery]) -> Value {
    let one = |d: &Delivery| json!({ "destination": d.destination, "state": d.state, "attempts": d.attempts, "problem": d.problem });
    deliveries.iter().map(one).collect()
}

/// All that is known of one job.
pub struct Whole {
    job: Job,
    objects: Vec<Object>,
    deliveries: Vec<Delivery>,
    journal: Vec<Entry>,
    now: Moment,
}

impl Whole {
    /// Reads it; `job.unknown` when there is none of this number.
    pub fn read(ledger: &dyn Reader, id: JobId) -> Result<Whole, Fault> {
        let job = ledger.job(id)?.ok_or_else(|| Fault::new(Code::JobUnknown, format!("There is no job {id}.")))?;
        Ok(Whole {
            job,
            objects: ledger.objects(id)?,
            deliveries: ledger.deliveries(id)?,
            journal: ledger.journal(Some(id))?,
            now: ledger.now(),
        })
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let kind = self.job.progress.problem.as_ref().and_then(kind).map(Kind::name);
        json!({ "job": self.job, "kind": kind, "objects": self.objects, "deliveries": self.deliveries, "journal": self.journal })
    }

    /// For people; `model` says what a model is by its digest.
    pub fn page(&self, model: &dyn Fn(&str) -> Option<String>) -> String {
        let (job, p) = (&self.job, &self.job.progress);
        let mut text = self.sentence();
        let mut line = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {name:<11}{value}");
        };
        line("study", job.series.study.clone());
        line("series", job.series.series.clone());
        line("priority", job.priority.to_string());
        if let Some(rule) = &job.rule {
            line("rule", rule.clone());
        }
        line("tries", format!("{}, {} crashes, {} of them alone", p.attempts, p.crashes, p.crashes_alone));
        if let Some(digest) = &job.model {
            line("model", model(digest).map_or(digest.clone(), |what| format!("{what} {digest}")));
        }
        if let Some(result) = &job.result {
            line("result", result.folder.clone());
        }
        for object in &self.objects {
            line("", format!("{} ({} bytes)", object.file, object.bytes));
        }
        for d in &self.deliveries {
            let why = d.problem.as_ref().map_or(String::new(), |problem| {
                let next = Code::from_name(&problem.code).map_or("", Code::action);
                format!(": {}: {} {next}", problem.code, problem.detail)
            });
            line("delivery", format!("to {}: {}, {} tries{why}", d.destination, d.state, d.attempts));
        }
        for entry in &self.journal {
            let ago = age(self.now.since(entry.at));
            let what = entry.destination.as_ref().map_or_else(|| entry.event.to_string(), |to| format!("{} ({to})", entry.event));
            let why = entry.problem.as_ref().map_or(String::new(), |problem| format!(": {}", problem.code));
            line(&format!("{ago} ago"), format!("{what} by {}{why}", entry.who));
        }
        text
    }

    /// What the state means, why, and what to do next.
    fn sentence(&self) -> String {
        let p = &self.job.progress;
        let mut text = format!("Job {} is {}. ", self.job.id, p.state);
        text += &match p.state {
            State::Queued if p.suspect => {
                format!("The daemon died {} times while it worked on it, so it runs alone when its turn comes.", p.crashes)
            }
            State::Queued => "It waits for its turn.".to_string(),
            State::Running => "It is being worked on; if the daemon is gone, it is taken up again at the next start.".to_string(),
            State::Waiting => {
                let due = p.not_before.map_or(Duration::ZERO, |at| at.since(self.now));
                format!("It failed for now ({} times in a row) and is tried again in {}.", p.failures, age(due))
            }
            State::Parked => "It can not be done as it is; its files are untouched.".to_string(),
            State::Done => "Its result is published.".to_string(),
            State::Cancelled => "A person ended it; `stunetd jobs retry` takes it up again.".to_string(),
            State::Superseded => "Its series changed before it was begun; a later job has the whole series.".to_string(),
        };
        if let Some(problem) = &p.problem {
            text += &words(problem);
        }
        text
    }
}

/// Who can do something about it.
fn kind(problem: &Problem) -> Option<Kind> {
    Code::from_name(&problem.code).map(Code::kind)
}

/// A code, what it means here, and what to do.
fn words(problem: &Problem) -> String {
    match Code::from_name(&problem.code) {
        Some(code) => {
            let detail = if problem.detail.is_empty() { String::new() } else { format!(" {}", problem.detail) };
            format!("\n  {code}: {}{detail}\n  next: {} ({})", code.meaning(), code.action(), code.kind().who())
        }
        None => format!("\n  {}: {}", problem.code, problem.detail),
    }
}

/// Why something was or was not processed.
pub struct Explained {
    jobs: Vec<Whole>,
    series: Vec<SeriesRecord>,
}

/// By a job's number or a UID; `job.unknown` when the ledger has nothing of it.
pub fn explain(ledger: &dyn Reader, what: &str) -> Result<Explained, Fault> {
    if let Ok(id) = what.parse::<u64>() {
        return Ok(Explained { jobs: vec![Whole::read(ledger, JobId(id))?], series: Vec::new() });
    }
    let series = ledger.series(what)?;
    if series.is_empty() {
        let detail = "Nothing of this UID was received or found complete; if its files lie in a watched folder, they are not quiet yet.";
        return Err(Fault::new(Code::JobUnknown, detail));
    }
    let mut jobs = Vec::new();
    for record in &series {
        let which = Which { uid: Some(record.series.series.clone()), ..Which::default() };
        for job in ledger.jobs(&which)?.into_iter().filter(|job| job.series == record.series) {
            jobs.push(Whole::read(ledger, job.id)?);
        }
    }
    Ok(Explained { jobs, series })
}

impl Explained {
    /// For scripts.
    pub fn json(&self) -> Value {
        let jobs = self.jobs.iter().map(|whole| {
            let code = whole.job.progress.problem.as_ref().and_then(|problem| Code::from_name(&problem.code));
            let deliveries = brief(&whole.deliveries);
            let kind = code.map(|code| code.kind().name());
            json!({ "job": whole.job, "meaning": code.map(Code::meaning), "action": code.map(Code::action), "kind": kind, "deliveries": deliveries })
        });
        json!({ "jobs": jobs.collect::<Vec<_>>(), "series": self.series })
    }

    /// For people; `model` says what a model is by its digest.
    pub fn page(&self, model: &dyn Fn(&str) -> Option<String>) -> String {
        let mut parts = Vec::new();
        for record in &self.series {
            let mut text = format!("Series {}", record.series.series);
            text += &match record.closed {
                Some(_) => format!(": found complete {} times.", record.closings),
                None => format!(": {} instances received; not complete yet.", record.instances),
            };
            for refusal in &record.refusals {
                text += &format!("\nNot processed:{}", words(refusal));
            }
            parts.push(text);
        }
        parts.extend(self.jobs.iter().map(|job| job.page(model)));
        parts.join("\n")
    }
}
