//! The verdict for people: one HTML page without scripts or anything from elsewhere, beside the JSON for programs.

use super::{ChangePlan, Evaluation, Finding, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Width of a bar of bounds, pixels.
const WIDTH: f64 = 320.0;

/// Everything that a verdict rests on, as one JSON document.
#[derive(Serialize)]
struct Document<'a> {
    plan: &'a ChangePlan,
    evaluation: &'a Evaluation,
    verdict: &'a Verdict,
    /// SHA-256 over plan, evaluation and verdict as they stand here.
    digest: &'a str,
}

/// The report as JSON and as HTML. `names` are the classes' names by label value. Both carry one digest over plan, evaluation and verdict:
/// whoever signs signs that.
pub fn report(
    verdict: &Verdict,
    evaluation: &Evaluation,
    plan: &ChangePlan,
    names: &BTreeMap<u16, String>,
) -> serde_json::Result<[String; 2]> {
    let mut hash = Sha256::new();
    for part in [serde_json::to_vec(plan)?, serde_json::to_vec(evaluation)?, serde_json::to_vec(verdict)?] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string_pretty(&Document { plan, evaluation, verdict, digest: &digest })?;
    Ok([json, page(verdict, evaluation, plan, names, &digest).into_string()])
}

fn page(verdict: &Verdict, evaluation: &Evaluation, plan: &ChangePlan, names: &BTreeMap<u16, String>, digest: &str) -> Markup {
    let word = |passed: bool| if passed { "passed" } else { "refused" };
    // The widest bound of all, so that bars can be compared.
    let reach = verdict.findings.iter().filter_map(|f| f.bounds).flat_map(|b| [b.lower.abs(), b.upper.abs()]).fold(0.01, f64::max);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "Candidate " (short(&evaluation.candidate)) ": " (word(verdict.passed)) }
                style { (PreEscaped("body{font:15px/1.5 sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}.refused{color:#a00;font-weight:bold}.passed{color:#060}code{font-size:85%}")) }
            }
            body {
                h1 { "Candidate " code { (short(&evaluation.candidate)) } ": " span class=(word(verdict.passed)) { (word(verdict.passed)) } }
                @if verdict.demonstration {
                    p class="refused" { "Judged by a plan for demonstrations: its limits prove nothing about patients." }
                }
                p { "Against the serving model " code { (short(&evaluation.serving)) } " on " (evaluation.patients.len()) " locked patients, by plan " (plan.name) "." }
                h2 { "Gates" }
                table {
                    tr { th { "Gate" } th { "Outcome" } th { "Findings" } th { "Refused" } }
                    @for outcome in &verdict.gates {
                        @let of: Vec<&Finding> = verdict.findings.iter().filter(|f| f.gate == outcome.gate).collect();
                        tr {
                            td { (format!("{:?}", outcome.gate)) }
                            td class=(word(outcome.passed)) { (word(outcome.passed)) }
                            td { (of.len()) }
                            td { (of.iter().filter(|f| !f.passed).count()) }
                        }
                    }
                }
                @if !verdict.not_assessable.is_empty() {
                    p { "Not assessable, and therefore held to what serves: " (verdict.not_assessable.iter().map(|&v| class(v, names)).collect::<Vec<_>>().join(", ")) "." }
                }
                h2 { "Findings" }
                table {
                    tr { th { "Gate" } th { "Of" } th { "Found" } th { "Mean and bounds, ±" (format!("{reach:.3}")) } th { "Outcome" } }
                    @for finding in ordered(verdict) {
                        tr {
                            td { (format!("{:?}", finding.gate)) }
                            td { (subject(finding, names)) }
                            td { (finding.detail) }
                            td { @if let Some(bounds) = finding.bounds { (bar(bounds.lower, bounds.mean, bounds.upper, reach)) } }
                            td class=(word(finding.passed)) { (word(finding.passed)) }
                        }
                    }
                }
                p { "Digest of plan, evaluation and verdict: " code { (digest) } }
            }
        }
    }
}

/// What was refused first.
fn ordered(verdict: &Verdict) -> Vec<&Finding> {
    let mut findings: Vec<&Finding> = verdict.findings.iter().collect();
    findings.sort_by_key(|finding| finding.passed);
    findings
}

fn class(value: u16, names: &BTreeMap<u16, String>) -> String {
    names.get(&value).map_or_else(|| format!("class {value}"), |name| format!("{name} ({value})"))
}

fn subject(finding: &Finding, names: &BTreeMap<u16, String>) -> String {
    let value = finding.subject.strip_prefix("class ").and_then(|value| value.parse().ok());
    value.map_or_else(|| finding.subject.clone(), |value| class(value, names))
}

/// A line from the lower to the upper bound, a mark at the mean, and one at 0.
fn bar(lower: f64, mean: f64, upper: f64, reach: f64) -> Markup {
    let x = |value: f64| ((value / reach).clamp(-1.0, 1.0) + 1.0) / 2.0 * WIDTH;
    html! {
        svg width=(WIDTH) height="16" role="img" aria-label=(format!("{lower:+.4} to {upper:+.4}")) {
            line x1=(x(0.0)) x2=(x(0.0)) y1="0" y2="16" stroke="#999" {}
            line x1=(x(lower)) x2=(x(upper)) y1="8" y2="8" stroke="#036" stroke-width="3" {}
            circle cx=(x(mean)) cy="8" r="4" fill="#036" {}
        }
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
