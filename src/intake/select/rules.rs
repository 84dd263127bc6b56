//! The rules of a configuration, with the models that they choose.

use crate::config::{Config, Select};
use crate::fault::Fault;
use crate::models::{Generation, Manifest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What a series has to be like.
    pub select: Select,
    /// What it is segmented by; none: it is left alone.
    pub model: Option<Arc<Generation>>,
    /// Digest of the model that the configuration names, whatever serves in its place; empty for a rule without.
    pub slot: String,
}

impl Rule {
    /// All that a model is for is segmented by it.
    pub fn all(model: Arc<Generation>) -> Rule {
        let slot = model.digest.clone();
        Rule { select: Select { name: "all".into(), ..Select::default() }, model: Some(model), slot }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.select.name
    }
}

/// The rules of a configuration in their order, each model opened once. Without `[[select]]` there is one: all that `[model]` is for.
pub fn rules(config: &Config) -> Result<Vec<Rule>, Fault> {
    let mut opened: BTreeMap<PathBuf, Arc<Generation>> = BTreeMap::new();
    let mut open = |path: &Path| match opened.get(path) {
        Some(model) => Ok(model.clone()),
        None => {
            let model = Arc::new(Generation::open(path)?);
            if config.model.skip_air {
                model.tells_air()?;
            }
            opened.insert(path.into(), model.clone());
            Ok(model)
        }
    };
    if config.select.is_empty() {
        return Ok(vec![Rule::all(open(&config.model.path)?)]);
    }
    let rule = |select: &Select| {
        let path = if select.model.as_os_str().is_empty() { &config.model.path } else { &select.model };
        let model = if select.ignore { None } else { Some(open(path).map_err(|f| named(select, f))?) };
        let slot = model.as_ref().map(|model| model.digest.clone()).unwrap_or_default();
        Ok(Rule { select: select.clone(), model, slot })
    };
    config.select.iter().map(rule).collect()
}

fn named(select: &Select, fault: Fault) -> Fault {
    Fault { detail: format!("Rule `{}`: {}", select.name, fault.detail), ..fault }
}

/// Modality of each channel of a model with several; none for a model with one, which may take several modalities.
pub(super) fn channels(manifest: &Manifest) -> Option<&[String]> {
    (manifest.preprocessing.channels.len() > 1).then_some(&manifest.scope.modality)
}
