//! Reading a manifest and finding contradictions in it.

use super::LabelTable;
use super::manifest::{Manifest, Normalization, Provenance};
use super::weights_file::hex;
use crate::config::nearest;
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// The only layout there is.
pub(super) const SCHEMA: u32 = 1;
/// Longest text of DICOM's LO, which names of labels and models become.
const MAX_LO: usize = 64;
/// Longest text of DICOM's SH, which code values and schemes become.
const MAX_SH: usize = 16;
/// Largest spacing in mm.
const MAX_SPACING: f64 = 1000.0;

impl Manifest {
    /// Reads and checks the text of a `manifest.toml`. The error says what is wrong, with the line where there is one
    /// and the nearest valid name for an unknown key.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let manifest: Manifest = toml::from_str(text).map_err(|e| explain(text, &e))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Refuses what no model can be; says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let ensure = |holds: bool, what: &dyn Fn() -> String| if holds { Ok(()) } else { Err(what()) };
        ensure(self.schema == SCHEMA, &|| format!("schema {} is not known; this version reads {SCHEMA}", self.schema))?;
        ensure(is_name(&self.name), &|| format!("name {:?} is not made of 1 to 40 characters a-z 0-9 . _ -", self.name))?;
        ensure(is_text(&self.version, MAX_LO), &|| format!("version {:?} is not a text of 1 to {MAX_LO} characters", self.version))?;
        self.check_weights()?;
        self.check_preprocessing()?;
        self.check_scope()?;
        self.check_labels()?;
        self.check_inference()
    }

    fn check_weights(&self) -> Result<(), String> {
        let (w, a) = (&self.weights, &self.architecture);
        let plain = w.file.ends_with(".safetensors") && !w.file.starts_with('.') && !w.file.contains(['/', '\\', '\0']);
        if !plain {
            return Err(format!("weights.file {:?} is not the name of a .safetensors file beside the manifest", w.file));
        }
        if w.sha256.len() != 64 || !w.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err("weights.sha256 is not 64 hexadecimal digits in lower case".into());
        }
        a.validate().map_err(|e| format!("architecture: {e}"))?;
        if w.parameters != a.parameters() {
            return Err(format!("weights.parameters is {}; the architecture has {}", w.parameters, a.parameters()));
        }
        a.check_patch(self.inference.patch).map_err(|e| format!("inference.{e}"))
    }

    fn check_preprocessing(&self) -> Result<(), String> {
        let p = &self.preprocessing;
        let mut axes = p.transpose;
        axes.sort_unstable();
        if axes != [0, 1, 2] {
            return Err(format!("preprocessing.transpose {:?} is not an order of the axes 0, 1, 2", p.transpose));
        }
        if !p.spacing.iter().all(|&s| s > 0.0 && s <= MAX_SPACING) {
            return Err(format!("preprocessing.spacing {:?} is not above 0 and at most {MAX_SPACING} mm", p.spacing));
        }
        if p.channels.len() != self.architecture.in_channels {
            return Err(format!("{} preprocessing.channels for {} input channels", p.channels.len(), self.architecture.in_channels));
        }
        for c in &p.channels {
            let sound = match c.normalization {
                Normalization::Ct { lower, upper, mean, sd } => lower <= upper && mean.is_finite() && sd.is_finite() && sd > 0.0,
                Normalization::Ct2 { lower, upper } => lower <= upper,
                Normalization::ZScore | Normalization::Rescale01 | Normalization::None => true,
            };
            if !sound || !is_text(&c.name, MAX_LO) {
                return Err(format!("the channel {:?} has no usable name or intensity statistics", c.name));
            }
        }
        Ok(())
    }

    fn check_scope(&self) -> Result<(), String> {
        let (s, channels, grid) = (&self.scope, self.preprocessing.channels.len(), self.preprocessing.grid_channel);
        if channels > 1 && s.modality.len() != channels {
            return Err(format!("scope.modality {:?} does not name one modality for each of {channels} channels", s.modality));
        }
        if grid >= channels {
            return Err(format!("preprocessing.grid_channel is {grid}; there are {channels} channels, counted from 0"));
        }
        let coded = |code: &String| code.split_once(':').is_some_and(|(scheme, value)| !scheme.is_empty() && !value.is_empty());
        if let Some(code) = s.radiopharmaceutical.iter().find(|code| !coded(code)) {
            return Err(format!("scope.radiopharmaceutical {code:?} is not a scheme and a value, such as \"SCT:35321007\""));
        }
        if s.exclude_device.iter().any(|word| word.trim().is_empty()) {
            return Err("scope.exclude_device has an empty word".into());
        }
        if let Some(name) = s.expects.iter().find(|name| !self.labels.iter().any(|label| label.name == **name)) {
            return Err(format!("scope.expects names {name:?}, which is no label of the model"));
        }
        let ordered = |range: [f64; 2]| range[0] >= 0.0 && range[0] <= range[1];
        for (key, range) in [
            ("slice_distance", s.slice_distance),
            ("pixel_spacing", s.pixel_spacing),
            ("min_coverage", s.min_coverage.map(|v| [v, v])),
            ("min_age and max_age", Some([s.min_age, s.max_age.unwrap_or(f64::MAX)])),
        ] {
            if let Some(range) = range
                && !ordered(range)
            {
                return Err(format!("scope.{key} {range:?} is not a range of numbers from 0"));
            }
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<(), String> {
        check_table(&self.labels)?;
        let known = |value: &u16| self.labels.get(*value).is_some();
        if let Some(value) = self.postprocessing.keep_largest.iter().flatten().find(|v| !known(v)) {
            return Err(format!("postprocessing.keep_largest names the label {value}, which is not in the table"));
        }
        match self.postprocessing.connectivity {
            None | Some(6 | 26) => Ok(()),
            Some(n) => Err(format!("postprocessing.connectivity is {n}; 6 or 26 are possible")),
        }
    }

    fn check_inference(&self) -> Result<(), String> {
        let i = &self.inference;
        if !i.mirror_axes.is_sorted_by(|a, b| a < b) || i.mirror_axes.iter().any(|&a| a > 2) {
            return Err(format!("inference.mirror_axes {:?} are not ascending axes of 0, 1, 2", i.mirror_axes));
        }
        let classes = self.architecture.num_classes;
        if i.regions.is_empty() {
            // The table holds each value once.
            let exclusive = self.labels.len() + 1 == classes && self.labels.max_value() as usize + 1 == classes;
            return if exclusive { Ok(()) } else { Err(format!("{classes} outputs need the labels 1 to {}", classes - 1)) };
        }
        let outputs: HashSet<usize> = i.regions.iter().map(|r| r.output).collect();
        if outputs.len() != i.regions.len() || i.regions.len() != classes || outputs.iter().any(|&o| o >= classes) {
            return Err(format!("inference.regions must name each of the {classes} outputs once"));
        }
        let written: HashSet<u16> = i.regions.iter().map(|r| r.value).collect();
        let in_table: HashSet<u16> = self.labels.iter().map(|l| l.value).collect();
        if written == in_table { Ok(()) } else { Err("inference.regions and the labels name different values".into()) }
    }

    /// SHA-256 over all that changes a result: everything but the provenance, the weights by their digest.
    pub(super) fn digest(&self) -> String {
        let provenance =
            Provenance { format: String::new(), trainer: String::new(), epoch: None, files: Default::default(), importer: String::new() };
        let meaning = Manifest { provenance, ..self.clone() };
        // Only maps with keys that are not strings, and failing writers, make serde_json fail; there are neither.
        hex(&Sha256::digest(serde_json::to_vec(&meaning).expect("a manifest can be said in JSON")))
    }
}

/// Names are there once, and everything fits DICOM's lengths.
pub(super) fn check_table(labels: &LabelTable) -> Result<(), String> {
    let mut names = HashSet::new();
    for label in labels.iter() {
        if !is_text(&label.name, MAX_LO) {
            return Err(format!("label {}: its name is not a text of 1 to {MAX_LO} characters", label.value));
        }
        if !names.insert(label.name.as_str()) {
            return Err(format!("the label name {:?} is there twice", label.name));
        }
        let others = [&label.modifier, &label.region, &label.region_modifier].into_iter().flatten();
        for code in [&label.category, &label.property_type].into_iter().chain(others) {
            if !is_text(&code.value, MAX_SH) || !is_text(&code.scheme, MAX_SH) || !is_text(&code.meaning, MAX_LO) {
                return Err(format!("label {:?}: the code {:?} does not fit DICOM's lengths", label.name, code.value));
            }
        }
    }
    Ok(())
}

/// `[a-z0-9._-]{1,40}`, not hidden.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    (1..=40).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

/// Fits a DICOM text: not empty, not too long, no control character, no backslash.
pub(super) fn is_text(text: &str, most: usize) -> bool {
    let count = text.chars().count();
    count >= 1 && count <= most && text.trim() == text && !text.chars().any(|c| c.is_control() || c == '\\')
}

/// The parser's message with its line, and the nearest name for an unknown key.
fn explain(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |s| text.as_bytes()[..s.start.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1);
    let message = error.message();
    // serde words it as: unknown field `a`, expected one of `b`, `c`
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((name, valid)) if message.starts_with("unknown field") => match nearest(name, valid) {
            Some(near) => format!("line {line}: unknown key `{name}`; did you mean `{near}`?"),
            None => format!("line {line}: unknown key `{name}`; valid here: {}", valid.join(", ")),
        },
        _ => format!("line {line}: {message}"),
    }
}
