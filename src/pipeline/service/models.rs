//! Which generation serves in place of each configured model, taken over from the ledger while the daemon runs.
//!
//! A job has its model from its claim to its end: it travels with the case. A generation that is activated counts from the next claim; one
//! that is rolled back loses the jobs that are in work with it in the very commit that says so, and they are claimed again.

use super::Service;
use crate::config::Config;
use crate::fault::Fault;
use crate::intake::select::Rule;
use crate::ledger::{Active, Change, JobId, Ledger, LedgerError, TrainingChange};
use crate::models::{Generation, Store};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ModelRole;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the rules say, and what serves.
pub struct Models {
    /// The rules with the models that the configuration names.
    configured: Vec<Rule>,
    /// What of the ledger they were last replaced by.
    active: Vec<Active>,
    store: Store,
}

/// A generation that can not serve, by its digest, and why.
pub type Unusable = Box<(String, Fault)>;

/// The rules with each model replaced by what serves in its place.
pub fn serving(configured: &[Rule], active: &[Active], store: &Store, config: &Config) -> Result<Vec<Rule>, Unusable> {
    let mut opened: BTreeMap<&str, Arc<Generation>> = BTreeMap::new();
    let mut rules = configured.to_vec();
    for rule in &mut rules {
        let Some(model) = &rule.model else { continue };
        let Some(row) = active.iter().find(|row| row.slot == model.digest && row.generation != row.slot) else { continue };
        let digest = row.generation.as_str();
        let generation = match opened.get(digest) {
            Some(generation) => generation.clone(),
            None => Arc::new(open(digest, model, store, config).map_err(|fault| Box::new((digest.to_owned(), fault)))?),
        };
        opened.insert(digest, generation.clone());
        rule.model = Some(generation);
    }
    Ok(rules)
}

/// A generation that may serve in the place of a configured model.
fn open(digest: &str, configured: &Generation, store: &Store, config: &Config) -> Result<Generation, Fault> {
    let generation = store.get(digest)?;
    generation.takes_the_place_of(configured)?;
    if config.model.skip_air {
        generation.tells_air()?;
    }
    Ok(generation)
}

/// Tells the metrics which models serve, and which run beside them.
pub fn tell(metrics: &Metrics, rules: &[Rule], active: &[Active], store: &Store) {
    let production = rules.iter().filter_map(|rule| rule.model.as_deref()).map(|model| (ModelRole::Production, model.names()));
    let beside: Vec<Generation> = active.iter().filter_map(|row| store.get(row.shadow.as_ref()?).ok()).collect();
    metrics.models.serve(production.chain(beside.iter().map(|model| (ModelRole::Shadow, model.names()))));
}

/// Takes a generation out of service that can not be used: whatever served before it serves again. False when it does not serve.
pub fn take_out(ledger: &dyn Ledger, generation: &str, who: &str, fault: &Fault) -> Result<bool, Fault> {
    let Some(row) = ledger.active()?.into_iter().find(|row| row.generation == generation && row.slot != generation) else {
        return Ok(false);
    };
    let reason = format!("{}: {}", fault.code, fault.detail);
    match ledger.commit(vec![Change::Training(TrainingChange::Rollback { slot: row.slot, who: who.into(), reason })]) {
        Ok(_) => Ok(true),
        // A person was faster.
        Err(LedgerError::NotAllowed { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Models {
    /// `active`: what the service was started with.
    pub fn new(configured: Vec<Rule>, active: Vec<Active>, store: Store) -> Models {
        Models { configured, active, store }
    }

    /// The configured rules are others from now on; what serves instead of their models.
    pub fn configure(&mut self, configured: Vec<Rule>, config: &Config) -> Result<Vec<Rule>, Fault> {
        let rules = serving(&configured, &self.active, &self.store, config).map_err(|unusable| unusable.1)?;
        self.configured = configured;
        Ok(rules)
    }

    /// Tells the metrics.
    pub fn tell(&self, metrics: &Metrics, rules: &[Rule]) {
        tell(metrics, rules, &self.active, &self.store);
    }
}

impl Service {
    /// Lets those models serve that the ledger names now. One that can not be used is taken out of service again.
    pub(super) fn adopt(&mut self) {
        // Every turn takes one generation out, so this ends.
        loop {
            let active = match self.jobs.ledger().active() {
                Ok(active) => active,
                Err(error) => return self.not_adopted(&error.into()),
            };
            if active == self.models.active {
                return;
            }
            let rules = match serving(&self.models.configured, &active, &self.models.store, &self.config) {
                Ok(rules) => rules,
                Err(unusable) => {
                    self.not_adopted(&unusable.1);
                    match self.take_out(&unusable.0, &unusable.1) {
                        Ok(true) => continue,
                        Ok(false) => return,
                        Err(fault) => return self.not_adopted(&fault),
                    }
                }
            };
            let before = std::mem::replace(&mut self.models.active, active);
            let named: Vec<&str> = rules.iter().filter_map(|rule| rule.model.as_ref()).map(|model| model.digest.as_str()).collect();
            tracing::info!(models = named.join(", "), "these serve from now on");
            self.models.tell(&self.metrics, &rules);
            self.count_changes(&before);
            self.choice.change(rules, &self.order, self.config.intake.study_quiet.0);
            self.jobs.serve_with(self.choice.first_model());
            return;
        }
    }

    /// Counts what is different from `before`, after the metrics name the models that serve.
    fn count_changes(&self, before: &[Active]) {
        for row in &self.models.active {
            let served = before.iter().find(|before| before.slot == row.slot).map_or(&row.slot, |before| &before.generation);
            match served == &row.generation {
                true => {}
                false if row.withdrawn.as_ref() == Some(served) => self.metrics.models.rolled_back(row.who == self.jobs.owner()),
                false => self.metrics.models.promoted(),
            }
        }
    }

    fn take_out(&self, generation: &str, fault: &Fault) -> Result<bool, Fault> {
        take_out(self.jobs.ledger(), generation, self.jobs.owner(), fault)
    }

    fn not_adopted(&self, fault: &Fault) {
        self.metrics.fault(fault.code);
        tracing::error!(code = %fault.code, "the models that serve stay as they were: {} {}", fault.detail, fault.code.action());
    }

    /// A job failed because its generation can not be used on this machine: that serves no more, and the job is done with what serves then.
    pub(super) fn withdraw_model(&mut self, job: JobId, fault: &Fault) {
        let model = self.jobs.ledger().job(job).ok().flatten().and_then(|job| job.model).unwrap_or_default();
        if let Err(fault) = self.take_out(&model, fault) {
            self.not_adopted(&fault);
        }
        // Put back already, when its model was taken out just now: then this is not wanted any more.
        self.jobs.release(job);
        self.commanded();
    }
}
