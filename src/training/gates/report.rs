//! The verdict for people: one HTML page without scripts or anything from elsewhere, beside the JSON for programs.

use super::{ChangePlan, Evaluation, Finding, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Width of a bar of bounds, pixels.
const WIDTH: f64 = 320.0;
/// Edge of a plot, pixels.
const SQUARE: f64 = 120.0;

/// Everything that a verdict rests on, as one JSON document.
#[derive(Serialize)]
struct Document<'a> {
    plan: &'a ChangePlan,
    evaluation: &'a Evaluation,
    verdict: &'a Verdict,
    /// SHA-256 over plan, evaluation and verdict as they stand here.
    digest: &'a str,
}

/// A picture of one of the largest changes, cut to the organ.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Pseudonym of the patient.
    pub patient: String,
    /// Label value.
    pub class: u16,
    /// Dice of the serving model and of the candidate.
    pub dice: [f64; 2],
    /// PNG, base64. The labels of the person, of the serving model and of the candidate, side by side.
    pub png: String,
}

/// The report as JSON and as HTML. `names` are the classes' names by label value; `pictures` stand in the page only. Both carry one digest over
/// plan, evaluation and verdict: whoever signs signs that.
pub fn report(
    verdict: &Verdict,
    evaluation: &Evaluation,
    plan: &ChangePlan,
    names: &BTreeMap<u16, String>,
    pictures: &[Picture],
) -> serde_json::Result<[String; 2]> {
    let mut hash = Sha256::new();
    for part in [serde_json::to_vec(plan)?, serde_json::to_vec(evaluation)?, serde_json::to_vec(verdict)?] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string_pretty(&Document { plan, evaluation, verdict, digest: &digest })?;
    Ok([json, page(verdict, evaluation, plan, names, pictures, &digest).into_string()])
}

fn page(
    verdict: &Verdict,
    evaluation: &Evaluation,
    plan: &ChangePlan,
    names: &BTreeMap<u16, String>,
    pictures: &[Picture],
    digest: &str,
) -> Markup {
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
                @if !verdict.elsewhere.is_empty() {
                    h2 { "Gates that scores do not decide" }
                    table {
                        @for (gate, why) in &verdict.elsewhere {
                            tr { td { (format!("{gate:?}")) } td { (why) } }
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
                h2 { "Dice of each patient, serving model against candidate" }
                div {
                    @for label in scored(evaluation) {
                        figure style="display:inline-block;margin:.5em" {
                            (scatter(evaluation, label))
                            figcaption { (class(label, names)) }
                        }
                    }
                }
                @if !pictures.is_empty() {
                    h2 { "The largest changes" }
                    p { "Labels of the person, of the serving model, of the candidate; cut to the organ. They stay on this machine." }
                    @for picture in pictures {
                        figure {
                            img alt=(class(picture.class, names)) src=(format!("data:image/png;base64,{}", base64_only(&picture.png)));
                            figcaption { (class(picture.class, names)) ", patient " (short(&picture.patient)) ": Dice " (format!("{:.3}", picture.dice[0])) " → " (format!("{:.3}", picture.dice[1])) }
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

/// Classes with scores.
fn scored(evaluation: &Evaluation) -> std::collections::BTreeSet<u16> {
    evaluation.patients.iter().flat_map(|patient| patient.scores.keys().copied()).collect()
}

/// A point for each patient: to the right the serving model's Dice, upwards the candidate's. Above the diagonal it is better.
fn scatter(evaluation: &Evaluation, label: u16) -> Markup {
    let at = |dice: f64| if dice.is_finite() { dice.clamp(0.0, 1.0) * SQUARE } else { 0.0 };
    html! {
        svg width=(SQUARE + 10.0) height=(SQUARE + 10.0) viewBox=(format!("-5 -5 {0} {0}", SQUARE + 10.0)) role="img" {
            rect x="0" y="0" width=(SQUARE) height=(SQUARE) fill="none" stroke="#999" {}
            line x1="0" y1=(SQUARE) x2=(SQUARE) y2="0" stroke="#ccc" {}
            @for [old, new] in evaluation.patients.iter().filter_map(|patient| patient.scores.get(&label)) {
                circle cx=(at(old.dice)) cy=(SQUARE - at(new.dice)) r="3" fill=(if new.dice < old.dice { "#a00" } else { "#036" }) {}
            }
        }
    }
}

/// What may stand in a data URI, whoever wrote the file.
fn base64_only(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')).collect()
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}
