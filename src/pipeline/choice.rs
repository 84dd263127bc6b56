//! What the rules make of complete series: cases for the street, or why not; and which studies have to be complete first.

use super::stages::Order;
use super::studies::Studies;
use crate::config;
use crate::dicom::SeriesKey;
use crate::intake::select::{Rule, Verdict, needs_study, select};
use crate::ledger::{Evidence, Priority};
use crate::series::{Refusal, Series};
use crate::telemetry::log::keyed_hash;
use crate::telemetry::{Evaluation, Metrics};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A complete series.
pub struct Complete {
    /// Which.
    pub key: SeriesKey,
    /// Its volumes, each with the name of its content.
    pub volumes: Vec<(String, Series)>,
    /// Why other parts of it give none.
    pub refusals: Vec<Refusal>,
}

/// What is done with a complete series.
pub struct Decided {
    /// Which.
    pub key: SeriesKey,
    /// What is segmented on its grid.
    pub chosen: Vec<Chosen>,
    /// Why other parts of it are not.
    pub refusals: Vec<Refusal>,
    /// What rules said of its volumes.
    pub said: Vec<(usize, Evaluation)>,
}

/// A case that is segmented.
#[derive(Clone)]
pub struct Chosen {
    /// Names its content.
    pub input: String,
    /// The series of each channel of the model.
    pub channels: Vec<Series>,
    /// The rule.
    pub rule: usize,
}

/// The rules, the studies that wait for them, and what was said.
pub struct Choice {
    rules: Vec<Rule>,
    /// By rule; none for one that leaves series alone.
    orders: Vec<Option<Arc<Order>>>,
    /// Studies in which a series needs the others.
    pub studies: Studies,
    /// The series that wait for their study, with the evidence by which each is complete.
    waiting: BTreeMap<SeriesKey, Evidence>,
    /// What was last said of series that needed their study.
    said: BTreeMap<SeriesKey, String>,
    metrics: Arc<Metrics>,
}

impl Choice {
    /// `order`: how every case is treated, but for the model, which the rules choose. `quiet`: that of studies.
    pub fn new(rules: Vec<Rule>, order: &Order, quiet: Duration, metrics: Arc<Metrics>) -> Choice {
        let of = |rule: &Rule| rule.model.clone().map(|model| Arc::new(Order { model, ..order.clone() }));
        let orders = rules.iter().map(of).collect();
        metrics.rules(rules.iter().map(Rule::name));
        Choice { rules, orders, studies: Studies::new(quiet), waiting: BTreeMap::new(), said: BTreeMap::new(), metrics }
    }

    /// Puts other rules in the place of these. What waits for its study goes on waiting; what was judged is not judged again before it
    /// changes.
    pub fn change(&mut self, rules: Vec<Rule>, order: &Order, quiet: Duration) {
        let fresh = Choice::new(rules, order, quiet, self.metrics.clone());
        (self.rules, self.orders) = (fresh.rules, fresh.orders);
        self.studies.set_quiet(quiet);
    }

    /// Names the rules and their configured models: with others a series may be judged otherwise. Another generation of a model judges
    /// the same, or it would not serve in its place.
    pub fn print(&self) -> String {
        let rule = |rule: &Rule| format!("{:?} {}", rule.select, rule.slot);
        self.rules.iter().map(rule).collect::<Vec<_>>().join("\n")
    }

    /// Digest of the first model that the rules name.
    pub fn first_model(&self) -> String {
        self.orders.iter().flatten().next().map(|order| order.model.digest.clone()).unwrap_or_default()
    }

    /// A rule's name.
    pub fn rule(&self, rule: usize) -> Option<&str> {
        self.rules.get(rule).map(Rule::name)
    }

    /// How a rule's cases are treated; none for one that leaves series alone.
    pub fn order(&self, rule: usize) -> Option<&Arc<Order>> {
        self.orders.get(rule)?.as_ref()
    }

    /// What comes first.
    pub fn priority(&self, rule: usize) -> Priority {
        match self.rules.get(rule).map(|rule| rule.select.priority) {
            Some(config::Priority::Batch) => Priority::Batch,
            Some(config::Priority::Routine) | None => Priority::Routine,
            Some(config::Priority::Stat) => Priority::Stat,
        }
    }

    /// Whether a series can only be judged together with the others of its study.
    pub fn needs_study(&self, complete: &Complete) -> bool {
        complete.volumes.iter().any(|(_, series)| needs_study(&self.rules, series))
    }

    /// A series is complete, and waits for its study.
    pub fn wait(&mut self, key: &SeriesKey, evidence: Evidence, now: Instant, changed: Instant) {
        let (series, study) = (keyed_hash(&key.series), keyed_hash(&key.study));
        tracing::info!(series, study, evidence = evidence.name(), "complete, waits for the rest of its study");
        self.waiting.insert(key.clone(), evidence);
        self.studies.wait(&key.study, now, changed);
    }

    /// What becomes of each series, in the order given.
    pub fn decide(&self, all: Vec<Complete>) -> Vec<Decided> {
        let volumes: Vec<(usize, &String, &Series)> =
            all.iter().enumerate().flat_map(|(i, c)| c.volumes.iter().map(move |(name, series)| (i, name, series))).collect();
        let series: Vec<&Series> = volumes.iter().map(|(_, _, series)| *series).collect();
        let mut decided: Vec<Decided> = all
            .iter()
            .map(|c| Decided { key: c.key.clone(), chosen: Vec::new(), refusals: c.refusals.clone(), said: Vec::new() })
            .collect();
        for (verdict, (owner, ..)) in select(&self.rules, &series).into_iter().zip(&volumes) {
            let decided = &mut decided[*owner];
            decided.refusals.extend(verdict.refusal(&self.rules, &series));
            decided.said.extend(evaluations(&verdict, self.rules.len()));
            let Verdict::Selected { rule, channels, flags } = verdict else { continue };
            let names: Vec<&str> = channels.iter().map(|&i| volumes[i].1.as_str()).collect();
            let mut channels: Vec<Series> = channels.iter().map(|&i| series[i].clone()).collect();
            channels.iter_mut().for_each(|s| s.warnings.extend(flags.iter().map(|f| (*f).to_owned())));
            decided.chosen.push(Chosen { input: joined(&names), channels, rule });
        }
        decided
    }

    /// Those of a study that was waited for about which something has changed, with the evidence by which each is complete.
    pub fn news(&mut self, study: &str, decided: Vec<Decided>) -> Vec<(Decided, Evidence)> {
        let there = |key: &SeriesKey| key.study != study || decided.iter().any(|d| d.key == *key);
        self.waiting.retain(|key, _| there(key));
        self.said.retain(|key, _| there(key));
        let is_news = |d: &Decided| self.waiting.contains_key(&d.key) || self.said.get(&d.key) != Some(&d.saying());
        let news: Vec<Decided> = decided.into_iter().filter(is_news).collect();
        for decided in &news {
            self.said.entry(decided.key.clone()).or_default();
        }
        // A series that was judged before is judged again because its study was quiet.
        news.into_iter().map(|d| (self.waiting.get(&d.key).copied().unwrap_or(Evidence::Timer), d)).map(|(e, d)| (d, e)).collect()
    }

    /// The series was judged, and the ledger has it: tells the log and the metrics.
    pub fn told(&mut self, decided: &Decided, evidence: Evidence) {
        let series = keyed_hash(&decided.key.series);
        for refusal in &decided.refusals {
            tracing::info!(series, code = %refusal.code, "not processed: {}", refusal.detail);
            self.metrics.series_refused(refusal.code);
        }
        for (rule, said) in &decided.said {
            if let Some(rule) = self.rules.get(*rule) {
                self.metrics.flow.evaluated(rule.name(), *said);
            }
        }
        for case in &decided.chosen {
            let (Some(rule), Some(order)) = (self.rules.get(case.rule), self.order(case.rule)) else { continue };
            let slices = case.channels.get(order.model.manifest.preprocessing.grid_channel).map_or(0, |s| s.planes.len());
            let (model, evidence) = (&order.model.manifest.name, evidence.name());
            tracing::info!(series, slices, evidence, rule = rule.name(), model, "complete");
            self.metrics.series_selected(rule.name());
        }
        self.waiting.remove(&decided.key);
        if let Some(said) = self.said.get_mut(&decided.key) {
            *said = decided.saying();
        }
    }
}

impl Decided {
    fn saying(&self) -> String {
        let chosen = self.chosen.iter().map(|c| format!("{} {}", c.rule, c.input));
        let refused = self.refusals.iter().map(|r| format!("{} {}", r.code, r.detail));
        chosen.chain(refused).collect::<Vec<_>>().join("\n")
    }
}

/// What each rule said, up to the one that decided.
fn evaluations(verdict: &Verdict, rules: usize) -> Vec<(usize, Evaluation)> {
    let decided = verdict.rule().unwrap_or(rules);
    let mut said: Vec<_> = (0..decided).map(|rule| (rule, Evaluation::Skip)).collect();
    if let Some(rule) = verdict.rule() {
        said.push((rule, if matches!(verdict, Verdict::Outside { .. }) { Evaluation::Error } else { Evaluation::Match }));
    }
    said
}

/// The name of a case: of one channel that volume's, of several one made of all.
fn joined(names: &[&str]) -> String {
    match names {
        [one] => (*one).to_owned(),
        several => Sha256::digest(several.join(" ")).iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
