//! The scope of a model: what it may be used on, as far as headers tell.

use super::conditions::{coverage, has_contrast, pixel_spacing, rounded, slice_distance};
use crate::fault::Code;
use crate::models::{Manifest, OnUnknown};
use crate::series::{Refusal, Series};

/// Header numbers are decimal strings; a hundredth of a millimetre is their rounding.
const ROUNDING: f64 = 0.01;

/// Why a case is outside of a model's scope, or what has to be flagged about it. `channels`: its series in the model's order.
pub(super) fn check(channels: &[&Series], manifest: &Manifest) -> Result<Vec<&'static str>, Refusal> {
    let scope = &manifest.scope;
    let refuse = |code: Code, detail: String| Err(Refusal { code, detail: format!("{detail} (model `{}`)", manifest.name) });
    let mut flags = Vec::new();
    let Some(grid) = channels.get(manifest.preprocessing.grid_channel) else {
        return refuse(Code::ModelChannels, format!("{} series for {} channels", channels.len(), manifest.preprocessing.channels.len()));
    };
    match channels.iter().find_map(|s| s.selection.age_years) {
        Some(age) if age < scope.min_age || scope.max_age.is_some_and(|max| age > max) => {
            let max = scope.max_age.map(|max| format!(" to {max}")).unwrap_or_default();
            return refuse(Code::ScopeAge, format!("Outside of the ages from {}{max} years", scope.min_age));
        }
        Some(_) => {}
        None if scope.on_unknown == OnUnknown::Refuse => return refuse(Code::ScopeAge, "The header does not tell the age".into()),
        None => flags.push("age_unknown"),
    }
    let ranges = [
        ("The distance of slices", scope.slice_distance, slice_distance(grid)),
        ("The distance of pixels", scope.pixel_spacing, pixel_spacing(grid)),
    ];
    for (what, range, value) in ranges {
        if let Some([min, max]) = range
            && !(min - ROUNDING..=max + ROUNDING).contains(&value)
        {
            return refuse(Code::ScopeSpacing, format!("{what} is {} mm, allowed are {min} to {max} mm", rounded(value)));
        }
    }
    if let Some(min) = scope.min_coverage
        && coverage(grid) < min - ROUNDING
    {
        return refuse(Code::ScopeCoverage, format!("The slices cover {} mm, at least {min} mm are needed", rounded(coverage(grid))));
    }
    if let Some(word) = scope.exclude_device.iter().find(|word| channels.iter().any(|s| names(s, word))) {
        return refuse(Code::ScopeDevice, format!("The header has the word `{word}`"));
    }
    match (scope.contrast, channels.iter().any(|s| has_contrast(s))) {
        (None, _) | (Some(true), true) => {}
        (Some(false), true) => return refuse(Code::ScopeContrast, "A contrast agent is named".into()),
        (Some(_), false) if scope.on_unknown == OnUnknown::Refuse => {
            return refuse(Code::ScopeContrast, "No contrast agent is named".into());
        }
        (Some(_), false) => flags.push("contrast_unknown"),
    }
    for series in channels.iter().filter(|s| s.modality == "PT" && !scope.radiopharmaceutical.is_empty()) {
        let tracer = &series.selection.radiopharmaceutical;
        let wanted = || scope.radiopharmaceutical.join(", ");
        match (tracer.is_empty(), scope.on_unknown) {
            (true, OnUnknown::Flag) => flags.push("radiopharmaceutical_unknown"),
            (true, OnUnknown::Refuse) => {
                return refuse(Code::ScopeRadiopharmaceutical, format!("The tracer is not coded; taken are {}", wanted()));
            }
            (false, _) if scope.radiopharmaceutical.contains(tracer) => {}
            (false, _) => return refuse(Code::ScopeRadiopharmaceutical, format!("The tracer's code is none of {}", wanted())),
        }
    }
    let made_for = |s: &&Series| scope.body_part.iter().any(|part| part.eq_ignore_ascii_case(s.selection.body_part.trim()));
    if !scope.body_part.is_empty() && !channels.iter().any(made_for) {
        match scope.on_unknown {
            OnUnknown::Refuse => {
                let parts = scope.body_part.join(", ");
                return refuse(Code::ScopeAnatomy, format!("Body Part Examined is none of {parts}"));
            }
            OnUnknown::Flag => flags.push("anatomy_unknown"),
        }
    }
    Ok(flags)
}

/// Whether a header names a kind of device by this word.
fn names(series: &Series, word: &str) -> bool {
    let tags = &series.selection;
    let word = word.to_lowercase();
    [&tags.manufacturer, &tags.model_name, &tags.series_description, &tags.protocol].iter().any(|t| t.to_lowercase().contains(&word))
}
