//! Standardised uptake values by body weight, from the unit that a PET series is stored in.
//!
//! `SUVbw = value × weight [g] / dose [Bq]`, the dose decayed to the time that the values refer to. The rules are those of the IBSI SUV
//! reference (Vacha et al.), which its 17 reference objects prove. What is missing is named; nothing is ever assumed but, when that is
//! allowed, that a dose below 10 kBq was meant in MBq.

use super::nuclide;
use crate::dicom::{PetHeader, PlaneTiming};
use crate::fault::{Code, Fault};

const DAY: f64 = 86_400.0;
/// Doses below this can not be in Bq: the smallest clinical ones are some MBq.
const SMALLEST_DOSE_BQ: f64 = 1e4;
/// Half-lives after which nothing of the dose is left to measure.
const MOST_HALF_LIVES: f64 = 20.0;
/// How long after the reference time an injection may be: dynamic studies start a little before it.
const LATEST_INJECTION: f64 = 900.0;

/// What the values of a series are multiplied with to give SUVbw in g/ml.
#[derive(Clone, Debug, PartialEq)]
pub struct SuvFactors {
    /// One for each plane, in the order given.
    pub per_plane: Vec<f64>,
    /// All planes refer to one time. If not, each has been decayed to its own.
    pub decay_corrected: bool,
    /// The dose was below 10 kBq and has been taken as MBq.
    pub dose_in_mbq: bool,
}

impl SuvFactors {
    /// The one factor of the series; `None` when the values are not decay corrected and each plane has its own.
    pub fn of_series(&self) -> Option<f64> {
        self.per_plane.first().copied().filter(|_| self.decay_corrected)
    }

    fn same(factor: f64, planes: usize) -> SuvFactors {
        SuvFactors { per_plane: vec![factor; planes], decay_corrected: true, dose_in_mbq: false }
    }
}

/// Why there is no SUV.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoSuv {
    /// Corrected Image does not hold ATTN.
    #[error("the series is not attenuation corrected")]
    NotAttenuationCorrected,
    /// An attribute is missing, or holds no usable value.
    #[error("{0} is missing or not usable")]
    Missing(Needed),
    /// The half-life is not the radionuclide's.
    #[error("Radionuclide Half Life {0} s does not fit the radionuclide")]
    HalfLife(f64),
    /// The dose can not be in Bq, and assuming MBq is not allowed.
    #[error("Radionuclide Total Dose {0} can not be in Bq")]
    Dose(f64),
    /// Injection and scan do not fit together.
    #[error("the injection is {0:.0} s before the time that the values refer to")]
    Times(f64),
    /// Unit, SUV type or decay correction is not one that can be converted.
    #[error("{0}")]
    Unknown(String),
}

/// What SUV needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Patient's Weight (0010,1030).
    Weight,
    /// Patient's Size (0010,1020), in metres.
    Size,
    /// Patient's Sex (0010,0040), M or F.
    Sex,
    /// Radionuclide Total Dose (0018,1074).
    Dose,
    /// Radionuclide Half Life (0018,1075).
    HalfLife,
    /// Radiopharmaceutical Start DateTime (0018,1078) or Start Time (0018,1072).
    InjectionTime,
    /// Series or acquisition date and time.
    ScanTime,
    /// Actual Frame Duration (0018,1242).
    FrameDuration,
}

impl std::fmt::Display for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Needed::Weight => "Patient's Weight",
            Needed::Size => "Patient's Size",
            Needed::Sex => "Patient's Sex",
            Needed::Dose => "Radionuclide Total Dose",
            Needed::HalfLife => "Radionuclide Half Life",
            Needed::InjectionTime => "the time of injection",
            Needed::ScanTime => "the time of the scan",
            Needed::FrameDuration => "Actual Frame Duration",
        })
    }
}

impl NoSuv {
    /// The stable code.
    pub fn code(&self) -> Code {
        match self {
            NoSuv::NotAttenuationCorrected => Code::SeriesNotAttenuationCorrected,
            NoSuv::Missing(Needed::Weight) => Code::QuantitySuvWeight,
            NoSuv::Missing(Needed::Size) => Code::QuantitySuvSize,
            NoSuv::Missing(Needed::Sex) => Code::QuantitySuvSex,
            NoSuv::Missing(Needed::Dose) => Code::QuantitySuvDose,
            NoSuv::Missing(Needed::HalfLife) | NoSuv::HalfLife(_) => Code::QuantitySuvHalfLife,
            NoSuv::Missing(Needed::InjectionTime) => Code::QuantitySuvInjection,
            NoSuv::Missing(Needed::ScanTime | Needed::FrameDuration) | NoSuv::Times(_) => Code::QuantitySuvTimes,
            NoSuv::Dose(_) => Code::QuantitySuvDoseUnit,
            NoSuv::Unknown(_) => Code::QuantitySuv,
        }
    }
}

impl From<NoSuv> for Fault {
    fn from(error: NoSuv) -> Fault {
        Fault::new(error.code(), error.to_string())
    }
}

/// The factors of a series. `planes` are the times of its planes; `assume_mbq` allows to take a dose below 10 kBq as MBq.
pub fn factors(pet: &PetHeader, planes: &[PlaneTiming], assume_mbq: bool) -> Result<SuvFactors, NoSuv> {
    match pet.units.as_str() {
        "BQML" => from_activity(pet, planes, 1.0, assume_mbq),
        "CNTS" => match (usable(pet.philips_suv_factor), usable(pet.philips_activity_factor)) {
            (Some(factor), _) => Ok(SuvFactors::same(factor, planes.len())),
            (None, Some(activity)) => from_activity(pet, planes, activity, assume_mbq),
            (None, None) => Err(NoSuv::Unknown("counts without the maker's factors".into())),
        },
        "GML" => Ok(SuvFactors::same(from_body_measure(pet)?, planes.len())),
        // SUV by body surface in cm²/ml: × weight in g / surface in cm².
        "CM2ML" => {
            let (weight, size) = (weight(pet)?, size(pet)?);
            Ok(SuvFactors::same(weight * 1000.0 / (surface(weight, size) * 1e4), planes.len()))
        }
        _ => Err(NoSuv::Unknown("a unit other than BQML, GML, CM2ML and CNTS".into())),
    }
}

/// For values in Bq/ml after multiplication with `scale`.
fn from_activity(pet: &PetHeader, planes: &[PlaneTiming], scale: f64, assume_mbq: bool) -> Result<SuvFactors, NoSuv> {
    if !pet.corrected_image.iter().any(|c| c == "ATTN") {
        return Err(NoSuv::NotAttenuationCorrected);
    }
    let grams = weight(pet)? * 1000.0;
    let dose = usable(pet.total_dose).ok_or(NoSuv::Missing(Needed::Dose))?;
    let half_life = usable(pet.half_life_s).ok_or(NoSuv::Missing(Needed::HalfLife))?;
    if !nuclide::fits(half_life, pet.radionuclide.as_deref()) {
        return Err(NoSuv::HalfLife(half_life));
    }
    let dose_in_mbq = dose < SMALLEST_DOSE_BQ;
    if dose_in_mbq && !assume_mbq {
        return Err(NoSuv::Dose(dose));
    }
    let dose = if dose_in_mbq { dose * 1e6 } else { dose };
    let earliest = planes
        .iter()
        .filter(|p| p.acquisition.is_some())
        .min_by(|a, b| a.acquisition.partial_cmp(&b.acquisition).unwrap_or(std::cmp::Ordering::Equal));
    let scan = earliest.and_then(|p| p.acquisition).or(pet.series_datetime).ok_or(NoSuv::Missing(Needed::ScanTime))?;
    let injection = injection(pet, scan)?;
    let factor = |reference: f64| {
        let elapsed = reference - injection;
        if !(-LATEST_INJECTION..=MOST_HALF_LIVES * half_life).contains(&elapsed) {
            return Err(NoSuv::Times(elapsed));
        }
        Ok(scale * grams / (dose * 0.5f64.powf(elapsed / half_life)))
    };
    let (per_plane, decay_corrected) = match pet.decay_correction.as_deref() {
        // Each plane decays to its own mid time.
        Some("NONE") => {
            let own = |plane: &PlaneTiming| {
                let start = plane.acquisition.ok_or(NoSuv::Missing(Needed::ScanTime))?;
                factor(start + mean_time(plane, half_life)?)
            };
            (planes.iter().map(own).collect::<Result<_, _>>()?, false)
        }
        // Enhanced objects name the time itself.
        Some("START" | "ADMIN") | None if pet.decay_correction_datetime.is_some() => {
            let reference = pet.decay_correction_datetime.ok_or(NoSuv::Missing(Needed::ScanTime))?;
            (vec![factor(reference)?; planes.len()], true)
        }
        Some("ADMIN") => (vec![factor(injection)?; planes.len()], true),
        Some("START") => (vec![factor(start_of_scan(pet, earliest, scan, half_life)?)?; planes.len()], true),
        _ => return Err(NoSuv::Unknown("Decay Correction is not START, ADMIN or NONE".into())),
    };
    Ok(SuvFactors { per_plane, decay_corrected, dose_in_mbq })
}

/// The time that START refers to: the series' time, unless that is later than the scan, as in a series that was processed later. Then the
/// maker's own scan time, then what the earliest plane says of itself, then that plane's start.
fn start_of_scan(pet: &PetHeader, earliest: Option<&PlaneTiming>, scan: f64, half_life: f64) -> Result<f64, NoSuv> {
    if let Some(series) = pet.series_datetime.filter(|series| *series <= scan) {
        return Ok(series);
    }
    if let Some(maker) = pet.ge_scan_datetime {
        return Ok(maker);
    }
    match earliest.and_then(|plane| Some((plane, plane.frame_reference_ms.filter(|ms| *ms != 0.0)?))) {
        Some((plane, reference_ms)) => Ok(scan + mean_time(plane, half_life)? - reference_ms / 1000.0),
        None => Ok(scan),
    }
}

/// Seconds from the start of a frame to the moment at which its mean activity was reached.
fn mean_time(plane: &PlaneTiming, half_life: f64) -> Result<f64, NoSuv> {
    let seconds = usable(plane.frame_duration_ms).ok_or(NoSuv::Missing(Needed::FrameDuration))? / 1000.0;
    let rate = std::f64::consts::LN_2 / half_life;
    Ok((rate * seconds / -(-rate * seconds).exp_m1()).ln() / rate)
}

/// The moment of injection: given with its date, or as a time of the scan's day, or of the day before when that is after the scan.
fn injection(pet: &PetHeader, scan: f64) -> Result<f64, NoSuv> {
    if let Some(moment) = pet.injection_datetime {
        return Ok(moment);
    }
    let time = pet.injection_time_of_day.ok_or(NoSuv::Missing(Needed::InjectionTime))?;
    let today = (scan / DAY).floor() * DAY + time;
    Ok(if today > scan { today - DAY } else { today })
}

/// The factor from SUV by another measure of the body in g/ml to SUV by weight.
fn from_body_measure(pet: &PetHeader) -> Result<f64, NoSuv> {
    let male = || match pet.sex.as_deref() {
        Some("M") => Ok(true),
        Some("F") => Ok(false),
        _ => Err(NoSuv::Missing(Needed::Sex)),
    };
    let measure = match pet.suv_type.as_deref().unwrap_or("BW") {
        "BW" => return Ok(1.0),
        "LBM" => lean_james(weight(pet)?, size(pet)?, male()?, 120.0),
        "LBMJAMES128" => lean_james(weight(pet)?, size(pet)?, male()?, 128.0),
        "LBMJANMA" => lean_janmahasatian(weight(pet)?, size(pet)?, male()?),
        "IBW" => {
            let size = size(pet)?;
            // Without a sex the mean of both (IBSI).
            male().map_or_else(|_| (ideal(size, true) + ideal(size, false)) / 2.0, |male| ideal(size, male))
        }
        _ => return Err(NoSuv::Unknown("SUV Type is not BW, LBM, LBMJAMES128, LBMJANMA or IBW".into())),
    };
    if measure > 0.0 { Ok(weight(pet)? / measure) } else { Err(NoSuv::Missing(Needed::Size)) }
}

/// Lean body mass, kg (James 1976; the man's factor is 120 or 128 by maker).
fn lean_james(kg: f64, m: f64, male: bool, factor: f64) -> f64 {
    let index = (kg / (100.0 * m)).powi(2);
    if male { 1.10 * kg - factor * index } else { 1.07 * kg - 148.0 * index }
}

/// Lean body mass, kg (Janmahasatian 2005).
fn lean_janmahasatian(kg: f64, m: f64, male: bool) -> f64 {
    let index = kg / (m * m);
    if male { 9270.0 * kg / (6680.0 + 216.0 * index) } else { 9270.0 * kg / (8780.0 + 244.0 * index) }
}

/// Ideal body weight, kg (DICOM PS3.3 C.8.9.1).
fn ideal(m: f64, male: bool) -> f64 {
    if male { 48.0 + 1.06 * (100.0 * m - 152.0) } else { 45.5 + 0.91 * (100.0 * m - 152.0) }
}

/// Body surface, m² (Du Bois 1916).
fn surface(kg: f64, m: f64) -> f64 {
    0.007184 * kg.powf(0.425) * (100.0 * m).powf(0.725)
}

/// Weight in kg, if a person can have it.
fn weight(pet: &PetHeader) -> Result<f64, NoSuv> {
    usable(pet.weight_kg).filter(|kg| (0.2..=700.0).contains(kg)).ok_or(NoSuv::Missing(Needed::Weight))
}

/// Height in m, if a person can have it (some write centimetres).
fn size(pet: &PetHeader) -> Result<f64, NoSuv> {
    usable(pet.size_m).filter(|m| (0.2..=2.8).contains(m)).ok_or(NoSuv::Missing(Needed::Size))
}

fn usable(number: Option<f64>) -> Option<f64> {
    number.filter(|n| n.is_finite() && *n > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3600.0;

    /// F-18, 70 kg, 370 MBq, injected an hour before the scan.
    fn header() -> PetHeader {
        PetHeader {
            units: "BQML".into(),
            corrected_image: vec!["DECY".into(), "ATTN".into()],
            decay_correction: Some("START".into()),
            weight_kg: Some(70.0),
            size_m: Some(1.75),
            sex: Some("F".into()),
            total_dose: Some(370e6),
            half_life_s: Some(6586.2),
            radionuclide: Some("C-111A1".into()),
            injection_datetime: Some(10.0 * HOUR),
            series_datetime: Some(11.0 * HOUR),
            ..PetHeader::default()
        }
    }

    fn plane(acquisition: f64) -> PlaneTiming {
        PlaneTiming { acquisition: Some(acquisition), frame_reference_ms: Some(150e3), frame_duration_ms: Some(300e3) }
    }

    fn factor(pet: &PetHeader) -> Result<f64, NoSuv> {
        factors(pet, &[plane(11.0 * HOUR); 2], false).map(|f| f.per_plane[0])
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |change: &dyn Fn(&mut PetHeader)| {
            let mut pet = header();
            change(&mut pet);
            factor(&pet).map_err(|e| e.code().name())
        };
        assert!(without(&|_| ()).is_ok());
        assert_eq!(without(&|p| p.weight_kg = None), Err("quantity.suv_no_weight"));
        assert_eq!(without(&|p| p.weight_kg = Some(70_000.0)), Err("quantity.suv_no_weight"));
        assert_eq!(without(&|p| p.total_dose = None), Err("quantity.suv_no_dose"));
        assert_eq!(without(&|p| p.total_dose = Some(f64::NAN)), Err("quantity.suv_no_dose"));
        assert_eq!(without(&|p| p.total_dose = Some(370.0)), Err("quantity.suv_dose_not_in_bq"));
        assert_eq!(without(&|p| p.half_life_s = None), Err("quantity.suv_no_half_life"));
        assert_eq!(without(&|p| p.half_life_s = Some(109.77)), Err("quantity.suv_no_half_life"));
        assert_eq!(without(&|p| p.injection_datetime = None), Err("quantity.suv_no_injection_time"));
        assert_eq!(without(&|p| p.injection_datetime = Some(12.0 * HOUR)), Err("quantity.suv_times"));
        assert_eq!(without(&|p| p.corrected_image.clear()), Err("series.not_attenuation_corrected"));
        assert_eq!(without(&|p| p.decay_correction = None), Err("quantity.suv_not_computable"));
        assert_eq!(without(&|p| p.units = "PROPCPS".into()), Err("quantity.suv_not_computable"));
        assert!(without(&|p| p.units = "CM2ML".into()).is_ok());
        let lean = |p: &mut PetHeader| (p.units, p.suv_type) = ("GML".into(), Some("LBMJANMA".into()));
        assert!(without(&lean).is_ok());
        assert_eq!(without(&|p| (lean(p), p.sex = Some("O".into())).1), Err("quantity.suv_no_sex"));
        assert_eq!(without(&|p| (lean(p), p.size_m = Some(175.0)).1), Err("quantity.suv_no_size"));
    }

    #[test]
    fn a_dose_in_mbq_is_used_only_when_allowed_and_says_so() {
        let pet = PetHeader { total_dose: Some(370.0), ..header() };
        let assumed = factors(&pet, &[plane(11.0 * HOUR)], true).unwrap();
        assert!(assumed.dose_in_mbq);
        assert_eq!(assumed.per_plane[0], factor(&header()).unwrap());
    }

    #[test]
    fn midnight_lies_between_injection_and_scan() {
        let pet = PetHeader {
            injection_datetime: None,
            injection_time_of_day: Some(23.5 * HOUR),
            series_datetime: Some(DAY + 0.5 * HOUR),
            ..header()
        };
        let got = factors(&pet, &[plane(DAY + 0.5 * HOUR)], false).unwrap();
        assert!((got.per_plane[0] / factor(&header()).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn planes_without_decay_correction_have_factors_of_their_own() {
        let pet = PetHeader { decay_correction: Some("NONE".into()), ..header() };
        let got = factors(&pet, &[plane(11.0 * HOUR), plane(11.0 * HOUR + 6586.2)], false).unwrap();
        assert_eq!(got.of_series(), None);
        assert!((got.per_plane[1] / got.per_plane[0] - 2.0).abs() < 1e-12);
        // Over five minutes of F-18 the mean activity is reached a little before the middle.
        let middle = mean_time(&plane(0.0), 6586.2).unwrap();
        assert!((149.0..150.0).contains(&middle), "{middle}");
        let unknown = PlaneTiming { frame_duration_ms: None, ..plane(11.0 * HOUR) };
        assert_eq!(factors(&pet, &[unknown], false), Err(NoSuv::Missing(Needed::FrameDuration)));
    }

    #[test]
    fn enhanced_objects_name_the_reference_time() {
        let at = |time| PetHeader { decay_correction_datetime: Some(time), ..header() };
        let admin = PetHeader { decay_correction: Some("ADMIN".into()), ..header() };
        assert_eq!(factor(&at(11.0 * HOUR)).unwrap(), factor(&header()).unwrap());
        assert_eq!(factor(&at(10.0 * HOUR)).unwrap(), factor(&admin).unwrap());
    }
}
