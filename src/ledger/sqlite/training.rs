//! Models and what they learn from, inside the writer's transaction.

use super::apply::{Desk, NAME, check, owner, short};
use super::rows::{self, Count};
use crate::ledger::error::LedgerError;
use crate::ledger::names::{AuditEvent, CaseState, PatientRole, RunState};
use crate::ledger::records::{Problem, Seq};
use crate::ledger::training::{Active, AuditEntry, CaseRow, NewCaseRow, RunId, RunRow, TrainingChange, chain};
use rusqlite::{Row, params};

/// Longest text of a line of the audit.
const WORDS: usize = 8192;

/// The columns that [`active`] reads, and where from.
pub const ACTIVE: &str = "SELECT slot, generation, previous, shadow, withdrawn, since, who FROM active";

/// What serves in a slot.
pub fn active(row: &Row<'_>) -> rusqlite::Result<Active> {
    Ok(Active {
        slot: row.get(0)?,
        generation: row.get(1)?,
        previous: row.get(2)?,
        shadow: row.get(3)?,
        withdrawn: row.get(4)?,
        since: row.get(5)?,
        who: row.get(6)?,
    })
}

/// The columns that [`case`] reads, and where from.
pub const CASE: &str = "SELECT id, patient, kind, state, labels, code, detail, added, changed FROM cases";

/// A case.
pub fn case(row: &Row<'_>) -> rusqlite::Result<CaseRow> {
    Ok(CaseRow {
        id: row.get(0)?,
        patient: row.get(1)?,
        kind: row.get(2)?,
        state: row.get(3)?,
        labels: row.get(4)?,
        problem: rows::problem(row.get(5)?, row.get(6)?),
        added: row.get(7)?,
        changed: row.get(8)?,
    })
}

/// The columns that [`run`] reads, and where from.
pub const RUN: &str = "SELECT id, slot, base, serving, candidate, plan, state, step, steps, code, detail, created, changed FROM runs";

/// A run.
pub fn run(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: row.get(0)?,
        slot: row.get(1)?,
        base: row.get(2)?,
        serving: row.get(3)?,
        candidate: row.get(4)?,
        plan: row.get(5)?,
        state: row.get(6)?,
        step: row.get::<_, Count>(7)?.0,
        steps: row.get::<_, Count>(8)?.0,
        problem: rows::problem(row.get(9)?, row.get(10)?),
        created: row.get(11)?,
        changed: row.get(12)?,
    })
}

/// The columns that [`audit`] reads, and where from.
pub const AUDIT: &str = "SELECT seq, at, who, event, subject, detail, chain FROM audit";

/// A line of the audit.
pub fn audit(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get(0)?,
        at: row.get(1)?,
        who: row.get(2)?,
        event: row.get(3)?,
        subject: row.get(4)?,
        detail: row.get(5)?,
        chain: row.get(6)?,
    })
}

fn unknown(what: &'static str, name: impl ToString) -> LedgerError {
    LedgerError::Unknown { what, name: name.to_string() }
}

fn refused(what: &'static str, name: impl ToString, why: impl Into<String>) -> LedgerError {
    LedgerError::NotAllowed { what, name: name.to_string(), why: why.into() }
}

fn described(state: impl std::fmt::Display, problem: Option<&Problem>) -> String {
    problem.map_or(state.to_string(), |p| format!("{state}: {} {}", p.code, p.detail))
}

impl Desk<'_> {
    /// Makes one change of models or of what they learn from.
    pub fn train(&self, change: TrainingChange) -> Result<(), LedgerError> {
        match change {
            TrainingChange::AddCase { case, who } => self.add_case(&case, &who),
            TrainingChange::DecideCase { id, state, labels, problem, who } => {
                self.decide_case(&id, state, labels.as_deref(), problem.as_ref(), &who)
            }
            TrainingChange::RemoveCase { id, who } => match self.run("DELETE FROM cases WHERE id = ?1", [&id])? {
                0 => Err(unknown("case", id)),
                _ => self.write(&who, AuditEvent::CaseRemoved, &id, ""),
            },
            TrainingChange::AssignRoles { roles, who } => self.assign(&roles, &who),
            TrainingChange::LinkPatients { keys, who } => self.link(&keys, &who),
            TrainingChange::BeginRun { slot, base, serving, plan, steps, who } => {
                [&slot, &base, &serving, &plan].into_iter().try_for_each(|text| check("run", text, NAME))?;
                let open = "SELECT id FROM runs WHERE state IN ('queued', 'preparing', 'training', 'evaluating')";
                if let Some(other) = self.maybe(open, [], |row| row.get::<_, RunId>(0))? {
                    return Err(refused("run", other, "it has not ended"));
                }
                let insert = "INSERT INTO runs (slot, base, serving, plan, state, step, steps, created, changed) \
                              VALUES (?1, ?2, ?3, ?4, 'queued', 0, ?5, ?6, ?6)";
                self.run(insert, params![slot, base, serving, plan, Count(steps), self.date])?;
                let id = self.connection.last_insert_rowid().to_string();
                self.write(&who, AuditEvent::RunBegun, &id, &format!("from {base}, beside {serving}, by {plan}, {steps} steps"))
            }
            TrainingChange::MoveRun { id, state, step, candidate, problem, who } => {
                self.move_run(id, state, step, candidate.as_deref(), problem.as_ref(), &who)
            }
            TrainingChange::Activate { slot, generation, who, reason } => self.activate(&slot, &generation, &who, &reason),
            TrainingChange::Rollback { slot, who, reason } => self.roll_back(&slot, &who, &reason),
            TrainingChange::SetShadow { slot, generation, who } => self.set_shadow(&slot, generation.as_deref(), &who),
            TrainingChange::Note { who, event, subject, detail } => self.write(&who, event, &subject, &detail),
        }
    }

    /// Whether a model was rolled back and not activated since.
    pub fn is_withdrawn(&self, model: &str) -> Result<bool, LedgerError> {
        self.one("SELECT EXISTS (SELECT 1 FROM active WHERE withdrawn = ?1)", [model], |row| row.get(0))
    }

    fn add_case(&self, new: &NewCaseRow, who: &str) -> Result<(), LedgerError> {
        let NewCaseRow { id, patient, kind, state, labels, problem } = new;
        check("case", id, NAME)?;
        check("patient", patient, NAME)?;
        labels.iter().try_for_each(|labels| check("labels", labels, NAME))?;
        if let Some(known) = self.maybe(&format!("{CASE} WHERE id = ?1"), [id], case)? {
            if known.patient != *patient || known.kind != *kind {
                return Err(refused("case", id, "another patient's, or of another kind"));
            }
            if known.state == CaseState::Withdrawn {
                return Err(refused("case", id, "it was withdrawn"));
            }
            if (known.state, &known.labels, &known.problem) == (*state, labels, problem) {
                return Ok(());
            }
        }
        let upsert = "INSERT INTO cases (id, patient, kind, state, labels, code, detail, added, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8) \
                      ON CONFLICT (id) DO UPDATE SET state = excluded.state, labels = excluded.labels, code = excluded.code, \
                      detail = excluded.detail, changed = excluded.changed";
        let (code, words) = (problem.as_ref().map(|p| &p.code), problem.as_ref().map(|p| short(&p.detail)));
        self.run(upsert, params![id, patient, kind, state, labels, code, words, self.date])?;
        let labels = labels.as_deref().unwrap_or("none");
        self.write(who, AuditEvent::CaseAdded, id, &format!("{}, labels {labels}", described(*state, problem.as_ref())))
    }

    fn decide_case(
        &self,
        id: &str,
        state: CaseState,
        labels: Option<&str>,
        problem: Option<&Problem>,
        who: &str,
    ) -> Result<(), LedgerError> {
        let known = self.maybe(&format!("{CASE} WHERE id = ?1"), [id], case)?.ok_or_else(|| unknown("case", id))?;
        if !known.state.may_become(state) {
            return Err(refused("case", id, format!("it is {} and can not become {state}", known.state)));
        }
        if labels.is_some() && labels != known.labels.as_deref() {
            return Err(refused("case", id, "it has other labels by now"));
        }
        let update = "UPDATE cases SET state = ?2, code = ?3, detail = ?4, changed = ?5 WHERE id = ?1";
        self.run(update, params![id, state, problem.map(|p| &p.code), problem.map(|p| short(&p.detail)), self.date])?;
        let labels = known.labels.as_deref().unwrap_or("none");
        self.write(who, AuditEvent::CaseDecided, id, &format!("{}, labels {labels}", described(state, problem)))
    }

    fn assign(&self, roles: &[(String, PatientRole)], who: &str) -> Result<(), LedgerError> {
        let mut new = 0;
        for (key, role) in roles {
            check("patient", key, NAME)?;
            self.run("INSERT INTO patients (key, role, person) VALUES (?1, ?2, ?1) ON CONFLICT DO NOTHING", params![key, role])
                .map(|n| new += n)?;
            let has: PatientRole = self.one("SELECT role FROM patients WHERE key = ?1", [key], |row| row.get(0))?;
            if has != *role {
                return Err(refused("patient", key, format!("is {has} for ever")));
            }
        }
        if new == 0 {
            return Ok(());
        }
        let locked = roles.iter().filter(|(_, role)| *role == PatientRole::Locked).count();
        self.write(who, AuditEvent::RolesAssigned, "patients", &format!("{new} new; {locked} of {} locked", roles.len()))
    }

    fn link(&self, keys: &[String], who: &str) -> Result<(), LedgerError> {
        let mut persons = Vec::new();
        for key in keys {
            let person = self.maybe("SELECT person FROM patients WHERE key = ?1", [key], |row| row.get::<_, String>(0))?;
            persons.push(person.ok_or_else(|| unknown("patient", key))?);
        }
        let Some(first) = persons.iter().min().cloned() else { return Err(LedgerError::Invalid("patient")) };
        if persons.iter().all(|person| *person == first) {
            return Ok(());
        }
        for person in &persons {
            self.run("UPDATE patients SET person = ?2 WHERE person = ?1", [person, &first])?;
        }
        self.write(who, AuditEvent::PatientsLinked, &first, &keys.join(" "))
    }

    fn move_run(
        &self,
        id: RunId,
        state: RunState,
        step: u64,
        candidate: Option<&str>,
        problem: Option<&Problem>,
        who: &str,
    ) -> Result<(), LedgerError> {
        let known = self.maybe(&format!("{RUN} WHERE id = ?1"), [id], run)?.ok_or_else(|| unknown("run", id))?;
        if known.state != state && !known.state.may_become(state) {
            return Err(refused("run", id, format!("it is {} and can not become {state}", known.state)));
        }
        candidate.iter().try_for_each(|candidate| check("candidate", candidate, NAME))?;
        let update = "UPDATE runs SET state = ?2, step = ?3, candidate = coalesce(?4, candidate), code = ?5, detail = ?6, changed = ?7 WHERE id = ?1";
        let (code, words) = (problem.map(|p| &p.code), problem.map(|p| short(&p.detail)));
        self.run(update, params![id, state, Count(step), candidate, code, words, self.date])?;
        if known.state == state {
            return Ok(());
        }
        self.write(who, AuditEvent::RunMoved, &id.to_string(), &format!("{} at step {step}", described(state, problem)))
    }

    fn slot(&self, slot: &str) -> Result<Option<Active>, LedgerError> {
        check("slot", slot, NAME)?;
        self.maybe(&format!("{ACTIVE} WHERE slot = ?1"), [slot], active)
    }

    fn activate(&self, slot: &str, generation: &str, who: &str, reason: &str) -> Result<(), LedgerError> {
        check("generation", generation, NAME)?;
        let known = self.slot(slot)?;
        let serves = known.as_ref().map_or(slot, |known| &known.generation);
        if serves == generation {
            return Err(refused("generation", generation, "it serves already"));
        }
        // Beside itself nothing runs; what was withdrawn is wanted again.
        let shadow = known.as_ref().and_then(|k| k.shadow.as_deref()).filter(|shadow| *shadow != generation);
        let withdrawn = known.as_ref().and_then(|k| k.withdrawn.as_deref()).filter(|withdrawn| *withdrawn != generation);
        self.put(&Active {
            slot: slot.into(),
            generation: generation.into(),
            previous: Some(serves.into()),
            shadow: shadow.map(Into::into),
            withdrawn: withdrawn.map(Into::into),
            since: self.date,
            who: who.into(),
        })?;
        self.write(who, AuditEvent::Activated, generation, &format!("in slot {slot}, after {serves}: {reason}"))
    }

    fn roll_back(&self, slot: &str, who: &str, reason: &str) -> Result<(), LedgerError> {
        let Some(known) = self.slot(slot)?.filter(|known| known.generation != slot) else {
            return Err(refused("generation", slot, "nothing was activated in its place"));
        };
        // Twice in a row does not lead forth again: then the configured model serves.
        let back = known.previous.filter(|previous| known.withdrawn.as_ref() != Some(previous)).unwrap_or_else(|| slot.into());
        let gone = known.generation;
        self.put(&Active {
            slot: slot.into(),
            generation: back.clone(),
            previous: None,
            shadow: known.shadow.filter(|shadow| *shadow != back),
            withdrawn: Some(gone.clone()),
            since: self.date,
            who: who.into(),
        })?;
        let running = format!("{} WHERE j.state = 'running' AND j.model = ?1 ORDER BY j.id", rows::JOB);
        let jobs = self.list(&running, [&gone], rows::job)?;
        let count = jobs.len();
        for mut job in jobs {
            let (worker, before) = (owner(&job.progress), job.progress.state);
            let event = job.progress.repin();
            self.store(&job, before, event, &worker)?;
        }
        self.write(who, AuditEvent::RolledBack, &gone, &format!("in slot {slot}, to {back}, {count} jobs put back: {reason}"))
    }

    fn set_shadow(&self, slot: &str, generation: Option<&str>, who: &str) -> Result<(), LedgerError> {
        let known = self.slot(slot)?;
        generation.iter().try_for_each(|generation| check("generation", generation, NAME))?;
        if let Some(generation) = generation
            && known.as_ref().map_or(slot, |known| &known.generation) == generation
        {
            return Err(refused("generation", generation, "it serves already"));
        }
        let mut row = known.unwrap_or_else(|| Active {
            slot: slot.into(),
            generation: slot.into(),
            previous: None,
            shadow: None,
            withdrawn: None,
            since: self.date,
            who: who.into(),
        });
        row.shadow = generation.map(Into::into);
        self.put(&row)?;
        self.write(who, AuditEvent::ShadowSet, generation.unwrap_or("none"), &format!("in slot {slot}"))
    }

    fn put(&self, row: &Active) -> Result<(), LedgerError> {
        let insert =
            "INSERT OR REPLACE INTO active (slot, generation, previous, shadow, withdrawn, since, who) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let Active { slot, generation, previous, shadow, withdrawn, since, who } = row;
        self.run(insert, params![slot, generation, previous, shadow, withdrawn, since, who]).map(|_| ())
    }

    /// Adds a line to the audit.
    fn write(&self, who: &str, event: AuditEvent, subject: &str, detail: &str) -> Result<(), LedgerError> {
        check("person", who, NAME)?;
        check("subject", subject, NAME)?;
        let last = self.maybe("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
            Ok((row.get::<_, Seq>(0)?.0, row.get::<_, String>(1)?))
        })?;
        let (seq, before) = last.unwrap_or_default();
        let detail: String = detail.chars().take(WORDS).collect();
        let mut entry =
            AuditEntry { seq: Seq(seq + 1), at: self.date, who: who.into(), event, subject: subject.into(), detail, chain: String::new() };
        entry.chain = chain(&before, &entry);
        let insert = "INSERT INTO audit (seq, at, who, event, subject, detail, chain) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let AuditEntry { seq, at, who, event, subject, detail, chain } = entry;
        self.run(insert, params![seq, at, who, event, subject, detail, chain]).map(|_| ())
    }
}
