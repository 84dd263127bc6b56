//! What `stunetd jobs list --superseded` says: results that somebody has and a later one took the place of, so that an administrator can hide
//! them there (`docs/json/jobs-superseded.schema.json`).

use crate::delivery;
use crate::fault::Fault;
use crate::ledger::{DeliveryState, Job, Reader, State, Which};
use crate::results::ResultManifest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Delivered results that a later one took the place of.
pub struct Superseded(Vec<Row>);

struct Row {
    job: Job,
    folder: String,
    instances: Vec<String>,
    destinations: Vec<String>,
    by: By,
}

#[derive(Clone)]
struct By {
    job: Job,
    folder: String,
    revision: u32,
}

impl Superseded {
    /// Reads the manifests of all results; those that were removed since tell nothing.
    pub fn read(ledger: &dyn Reader, output: &Path) -> Result<Superseded, Fault> {
        let mut all: Vec<(Job, String, ResultManifest)> = Vec::new();
        for job in ledger.jobs(&Which { states: vec![State::Done], ..Which::default() })? {
            let Some(folder) = job.result.as_ref().map(|result| result.folder.clone()) else { continue };
            if let Some(manifest) = delivery::published(&output.join(&folder))? {
                all.push((job, folder, manifest));
            }
        }
        let mut replaced: BTreeMap<&str, By> = BTreeMap::new();
        for (job, folder, manifest) in &all {
            let Some(replaces) = &manifest.replaces else { continue };
            let by = By { job: job.clone(), folder: folder.clone(), revision: replaces.revision };
            replaced.extend(replaces.instances.iter().map(|instance| (instance.as_str(), by.clone())));
        }
        let mut rows = Vec::new();
        for (job, folder, manifest) in &all {
            let instances: Vec<String> = manifest.outputs.iter().filter_map(|o| Some(o.dicom.as_ref()?.sop_instance.clone())).collect();
            let Some(by) = instances.iter().find_map(|instance| replaced.get(instance.as_str())) else { continue };
            let delivered = ledger.deliveries(job.id)?.into_iter().filter(|d| d.state == DeliveryState::Delivered);
            let destinations: Vec<String> = delivered.map(|d| d.destination).collect();
            if !destinations.is_empty() {
                rows.push(Row { job: job.clone(), folder: folder.clone(), instances, destinations, by: by.clone() });
            }
        }
        Ok(Superseded(rows))
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let one = |row: &Row| {
            json!({
                "job": row.job.id, "study": row.job.series.study, "series": row.job.series.series, "folder": row.folder,
                "instances": row.instances, "destinations": row.destinations,
                "by": { "job": row.by.job.id, "series": row.by.job.series.series, "folder": row.by.folder, "revision": row.by.revision },
            })
        };
        json!({ "superseded": self.0.iter().map(one).collect::<Vec<_>>() })
    }

    /// For people.
    pub fn page(&self) -> String {
        let mut text = String::new();
        for row in &self.0 {
            let (by, places) = (&row.by, row.destinations.join(", "));
            text += &format!(
                "job {} ({}) at {places}: revision {} is job {} ({})\n",
                row.job.id, row.folder, by.revision, by.job.id, by.folder
            );
            row.instances.iter().for_each(|instance| text += &format!("    {instance}\n"));
        }
        text + &format!("{} delivered results have a later revision", self.0.len())
    }
}
