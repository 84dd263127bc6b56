//! What the rules say of each series of a study.

use super::acquisitions::acquisitions;
use super::conditions::{Miss, accepts, coverage, has_contrast, miss, slice_distance};
use super::kernels::Kernel;
use super::pairs::partner;
use super::rules::{Rule, channels};
use super::scope;
use crate::config::{Orientation, PerStudy, Preference, USUAL_PREFERENCES};
use crate::dicom::Uid;
use crate::fault::Code;
use crate::models::Manifest;
use crate::series::{Refusal, Series};
use crate::telemetry::log::keyed_hash;
use std::cmp::Ordering;

/// What the rules say of a series. Indices are those of the lists that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Segmented.
    Selected {
        /// The rule.
        rule: usize,
        /// The series of each channel of the model, in its order; this one is that of the grid.
        channels: Vec<usize>,
        /// What has to be flagged, as stable codes.
        flags: Vec<&'static str>,
    },
    /// A channel of a case whose grid is another series'.
    Partner {
        /// The rule.
        rule: usize,
        /// The series of the grid.
        of: usize,
    },
    /// Another series of the study is better by the same rule.
    NotBest {
        /// The rule.
        rule: usize,
        /// That series.
        winner: usize,
    },
    /// A rule leaves it alone.
    Ignored {
        /// The rule.
        rule: usize,
    },
    /// A rule matches, but its model is not for this series, or the values are not what a model takes.
    Outside {
        /// The rule.
        rule: usize,
        /// Why.
        refusal: Refusal,
    },
    /// No rule matches, and why each one does not.
    NoRule {
        /// One entry a rule.
        misses: Vec<Miss>,
    },
}

impl Verdict {
    /// In a word, for reports.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Selected { .. } => "selected",
            Verdict::Partner { .. } => "partner",
            Verdict::NotBest { .. } => "not_best",
            Verdict::Ignored { .. } => "ignored",
            Verdict::Outside { .. } => "out_of_scope",
            Verdict::NoRule { .. } => "no_rule",
        }
    }

    /// The rule that decided.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Verdict::Selected { rule, .. } | Verdict::Partner { rule, .. } | Verdict::NotBest { rule, .. } => Some(*rule),
            Verdict::Ignored { rule } | Verdict::Outside { rule, .. } => Some(*rule),
            Verdict::NoRule { .. } => None,
        }
    }

    /// Why the series is not segmented; none for one that is, by itself or beside another. Names other series by number and keyed hash,
    /// and repeats no text of a header.
    pub fn refusal(&self, rules: &[Rule], series: &[&Series]) -> Option<Refusal> {
        let name = |rule: usize| rules.get(rule).map(Rule::name).unwrap_or_default();
        let (code, detail) = match self {
            Verdict::Selected { .. } | Verdict::Partner { .. } => return None,
            Verdict::Outside { refusal, .. } => return Some(refusal.clone()),
            Verdict::Ignored { rule } => (Code::SelectIgnored, format!("Rule `{}`.", name(*rule))),
            Verdict::NotBest { rule, winner } => {
                let winner = series.get(*winner);
                let number = winner.and_then(|s| s.selection.series_number).map(|n| format!(" {n}")).unwrap_or_default();
                let hash = winner.map(|s| keyed_hash(s.series_uid.as_str())).unwrap_or_default();
                (Code::SelectNotBest, format!("By the rule `{}` series{number} ({hash}) is better.", name(*rule)))
            }
            Verdict::NoRule { misses } => {
                let why: Vec<_> = misses.iter().map(|m| format!("`{}`: {} {}", m.rule, m.condition, m.found)).collect();
                let is = |condition: &'static str| move |m: &Miss| m.condition == condition;
                let code = match () {
                    _ if misses.iter().any(is("pair")) => Code::SelectNoPartner,
                    _ if misses.iter().all(is("model")) => Code::ScopeModality,
                    _ => Code::SelectNoRule,
                };
                (code, format!("{}.", why.join("; ")))
            }
        };
        Some(Refusal { code, detail })
    }
}

/// Whether the rules can only decide about a series when all others of its study are known.
pub fn needs_study(rules: &[Rule], series: &Series) -> bool {
    for rule in rules {
        if miss(&rule.select, series).is_some() && !may_be_partner(rule, series) {
            continue;
        }
        let Some(model) = &rule.model else { return false };
        if !model.manifest.scope.modality.contains(&series.modality) {
            continue;
        }
        return channels(&model.manifest).is_some() || rule.select.per_study == PerStudy::Best;
    }
    false
}

/// Whether a rule may use a series beside another one: its conditions are not about it then.
fn may_be_partner(rule: &Rule, series: &Series) -> bool {
    let Some(manifest) = rule.model.as_ref().map(|model| &model.manifest) else { return false };
    let grid = manifest.preprocessing.grid_channel;
    channels(manifest).is_some_and(|modalities| modalities.iter().enumerate().any(|(c, m)| c != grid && *m == series.modality))
}

/// What the rules say of each series, in the order given; the verdicts do not depend on that order. Give all series of a study, where
/// [`needs_study`] says so of one.
pub fn select(rules: &[Rule], series: &[&Series]) -> Vec<Verdict> {
    let ignored: Vec<Option<usize>> = series
        .iter()
        .map(|s| rules.iter().position(|rule| miss(&rule.select, s).is_none()).filter(|&first| rules[first].model.is_none()))
        .collect();
    let mut verdicts: Vec<Verdict> = (0..series.len()).map(|i| first_match(rules, series, i, &ignored)).collect();
    let scans = acquisitions(series);
    let contest = |i: usize| (contest(series[i]), scans[i]);
    for (index, rule) in rules.iter().enumerate() {
        let Some(model) = rule.model.as_ref().filter(|_| rule.select.per_study == PerStudy::Best) else { continue };
        let candidates: Vec<usize> =
            (0..series.len()).filter(|&i| matches!(verdicts[i], Verdict::Selected { rule, .. } if rule == index)).collect();
        for &i in &candidates {
            let rivals = candidates.iter().copied().filter(|&j| contest(i) == contest(j));
            // Equal ones: the first by Series Instance UID and phase wins, whatever order they came in.
            let compare = |&a: &usize, &b: &usize| {
                better(rule, &model.manifest, series[a], series[b]).then_with(|| tie(series[a]).cmp(&tie(series[b])))
            };
            if let Some(winner) = rivals.min_by(compare)
                && winner != i
            {
                verdicts[i] = Verdict::NotBest { rule: index, winner };
            }
        }
    }
    // A series beside several others names the first of them by UID, whatever order they came in.
    let mut by_uid: Vec<usize> = (0..series.len()).collect();
    by_uid.sort_by(|&a, &b| tie(series[a]).cmp(&tie(series[b])));
    for of in by_uid {
        let Verdict::Selected { rule, channels, .. } = verdicts[of].clone() else { continue };
        for partner in channels {
            if matches!(verdicts[partner], Verdict::NoRule { .. }) {
                verdicts[partner] = Verdict::Partner { rule, of };
            }
        }
    }
    verdicts
}

fn first_match(rules: &[Rule], all: &[&Series], index: usize, ignored: &[Option<usize>]) -> Verdict {
    let series = all[index];
    let mut misses = Vec::with_capacity(rules.len());
    for (number, rule) in rules.iter().enumerate() {
        let mut missed = |condition, found| misses.push(Miss { rule: rule.name().into(), condition, found });
        if let Some((condition, found)) = miss(&rule.select, series) {
            missed(condition, found);
            continue;
        }
        let Some(model) = &rule.model else { return Verdict::Ignored { rule: number } };
        let manifest = &model.manifest;
        if !manifest.scope.modality.contains(&series.modality) {
            missed("model", format!("`{}` is for {}, not for {}", manifest.name, manifest.scope.modality.join(" and "), series.modality));
            continue;
        }
        let case = match case(all, index, manifest, |i| ignored[i].is_none_or(|by| by > number) && accepts(&rule.select, all[i])) {
            Ok(case) => case,
            Err(found) => {
                missed("pair", found);
                continue;
            }
        };
        let channels: Vec<&Series> = case.iter().map(|&i| all[i]).collect();
        let outside = |refusal: Refusal| Verdict::Outside { rule: number, refusal };
        if let Some(hold) = channels.iter().find_map(|s| s.hold.clone()) {
            return outside(hold);
        }
        return match scope::check(&channels, manifest) {
            Ok(flags) => Verdict::Selected { rule: number, channels: case, flags },
            Err(refusal) => outside(refusal),
        };
    }
    Verdict::NoRule { misses }
}

/// The series of each channel of a model, when `lead` is that of the grid.
fn case(all: &[&Series], lead: usize, manifest: &Manifest, usable: impl Fn(usize) -> bool) -> Result<Vec<usize>, String> {
    let Some(modalities) = channels(manifest) else { return Ok(vec![lead]) };
    let grid = manifest.preprocessing.grid_channel;
    if modalities.get(grid) != Some(&all[lead].modality) {
        return Err(format!("it is taken beside a {} series only, and goes with none", modalities.get(grid).map_or("", String::as_str)));
    }
    let mut chosen = vec![lead; modalities.len()];
    for (channel, modality) in modalities.iter().enumerate().filter(|(channel, _)| *channel != grid) {
        let taken = chosen.clone();
        chosen[channel] = partner(all, lead, modality, |i| usable(i) && !taken.contains(&i))?;
    }
    Ok(chosen)
}

/// Series that compete for one place, if they are of one scan: same study, frame of reference, contrast and phase.
fn contest(s: &Series) -> (&Uid, Option<&Uid>, bool, Option<u32>) {
    (&s.study_uid, s.frame_of_reference_uid.as_ref(), has_contrast(s), s.phase)
}

fn tie(s: &Series) -> (&Uid, Option<u32>) {
    (&s.series_uid, s.phase)
}

fn is_original(s: &Series) -> bool {
    s.image_type.first().is_some_and(|t| t == "ORIGINAL")
}

/// `Less` when `a` is the better one.
fn better(rule: &Rule, manifest: &Manifest, a: &Series, b: &Series) -> Ordering {
    // true sorts before false, larger before smaller
    let first = |x: bool, y: bool| y.cmp(&x);
    let larger = |x: f64, y: f64| y.total_cmp(&x);
    let preferences = if rule.select.prefer.is_empty() { &USUAL_PREFERENCES[..] } else { &rule.select.prefer };
    preferences
        .iter()
        .map(|p| match p {
            Preference::Original => first(is_original(a), is_original(b)),
            Preference::Axial => first(Orientation::of(a) == Orientation::Axial, Orientation::of(b) == Orientation::Axial),
            Preference::Kernel(p) => first(p.0.is_match(&a.selection.kernel), p.0.is_match(&b.selection.kernel)),
            Preference::SoftKernel => Kernel::of(&a.selection.kernel).cmp(&Kernel::of(&b.selection.kernel)),
            Preference::SliceDistance(mm) => {
                let wanted = mm.unwrap_or_else(|| model_distance(manifest));
                (slice_distance(a) - wanted).abs().total_cmp(&(slice_distance(b) - wanted).abs())
            }
            Preference::Coverage => larger(coverage(a), coverage(b)),
            Preference::Slices => larger(a.planes.len() as f64, b.planes.len() as f64),
        })
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// The distance of slices that a model was trained at, mm: array axis 0 of its grid.
fn model_distance(manifest: &Manifest) -> f64 {
    let p = &manifest.preprocessing;
    let axis = p.transpose.iter().position(|&a| a == 0).unwrap_or(0);
    p.spacing[axis]
}
