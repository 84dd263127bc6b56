//! Which images may become a volume, and whether their values are what a model takes (header evidence only).

use super::types::{Refusal, is_derived};
use crate::dicom::{Frame, Instance, PixelFormat};
use crate::fault::Code;

/// Image Type values of projections and renderings: their pixels are no slices.
const PROJECTIONS: [&str; 9] = ["MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "VOLREN", "VOLUME_RENDER", "VRT", "3D"];
/// Image Type values of parameter maps that are stored as CT images (PS3.3 C.8.15.3.1 and common private ones).
const PARAMETRIC: [&str; 22] = [
    "PERFUSION",
    "CBF",
    "RCBF",
    "CBV",
    "RCBV",
    "MTT",
    "TTP",
    "TMAX",
    "TTD",
    "PMB",
    "PEI",
    "IODINE",
    "MAT_SPECIFIC",
    "MAT_FRACTIONAL",
    "MAT_VALUE_BASED",
    "EFF_ATOMIC_NUM",
    "Z_EFFECTIVE",
    "ZEFF",
    "ELECTRON_DENSITY",
    "RHO_Z",
    "PARAMETRIC",
    "PARAMETRICMAP",
];
/// A scale whose lowest value lies above this can not hold air.
const AIR_HU: f64 = -500.0;

fn refusal(code: Code, detail: impl Into<String>) -> Refusal {
    Refusal { code, detail: detail.into() }
}

/// Why an image is no slice of a volume, whatever its series: colour, localizer, derived (unless `derived` are taken).
pub(super) fn unfit(instance: &Instance, derived: bool) -> Option<Refusal> {
    let types = &instance.image_type;
    let is = |at: usize, word: &str| types.get(at).is_some_and(|t| t == word);
    if !instance.monochrome {
        return Some(refusal(Code::SeriesNotMonochrome, "more than one sample per pixel, or a colour interpretation"));
    }
    if is(2, "LOCALIZER") || (!instance.frames.is_empty() && instance.frames.iter().all(is_localizer)) {
        return Some(refusal(Code::SeriesLocalizer, "Image Type LOCALIZER"));
    }
    // PET reconstructions that left the scanner's format are marked SECONDARY, too, and stay quantitative.
    if instance.object.modality() == "CT" && is_derived(types) && !derived {
        return Some(refusal(Code::SeriesDerived, "Image Type DERIVED\\SECONDARY"));
    }
    let projection = types.iter().skip(2).find(|t| PROJECTIONS.contains(&t.as_str()))?;
    Some(refusal(Code::SeriesDerived, format!("Image Type {projection}")))
}

/// Whether a frame of a mixed multi-frame object is a localizer.
pub(super) fn is_localizer(frame: &Frame) -> bool {
    frame.frame_type.get(2).is_some_and(|t| t == "LOCALIZER")
}

/// What is known of the values of a CT series.
pub(super) enum Values {
    /// Hounsfield units.
    Hu,
    /// A volume can be shown, but the values can not be taken for HU.
    Doubtful(Refusal, &'static str),
    /// The header says that they are something else.
    Other(Refusal),
}

/// HU or nothing: Rescale Type absent, HU or HU_MOD, and explicitly so for multi-energy and parametric images; slope and intercept
/// present; a scale that can hold air.
pub(super) fn hounsfield<'a>(planes: impl Iterator<Item = (&'a Instance, &'a Frame)> + Clone) -> Values {
    for (instance, frame) in planes.clone() {
        let special = instance.image_type.iter().chain(&frame.frame_type).skip(2).find(|t| PARAMETRIC.contains(&t.as_str()));
        match (frame.rescale_type.as_deref(), special) {
            (Some("HU" | "HU_MOD"), _) => {}
            (Some(other), _) => return Values::Other(refusal(Code::QuantityNotHu, format!("Rescale Type {}", printable(other)))),
            (None, Some(word)) => return Values::Other(refusal(Code::QuantityNotHu, format!("Image Type {word} without a Rescale Type"))),
            (None, None) if instance.multi_energy => {
                return Values::Other(refusal(Code::QuantityNotHu, "a multi-energy acquisition without a Rescale Type"));
            }
            (None, None) => {}
        }
    }
    if planes.clone().any(|(_, frame)| !frame.rescale.explicit) {
        return Values::Doubtful(refusal(Code::QuantityRescaleMissing, "Rescale Slope or Intercept is absent"), "rescale_missing");
    }
    if planes.clone().any(|(_, frame)| frame.rescale.slope == 0.0) {
        return Values::Doubtful(refusal(Code::QuantityNotHu, "Rescale Slope is 0"), "implausible_hu");
    }
    let lowest = planes.map(|(instance, frame)| lowest_value(&instance.pixels, frame)).fold(f64::INFINITY, f64::min);
    if lowest > AIR_HU {
        let detail = format!("the smallest value that the pixels can hold is {lowest}, so there is no air");
        return Values::Doubtful(refusal(Code::QuantityNotHu, detail), "implausible_hu");
    }
    Values::Hu
}

/// The smallest value that the stored bits and the rescale of a plane can express.
fn lowest_value(pixels: &PixelFormat, frame: &Frame) -> f64 {
    let range = 2f64.powi(i32::from(pixels.bits_stored));
    let (low, high) = if pixels.signed { (-range / 2.0, range / 2.0 - 1.0) } else { (0.0, range - 1.0) };
    let rescale = frame.rescale;
    rescale.intercept + (rescale.slope * low).min(rescale.slope * high)
}

/// A code string of a header for a message: letters, digits, blank and underscore, at most 16.
fn printable(text: &str) -> String {
    text.chars().take(16).map(|c| if c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '/') { c } else { '?' }).collect()
}
