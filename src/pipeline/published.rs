//! What has been published before, as the result folders themselves tell: the daemon's memory across restarts.
//!
//! A result's manifest names the instances it was made from, so that a series that has its result is not even decoded
//! after a restart.

use crate::delivery;
use crate::dicom::SeriesKey;
use crate::fault::Fault;
use crate::results::Input;
use crate::series::Series;
use std::collections::BTreeMap;
use std::path::Path;

/// Digests of the instances that results were made from, by series.
#[derive(Debug, Default)]
pub struct Published {
    series: BTreeMap<String, Vec<String>>,
}

impl Published {
    /// Reads the manifests of all result folders in `output`, which need not exist. A folder without a manifest of ours is passed over.
    pub fn read(output: &Path) -> Result<Published, Fault> {
        let mut published = Published::default();
        for manifest in delivery::all_published(output)? {
            if let Input::Dicom { series, .. } = manifest.source {
                for channel in series {
                    published.series.entry(channel.uid).or_default().push(channel.instances_sha256);
                }
            }
        }
        Ok(published)
    }

    /// Whether there is a result of exactly these instances.
    pub fn holds(&self, series: &Series) -> bool {
        let digests = self.series.get(series.series_uid.as_str());
        digests.is_some_and(|digests| digests.contains(&series.instances_digest()))
    }

    /// The files of a series have changed: what was published says nothing about them any more.
    pub fn forget(&mut self, key: &SeriesKey) {
        self.series.remove(&key.series);
    }
}
