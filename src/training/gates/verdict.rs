//! The gates themselves.

use super::{Bounds, ChangePlan, Evaluation, Facts, Patient, mean_difference};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Seed of the bootstrap: a verdict can be computed again from its evaluation.
const SEED: u64 = 20_260_101;

/// A gate by its number in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Gate {
    /// The plan is in force, is not the daemon's own, and covers the run.
    G0,
    /// Every case has a reader's word.
    G1,
    /// No person is on both sides of the split.
    G2,
    /// Enough locked cases, or agreement where there are not.
    G3,
    /// Classes without labels are not taught to vanish.
    G4,
    /// What keeps the old knowledge.
    G5,
    /// No class is worse.
    G6,
    /// Some target class is better.
    G7,
    /// No subgroup is worse.
    G8,
    /// Changed and empty inputs.
    G9,
    /// Speed, memory, soundness.
    G10,
    /// Beside the serving model for a while.
    G11,
    /// People decide.
    G12,
    /// Tried before it serves, and taken back quickly.
    G13,
    /// Each result names its model.
    G14,
    /// Results of unapproved models say so.
    G15,
    /// Clinical work goes first.
    G16,
    /// The world may change.
    G17,
    /// The audit is whole.
    G18,
}

/// What is not judged by scores, and where it is instead.
const ELSEWHERE: [(Gate, &str); 6] = [
    (Gate::G11, "asked for at promotion, where the plan's mode or the model's approval demands it"),
    (Gate::G12, "asked for at promotion: a named person who is no reader of the cases; two for an approved model"),
    (Gate::G13, "at activation: a canary before the first study; `stunetd model rollback` after it"),
    (Gate::G14, "in every result: segmentation objects and manifests name the model's digest"),
    (Gate::G16, "while it runs: metric train_preempt_seconds; a run that was killed changes nothing that serves"),
    (Gate::G17, "not part of a candidate: the status of live results"),
];

/// What a gate found of one thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which gate.
    pub gate: Gate,
    /// Of what: a class, a subgroup, a change of the input.
    pub subject: String,
    /// What was found, and the limit.
    pub detail: String,
    /// Bounds on the difference, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<Bounds>,
    /// Whether it is as the plan asks.
    pub passed: bool,
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Which gate.
    pub gate: Gate,
    /// Whether every finding passed; for [`Gate::G7`] whether one did.
    pub passed: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Every gate passed.
    pub passed: bool,
    /// The plan was one for demonstrations.
    pub demonstration: bool,
    /// Each gate.
    pub gates: Vec<Outcome>,
    /// Everything that was looked at.
    pub findings: Vec<Finding>,
    /// Classes with too few locked patients to be judged.
    pub not_assessable: Vec<u16>,
    /// Gates that are not judged here, each with the place where it is.
    pub elsewhere: Vec<(Gate, String)>,
}

/// Judges a candidate. `labels` are all foreground values of the model.
///
/// A mean over classes is never looked at. Each class has to be shown not to be worse, at the plan's error (all have to pass,
/// so that testing many classes makes it harder, not easier); that one is better is tested at the error over the number of
/// target classes (Bonferroni).
pub fn judge(evaluation: &Evaluation, labels: &[u16], plan: &ChangePlan) -> Verdict {
    let mut judge = Judge { evaluation, plan, findings: Vec::new() };
    let enough = |label: &&u16| positive(&evaluation.patients, **label).count() >= plan.limits.min_patients;
    let (assessable, not_assessable): (Vec<u16>, Vec<u16>) = labels.iter().partition(|label| enough(label));
    not_assessable.iter().for_each(|&label| judge.agreement(label));
    assessable.iter().for_each(|&label| judge.class(label));
    judge.gains(&assessable);
    judge.subgroups();
    judge.robustness();
    judge.technical();
    judge.run();
    let findings = judge.findings;
    let scored = [Gate::G3, Gate::G6, Gate::G7, Gate::G8, Gate::G9, Gate::G10];
    let of_the_run = [Gate::G0, Gate::G1, Gate::G2, Gate::G4, Gate::G5, Gate::G15, Gate::G18];
    let mut elsewhere: Vec<(Gate, String)> = ELSEWHERE.iter().map(|(gate, why)| (*gate, why.to_string())).collect();
    let mut judged = scored.to_vec();
    match evaluation.facts {
        Some(_) => judged.extend(of_the_run),
        None => elsewhere.extend(of_the_run.map(|gate| (gate, "these scores do not come from a run".to_string()))),
    }
    judged.sort_unstable();
    elsewhere.sort_unstable();
    let outcome = |gate: Gate| {
        let mut of = findings.iter().filter(|finding| finding.gate == gate);
        let passed = if gate == Gate::G7 { of.any(|finding| finding.passed) } else { of.all(|finding| finding.passed) };
        Outcome { gate, passed }
    };
    let gates: Vec<Outcome> = judged.into_iter().map(outcome).collect();
    let passed = gates.iter().all(|g| g.passed);
    Verdict { passed, demonstration: plan.demonstration, gates, findings, not_assessable, elsewhere }
}

/// The patients who have a class, with a score for it.
fn positive(patients: &[Patient], label: u16) -> impl Iterator<Item = &Patient> {
    patients.iter().filter(move |patient| patient.scores.contains_key(&label) && !patient.absent.contains(&label))
}

fn differences(patients: &[Patient], label: u16, score: impl Fn(&super::Score) -> f64) -> Vec<f64> {
    patients.iter().filter_map(|patient| patient.scores.get(&label)).map(|[old, new]| score(new) - score(old)).collect()
}

struct Judge<'a> {
    evaluation: &'a Evaluation,
    plan: &'a ChangePlan,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn find(&mut self, gate: Gate, subject: impl Into<String>, detail: String, bounds: Option<Bounds>, passed: bool) {
        self.findings.push(Finding { gate, subject: subject.into(), detail, bounds, passed });
    }

    fn bounds(&self, differences: &[f64], error: f64) -> Option<Bounds> {
        mean_difference(differences, self.plan.limits.resamples, error, SEED)
    }

    /// G3: what can not be judged has to stay as it is.
    fn agreement(&mut self, label: u16) {
        let limits = self.plan.limits;
        let found = self.evaluation.agreement.get(&label).map_or(&[][..], Vec::as_slice);
        let mean = found.iter().sum::<f64>() / found.len().max(1) as f64;
        let least = found.iter().copied().fold(1.0, f64::min);
        let target = self.plan.classes.iter().any(|class| class.value == label && class.target);
        // A NaN passes no comparison.
        let same = found.len() >= limits.agreement_studies && mean >= limits.agreement_mean && least >= limits.agreement_least;
        let sound = found.iter().all(|dice| (0.0..=1.0).contains(dice));
        let why = if target { "; a target class has to be assessable" } else { "" };
        let detail = format!(
            "not assessable: agrees with the serving model on {} of {} studies, mean Dice {mean:.4} (>= {}), least {least:.4} (>= {}){why}",
            found.len(),
            limits.agreement_studies,
            limits.agreement_mean,
            limits.agreement_least
        );
        self.find(Gate::G3, format!("class {label}"), detail, None, same && sound && !target);
    }

    /// G6: one class.
    fn class(&mut self, label: u16) {
        let limits = self.plan.limits;
        let critical = self.plan.classes.iter().any(|class| class.value == label && class.critical);
        let asked = if critical { limits.critical_dice } else { limits.dice };
        let patients = &self.evaluation.patients;
        let dice = differences(patients, label, |score| score.dice);
        let surface = differences(patients, label, |score| score.surface_dice);
        for (name, differences, asked) in [("Dice", &dice, asked), ("surface Dice", &surface, limits.surface_dice)] {
            let bounds = self.bounds(differences, limits.error);
            let passed = bounds.is_some_and(|bounds| bounds.lower >= asked);
            let shown = bounds.map_or("not a number".into(), |b| format!("{:+.4}, lower bound {:+.4}", b.mean, b.lower));
            self.find(Gate::G6, format!("class {label}"), format!("{name} {shown} (>= {asked})"), bounds, passed);
        }
        let worst = patients.iter().filter_map(|p| Some((p.scores.get(&label)?, &p.id))).map(|([old, new], id)| (new.dice - old.dice, id));
        if let Some((difference, id)) = worst.min_by(|a, b| a.0.total_cmp(&b.0)) {
            let detail = format!("patient {id} changes by {difference:+.4} (>= -{})", limits.patient_loss);
            self.find(Gate::G6, format!("class {label}"), detail, None, difference >= -limits.patient_loss);
        }
    }

    /// G7: at least one target is better.
    fn gains(&mut self, assessable: &[u16]) {
        let targets: Vec<u16> = self.plan.classes.iter().filter(|class| class.target).map(|class| class.value).collect();
        let targets: Vec<u16> = targets.into_iter().filter(|value| assessable.contains(value)).collect();
        for &label in &targets {
            let differences = differences(&self.evaluation.patients, label, |score| score.dice);
            let bounds = self.bounds(&differences, self.plan.limits.error / targets.len() as f64);
            let passed = bounds.is_some_and(|bounds| bounds.lower > 0.0);
            let shown = bounds.map_or("not a number".into(), |b| format!("{:+.4}, lower bound {:+.4}", b.mean, b.lower));
            self.find(Gate::G7, format!("class {label}"), format!("gain in Dice {shown} (> 0)"), bounds, passed);
        }
    }

    /// G8: subgroups of enough patients.
    fn subgroups(&mut self) {
        let limits = self.plan.limits;
        let groups: BTreeSet<(&String, &String)> = self.evaluation.patients.iter().flat_map(|patient| &patient.subgroups).collect();
        for (name, value) in groups {
            let members: Vec<&Patient> = self.evaluation.patients.iter().filter(|p| p.subgroups.get(name) == Some(value)).collect();
            if members.len() < limits.subgroup_patients {
                continue;
            }
            let all: Vec<f64> = members.iter().flat_map(|p| p.scores.values()).map(|[old, new]| new.dice - old.dice).collect();
            let mean = all.iter().sum::<f64>() / all.len().max(1) as f64;
            let detail = format!("{} patients, mean Dice difference {mean:+.4} (>= -{})", members.len(), limits.subgroup_loss);
            self.find(Gate::G8, format!("{name} = {value}"), detail, None, mean >= -limits.subgroup_loss);
        }
    }

    /// G9: changed inputs, empty inputs, pieces.
    fn robustness(&mut self) {
        let limits = self.plan.limits;
        for change in &self.evaluation.perturbations {
            let bounds = self.bounds(&change.differences, limits.error);
            let passed = bounds.is_some_and(|bounds| bounds.lower >= limits.robustness);
            let shown = bounds.map_or("not a number".into(), |b| format!("{:+.4}, lower bound {:+.4}", b.mean, b.lower));
            let detail = format!("Dice difference {shown} (>= {})", limits.robustness);
            self.find(Gate::G9, &change.name, detail, bounds, passed);
        }
        for empty in &self.evaluation.empty {
            let [old, new] = empty.voxels;
            self.find(Gate::G9, &empty.name, format!("{new} foreground voxels, the serving model finds {old}"), None, new <= old);
        }
        let mut pieces: BTreeMap<u16, (f64, usize)> = BTreeMap::new();
        for (label, [old, new]) in self.evaluation.patients.iter().flat_map(|patient| &patient.components) {
            let sum = pieces.entry(*label).or_default();
            *sum = (sum.0 + f64::from(*new) - f64::from(*old), sum.1 + 1);
        }
        for (label, (sum, count)) in pieces {
            let mean = sum / count as f64;
            let detail = format!("{mean:+.2} components on average (<= {})", limits.components);
            self.find(Gate::G9, format!("class {label}"), detail, None, mean <= limits.components);
        }
        if self.evaluation.perturbations.is_empty() || self.evaluation.empty.is_empty() {
            self.find(Gate::G9, "inputs", "no changed or no empty input was tried".into(), None, false);
        }
    }

    /// G10.
    fn technical(&mut self) {
        let (limits, technical) = (self.plan.limits, self.evaluation.technical.clone());
        let [old, new] = technical.seconds;
        let faster = old > 0.0 && new > 0.0 && new <= old * (1.0 + limits.slower);
        let [old_bytes, new_bytes] = technical.bytes;
        let smaller = old_bytes > 0 && new_bytes as f64 <= old_bytes as f64 * (1.0 + limits.larger);
        self.find(Gate::G10, "weights", "every weight is a finite number".into(), None, technical.finite);
        self.find(Gate::G10, "signature", "architecture, preprocessing and labels are the same".into(), None, technical.same_signature);
        self.find(Gate::G10, "repetition", "a second run gives the same labels".into(), None, technical.repeatable);
        self.find(Gate::G10, "time", format!("{new:.2} s after {old:.2} s (<= {:.0} % more)", limits.slower * 100.0), None, faster);
        let detail = format!("{new_bytes} bytes after {old_bytes} (<= {:.0} % more)", limits.larger * 100.0);
        self.find(Gate::G10, "memory", detail, None, smaller);
    }

    /// G0 to G5, G15, G18: what the scores rest on.
    fn run(&mut self) {
        let Some(facts) = self.evaluation.facts.clone() else { return };
        let plan = self.plan;
        let Facts { cases: [training, locked], rehearsal: (studies, share), openings, .. } = facts;
        self.find(Gate::G0, "plan", "the plan is the one that the run began with".into(), None, facts.plan_unchanged);
        let own = !facts.plan_writable || plan.demonstration;
        self.find(Gate::G0, "plan", "the daemon's user can not write the plan, or it is one for demonstrations".into(), None, own);
        self.find(Gate::G0, "model", "the plan is for this model".into(), None, facts.plan_covers);
        let detail = format!("{training} cases to learn from and {locked} locked ones, {} without a valid sign-off", facts.unsigned.len());
        self.find(Gate::G1, "cases", detail, None, facts.unsigned.is_empty() && training > 0 && locked > 0);
        let detail = format!("{} persons have cases on both sides", facts.on_both_sides.len());
        self.find(Gate::G2, "patients", detail, None, facts.on_both_sides.is_empty());
        let limit = plan.conditions.openings;
        let detail = format!("opening {openings} of the locked cases within a year (<= {limit}); their digest is {}", facts.locked);
        self.find(Gate::G3, "locked cases", detail, None, openings <= limit);
        let detail = format!(
            "the loss of a sample runs over its reviewed classes alone; {} rehearsal cases teach a target class",
            facts.teaching_targets.len()
        );
        self.find(Gate::G4, "unreviewed classes", detail, None, facts.teaching_targets.is_empty());
        self.find(Gate::G5, "start", "the run started from the base model".into(), None, facts.from_base);
        let least = plan.conditions.rehearsal_studies;
        let recipe = plan.recipe;
        let detail = format!(
            "{studies} studies rehearsed (>= {least}) in {:.0} % of the samples; L2-SP {}, distillation {}, average {}",
            share * 100.0,
            recipe.l2_sp,
            recipe.distillation,
            recipe.average
        );
        self.find(Gate::G5, "rehearsal", detail, None, studies >= least);
        self.find(Gate::G15, "marking", "the candidate is a research model, and its results say so".into(), None, facts.research);
        self.find(Gate::G18, "audit", "every line is tied to the one before".into(), None, facts.audit_whole);
    }
}
