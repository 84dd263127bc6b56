//! What `stunetd jobs refused` says: files that can not be used, and why (`docs/json/jobs-refused.schema.json`).

use crate::config::Config;
use crate::fault::{Code, Fault};
use crate::intake::unusable::find;
use crate::ledger::{Moment, Origin, Reader, RefusedFile};
use crate::telemetry::words::age;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Files that can not be used, and where those lie that are still there.
pub struct Refused {
    files: Vec<RefusedFile>,
    paths: BTreeMap<String, PathBuf>,
    now: Moment,
}

impl Refused {
    /// Asks the ledger, which does not know the names of watched files, and looks for them in the folders.
    pub fn read(ledger: &dyn Reader, config: &Config, limit: u64) -> Result<Refused, Fault> {
        let files = ledger.refused(limit)?;
        let of = |origin: Origin| files.iter().filter(move |file| file.origin == origin).map(|file| file.place.clone());
        let roots: Vec<PathBuf> = config.watch.iter().map(|watch| watch.path.clone()).chain([config.spool.path.join("series")]).collect();
        let watched: BTreeSet<String> = of(Origin::Folder).collect();
        let mut paths: BTreeMap<String, PathBuf> = find(&ledger.instance()?, &watched, &roots).into_iter().collect();
        paths.extend(of(Origin::Network).map(|place| (place.clone(), config.spool.path.join(place))).filter(|(_, path)| path.exists()));
        Ok(Refused { files, paths, now: ledger.now() })
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let files = self.files.iter().map(|file| {
            let code = Code::from_name(&file.code);
            let mut document = json!(file);
            document["path"] = json!(self.paths.get(&file.place).map(|path| path.to_string_lossy()));
            document["meaning"] = json!(code.map(Code::meaning));
            document["action"] = json!(code.map(Code::action));
            document
        });
        json!({ "files": files.collect::<Vec<_>>() })
    }

    /// For people.
    pub fn page(&self) -> String {
        let mut text = String::new();
        let mut codes: BTreeSet<&str> = BTreeSet::new();
        for file in &self.files {
            let ago = age(self.now.since(file.last));
            // Names from outside: control characters would reach the terminal.
            let path = self.paths.get(&file.place).map(|path| format!("{path:?}"));
            let place = path.unwrap_or_else(|| "is not there any more".into());
            text += &format!("{:<32} {:>12} bytes  {ago:>8} ago  {place}\n", file.code, file.bytes);
            codes.insert(&file.code);
        }
        for code in codes.into_iter().filter_map(Code::from_name) {
            text += &format!("{code}: {} Next: {}\n", code.meaning(), code.action());
        }
        text + &format!("{} files can not be used", self.files.len())
    }
}
