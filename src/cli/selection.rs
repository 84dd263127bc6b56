//! What the rules of a configuration say of series, as `inspect --config` and `check-config --probe` tell it.

use crate::config::Priority;
use crate::dicom::PixelFormat;
use crate::fault::{Code, Fault};
use crate::intake::scan::{ScanLimits, scan};
use crate::intake::select::{Miss, Rule, Verdict, select};
use crate::series::{self, Policy, Series};
use crate::volume::decode::{Decoder, plane_digest};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What the rules say of a volume.
#[derive(Serialize)]
pub struct Selection {
    /// `selected`, `partner`, `not_best`, `ignored`, `out_of_scope` or `no_rule`.
    verdict: &'static str,
    /// The rule that decided.
    rule: Option<String>,
    /// The model of that rule.
    model: Option<String>,
    priority: Option<Priority>,
    /// Series Instance UIDs of the model's channels, in its order.
    channels: Vec<String>,
    /// The series that was better, or whose grid the result is on.
    other: Option<Other>,
    /// What a result would be flagged with.
    flags: Vec<&'static str>,
    /// Why it is not segmented.
    code: Option<Code>,
    detail: Option<String>,
    /// What each rule missed, when none matches.
    misses: Vec<Miss>,
}

/// Another series of the study.
#[derive(Serialize)]
struct Other {
    series_instance_uid: String,
    series_number: Option<i32>,
    phase: Option<u32>,
}

impl Selection {
    /// One for each series, in their order; they should be all of their studies.
    pub fn of_all(rules: &[Rule], series: &[Series]) -> Vec<Selection> {
        let all: Vec<&Series> = series.iter().collect();
        select(rules, &all).into_iter().map(|verdict| Selection::of(verdict, rules, &all)).collect()
    }

    fn of(verdict: Verdict, rules: &[Rule], all: &[&Series]) -> Selection {
        let rule = verdict.rule().and_then(|rule| rules.get(rule));
        let refusal = verdict.refusal(rules, all);
        let other = |index: usize| {
            let s = all.get(index)?;
            Some(Other { series_instance_uid: s.series_uid.to_string(), series_number: s.selection.series_number, phase: s.phase })
        };
        let mut selection = Selection {
            verdict: verdict.word(),
            rule: rule.map(|r| r.name().to_owned()),
            model: rule.and_then(|r| r.model.as_ref()).map(|m| m.manifest.name.clone()),
            priority: rule.filter(|r| r.model.is_some()).map(|r| r.select.priority),
            channels: Vec::new(),
            other: None,
            flags: Vec::new(),
            code: refusal.as_ref().map(|r| r.code),
            detail: refusal.map(|r| r.detail),
            misses: Vec::new(),
        };
        match verdict {
            Verdict::Selected { channels, flags, .. } => {
                selection.channels = channels.iter().filter_map(|&i| all.get(i)).map(|s| s.series_uid.to_string()).collect();
                selection.flags = flags;
            }
            Verdict::Partner { of, .. } => selection.other = other(of),
            Verdict::NotBest { winner, .. } => selection.other = other(winner),
            Verdict::NoRule { misses } => selection.misses = misses,
            Verdict::Ignored { .. } | Verdict::Outside { .. } => {}
        }
        selection
    }

    /// For people.
    pub fn line(&self) -> String {
        let rule = self.rule.as_deref().map(|r| format!(" by the rule `{r}`")).unwrap_or_default();
        let model = self.model.as_deref().unwrap_or_default();
        match (self.verdict, &self.code, &self.detail) {
            ("selected", ..) => format!("selected{rule}, model `{model}`, priority {}", self.priority.unwrap_or(Priority::Routine)),
            ("partner", ..) => {
                let other = self.other.as_ref().map_or("", |o| &o.series_instance_uid);
                format!("goes with series {other}{rule}, model `{model}`")
            }
            (_, Some(code), Some(detail)) => format!("not selected: {code}: {detail}"),
            _ => "not selected".into(),
        }
    }
}

/// What the rules say of folders.
#[derive(Default, Serialize)]
pub struct Probe {
    series: Vec<Probed>,
    rejected: Vec<Rejected>,
    /// Files that belong to no series.
    ignored_files: usize,
}

/// A volume, as its headers tell.
#[derive(Serialize)]
struct Probed {
    study_instance_uid: String,
    series_instance_uid: String,
    series_number: Option<i32>,
    modality: String,
    phase: Option<u32>,
    slices: usize,
    selection: Selection,
}

/// A series that gives no volume, whatever the rules.
#[derive(Serialize)]
struct Rejected {
    study_instance_uid: String,
    series_instance_uid: String,
    code: Code,
    detail: String,
}

impl Probe {
    /// Reads the headers below the folders; pixels only where the same image occurs twice.
    pub fn folders(folders: &[PathBuf], rules: &[Rule], policy: &Policy, decoder: &Decoder) -> Result<Probe, Fault> {
        let limits = ScanLimits::default();
        let digest = |path: &Path, frame: u32, format: &PixelFormat| plane_digest(path, frame, format, &limits.file, decoder);
        let (mut instances, mut refused) = (Vec::new(), Vec::new());
        for folder in folders {
            let found = scan(folder, &limits).map_err(|f| Fault { detail: format!("{}: {}", folder.display(), f.detail), ..f })?;
            instances.extend(found.instances);
            refused.extend(found.ignored);
        }
        let grouped = series::group(instances, refused, policy, &digest);
        let selections = Selection::of_all(rules, &grouped.series);
        let probed = |(s, selection): (&Series, Selection)| Probed {
            study_instance_uid: s.study_uid.to_string(),
            series_instance_uid: s.series_uid.to_string(),
            series_number: s.selection.series_number,
            modality: s.modality.clone(),
            phase: s.phase,
            slices: s.planes.len(),
            selection,
        };
        let rejected = grouped.rejected.into_iter().map(|r| Rejected {
            study_instance_uid: r.key.study,
            series_instance_uid: r.key.series,
            code: r.refusal.code,
            detail: r.refusal.detail,
        });
        Ok(Probe {
            series: grouped.series.iter().zip(selections).map(probed).collect(),
            rejected: rejected.collect(),
            ignored_files: grouped.ignored.len(),
        })
    }

    /// For people.
    pub fn page(&self) -> String {
        let mut lines = Vec::new();
        for s in &self.series {
            let number = s.series_number.map(|n| format!(" {n}")).unwrap_or_default();
            let phase = s.phase.map(|p| format!(", phase {p}")).unwrap_or_default();
            lines.push(format!("{} series{number} {}{phase}, {} slices", s.modality, s.series_instance_uid, s.slices));
            lines.push(format!("    {}", s.selection.line()));
        }
        for r in &self.rejected {
            lines.push(format!("series {}", r.series_instance_uid));
            lines.push(format!("    refused before any rule: {}: {}", r.code, r.detail));
        }
        let selected = self.series.iter().filter(|s| s.selection.verdict == "selected").count();
        let (all, rejected) = (self.series.len(), self.rejected.len());
        lines.push(format!("{all} volumes, {selected} selected; {rejected} series refused; {} files not used", self.ignored_files));
        lines.join("\n")
    }
}
