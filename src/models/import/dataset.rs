//! nnU-Net v2's `dataset.json`: channels and labels. The order of the labels counts when there are regions.

use super::files;
use super::plan::Document;
use crate::models::Region;
use crate::models::error::ModelError;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

/// What the import needs of it.
#[derive(Debug)]
pub(super) struct Dataset {
    /// Names of the input channels, in order.
    pub channels: Vec<String>,
    /// Outputs of the network: labels with the background, or regions.
    pub outputs: usize,
    /// Foreground names by value.
    pub names: Vec<(u16, String)>,
    pub regions: Vec<Region>,
    /// The reader that overrides the plan's.
    pub reader: Option<String>,
    pub warnings: Vec<String>,
}

/// The file's own layout.
#[derive(Deserialize)]
struct File {
    #[serde(alias = "modality")]
    channel_names: Pairs<String>,
    labels: Pairs<Values>,
    #[serde(default)]
    regions_class_order: Option<Vec<u16>>,
    #[serde(default)]
    overwrite_image_reader_writer: Option<String>,
}

/// One label's value, or the values of a region.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    One(u16),
    Many(Vec<u16>),
}

impl Dataset {
    pub fn read(path: &Path, digests: &mut BTreeMap<String, String>) -> Result<Dataset, ModelError> {
        let document = Document { path };
        let bytes = files::read_small(path, digests)?;
        let file: File = serde_json::from_slice(&bytes).map_err(|e| document.bad(e.to_string()))?;
        let mut channels: Vec<(usize, String)> = Vec::new();
        for (key, name) in file.channel_names.0 {
            let number = key.parse().map_err(|_| document.bad(format!("the channel {key:?} is not a number")))?;
            channels.push((number, name));
        }
        channels.sort();
        if channels.is_empty() || channels.iter().enumerate().any(|(i, (n, _))| i != *n) {
            return Err(document.bad("the channels are not numbered 0, 1, …"));
        }
        let mut dataset = Dataset {
            channels: channels.into_iter().map(|(_, name)| name).collect(),
            outputs: 0,
            names: Vec::new(),
            regions: Vec::new(),
            reader: file.overwrite_image_reader_writer.filter(|r| r != "None"),
            warnings: Vec::new(),
        };
        dataset.take_labels(file.labels.0, file.regions_class_order).map_err(|e| document.bad(e))?;
        Ok(dataset)
    }

    /// nnU-Net's LabelManager: an output per label, or per region if any label has several values.
    fn take_labels(&mut self, labels: Vec<(String, Values)>, order: Option<Vec<u16>>) -> Result<(), String> {
        if !labels.iter().any(|(name, v)| name == "background" && matches!(v, Values::One(0))) {
            return Err("`labels` has no `background` with the value 0".into());
        }
        let has_regions = labels.iter().any(|(_, v)| matches!(v, Values::Many(values) if values.len() > 1));
        let mut all = BTreeSet::new();
        let mut foreground = Vec::new();
        for (name, values) in labels {
            let values = match values {
                Values::One(value) => vec![value],
                Values::Many(values) => values,
            };
            if name == "ignore" {
                // Nothing of it reaches the outputs.
                continue;
            }
            all.extend(values.iter().copied());
            if values.iter().any(|&v| v != 0) {
                foreground.push((name, values));
            }
        }
        if all.iter().enumerate().any(|(i, &v)| i != v as usize) {
            return Err("the values of `labels` are not 0, 1, 2 … without a gap".into());
        }
        if !has_regions {
            self.outputs = all.len();
            self.names = foreground.into_iter().map(|(name, values)| (values[0], name)).collect();
            return Ok(());
        }
        let order = order.ok_or("has regions, but no `regions_class_order`")?;
        if order.len() != foreground.len() {
            return Err(format!("`regions_class_order` has {} entries for {} regions", order.len(), foreground.len()));
        }
        self.outputs = order.len();
        for (output, (value, (name, _))) in order.into_iter().zip(foreground).enumerate() {
            self.regions.push(Region { output, value });
            self.names.push((value, name));
        }
        self.warnings.push(
            "the labels are regions: a label's name is that of the region that writes its value, without what a later region overwrites"
                .into(),
        );
        Ok(())
    }
}

/// A JSON object in the order of the file; a key that is there twice is an error.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Collect<V> {
            type Value = Pairs<V>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut seen = BTreeSet::new();
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format!("the key {key:?} is there twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}
