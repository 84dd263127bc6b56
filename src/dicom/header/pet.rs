//! The PET modules: unit, corrections, tracer; private factors of the makers.

use super::super::elements::{Level, Value};
use super::super::instance::{ImageObject, PetHeader, Rescale};
use super::super::time;
use super::frames::file_offset;
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// Where attributes of the whole series stand. Legacy converted objects keep some among the unassigned shared attributes.
fn levels(root: Level) -> [Option<Level>; 2] {
    let shared = root.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    [Some(root), shared.and_then(|shared| shared.item(tags::UNASSIGNED_SHARED_CONVERTED_ATTRIBUTES_SEQUENCE))]
}

/// The code of the tracer, `scheme:value`; empty where it is not coded.
pub(super) fn radiopharmaceutical(root: Level) -> String {
    let isotope = levels(root).into_iter().flatten().find_map(|level| level.item(tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE));
    let code = isotope.and_then(|i| i.item(tags::RADIOPHARMACEUTICAL_CODE_SEQUENCE));
    let told = code.and_then(|c| Some(format!("{}:{}", c.text(tags::CODING_SCHEME_DESIGNATOR)?, c.text(tags::CODE_VALUE)?)));
    told.unwrap_or_default()
}

/// What the header says about unit and tracer.
pub(super) fn header(root: Level, object: ImageObject) -> PetHeader {
    let levels = levels(root);
    let text = |tag| levels.iter().flatten().find_map(|level| level.text(tag));
    let texts = |tag| levels.iter().flatten().map(|level| level.texts(tag)).find(|t| !t.is_empty()).unwrap_or_default();
    let positive = |tag| levels.iter().flatten().find_map(|level| level.number(tag)).filter(|n| *n > 0.0);
    let stamp = |text: String| time::date_time(&text, file_offset(root));
    let isotope = levels.iter().flatten().find_map(|level| level.item(tags::RADIOPHARMACEUTICAL_INFORMATION_SEQUENCE));
    let of_isotope = |tag: Tag| isotope.and_then(|i| i.number(tag)).filter(|n| *n > 0.0);
    let nuclide = isotope.and_then(|i| i.item(tags::RADIONUCLIDE_CODE_SEQUENCE));
    let private = |group, creator, element| root.private(group, creator, element, group == 0x7053);

    let mut header = PetHeader {
        units: text(tags::UNITS).unwrap_or_default(),
        suv_type: text(tags::SUV_TYPE),
        corrected_image: texts(tags::CORRECTED_IMAGE),
        decay_correction: text(tags::DECAY_CORRECTION),
        weight_kg: positive(tags::PATIENT_WEIGHT),
        size_m: positive(tags::PATIENT_SIZE),
        sex: text(tags::PATIENT_SEX),
        total_dose: of_isotope(tags::RADIONUCLIDE_TOTAL_DOSE),
        half_life_s: of_isotope(tags::RADIONUCLIDE_HALF_LIFE),
        radionuclide: nuclide.and_then(|n| n.text(tags::CODE_VALUE).or_else(|| n.text(tags::CODE_MEANING))),
        injection_datetime: isotope.and_then(|i| i.text(tags::RADIOPHARMACEUTICAL_START_DATE_TIME)).and_then(stamp),
        injection_time_of_day: isotope.and_then(|i| i.text(tags::RADIOPHARMACEUTICAL_START_TIME)).and_then(|t| time::time_of_day(&t)),
        series_datetime: text(tags::SERIES_DATE).zip(text(tags::SERIES_TIME)).and_then(|(d, t)| time::date_and_time(&d, &t)),
        decay_correction_datetime: text(tags::DECAY_CORRECTION_DATE_TIME).and_then(stamp),
        ge_scan_datetime: private(0x0009, "GEMS_PETD_01", 0x0D).and_then(|v| v.text()).and_then(stamp),
        philips_suv_factor: private(0x7053, "Philips PET Private Group", 0x00).and_then(first_number),
        philips_activity_factor: private(0x7053, "Philips PET Private Group", 0x09).and_then(first_number),
    };
    if object == ImageObject::EnhancedPet {
        enhanced(root, &mut header);
    }
    header
}

/// Enhanced PET says with flags and codes of its own what classic PET says with Corrected Image and Units.
fn enhanced(root: Level, header: &mut PetHeader) {
    const FLAGS: [(Tag, &str); 7] = [
        (tags::DECAY_CORRECTED, "DECY"),
        (tags::ATTENUATION_CORRECTED, "ATTN"),
        (tags::SCATTER_CORRECTED, "SCAT"),
        (tags::DEAD_TIME_CORRECTED, "DTIM"),
        (tags::PATIENT_MOTION_CORRECTED, "MOTN"),
        (tags::COUNT_LOSS_NORMALIZATION_CORRECTED, "NORM"),
        (tags::RANDOMS_CORRECTED, "RAN"),
    ];
    let set = |tag| root.text(tag).is_some_and(|v| v == "YES");
    header.corrected_image = FLAGS.iter().filter(|(tag, _)| set(*tag)).map(|(_, name)| (*name).to_owned()).collect();
    if header.decay_correction.is_none() && !set(tags::DECAY_CORRECTED) {
        header.decay_correction = Some("NONE".into());
    }
    if header.corrected_image.is_empty() && root.text(tags::ATTENUATION_CORRECTED).is_some() {
        header.corrected_image.push("NONE".into());
    }
    let groups = [root.item(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE), root.item(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE)];
    let mapped = groups.iter().flatten().find_map(|group| real_world_value(*group)).map(|(_, unit)| unit);
    let rescaled =
        || groups.iter().flatten().find_map(|group| group.item(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)?.text(tags::RESCALE_TYPE));
    if let Some(unit) = mapped.or_else(|| rescaled().filter(|_| header.units.is_empty())) {
        header.units = classic_unit(&unit).to_owned();
    }
}

/// Slope, intercept and unit of the first linear real world value mapping in a unit that SUV can be made of; else of the first linear one.
pub(super) fn real_world_value(group: Level) -> Option<(Rescale, String)> {
    let linear = group.items(tags::REAL_WORLD_VALUE_MAPPING_SEQUENCE).filter_map(|item| {
        let (slope, intercept) = (item.number(tags::REAL_WORLD_VALUE_SLOPE)?, item.number(tags::REAL_WORLD_VALUE_INTERCEPT)?);
        let unit = item.item(tags::MEASUREMENT_UNITS_CODE_SEQUENCE)?.text(tags::CODE_VALUE)?;
        Some((Rescale { slope, intercept, explicit: true }, unit))
    });
    let all: Vec<_> = linear.collect();
    let usable = all.iter().position(|(_, unit)| classic_unit(unit) != unit.as_str()).unwrap_or(0);
    all.into_iter().nth(usable)
}

/// The defined term of Units (0054,1001) for a UCUM code or a Rescale Type.
fn classic_unit(unit: &str) -> &str {
    match unit {
        "Bq/ml" | "Bq/mL" => "BQML",
        "g/ml{SUVbw}" | "{SUVbw}g/ml" | "g/ml" => "GML",
        "cm2/ml{SUVbsa}" | "{SUVbsa}cm2/ml" | "cm2/ml" => "CM2ML",
        "{counts}" => "CNTS",
        other => other,
    }
}

fn first_number(value: Value) -> Option<f64> {
    value.numbers()?.first().copied()
}
