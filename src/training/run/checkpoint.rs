//! Where a run stands, in one file that is replaced whole.

use super::Trainer;
use crate::stunet::learning::{read_notes, read_tensors, write_tensors};
use crate::training::Error;
use std::collections::HashMap;
use std::path::Path;

/// Writes the state after the steps that are done. `identity` is what settings and cases come to.
pub(super) fn save(trainer: &Trainer, path: &Path, identity: &str) -> Result<(), Error> {
    let notes = HashMap::from([("step".to_string(), trainer.step().to_string()), ("run".to_string(), identity.to_string())]);
    Ok(write_tensors(path, &trainer.state()?, notes)?)
}

/// Takes up the state of a checkpoint, if there is one; returns whether there was.
///
/// # Errors
/// A checkpoint of other settings or cases, or one that is damaged: a run never goes on with half of its past.
pub(super) fn restore(trainer: &mut Trainer, path: &Path, identity: &str) -> Result<bool, Error> {
    if !path.is_file() {
        return Ok(false);
    }
    let notes = read_notes(path)?;
    let foreign = |why: &str| Error::Checkpoint { path: path.into(), detail: why.into() };
    if notes.get("run").map(String::as_str) != Some(identity) {
        return Err(foreign("it belongs to other settings or cases"));
    }
    let step: Option<u64> = notes.get("step").and_then(|step| step.parse().ok());
    let step =
        step.filter(|&step| step <= trainer.settings().steps()).ok_or_else(|| foreign("it does not say how many steps were done"))?;
    // As many tensors as three sets of parameters, and none larger than the largest of them.
    let known: HashMap<String, Vec<i64>> = trainer.settings().architecture.state_dict().into_iter().collect();
    let state = read_tensors(path, |found| {
        let stranger = found.iter().find(|(name, shape)| {
            let own = ["parameter.", "momentum.", "average."].iter().find_map(|prefix| name.strip_prefix(prefix));
            own.and_then(|own| known.get(own)) != Some(shape)
        });
        stranger.map_or(Ok(()), |(name, _)| Err(format!("tensor {name} does not belong to this run")))
    })?;
    trainer.restore(state, step)?;
    Ok(true)
}
