//! Half-lives of PET radionuclides, to tell seconds from minutes.

/// SNOMED CT code, SNOMED RT code (DICOM CID 4020), mass number, element, half-life in s (IAEA NuDat 3).
const NUCLIDES: &[(&str, &str, &str, &str, &str, f64)] = &[
    ("77004003", "C-111A1", "18", "f", "fluorine", 6586.2),
    ("35337001", "C-131A3", "68", "ga", "gallium", 4062.6),
    ("40565003", "C-105A1", "11", "c", "carbon", 1221.8),
    ("21576001", "C-107A1", "13", "n", "nitrogen", 597.9),
    ("129504001", "C-B1038", "15", "o", "oxygen", 122.24),
    ("79197006", "C-159A2", "82", "rb", "rubidium", 75.45),
    ("3932008", "C-127A2", "64", "cu", "copper", 45_721.0),
    ("63360001", "C-168A4", "89", "zr", "zirconium", 282_276.0),
    ("40937006", "C-114A5", "124", "i", "iodine", 360_806.0),
    ("14691008", "C-162A7", "90", "y", "yttrium", 230_580.0),
    ("10738001", "C-162A3", "86", "y", "yttrium", 53_064.0),
];

/// Relative deviation that rounding explains.
const TOLERANCE: f64 = 0.03;

/// Whether a half-life in seconds can be right. A nuclide that is not in the table, or no nuclide, allows everything but the common
/// half-lives in minutes or hours.
pub(super) fn fits(seconds: f64, nuclide: Option<&str>) -> bool {
    let near = |expected: f64| (seconds / expected - 1.0).abs() <= TOLERANCE;
    if let Some(half_life) = nuclide.and_then(half_life) {
        return near(half_life);
    }
    let in_seconds = || NUCLIDES.iter().any(|n| near(n.5));
    let in_other_unit = || NUCLIDES.iter().any(|n| near(n.5 / 60.0) || near(n.5 / 3600.0));
    seconds > 0.0 && (in_seconds() || !in_other_unit())
}

/// The half-life of a nuclide given by code or by name: `C-111A1`, `77004003`, `^18^Fluorine`, `F-18`, `18F`.
fn half_life(text: &str) -> Option<f64> {
    let text = text.trim();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let letters: String = text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
    let same =
        |n: &&(&str, &str, &str, &str, &str, f64)| text == n.0 || text == n.1 || (digits == n.2 && (letters == n.3 || letters == n.4));
    NUCLIDES.iter().find(same).map(|n| n.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_told_from_minutes() {
        for name in ["C-111A1", "77004003", "^18^Fluorine", "F-18", "18F", "Fluorine 18"] {
            assert!(fits(6586.2, Some(name)) && fits(6588.0, Some(name)), "{name}");
            assert!(!fits(109.77, Some(name)) && !fits(4062.6, Some(name)), "{name}");
        }
        for name in [None, Some("Something new")] {
            assert!(fits(6586.2, name) && fits(122.2, name) && fits(1e6, name));
            assert!(!fits(109.8, name) && !fits(67.7, name) && !fits(1.83, name) && !fits(0.0, name));
        }
        assert!(fits(4057.7, Some("^68^Gallium")) && fits(1224.0, Some("C-105A1")));
    }
}
