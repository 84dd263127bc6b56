//! What Prometheus gets: names by its conventions, and alerts and a dashboard that ask for nothing else.

use crate::need;
use crate::serve::daemon::{Daemon, World};
use crate::support::ct::Ct;
use crate::support::on_path;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stunetd::telemetry::Metrics;
use stunetd::telemetry::metrics::Facts;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

/// Names of metrics in a text, without what histograms add to them.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|w| w.starts_with("stunetd_") || w.starts_with("process_"));
    ours.map(|w| ["_bucket", "_count", "_sum"].iter().find_map(|end| w.strip_suffix(end)).unwrap_or(w).to_owned()).collect()
}

/// Names that exist.
fn existing() -> BTreeSet<String> {
    let metrics = Metrics::new().expect("metrics");
    // These have no value before it is known what runs.
    metrics.facts(&Facts { version: "", libtorch: String::new(), device: String::new() });
    metrics.models([("", "", "")].into_iter());
    metrics.rules(["all"].into_iter());
    metrics.delivery.destination("pacs", &["status"]);
    metrics.device.memory("cuda:0", 1, 2, 3);
    let text = metrics.text().expect("text");
    text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)).collect()
}

#[test]
fn a_real_scrape_keeps_the_conventions() {
    need!(on_path("promtool"), "promtool is not here (Debian: prometheus)");
    let world = World::new();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    daemon.shows("stunetd_jobs_ended_total{result=\"published\"}", 1.0);
    let (_, scrape) = daemon.get("/metrics");
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    check.stdin.take().expect("open").write_all(scrape.as_bytes()).expect("written");
    let output = check.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    daemon.end().expect("a clean end");
}

#[test]
fn what_moved_is_seen() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    let go = world.engine.next_waits();
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 1);
    daemon.clock.advance(std::time::Duration::from_secs(60));
    assert!(daemon.metric("stunetd_oldest_job_age_seconds{state=\"working\"}") >= 60.0);
    assert_eq!(daemon.metric("stunetd_oldest_job_age_seconds{state=\"parked\"}"), 0.0);
    go.send(()).expect("the engine waits");
    daemon.next_result();
    daemon.shows("stunetd_turnaround_seconds_count{priority=\"routine\"}", 1.0);
    assert_eq!(daemon.metric("stunetd_turnaround_seconds_count{priority=\"stat\"}"), 0.0);
    assert!(daemon.metric("stunetd_ledger_commit_duration_seconds_count") > 0.0);
    assert!(daemon.metric("stunetd_spool_free_bytes{place=\"output\"}") > 0.0);
    daemon.shows("stunetd_oldest_job_age_seconds{state=\"working\"}", 0.0);
    daemon.end().expect("a clean end");
}

#[test]
fn alerts_and_dashboard_ask_for_what_exists() {
    let existing = existing();
    let mut asked = BTreeSet::new();
    for file in ["alerts.yml", "alerts.test.yml", "grafana.json"] {
        let text = std::fs::read_to_string(docs(file)).expect(file);
        let unknown: Vec<String> = names(&text).difference(&existing).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new(), "{file}");
        asked.extend(names(&text));
    }
    println!("{} of {} metrics are asked for", asked.len(), existing.len());
}

#[test]
fn the_dashboard_has_its_six_rows() {
    let text = std::fs::read_to_string(docs("grafana.json")).expect("dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let rows: Vec<&str> = panels.iter().filter(|p| p["type"] == "row").filter_map(|p| p["title"].as_str()).collect();
    assert_eq!(rows, ["1 Is it fine?", "2 Flow", "3 Time", "4 Machine", "5 Edges", "6 Models and failures"]);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{panel}");
        let expressions = panel["targets"].as_array().map_or(0, Vec::len);
        assert!(panel["type"] == "row" || expressions > 0, "{panel}");
    }
}

#[test]
fn alerts_are_sound_and_have_a_page() {
    let rules = std::fs::read_to_string(docs("alerts.yml")).expect("alerts");
    let runbook = std::fs::read_to_string(docs("runbook.md")).expect("runbook");
    let (mut alerts, mut pages) = (0, 0);
    for line in rules.lines() {
        alerts += usize::from(line.trim_start().starts_with("- alert:"));
        let Some((_, anchor)) = line.split_once("runbook.md#") else { continue };
        let heading = format!("## {}", anchor.trim().trim_matches('"'));
        assert!(
            runbook.lines().any(|l| l.to_ascii_lowercase().replace(' ', "-").replace("##-", "## ") == heading),
            "no `{heading}` in docs/runbook.md"
        );
        pages += 1;
    }
    assert!(alerts >= 10 && alerts == pages, "{alerts} alerts, {pages} with a page");
    need!(on_path("promtool"), "promtool is not here (Debian: prometheus)");
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(docs("")).output().expect("promtool");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
}
