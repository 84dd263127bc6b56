//! Models and what they learn from: the reference in plain words, and stories that every ledger passes.

use super::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The reference's tables.
#[derive(Clone, Default)]
pub struct Book {
    pub active: BTreeMap<String, Active>,
    pub patients: BTreeMap<String, Patient>,
    pub cases: BTreeMap<String, CaseRow>,
    pub runs: Vec<RunRow>,
    pub audit: Vec<AuditEntry>,
}

type Done = Result<(), LedgerError>;

fn unknown(what: &'static str, name: impl ToString) -> Done {
    Err(LedgerError::Unknown { what, name: name.to_string() })
}

fn refused(what: &'static str, name: impl ToString, why: impl ToString) -> Done {
    Err(LedgerError::NotAllowed { what, name: name.to_string(), why: why.to_string() })
}

fn words(state: &str, problem: &Option<Problem>) -> String {
    match problem {
        None => state.into(),
        Some(Problem { code, detail }) => format!("{state}: {code} {detail}"),
    }
}

impl Book {
    pub fn is_withdrawn(&self, model: &str) -> bool {
        self.active.values().any(|a| a.withdrawn.as_deref() == Some(model))
    }

    pub fn serves(&self, slot: &str) -> String {
        self.active.get(slot).map_or(slot, |a| &a.generation).into()
    }

    fn write(&mut self, at: Moment, who: &str, event: AuditEvent, subject: &str, detail: String) -> Done {
        let (seq, before) = (self.audit.len() as u64 + 1, self.audit.last().map_or(String::new(), |e| e.chain.clone()));
        let mut bytes = Vec::new();
        for field in [&before, &seq.to_string(), &at.0.to_string(), who, event.name(), subject, &detail] {
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field.bytes());
        }
        let chain = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        let (who, subject) = (who.into(), subject.into());
        self.audit.push(AuditEntry { seq: Seq(seq), at, who, event, subject, detail, chain });
        Ok(())
    }

    /// `put_back`: jobs that a rollback takes from their workers.
    pub fn apply(&mut self, now: Moment, change: TrainingChange, put_back: usize) -> Done {
        match change {
            TrainingChange::AddCase { case: NewCaseRow { id, patient, kind, state, labels, problem }, who } => {
                let mut added = now;
                if let Some(old) = self.cases.get(&id) {
                    if old.patient != patient || old.kind != kind {
                        return refused("case", id, "another patient's, or of another kind");
                    }
                    if old.state == CaseState::Withdrawn {
                        return refused("case", id, "it was withdrawn");
                    }
                    if old.state == state && old.labels == labels && old.problem == problem {
                        return Ok(());
                    }
                    added = old.added;
                }
                let told = format!("{}, labels {}", words(state.name(), &problem), labels.clone().unwrap_or("none".into()));
                self.cases.insert(id.clone(), CaseRow { id: id.clone(), patient, kind, state, labels, problem, added, changed: now });
                self.write(now, &who, AuditEvent::CaseAdded, &id, told)
            }
            TrainingChange::DecideCase { id, state, labels, problem, who } => {
                use CaseState::*;
                let Some(case) = self.cases.get_mut(&id) else { return unknown("case", id) };
                let allowed = match (case.state, state) {
                    (Withdrawn, _) | (Accepted, Pending) => false,
                    (from, to) => from != to,
                };
                if !allowed {
                    return refused("case", id, format!("it is {} and can not become {state}", case.state));
                }
                if labels.is_some() && labels != case.labels {
                    return refused("case", id, "it has other labels by now");
                }
                (case.state, case.changed, case.problem) = (state, now, problem.clone());
                let told = format!("{}, labels {}", words(state.name(), &problem), case.labels.clone().unwrap_or("none".into()));
                self.write(now, &who, AuditEvent::CaseDecided, &id, told)
            }
            TrainingChange::RemoveCase { id, who } => match self.cases.remove(&id) {
                None => unknown("case", id),
                Some(_) => self.write(now, &who, AuditEvent::CaseRemoved, &id, String::new()),
            },
            TrainingChange::AssignRoles { roles, who } => {
                let before = self.patients.len();
                for (key, role) in &roles {
                    let new = || Patient { key: key.clone(), role: *role, person: key.clone() };
                    let has = self.patients.entry(key.clone()).or_insert_with(new).role;
                    if has != *role {
                        return refused("patient", key, format!("is {has} for ever"));
                    }
                }
                let locked = roles.iter().filter(|(_, role)| *role == PatientRole::Locked).count();
                match self.patients.len() - before {
                    0 => Ok(()),
                    new => {
                        let told = format!("{new} new; {locked} of {} locked", roles.len());
                        self.write(now, &who, AuditEvent::RolesAssigned, "patients", told)
                    }
                }
            }
            TrainingChange::LinkPatients { keys, who } => {
                let mut persons = vec![];
                for key in &keys {
                    let Some(patient) = self.patients.get(key) else { return unknown("patient", key) };
                    persons.push(patient.person.clone());
                }
                let Some(one) = persons.iter().min().cloned() else { return Err(LedgerError::Invalid("patient")) };
                if persons.iter().all(|person| *person == one) {
                    return Ok(());
                }
                self.patients.values_mut().filter(|p| persons.contains(&p.person)).for_each(|p| p.person = one.clone());
                self.write(now, &who, AuditEvent::PatientsLinked, &one, keys.join(" "))
            }
            TrainingChange::BeginRun { slot, base, serving, plan, steps, who } => {
                use RunState::*;
                if let Some(open) = self.runs.iter().find(|r| matches!(r.state, Queued | Preparing | Training | Evaluating)) {
                    return refused("run", open.id, "it has not ended");
                }
                let told = format!("from {base}, beside {serving}, by {plan}, {steps} steps");
                let (id, candidate, problem) = (RunId(self.runs.len() as u64 + 1), None, None);
                let (state, step, created, changed) = (Queued, 0, now, now);
                self.runs.push(RunRow { id, slot, base, serving, candidate, plan, state, step, steps, problem, created, changed });
                self.write(now, &who, AuditEvent::RunBegun, &id.to_string(), told)
            }
            TrainingChange::MoveRun { id, state, step, candidate, problem, who } => {
                use RunState::*;
                let Some(run) = self.runs.iter_mut().find(|r| r.id == id) else { return unknown("run", id) };
                let from = run.state;
                let allowed = from == state
                    || match from {
                        Queued | Preparing | Training | Evaluating => !matches!(state, Shadow | Promoted),
                        Passed => matches!(state, Shadow | Promoted | Stopped | Failed),
                        Shadow => matches!(state, Passed | Promoted | Stopped | Failed),
                        Refused | Failed | Stopped | Promoted => false,
                    };
                if !allowed {
                    return refused("run", id, format!("it is {from} and can not become {state}"));
                }
                (run.state, run.step, run.changed, run.problem) = (state, step, now, problem.clone());
                run.candidate = candidate.or(run.candidate.take());
                if from == state {
                    return Ok(());
                }
                let told = format!("{} at step {step}", words(state.name(), &problem));
                self.write(now, &who, AuditEvent::RunMoved, &id.to_string(), told)
            }
            TrainingChange::Activate { slot, generation, who, reason } => {
                let before = self.serves(&slot);
                if before == generation {
                    return refused("generation", generation, "it serves already");
                }
                let old = self.active.get(&slot);
                let other = |name: Option<String>| name.filter(|name| *name != generation);
                let row = Active {
                    slot: slot.clone(),
                    generation: generation.clone(),
                    previous: Some(before.clone()),
                    shadow: other(old.and_then(|a| a.shadow.clone())),
                    withdrawn: other(old.and_then(|a| a.withdrawn.clone())),
                    since: now,
                    who: who.clone(),
                };
                self.active.insert(slot.clone(), row);
                self.write(now, &who, AuditEvent::Activated, &generation, format!("in slot {slot}, after {before}: {reason}"))
            }
            TrainingChange::Rollback { slot, who, reason } => {
                let gone = self.serves(&slot);
                if gone == slot {
                    return refused("generation", slot, "nothing was activated in its place");
                }
                let row = self.active.get_mut(&slot).expect("serves");
                let back = match row.previous.take() {
                    Some(previous) if row.withdrawn.as_ref() != Some(&previous) => previous,
                    _ => slot.clone(),
                };
                (row.generation, row.withdrawn, row.since, row.who) = (back.clone(), Some(gone.clone()), now, who.clone());
                row.shadow = row.shadow.take().filter(|shadow| *shadow != back);
                let told = format!("in slot {slot}, to {back}, {put_back} jobs put back: {reason}");
                self.write(now, &who, AuditEvent::RolledBack, &gone, told)
            }
            TrainingChange::SetShadow { slot, generation, who } => {
                if generation.as_ref() == Some(&self.serves(&slot)) {
                    return refused("generation", slot_of(generation), "it serves already");
                }
                let new = || Active {
                    slot: slot.clone(),
                    generation: slot.clone(),
                    previous: None,
                    shadow: None,
                    withdrawn: None,
                    since: now,
                    who: who.clone(),
                };
                self.active.entry(slot.clone()).or_insert_with(new).shadow = generation.clone();
                self.write(now, &who, AuditEvent::ShadowSet, &slot_of(generation), format!("in slot {slot}"))
            }
            TrainingChange::Note { who, event, subject, detail } => self.write(now, &who, event, &subject, detail),
        }
    }
}

fn slot_of(generation: Option<String>) -> String {
    generation.unwrap_or("none".into())
}

/// Any change of models or cases, of few names, so that they meet.
pub fn change() -> impl Strategy<Value = TrainingChange> {
    let name = |kind: &'static str, count: usize| (0..count).prop_map(move |n| format!("{kind}{n}"));
    let who = || Just("anna".to_string());
    let why = || prop::option::weighted(0.3, Just(problem("cases.unchanged")));
    // Jobs are claimed for model `m` and pinned to `g1`: those two are made to serve, and to go.
    let model = || prop::sample::select(vec!["m", "g0", "g1", "s0"]).prop_map(str::to_owned);
    let slot = || prop::sample::select(vec!["s0", "s1"]).prop_map(str::to_owned);
    let case_state = || prop::sample::select(CaseState::ALL);
    let labels = || prop::option::of(name("l", 2));
    let case = (name("c", 3), name("p", 2), prop::sample::select(CaseKind::ALL), case_state(), labels(), why()).prop_map(
        |(id, patient, kind, state, labels, problem)| TrainingChange::AddCase {
            case: NewCaseRow { id, patient, kind, state, labels, problem },
            who: "anna".into(),
        },
    );
    let roles = prop::collection::vec((name("p", 4), prop::sample::select(PatientRole::ALL)), 1..3);
    prop_oneof![
        3 => case,
        3 => (name("c", 3), case_state(), labels(), why(), who())
            .prop_map(|(id, state, labels, problem, who)| TrainingChange::DecideCase { id, state, labels, problem, who }),
        1 => (name("c", 3), who()).prop_map(|(id, who)| TrainingChange::RemoveCase { id, who }),
        2 => (roles, who()).prop_map(|(roles, who)| TrainingChange::AssignRoles { roles, who }),
        1 => (prop::collection::vec(name("p", 4), 0..3), who()).prop_map(|(keys, who)| TrainingChange::LinkPatients { keys, who }),
        1 => (slot(), model(), 1u64..9, who()).prop_map(|(slot, serving, steps, who)| TrainingChange::BeginRun {
            base: slot.clone(), slot, serving, plan: "plan".into(), steps, who,
        }),
        3 => (1u64..4, prop::sample::select(RunState::ALL), 0u64..9, prop::option::of(model()), why(), who()).prop_map(
            |(id, state, step, candidate, problem, who)| TrainingChange::MoveRun { id: RunId(id), state, step, candidate, problem, who }
        ),
        3 => (slot(), model(), who())
            .prop_map(|(slot, generation, who)| TrainingChange::Activate { slot, generation, who, reason: "better".into() }),
        2 => (slot(), who()).prop_map(|(slot, who)| TrainingChange::Rollback { slot, who, reason: "worse".into() }),
        1 => (slot(), prop::option::of(model()), who())
            .prop_map(|(slot, generation, who)| TrainingChange::SetShadow { slot, generation, who }),
        1 => (prop::sample::select(vec!["anna", ""]), prop::sample::select(AuditEvent::ALL), name("g", 2)).prop_map(
            |(who, event, subject)| match who {
                // Nobody is nobody's name; the reference does not check names of its own.
                "" => TrainingChange::RemoveCase { id: subject, who: "anna".into() },
                who => TrainingChange::Note { who: who.into(), event, subject, detail: "as it was".into() },
            }
        ),
    ]
}

fn train(change: TrainingChange) -> Vec<Change> {
    vec![Change::Training(change)]
}

fn activate(generation: &str) -> Vec<Change> {
    train(TrainingChange::Activate { slot: "base".into(), generation: generation.into(), who: "anna".into(), reason: "better".into() })
}

fn roll_back() -> Vec<Change> {
    train(TrainingChange::Rollback { slot: "base".into(), who: "bert".into(), reason: "worse".into() })
}

fn serves(ledger: &dyn Ledger) -> (String, Option<String>, Option<String>) {
    let [only] = &ledger.active().expect("read")[..] else { panic!("one slot") };
    (only.generation.clone(), only.previous.clone(), only.withdrawn.clone())
}

pub mod told {
    use super::*;

    pub fn a_rollback_takes_the_work_of_the_model_that_goes_and_of_no_other(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        ledger.commit(activate("new")).expect("durable");
        ledger.commit((1..=3).map(|n| close(n, &["a"])).collect()).expect("durable");
        let claim = |model: &str| ledger.claim(&Lease { model: model.into(), ..lease("w") }).expect("asked");
        let tokens: Vec<Token> = ["new", "base", "base"].map(|model| claim(model).expect("a job").token).into();
        ledger.commit(vec![Change::Pin { token: tokens[2], model: "new".into() }]).expect("durable");
        ledger.commit(roll_back()).expect("durable");
        let states: Vec<State> = (1..=3).map(|id| state(&*ledger, id)).collect();
        assert_eq!(states, [State::Queued, State::Running, State::Queued]);
        let job = ledger.job(JobId(1)).expect("read").expect("known").progress;
        assert_eq!((job.attempts, job.failures, job.crashes, job.held), (1, 0, 0, None));
        assert_eq!(ledger.journal(Some(JobId(1))).expect("read").last().expect("told").event, Event::Repinned);
        // What its worker reports does not count any more, and nobody begins with that model.
        assert_eq!(ledger.commit(vec![finish(tokens[0], &[])]), Err(LedgerError::Stale(tokens[0])));
        assert_eq!(ledger.renew(tokens[2], Duration::from_secs(1)), Err(LedgerError::Stale(tokens[2])));
        assert_eq!(claim("new"), None);
        let again = claim("base").expect("its place in the line was kept");
        assert_eq!((again.job.id, again.job.model.as_deref()), (JobId(1), Some("base")));
        let pinned = ledger.commit(vec![Change::Pin { token: again.token, model: "new".into() }]);
        assert_eq!(pinned, Err(LedgerError::Stale(again.token)));
        ledger.commit(vec![finish(tokens[1], &[])]).expect("the other model's work counts");
        // Activated again it may work again.
        ledger.commit(activate("new")).expect("durable");
        assert_eq!(claim("new").expect("a job").job.id, JobId(3));
    }

    pub fn rolling_back_goes_back_and_never_forth(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let nothing = ledger.commit(roll_back());
        assert!(matches!(nothing, Err(LedgerError::NotAllowed { what: "generation", .. })), "{nothing:?}");
        ledger.commit(activate("one")).expect("durable");
        ledger.commit(activate("two")).expect("durable");
        assert!(ledger.commit(activate("two")).is_err(), "it serves already");
        ledger.commit(roll_back()).expect("durable");
        assert_eq!(serves(&*ledger), ("one".into(), None, Some("two".into())));
        ledger.commit(roll_back()).expect("durable");
        assert_eq!(serves(&*ledger), ("base".into(), None, Some("one".into())));
        assert!(ledger.commit(roll_back()).is_err(), "the configured model serves");
        site.crash(ledger);
        let (ledger, _) = site.open();
        assert_eq!(serves(&*ledger).0, "base");
        let told: Vec<_> = ledger.audit().expect("read").into_iter().map(|e| (e.event, e.subject, e.who)).collect();
        let says = |event, subject: &str, who: &str| (event, subject.to_string(), who.to_string());
        let expected = [
            says(AuditEvent::Activated, "one", "anna"),
            says(AuditEvent::Activated, "two", "anna"),
            says(AuditEvent::RolledBack, "two", "bert"),
            says(AuditEvent::RolledBack, "one", "bert"),
        ];
        assert_eq!(told, expected);
    }

    pub fn a_patient_never_changes_sides(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let assign = |roles: &[(&str, PatientRole)]| {
            let roles = roles.iter().map(|(key, role)| (key.to_string(), *role)).collect();
            ledger.commit(train(TrainingChange::AssignRoles { roles, who: "night".into() }))
        };
        assign(&[("a", PatientRole::Training), ("b", PatientRole::Locked)]).expect("durable");
        let wrong = assign(&[("c", PatientRole::Locked), ("a", PatientRole::Locked)]);
        assert!(matches!(wrong, Err(LedgerError::NotAllowed { what: "patient", .. })), "{wrong:?}");
        assert_eq!(ledger.patients().expect("read").len(), 2, "all of it was refused");
        assign(&[("a", PatientRole::Training), ("c", PatientRole::Locked)]).expect("durable");
        let link = |keys: &[&str]| {
            let keys = keys.iter().map(|k| k.to_string()).collect();
            ledger.commit(train(TrainingChange::LinkPatients { keys, who: "anna".into() }))
        };
        link(&["c", "b"]).expect("durable");
        link(&["a", "c"]).expect("two sides are told by who reads them");
        let persons: Vec<_> = ledger.patients().expect("read").into_iter().map(|p| (p.role, p.person)).collect();
        let of_a = |role| (role, "a".to_string());
        assert_eq!(persons, [of_a(PatientRole::Training), of_a(PatientRole::Locked), of_a(PatientRole::Locked)]);
        assert_eq!(link(&["a", "z"]), Err(LedgerError::Unknown { what: "patient", name: "z".into() }).map(|()| Seq(0)));
    }

    pub fn a_decision_is_about_the_labels_that_were_seen(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let add = |labels: &str| {
            let case = NewCaseRow {
                id: "c1".into(),
                patient: "p".into(),
                kind: CaseKind::Labelled,
                state: CaseState::Pending,
                labels: Some(labels.into()),
                problem: None,
            };
            ledger.commit(train(TrainingChange::AddCase { case, who: "curation".into() }))
        };
        let decide = |state, labels: &str| {
            let (id, labels, problem, who) = ("c1".into(), Some(labels.into()), None, "anna".into());
            ledger.commit(train(TrainingChange::DecideCase { id, state, labels, problem, who }))
        };
        assert_eq!(decide(CaseState::Accepted, "l1").err(), Some(LedgerError::Unknown { what: "case", name: "c1".into() }));
        add("l1").expect("durable");
        add("l1").expect("nothing new");
        assert_eq!(ledger.audit().expect("read").len(), 1);
        add("l2").expect("durable");
        assert!(decide(CaseState::Accepted, "l1").is_err());
        decide(CaseState::Accepted, "l2").expect("durable");
        // Other labels have to be signed for anew.
        add("l3").expect("durable");
        assert_eq!(ledger.cases().expect("read")[0].state, CaseState::Pending);
        decide(CaseState::Withdrawn, "l3").expect("durable");
        assert!(add("l4").is_err() && decide(CaseState::Accepted, "l3").is_err(), "withdrawn for good");
        ledger.commit(train(TrainingChange::RemoveCase { id: "c1".into(), who: "anna".into() })).expect("durable");
        assert!(ledger.cases().expect("read").is_empty());
    }

    pub fn one_run_at_a_time_and_only_a_run_that_passed_is_promoted(site: &mut dyn Site) {
        let (ledger, _) = site.open();
        let begin = || {
            let [slot, base, serving, plan, who] = ["base", "base", "base", "plan", "night"].map(str::to_owned);
            ledger.commit(train(TrainingChange::BeginRun { slot, base, serving, plan, steps: 9, who }))
        };
        let go = |id, state, step, candidate: Option<&str>| {
            let (candidate, who) = (candidate.map(str::to_owned), "night".into());
            ledger.commit(train(TrainingChange::MoveRun { id: RunId(id), state, step, candidate, problem: None, who }))
        };
        begin().expect("durable");
        assert!(begin().is_err(), "another is open");
        go(1, RunState::Training, 1, None).expect("durable");
        go(1, RunState::Training, 7, None).expect("durable");
        assert!(go(1, RunState::Promoted, 9, None).is_err());
        go(1, RunState::Evaluating, 9, Some("new")).expect("durable");
        go(1, RunState::Passed, 9, None).expect("durable");
        begin().expect("who waits for a person holds up nobody");
        go(2, RunState::Stopped, 0, None).expect("durable");
        assert!(go(2, RunState::Training, 0, None).is_err(), "it has ended");
        go(1, RunState::Promoted, 9, None).expect("durable");
        site.crash(ledger);
        let (ledger, _) = site.open();
        let told: Vec<_> = ledger.runs().expect("read").into_iter().map(|r| (r.id.0, r.state, r.step, r.candidate)).collect();
        assert_eq!(told, [(1, RunState::Promoted, 9, Some("new".into())), (2, RunState::Stopped, 0, None)]);
        // Steps alone fill no audit.
        assert_eq!(ledger.audit().expect("read").len(), 7);
    }
}
