//! Which series are segmented, by which model, and why: an ordered list of rules, the first that matches decides.
//!
//! A chest CT has six to twelve reconstructions; a rule with `best` takes one of them a study and names the winner to the
//! others. Free text of a header (descriptions) is matched, never repeated in an answer: it may hold a name.

use crate::dicom::Uid;
use crate::series::Series;
use regex::Regex;
use std::cmp::Ordering;
use std::fmt;

/// One rule: what a series has to be like, and what happens then.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For reports and metrics.
    pub name: String,
    /// All of these have to hold.
    pub conditions: Conditions,
    /// What happens with a series for which they do.
    pub action: Action,
}

/// What a rule does with a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Segment it.
    Segment {
        /// The model's name.
        model: String,
        /// Higher goes first.
        priority: i32,
        /// One series per study, frame of reference and contrast: the best by these, most important first. Empty: all.
        best: Vec<Preference>,
    },
    /// Leave it alone.
    Ignore,
}

/// Conditions on a series' header. Those that are not given hold.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// One of these modalities.
    pub modality: Vec<String>,
    /// Series Description matches.
    pub description: Option<Regex>,
    /// Series Description does not match.
    pub not_description: Option<Regex>,
    /// Protocol Name matches.
    pub protocol: Option<Regex>,
    /// Body Part Examined matches.
    pub body_part: Option<Regex>,
    /// Convolution Kernel matches.
    pub kernel: Option<Regex>,
    /// Manufacturer matches.
    pub manufacturer: Option<Regex>,
    /// Image Type has all of these values.
    pub image_type: Vec<String>,
    /// One of these orientations.
    pub orientation: Vec<Orientation>,
    /// A contrast agent is named (`true`) or not (`false`). A hint: it is often left out.
    pub contrast: Option<bool>,
    /// Number of slices.
    pub slices: Range,
    /// Distance of neighbouring slices, mm.
    pub slice_distance: Range,
    /// Slice Thickness, mm.
    pub thickness: Range,
    /// Distance of neighbouring pixels, mm (the larger one).
    pub pixel_spacing: Range,
    /// Extent along the normal, mm.
    pub coverage: Range,
}

/// A closed range; an end that is not given is open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Range {
    /// Smallest value that is in.
    pub min: Option<f64>,
    /// Largest value that is in.
    pub max: Option<f64>,
}

impl Range {
    /// Whether a value is in; a value that is not known is in only when both ends are open.
    pub fn contains(&self, value: Option<f64>) -> bool {
        match value {
            Some(v) => self.min.is_none_or(|m| v >= m) && self.max.is_none_or(|m| v <= m),
            None => self.min.is_none() && self.max.is_none(),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => f.write_str("any"),
        }
    }
}

/// Which way the slices face: the patient axis within 30 degrees of their normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// Normal along the body.
    Axial,
    /// Normal front to back.
    Coronal,
    /// Normal left to right.
    Sagittal,
    /// None of these.
    Oblique,
}

impl Orientation {
    /// Of a series' planes.
    pub fn of(series: &Series) -> Orientation {
        let (r, c) = (series.geometry.row_direction, series.geometry.column_direction);
        let n = [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]].map(f64::abs);
        let within = 30f64.to_radians().cos();
        match n {
            [_, _, z] if z >= within => Orientation::Axial,
            [_, y, _] if y >= within => Orientation::Coronal,
            [x, _, _] if x >= within => Orientation::Sagittal,
            _ => Orientation::Oblique,
        }
    }

    /// As it is written in a rule.
    pub fn name(self) -> &'static str {
        match self {
            Orientation::Axial => "axial",
            Orientation::Coronal => "coronal",
            Orientation::Sagittal => "sagittal",
            Orientation::Oblique => "oblique",
        }
    }
}

/// What makes one reconstruction of a study better than another.
#[derive(Clone, Debug, PartialEq)]
pub enum Preference {
    /// ORIGINAL before DERIVED.
    Original,
    /// Axial before others.
    Axial,
    /// A kernel that matches before one that does not.
    Kernel(Pattern),
    /// Slice distance nearest to this, mm.
    SliceDistance(f64),
    /// The longer coverage.
    Coverage,
    /// The larger number of slices.
    Slices,
}

impl Eq for Preference {}

/// A regular expression that compares by its text.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// The first condition of a rule that a series does not meet: the condition, what it asks for, what the series has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Miss {
    /// The rule.
    pub rule: String,
    /// The key of the condition.
    pub condition: &'static str,
    /// What was found against what is asked for; no free text of the header.
    pub found: String,
}

/// What the rules say of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Segmented by the rule with this index.
    Selected {
        /// Index of the rule.
        rule: usize,
    },
    /// Another series of the study is better by the same rule: the index of the winner in the list that was given.
    NotBest {
        /// Index of the rule.
        rule: usize,
        /// Index of the winner.
        winner: usize,
    },
    /// The rule with this index leaves it alone.
    Ignored {
        /// Index of the rule.
        rule: usize,
    },
    /// No rule matches, and why each one does not.
    NoRule {
        /// One entry a rule.
        misses: Vec<Miss>,
    },
}

/// What the rules say of each series, in the order given. `best` is decided among the series given: give all of a study.
pub fn select(rules: &[Rule], series: &[&Series]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = series.iter().map(|s| first_match(rules, s)).collect();
    for (index, rule) in rules.iter().enumerate() {
        let Action::Segment { best, .. } = &rule.action else { continue };
        if best.is_empty() {
            continue;
        }
        let candidates: Vec<usize> = (0..series.len()).filter(|&i| verdicts[i] == Verdict::Selected { rule: index }).collect();
        for &i in &candidates {
            let rivals = candidates.iter().copied().filter(|&j| contest(series[i]) == contest(series[j]));
            // Equal ones: the first by Series Instance UID and phase wins, whatever order they came in.
            let winner = rivals.min_by(|&a, &b| better(best, series[a], series[b]).then_with(|| tie(series[a]).cmp(&tie(series[b]))));
            if let Some(winner) = winner
                && winner != i
            {
                verdicts[i] = Verdict::NotBest { rule: index, winner };
            }
        }
    }
    verdicts
}

fn first_match(rules: &[Rule], series: &Series) -> Verdict {
    let mut misses = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        match rule.conditions.miss(series) {
            None if rule.action == Action::Ignore => return Verdict::Ignored { rule: index },
            None => return Verdict::Selected { rule: index },
            Some((condition, found)) => misses.push(Miss { rule: rule.name.clone(), condition, found }),
        }
    }
    Verdict::NoRule { misses }
}

/// Series that compete for one place: same study, frame of reference, contrast and phase.
fn contest(s: &Series) -> (&Uid, Option<&Uid>, bool, Option<u32>) {
    (&s.study_uid, s.frame_of_reference_uid.as_ref(), has_contrast(s), s.phase)
}

fn tie(s: &Series) -> (&Uid, Option<u32>) {
    (&s.series_uid, s.phase)
}

fn has_contrast(s: &Series) -> bool {
    !s.selection.contrast_agent.trim().is_empty()
}

fn slice_distance(s: &Series) -> f64 {
    s.geometry.slice_step.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn coverage(s: &Series) -> f64 {
    slice_distance(s) * s.planes.len() as f64
}

fn is_original(s: &Series) -> bool {
    s.image_type.first().is_some_and(|t| t == "ORIGINAL")
}

/// `Less` when `a` is the better one.
fn better(preferences: &[Preference], a: &Series, b: &Series) -> Ordering {
    // true sorts before false, larger before smaller
    let first = |x: bool, y: bool| y.cmp(&x);
    let larger = |x: f64, y: f64| y.total_cmp(&x);
    preferences
        .iter()
        .map(|p| match p {
            Preference::Original => first(is_original(a), is_original(b)),
            Preference::Axial => first(Orientation::of(a) == Orientation::Axial, Orientation::of(b) == Orientation::Axial),
            Preference::Kernel(p) => first(p.0.is_match(&a.selection.kernel), p.0.is_match(&b.selection.kernel)),
            Preference::SliceDistance(mm) => (slice_distance(a) - mm).abs().total_cmp(&(slice_distance(b) - mm).abs()),
            Preference::Coverage => larger(coverage(a), coverage(b)),
            Preference::Slices => larger(a.planes.len() as f64, b.planes.len() as f64),
        })
        .find(|o| o.is_ne())
        .unwrap_or(Ordering::Equal)
}

impl Conditions {
    /// The first condition that does not hold: its key, and what was found.
    fn miss(&self, s: &Series) -> Option<(&'static str, String)> {
        let one_of = |values: &[String], value: &str| values.is_empty() || values.iter().any(|v| v == value);
        if !one_of(&self.modality, &s.modality) {
            return Some(("modality", format!("{} is not one of {}", s.modality, self.modality.join(", "))));
        }
        let texts = [
            ("description", &self.description, s.selection.series_description.as_str(), true),
            ("not_description", &self.not_description, s.selection.series_description.as_str(), false),
            ("protocol", &self.protocol, s.selection.protocol.as_str(), true),
            ("body_part", &self.body_part, s.selection.body_part.as_str(), true),
            ("kernel", &self.kernel, s.selection.kernel.as_str(), true),
            ("manufacturer", &self.manufacturer, s.selection.manufacturer.as_str(), true),
        ];
        for (key, pattern, text, wanted) in texts {
            if let Some(pattern) = pattern
                && pattern.is_match(text) != wanted
            {
                let found = if text.is_empty() {
                    "is empty"
                } else if wanted {
                    "does not match"
                } else {
                    "matches"
                };
                return Some((key, format!("{found} `{pattern}`")));
            }
        }
        if let Some(lacking) = self.image_type.iter().find(|t| !s.image_type.contains(t)) {
            return Some(("image_type", format!("lacks {lacking}")));
        }
        let orientation = Orientation::of(s);
        if !self.orientation.is_empty() && !self.orientation.contains(&orientation) {
            return Some(("orientation", format!("is {}", orientation.name())));
        }
        if let Some(wanted) = self.contrast
            && wanted != has_contrast(s)
        {
            return Some(("contrast", if wanted { "no agent is named" } else { "an agent is named" }.into()));
        }
        let spacing = s.geometry.pixel_spacing;
        let numbers = [
            ("slices", self.slices, Some(s.planes.len() as f64), ""),
            ("slice_distance", self.slice_distance, Some(slice_distance(s)), " mm"),
            ("thickness", self.thickness, s.geometry.slice_thickness, " mm"),
            ("pixel_spacing", self.pixel_spacing, Some(spacing.dx.max(spacing.dy)), " mm"),
            ("coverage", self.coverage, Some(coverage(s)), " mm"),
        ];
        for (key, range, value, unit) in numbers {
            if !range.contains(value) {
                let found = value.map_or("is not given".into(), |v| format!("is {}{unit}", (v * 100.0).round() / 100.0));
                return Some((key, format!("{found}, asked for {range}")));
            }
        }
        None
    }
}
