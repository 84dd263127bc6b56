//! `[[select]]`: rules on which series are segmented, by which model.

use super::choices::choice;
use super::reader::{FromToml, Reader, Value};
use super::schema::table;
use super::units::by_text;
use crate::fault::Code;
use regex::Regex;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use toml::de::DeValue;

table! {
    /// One rule: what a series has to be like, and what happens then. Conditions that are not given hold.
    Select {
        /// For logs, reports and metrics.
        name: String = String::new(),
        /// Leave the series alone.
        ignore: bool = false,
        /// A model folder; empty: that of `[model]`.
        model: PathBuf = PathBuf::new(),
        /// What comes first.
        priority: Priority = Priority::Routine,
        /// How many series of a study are segmented.
        per_study: PerStudy = PerStudy::All,
        /// What makes a series the best one, most important first.
        prefer: Vec<Preference> = Vec::new(),
        /// One of these modalities.
        modality: Vec<Modality> = Vec::new(),
        /// Series Description matches.
        description: Option<Pattern> = None,
        /// Series Description does not match.
        not_description: Option<Pattern> = None,
        /// Protocol Name matches.
        protocol: Option<Pattern> = None,
        /// Body Part Examined matches.
        body_part: Option<Pattern> = None,
        /// Convolution Kernel matches.
        kernel: Option<Pattern> = None,
        /// Manufacturer matches.
        manufacturer: Option<Pattern> = None,
        /// What is taken although no series of its kind is otherwise.
        accept: Vec<Accept> = Vec::new(),
        /// Image Type has all of these values.
        image_type: Vec<String> = Vec::new(),
        /// One of these orientations.
        orientation: Vec<Orientation> = Vec::new(),
        /// A contrast agent is named (`true`) or not (`false`). A hint: it is often left out.
        contrast: Option<bool> = None,
        /// Number of slices.
        slices: Range = Range::default(),
        /// Distance of neighbouring slices, mm.
        slice_distance: Range = Range::default(),
        /// Slice Thickness, mm.
        thickness: Range = Range::default(),
        /// Distance of neighbouring pixels, mm (the larger one).
        pixel_spacing: Range = Range::default(),
        /// Extent along the normal, mm.
        coverage: Range = Range::default(),
    }
}

table! {
    /// A closed range; an end that is not given is open.
    #[derive(Copy)]
    Range {
        /// Smallest value that is in.
        min: Option<f64> = None,
        /// Largest value that is in.
        max: Option<f64> = None,
    }
}

choice! {
    /// How many series of a study a rule segments.
    PerStudy {
        /// Every one that matches.
        All = "all",
        /// The best one of each scan, frame of reference, contrast and phase.
        Best = "best",
    }
}

choice! {
    /// What comes first.
    Priority {
        /// Whenever there is time.
        Batch = "batch",
        /// The usual.
        Routine = "routine",
        /// Before all others.
        Stat = "stat",
    }
}

choice! {
    /// What is refused unless a rule asks for it.
    Accept {
        /// CT that was computed from other images (Image Type DERIVED\SECONDARY): slices in Hounsfield units all the same, for all one knows.
        Derived = "derived",
    }
}

choice! {
    /// What a series is an image of.
    Modality {
        /// Computed tomography.
        Ct = "CT",
        /// Positron emission tomography.
        Pt = "PT",
    }
}

choice! {
    /// Which way the slices face: the patient axis within 30 degrees of their normal.
    Orientation {
        /// Normal along the body.
        Axial = "axial",
        /// Normal front to back.
        Coronal = "coronal",
        /// Normal left to right.
        Sagittal = "sagittal",
        /// None of these.
        Oblique = "oblique",
    }
}

/// A regular expression that compares by its text.
#[derive(Clone, Debug)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Pattern, String> {
        Regex::new(text).map(Pattern).map_err(|e| {
            let why = e.to_string();
            format!("`{text}` is not a regular expression: {}", why.lines().last().unwrap_or_default().trim_start_matches("error: "))
        })
    }
}

by_text!(Pattern);

/// What makes one reconstruction of a study better than another.
#[derive(Clone, Debug, PartialEq)]
pub enum Preference {
    /// ORIGINAL before DERIVED.
    Original,
    /// Axial before others.
    Axial,
    /// A kernel that matches before one that does not.
    Kernel(Pattern),
    /// A kernel for soft tissue, by the makers' names, before an unknown one, and that before one for lung or bone.
    SoftKernel,
    /// Slice distance nearest to this, mm; without a number, to the model's.
    SliceDistance(Option<f64>),
    /// The longer coverage.
    Coverage,
    /// The larger number of slices.
    Slices,
}

/// What is preferred where a rule asks for the best series and does not say what that is.
pub static USUAL_PREFERENCES: [Preference; 5] =
    [Preference::Original, Preference::Axial, Preference::SoftKernel, Preference::SliceDistance(None), Preference::Coverage];

impl Preference {
    const WORDS: [(&'static str, Preference); 6] = [
        ("original", Preference::Original),
        ("axial", Preference::Axial),
        ("soft_kernel", Preference::SoftKernel),
        ("slice_distance", Preference::SliceDistance(None)),
        ("coverage", Preference::Coverage),
        ("slices", Preference::Slices),
    ];
}

table! {
    /// A preference that needs a value.
    Valued {
        kernel: Option<Pattern> = None,
        slice_distance: Option<f64> = None,
    }
}

impl FromToml for Preference {
    fn read(value: Value<'_>, reader: &mut Reader) -> Option<Preference> {
        let at = value.span().start;
        let wrong = || {
            let words: Vec<_> = Preference::WORDS.iter().map(|(word, _)| *word).collect();
            format!("expected one of {}, {{ kernel = \"pattern\" }}, {{ slice_distance = mm }}", words.join(", "))
        };
        match value.get_ref() {
            DeValue::String(word) => match Preference::WORDS.into_iter().find(|(known, _)| *known == word.as_ref()) {
                Some((_, preference)) => return Some(preference),
                None => reader.note(at, Code::ConfigInvalid, format!("`{word}`: {}", wrong())),
            },
            DeValue::Table(_) => match Valued::read(value, reader)? {
                Valued { kernel: Some(pattern), slice_distance: None } => return Some(Preference::Kernel(pattern)),
                Valued { kernel: None, slice_distance: Some(mm) } if mm > 0.0 => return Some(Preference::SliceDistance(Some(mm))),
                _ => reader.note(at, Code::ConfigInvalid, wrong()),
            },
            _ => reader.note(at, Code::ConfigInvalid, wrong()),
        }
        None
    }
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

impl Select {
    /// What is wrong with rules that are well formed: the key, the rule, what.
    pub(super) fn check(rules: &[Select]) -> Vec<(&'static str, usize, String)> {
        let mut wrong = Vec::new();
        if !rules.is_empty() && rules.iter().all(|rule| rule.ignore) {
            wrong.push(("select", 0, "every rule ignores, so nothing would be segmented".to_string()));
        }
        for (i, rule) in rules.iter().enumerate() {
            let fits = |c: char| c.is_ascii_alphanumeric() || " ._-".contains(c);
            if rule.name.is_empty() {
                wrong.push(("select", i, "every rule needs a `name`".to_string()));
            } else if rule.name.len() > 64 || !rule.name.chars().all(fits) || rule.name.trim() != rule.name {
                wrong.push(("select.name", i, "1 to 64 letters, digits, blanks and . _ - are possible".into()));
            } else if rules[..i].iter().any(|other| other.name == rule.name) {
                wrong.push(("select.name", i, format!("there is a rule `{}` already", rule.name)));
            }
            let acts = !rule.model.as_os_str().is_empty() || rule.priority != Priority::Routine || rule.per_study != PerStudy::All;
            if rule.ignore && (acts || !rule.accept.is_empty()) {
                wrong.push(("select.ignore", i, "a rule that ignores has no model, priority, per_study or accept".into()));
            }
            if rule.per_study == PerStudy::All && !rule.prefer.is_empty() {
                wrong.push(("select.prefer", i, "needs per_study = \"best\"".into()));
            }
            let ranges = [
                ("select.slices", rule.slices),
                ("select.slice_distance", rule.slice_distance),
                ("select.thickness", rule.thickness),
                ("select.pixel_spacing", rule.pixel_spacing),
                ("select.coverage", rule.coverage),
            ];
            for (key, Range { min, max }) in ranges {
                if matches!((min, max), (Some(min), Some(max)) if min > max) || [min, max].into_iter().flatten().any(|v| !v.is_finite()) {
                    wrong.push((key, i, "min has to be at most max, both finite".into()));
                }
            }
        }
        wrong
    }
}
