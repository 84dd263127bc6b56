//! The places of models in a configuration, what serves in them, and how a command about them reaches the ledger.

use crate::config::{self, Config};
use crate::fault::{Code, Fault};
use crate::intake::select;
use crate::ledger::{Active, Limits, Options, Reader, SqliteLedger, SqliteReader};
use crate::models::{Generation, Lineage, Store};
use crate::pipeline::control;
use crate::pipeline::promotion::{self, ModelCommand};
use crate::sys::clock::SystemClock;
use crate::sys::person;
use std::path::Path;
use std::sync::Arc;

/// The configured models and what serves in their place.
pub struct Slots {
    /// The configuration.
    pub config: Config,
    /// The store of generations.
    pub store: Store,
    /// Each configured model once.
    pub models: Vec<Arc<Generation>>,
    /// What the ledger says; nothing before the daemon's first start.
    pub active: Vec<Active>,
}

/// A model that can be used, or the digest of one that can not with the reason.
pub type Found = Result<Member, (String, Fault)>;

/// A model that may serve, and what it does.
pub struct Member {
    /// The model.
    pub model: Generation,
    /// Digest of the configured model whose place it is for: its own for that one.
    pub slot: String,
    /// `active`, `previous`, `shadow`, `withdrawn`, or `stored` for none of them.
    pub role: &'static str,
    /// Where it came from; none for a configured model.
    pub lineage: Option<Lineage>,
}

impl Slots {
    /// Reads a configuration, its models and the ledger.
    pub fn open(file: &Path) -> Result<Slots, Fault> {
        Slots::of(config::load(file)?)
    }

    /// The same for a configuration that has been read.
    pub fn of(config: Config) -> Result<Slots, Fault> {
        let mut models: Vec<Arc<Generation>> = select::rules(&config)?.into_iter().filter_map(|rule| rule.model).collect();
        models.sort_by(|a, b| a.digest.cmp(&b.digest));
        models.dedup_by(|a, b| a.digest == b.digest);
        let reader = SqliteReader::open(&config.state, Arc::new(SystemClock))?;
        let active = reader.map_or(Ok(Vec::new()), |reader| reader.active())?;
        Ok(Slots { store: Store::of(&config.state), config, models, active })
    }

    /// The configured model that a name, a folder's name or the beginning of a digest means; without one the only one.
    pub fn find(&self, named: Option<&str>) -> Result<&Generation, Fault> {
        let is_meant = |model: &&Arc<Generation>| {
            let folder = model.dir.file_name().unwrap_or_default().to_string_lossy();
            named.is_none_or(|n| model.manifest.name == n || folder == n || (n.len() >= 8 && model.digest.starts_with(n)))
        };
        let mut found = self.models.iter().filter(is_meant);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (first, _) => {
                let names: Vec<String> = self.models.iter().map(|m| format!("{} ({})", m.manifest.name, &m.digest[..12])).collect();
                let why = if first.is_some() { "Several models are configured" } else { "No such model is configured" };
                Err(Fault::new(Code::ConfigUsage, format!("{why}: --slot has to name one of: {}.", names.join(", "))))
            }
        }
    }

    /// Digest of what serves in a configured model's place.
    pub fn serving<'a>(&'a self, slot: &'a str) -> &'a str {
        self.row(slot).map_or(slot, |row| &row.generation)
    }

    fn row(&self, slot: &str) -> Option<&Active> {
        self.active.iter().find(|row| row.slot == slot)
    }

    fn role(&self, slot: &str, digest: &str) -> &'static str {
        let Some(row) = self.row(slot) else { return if slot == digest { "active" } else { "stored" } };
        match Some(digest) {
            d if d == Some(&row.generation) => "active",
            d if d == row.shadow.as_deref() => "shadow",
            d if d == row.previous.as_deref() => "previous",
            d if d == row.withdrawn.as_deref() => "withdrawn",
            _ => "stored",
        }
    }

    /// The configured models and the generations of the store; what can not be opened with its digest and the reason.
    pub fn members(&self) -> Result<Vec<Found>, Fault> {
        let configured = self.models.iter().map(|model| {
            let (slot, role) = (model.digest.clone(), self.role(&model.digest, &model.digest));
            Ok(Member { model: Generation::clone(model), slot, role, lineage: None })
        });
        let stored = self.store.list()?.into_iter().map(|stored| match stored.opened {
            Ok((model, lineage)) => {
                let (slot, role) = (lineage.slot.clone(), self.role(&lineage.slot, &model.digest));
                Ok(Member { model, slot, role, lineage: Some(lineage) })
            }
            Err(fault) => Err((stored.digest, fault)),
        });
        Ok(configured.chain(stored).collect())
    }

    /// Name and version of a model by its digest, and what it does now.
    pub fn describe(&self, digest: &str) -> Option<String> {
        let found = self.members().ok()?.into_iter().flatten().find(|member| member.model.digest == digest)?;
        let kind = if found.lineage.is_some() { "generation" } else { "model" };
        Some(format!("{} {} ({kind}, {})", found.model.manifest.name, found.model.manifest.version, found.role))
    }
}

/// Has the daemon carry out a command, or, without one, does so itself; what it answers.
pub fn deliver(config: &Config, command: ModelCommand) -> Result<String, Fault> {
    if let Some(answer) = control::ask_models(&config.state, &command)? {
        return Ok(answer);
    }
    if SqliteReader::open(&config.state, Arc::new(SystemClock))?.is_none() {
        return Err(Fault::new(Code::LedgerMissing, format!("No daemon has worked with {} yet.", config.state.display())));
    }
    let limits = Limits { suspect_after: config.jobs.suspect_after, park_after: config.jobs.park_after };
    let who = person::own();
    let options = Options { state: config.state.clone(), limits, clock: Arc::new(SystemClock), who: who.clone() };
    let (ledger, _) = SqliteLedger::open(&options)?;
    promotion::carry_out(&ledger, &Store::of(&config.state), command, &who)
}
