//! The status page: the six blocks of a [`Snapshot`], made here and sent whole. It changes nothing and runs no script.

use crate::fault::Kind;
use crate::pipeline::Snapshot;
use crate::pipeline::line::Waiting;
use crate::pipeline::status::{Machine, Parked, Working};
use crate::telemetry::words::{age, bytes, percent, seconds};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::collections::BTreeMap;
use std::time::Duration;

/// The page asks for itself again after so many seconds.
const REFRESH: u32 = 10;

/// Made at build time; no text from outside.
const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(now: &Snapshot) -> Markup {
    let (word, tone) = verdict(now);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH);
                title { "stunetd · " (word) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    header {
                        h1 { "stunetd" }
                        span class={ "pill " (tone) } { (word) }
                        span.about { (now.version) " · " (now.machine.device) ", " (now.machine.precision) " · started " (since(now.uptime_s)) " ago" }
                    }
                    div.grid {
                        (fine(now))
                        @if !now.work.is_empty() { (work(&now.work)) }
                        @if !now.waiting.is_empty() { (waiting(&now.waiting, of(&now.flow.jobs, "queued"))) }
                        @if !now.parked.is_empty() { (parked(&now.parked, of(&now.flow.jobs, "parked"))) }
                        (flow(now))
                        (time(now))
                        (machine(&now.machine))
                        (edges(now))
                        (models(now))
                    }
                    footer {
                        "Counts are those since the start. Research software, not a medical device. "
                        code { "stunetd top" } " shows the same in a terminal, " code { "/status.json" } " to scripts."
                    }
                }
            }
        }
    }
}

/// One word for all of it, and its colour.
fn verdict(now: &Snapshot) -> (&'static str, &'static str) {
    match (now.fine.state.as_str(), now.machine.room.as_str()) {
        (_, "full") => ("no space", "red"),
        ("starting", _) => ("starting", "amber"),
        ("ending", _) => ("ending", "amber"),
        _ if !now.fine.attention.is_empty() => ("needs a look", "amber"),
        _ => ("ready", ""),
    }
}

fn fine(now: &Snapshot) -> Markup {
    let parked = of(&now.flow.jobs, "parked");
    let waiting = of(&now.flow.jobs, "queued") + of(&now.flow.jobs, "waiting");
    let slow = match now.fine.oldest_job_s {
        0..1800 => "",
        1800..3600 => "amber",
        _ => "red",
    };
    html! {
        section.wide {
            h2 { "Is it fine?" }
            div.numbers {
                (number(&now.flow.published.to_string(), "results published", ""))
                (number(&at_most(now.fine.turnaround_p50_s), "last slice to result, half", ""))
                (number(&at_most(now.fine.turnaround_p95_s), "last slice to result, 95 of 100", ""))
                (number(&waiting.to_string(), "studies wait", ""))
                (number(&since(now.fine.oldest_job_s), "oldest of them", slow))
                (number(&parked.to_string(), "can not be done", if parked > 0 { "amber" } else { "" }))
            }
            @if !now.fine.attention.is_empty() {
                ul.attention { @for text in &now.fine.attention { li { (coded(text)) } } }
            }
        }
    }
}

fn work(work: &[Working]) -> Markup {
    html! {
        section.wide {
            h2 { "In work" }
            @for one in work {
                @let part = one.done.zip(one.of).filter(|(_, of)| *of > 0);
                (meter(
                    &html! { @if let Some(job) = one.job { "job " (job) " · " } (one.stage) },
                    &html! { @if let Some((done, of)) = part { (done) " of " (of) " windows · " } (since(one.seconds)) },
                    part.map_or(0.0, |(done, of)| done as f64 / of as f64),
                    "",
                ))
            }
        }
    }
}

fn waiting(line: &[Waiting], all: u64) -> Markup {
    html! {
        section.wide {
            h2 { "Next" }
            table {
                tr { th { "place" } th { "job" } th { "result in about" } }
                @for one in line { tr { td { (one.position) } td { (one.job) } td { (one.eta_s.map_or("–".to_owned(), since)) } } }
            }
            @if all > line.len() as u64 { p.soft { "and " (all - line.len() as u64) " more: " code { "stunetd jobs list --state queued" } } }
        }
    }
}

fn parked(cases: &[Parked], all: u64) -> Markup {
    html! {
        section.wide {
            h2 { "Can not be done as they are" }
            @for case in cases {
                div.case {
                    b { (case.meaning) } " " span.soft { "job " (case.job) ", " (since(case.age_s)) " ago" (who(&case.kind)) }
                    p { (coded(&case.action)) }
                    code { (case.code) " · stunetd jobs explain " (case.job) }
                }
            }
            @if all > cases.len() as u64 { p.soft { "and " (all - cases.len() as u64) " more: " code { "stunetd jobs list --state parked" } } }
        }
    }
}

fn flow(now: &Snapshot) -> Markup {
    html! {
        section {
            h2 { "Flow" }
            table {
                (line("series still coming", now.flow.series_open))
                (line("series complete", now.flow.series_complete))
                (line("not to be processed", now.flow.series_refused))
                @for (kind, count) in &now.flow.refused { (line(&format!("· {kind}"), *count)) }
                @for state in ["queued", "working", "waiting", "parked"] { (line(&format!("jobs {state}"), of(&now.flow.jobs, state))) }
                (line("results published", now.flow.published))
                (line("done, in all", now.flow.done))
            }
        }
    }
}

fn time(now: &Snapshot) -> Markup {
    html! {
        section {
            h2 { "Time" }
            table {
                tr { th { "stage" } th { "jobs" } th { "mean" } th { "95 of 100" } th { "waited" } }
                @for stage in &now.time {
                    tr {
                        td { (stage.stage) }
                        td { (stage.jobs) }
                        td { (time_or_dash(stage.mean_s)) }
                        td { (at_most(stage.p95_s)) }
                        td { (seconds(stage.waited_s)) }
                    }
                }
            }
        }
    }
}

fn machine(machine: &Machine) -> Markup {
    let share = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
    let tone = match machine.room.as_str() {
        "full" => "red",
        "low" => "amber",
        _ => "",
    };
    html! {
        section {
            h2 { "Machine" }
            (meter(&html! { (machine.device) " at work" }, &html! { (percent(machine.busy)) }, machine.busy, ""))
            (meter(
                &html! { "memory reserved" },
                &html! { (bytes(machine.reserved_bytes)) " of " (bytes(machine.host_memory_bytes)) },
                share(machine.reserved_bytes, machine.host_memory_bytes),
                "",
            ))
            @for disk in &machine.disks {
                (meter(
                    &html! { "disk of " (disk.place) },
                    &html! { (bytes(disk.free_bytes)) " free" },
                    share(disk.used_bytes, disk.used_bytes + disk.free_bytes),
                    tone,
                ))
            }
            table {
                tr { td { "memory of the process" } td { (bytes(machine.resident_bytes)) } }
                tr { td { "ledger, one commit" } td { (machine.commit_mean_s.map_or("–".to_owned(), seconds)) } }
            }
        }
    }
}

fn edges(now: &Snapshot) -> Markup {
    let edges = &now.edges;
    html! {
        section.half {
            h2 { "Edges" }
            table {
                (line("watched folders", edges.folders))
                (line("files read", edges.files))
                tr { td { "DICOM at" } td.name { (edges.dicom.as_deref().unwrap_or("not listening")) } }
                @if edges.dicom.is_some() {
                    (line("associations open", edges.associations_open))
                    @for (result, count) in &edges.associations { (line(&format!("associations {result}"), *count)) }
                }
                @for (result, count) in &edges.objects { (line(&format!("objects {result}"), *count)) }
                @for to in &edges.destinations {
                    @let waiting: u64 = to.results.iter().filter(|(state, _)| *state != "parked").map(|(_, n)| n).sum();
                    tr {
                        td.name { "to " b { (to.name) } " " span class={ "pill " (if to.up { "" } else { "red" }) } { (if to.up { "up" } else { "down" }) } }
                        td { (waiting) " wait" @if of(&to.results, "parked") > 0 { ", " (of(&to.results, "parked")) " refused" } }
                    }
                }
            }
        }
    }
}

fn models(now: &Snapshot) -> Markup {
    html! {
        section.half {
            h2 { "Models and failures" }
            table {
                @for model in &now.models { tr { td.name { (model.name) " " (model.version) } td { code { (model.digest) } } } }
                @for (code, count) in &now.failures { tr { td.name { (code) } td { (count) } } }
            }
            @if now.failures.is_empty() { p.soft { "No failures since the start." } }
        }
    }
}

/// Who can do something about it.
fn who(kind: &str) -> String {
    Kind::ALL.iter().find(|k| k.name() == kind).map_or(String::new(), |kind| format!(", {}", kind.who()))
}

/// A text in which what stands between backticks is to be typed.
fn coded(text: &str) -> Markup {
    html! { @for (i, part) in text.split('`').enumerate() { @if i % 2 == 1 { code { (part) } } @else { (part) } } }
}

fn number(value: &str, name: &str, tone: &str) -> Markup {
    html! { div class={ "number " (tone) } { b { (value) } span { (name) } } }
}

fn line(name: &str, value: u64) -> Markup {
    html! { tr { td.name { (name) } td { (value) } } }
}

fn meter(name: &Markup, value: &Markup, part: f64, tone: &str) -> Markup {
    html! {
        div class={ "meter " (tone) } {
            div { span { (name) } span.soft { (value) } }
            i style={ "--part: " (format!("{:.1}%", 100.0 * part.clamp(0.0, 1.0))) } {}
        }
    }
}

fn of(counts: &BTreeMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

fn time_or_dash(time: Option<f64>) -> String {
    time.map_or("–".to_owned(), seconds)
}

/// The end of a bucket.
fn at_most(time: Option<f64>) -> String {
    time.map_or("–".to_owned(), |s| format!("≤ {}", seconds(s)))
}

fn since(seconds: u64) -> String {
    age(Duration::from_secs(seconds))
}
