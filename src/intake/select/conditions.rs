//! Conditions of a rule on a series' header.

use crate::config::{Accept, Orientation, Select};
use crate::series::Series;

/// The first condition of a rule that a series does not meet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Miss {
    /// The rule.
    pub rule: String,
    /// The key of the condition; `model` when the rule's model is not for this modality, `pair` when its partner is not there.
    pub condition: &'static str,
    /// What was found against what is asked for; no free text of the header.
    pub found: String,
}

impl Orientation {
    /// Of a series' planes.
    pub fn of(series: &Series) -> Orientation {
        let within = 30f64.to_radians().cos();
        match normal(series).map(f64::abs) {
            [_, _, z] if z >= within => Orientation::Axial,
            [_, y, _] if y >= within => Orientation::Coronal,
            [x, _, _] if x >= within => Orientation::Sagittal,
            _ => Orientation::Oblique,
        }
    }
}

/// Row direction × column direction.
pub(super) fn normal(s: &Series) -> [f64; 3] {
    let (r, c) = (s.geometry.row_direction, s.geometry.column_direction);
    [r[1] * c[2] - r[2] * c[1], r[2] * c[0] - r[0] * c[2], r[0] * c[1] - r[1] * c[0]]
}

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Distance of neighbouring slices along their normal, mm.
pub(super) fn slice_distance(s: &Series) -> f64 {
    dot(s.geometry.slice_step, normal(s)).abs()
}

/// Extent along the normal, mm.
pub(super) fn coverage(s: &Series) -> f64 {
    slice_distance(s) * s.planes.len() as f64
}

/// Distance of neighbouring pixels, mm: the larger one.
pub(super) fn pixel_spacing(s: &Series) -> f64 {
    s.geometry.pixel_spacing.dx.max(s.geometry.pixel_spacing.dy)
}

pub(super) fn has_contrast(s: &Series) -> bool {
    !s.selection.contrast_agent.trim().is_empty()
}

/// Whether a rule takes series of this kind.
pub(super) fn accepts(rule: &Select, s: &Series) -> bool {
    !s.is_derived() || rule.accept.contains(&Accept::Derived)
}

/// The first condition that does not hold: its key, and what was found.
pub(super) fn miss(rule: &Select, s: &Series) -> Option<(&'static str, String)> {
    if !rule.ignore && !accepts(rule, s) {
        return Some(("accept", "is DERIVED\\SECONDARY, which it does not name".into()));
    }
    if !rule.modality.is_empty() && !rule.modality.iter().any(|m| m.name() == s.modality) {
        let names: Vec<_> = rule.modality.iter().map(|m| m.name()).collect();
        return Some(("modality", format!("{} is not one of {}", s.modality, names.join(", "))));
    }
    let texts = [
        ("description", &rule.description, s.selection.series_description.as_str(), true),
        ("not_description", &rule.not_description, s.selection.series_description.as_str(), false),
        ("protocol", &rule.protocol, s.selection.protocol.as_str(), true),
        ("body_part", &rule.body_part, s.selection.body_part.as_str(), true),
        ("kernel", &rule.kernel, s.selection.kernel.as_str(), true),
        ("manufacturer", &rule.manufacturer, s.selection.manufacturer.as_str(), true),
    ];
    for (key, pattern, text, wanted) in texts {
        if let Some(pattern) = pattern
            && pattern.0.is_match(text) != wanted
        {
            let found = match (text.is_empty(), wanted) {
                (true, true) => "is empty, asked for",
                (true, false) => "is empty, and would match",
                (false, true) => "does not match",
                (false, false) => "matches",
            };
            return Some((key, format!("{found} `{}`", pattern.0)));
        }
    }
    if let Some(lacking) = rule.image_type.iter().find(|t| !s.image_type.contains(t)) {
        return Some(("image_type", format!("lacks {lacking}")));
    }
    let orientation = Orientation::of(s);
    if !rule.orientation.is_empty() && !rule.orientation.contains(&orientation) {
        return Some(("orientation", format!("is {orientation}")));
    }
    if let Some(wanted) = rule.contrast
        && wanted != has_contrast(s)
    {
        return Some(("contrast", if wanted { "no agent is named" } else { "an agent is named" }.into()));
    }
    let numbers = [
        ("slices", rule.slices, Some(s.planes.len() as f64), ""),
        ("slice_distance", rule.slice_distance, Some(slice_distance(s)), " mm"),
        ("thickness", rule.thickness, s.geometry.slice_thickness, " mm"),
        ("pixel_spacing", rule.pixel_spacing, Some(pixel_spacing(s)), " mm"),
        ("coverage", rule.coverage, Some(coverage(s)), " mm"),
    ];
    for (key, range, value, unit) in numbers {
        if !range.contains(value) {
            let found = value.map_or("is not given".into(), |v| format!("is {}{unit}", rounded(v)));
            return Some((key, format!("{found}, asked for {range}")));
        }
    }
    None
}

/// To two decimals.
pub(super) fn rounded(v: f64) -> f64 {
    (v * 100.0).round() / 100.0
}
