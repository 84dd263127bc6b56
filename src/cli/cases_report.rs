//! What `stunetd cases` tells.

use crate::fault::{Code, Fault};
use crate::ledger::{CaseKind, CaseRow, CaseState, Moment, Reader};
use crate::telemetry::words::age;
use crate::training::cases::{CaseError, SignOff};
use crate::training::store::{CaseRecord, Shown, Store, positives, registry};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A case in the list.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    row: CaseRow,
    /// The side of its patient.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Classes that have voxels.
    classes: Vec<String>,
    /// Volumes that a reader has to confirm.
    implausible: Vec<String>,
    /// Hardly anything differs from what a model said.
    automation_bias: bool,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

/// All cases.
#[derive(Serialize)]
pub struct List {
    cases: Vec<Line>,
    /// Patients of accepted cases by class: trained on, locked.
    patients: BTreeMap<String, [usize; 2]>,
}

impl List {
    /// Of these states; of all where none is given. The patients are counted over all.
    pub fn of(store: Option<&Store>, ledger: &dyn Reader, states: &[CaseState]) -> Result<List, Fault> {
        let (stored, links) = match store {
            Some(store) => (store.cases()?, store.links()?),
            None => (Vec::new(), Vec::new()),
        };
        let rows = ledger.cases()?;
        let active = |name: &str| rows.iter().any(|row| row.id == name && matches!(row.state, CaseState::Pending | CaseState::Accepted));
        let (roles, _) = registry::split(&stored, &ledger.patients()?, &active)?;
        let shown: Vec<Shown> = stored
            .iter()
            .filter(|case| rows.iter().any(|row| row.id == case.name && row.state == CaseState::Accepted))
            .filter_map(|case| {
                let classes = case.record.labels.as_ref()?.millilitres.keys().cloned().collect();
                Some(Shown { patient: case.record.patient.clone(), role: *roles.get(&case.name)?, classes })
            })
            .collect();
        let line = |row: CaseRow| {
            let case = stored.iter().find(|case| case.name == row.id);
            let labels = case.and_then(|case| case.record.labels.as_ref());
            Line {
                role: roles.get(&row.id).map(|role| registry::side(*role).name()),
                classes: labels.map(|labels| labels.millilitres.keys().cloned().collect()).unwrap_or_default(),
                implausible: labels.map(|labels| labels.implausible.clone()).unwrap_or_default(),
                automation_bias: case.is_some_and(|case| case.is_labelled() && case.is_biased()),
                folder: links.iter().find(|link| link.case == row.id).map(|link| link.folder.clone()),
                row,
            }
        };
        let wanted = |row: &CaseRow| states.is_empty() || states.contains(&row.state);
        let cases = rows.iter().filter(|row| wanted(row)).cloned().map(line).collect();
        Ok(List { cases, patients: positives(&shown) })
    }

    /// For scripts.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// For people.
    pub fn page(&self, now: Moment) -> String {
        let mut page = String::new();
        for line in &self.cases {
            let Line { row, .. } = line;
            let what = match (&row.problem, row.kind) {
                (Some(problem), _) => format!("{} {}", problem.code, problem.detail),
                (None, CaseKind::Unlabelled) => "a study without labels".into(),
                (None, CaseKind::Labelled) => line.classes.join(", "),
            };
            let mut notes = Vec::new();
            if !line.implausible.is_empty() {
                notes.push(format!("to be confirmed: {}", line.implausible.join(", ")));
            }
            if line.automation_bias {
                notes.push("hardly differs from what a model said".into());
            }
            if let (Some(folder), true) = (&line.folder, row.state == CaseState::Rejected) {
                notes.push(folder.display().to_string());
            }
            let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join("; ")) };
            let role = line.role.unwrap_or("");
            page += &format!("{:16}  {:9}  {role:8}  {:>9}  {what}{notes}\n", row.id, row.state.name(), age(now.since(row.changed)));
        }
        if self.cases.is_empty() {
            page += "no cases\n";
        }
        for (class, [training, locked]) in &self.patients {
            page += &format!("{class}: {training} patients to learn from, {locked} locked\n");
        }
        page.trim_end().into()
    }
}

/// One case.
#[derive(Serialize)]
pub struct Whole {
    #[serde(flatten)]
    line: Line,
    record: Option<CaseRecord>,
    signoffs: Vec<SignOff>,
}

impl Whole {
    /// A case, or a folder that gave none.
    pub fn of(store: Option<&Store>, ledger: &dyn Reader, id: &str) -> Result<Whole, Fault> {
        let line = List::of(store, ledger, &[])?.cases.into_iter().find(|line| line.row.id == id);
        let Some(line) = line else { return Err(CaseError::Unknown(id.into()).into()) };
        match store.map(|store| store.case(id)).transpose() {
            Ok(Some(case)) => Ok(Whole { line, signoffs: case.signoffs()?, record: Some(case.record) }),
            // A folder that gave no case.
            Ok(None) => Ok(Whole { line, record: None, signoffs: Vec::new() }),
            Err(fault) if fault.code == Code::CasesUnknown => Ok(Whole { line, record: None, signoffs: Vec::new() }),
            Err(fault) => Err(fault),
        }
    }

    /// For scripts.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// For people.
    pub fn page(&self) -> String {
        let row = &self.line.row;
        let mut page = format!("case {}: {} {}", row.id, row.kind.name(), row.state.name());
        page += &self.line.role.map(|role| format!(", {role}")).unwrap_or_default();
        if let Some(problem) = &row.problem {
            page += &format!("\n{}: {}", problem.code, problem.detail);
        }
        if let Some(folder) = &self.line.folder {
            page += &format!("\nfrom {}", folder.display());
        }
        if let Some(record) = &self.record {
            let [z, y, x] = record.shape;
            let [dz, dy, dx] = record.spacing;
            let t = &record.technical;
            page += &format!(
                "\nimage {x} x {y} x {z} voxels of {dx:.2} x {dy:.2} x {dz:.2} mm, {} {} {} {}",
                t.modality, t.manufacturer, t.model, t.kernel
            );
            if let Some(labels) = &record.labels {
                page += &format!("\nlabels {} ({})", labels.digest, labels.sources.join(", "));
                for (name, millilitres) in &labels.millilitres {
                    let odd = if labels.implausible.contains(name) { "  to be confirmed" } else { "" };
                    page += &format!("\n  {name:24} {millilitres:9.1} ml{odd}");
                }
            }
            for (model, share) in &record.changed {
                page += &format!("\n{:.2} % differs from what model {} says", share * 100.0, model.get(..8).unwrap_or(model));
            }
        }
        for said in &self.signoffs {
            let word = match serde_json::to_value(said.decision) {
                Ok(serde_json::Value::String(word)) => word,
                _ => String::new(),
            };
            page += &format!("\n{} {word} by {}: {}", said.time, said.reader, said.classes.join(", "));
        }
        page
    }
}
