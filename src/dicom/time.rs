//! DICOM dates and times as seconds (PS3.5 section 6.2: DA, TM, DT), tolerant of the old forms `2024.01.31` and `09:30:00`.

/// Seconds since 1970-01-01 00:00 of the start of that day; `None` unless it is a date of the Gregorian calendar.
pub fn date(text: &str) -> Option<f64> {
    let digits: String = text.trim().chars().filter(|c| *c != '.' && *c != '-').collect();
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (year, month, day) = (digits[..4].parse::<i64>().ok()?, digits[4..6].parse::<i64>().ok()?, digits[6..].parse::<i64>().ok()?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last = *days.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if !(1..=last).contains(&day) {
        return None;
    }
    // Days from civil: years that start in March, eras of 400 years.
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) as f64 * 86_400.0)
}

/// Seconds after midnight; minutes and seconds may be missing, a leap second is taken.
pub fn time_of_day(text: &str) -> Option<f64> {
    let text: String = text.trim().chars().filter(|c| *c != ':').collect();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    if !matches!(whole.len(), 2 | 4 | 6) || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |range: std::ops::Range<usize>| whole.get(range).map_or(Some(0.0), |t| t.parse::<f64>().ok());
    let (h, m, s) = (part(0..2)?, part(2..4)?, part(4..6)?);
    let fraction = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
    (h < 24.0 && m < 60.0 && s <= 60.0).then_some(h * 3600.0 + m * 60.0 + s + fraction)
}

/// Date and time from two elements.
pub fn date_and_time(date_text: &str, time_text: &str) -> Option<f64> {
    Some(date(date_text)? + time_of_day(time_text)?)
}

/// A DT value as seconds of the local clock. An offset from UTC is used only when the file's own offset is known too (both in seconds);
/// otherwise the time is taken as local, as every other time of the file is.
pub fn date_time(text: &str, file_offset: Option<f64>) -> Option<f64> {
    let text = text.trim();
    let (stamp, offset) = match text.char_indices().find(|(i, c)| *i >= 8 && matches!(c, '+' | '-')) {
        Some((at, _)) => (&text[..at], utc_offset(&text[at..])),
        None => (text, None),
    };
    let day = date(stamp.get(..8)?)?;
    let clock = stamp.get(8..).filter(|t| !t.is_empty()).map_or(Some(0.0), time_of_day)?;
    let shift = match (offset, file_offset) {
        (Some(own), Some(file)) => file - own,
        _ => 0.0,
    };
    Some(day + clock + shift)
}

/// `+HHMM` or `-HHMM` in seconds.
pub fn utc_offset(text: &str) -> Option<f64> {
    let text = text.trim();
    let sign = match text.as_bytes().first()? {
        b'+' => 1.0,
        b'-' => -1.0,
        _ => return None,
    };
    Some(sign * time_of_day(text.get(1..5)?)?)
}

/// Years of an AS value: `045Y`, `006M`, `012W`, `003D`.
pub fn age_years(text: &str) -> Option<f64> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    Some(match unit {
        // Nobody is 0 years old: a newborn's age is told in days, weeks or months, and software that does not know one writes this.
        "Y" if number == 0.0 => return None,
        "Y" => number,
        "M" => number / 12.0,
        "W" => number / 52.1775,
        "D" => number / 365.2425,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_in_every_form() {
        assert_eq!(date("19700101"), Some(0.0));
        assert_eq!(date("20240229"), Some(1_709_164_800.0));
        assert_eq!(date("2024.02.29"), date("20240229"));
        assert_eq!(date("19000301").map(|d| d / 86_400.0), Some(-25_508.0));
        for bad in ["", "20230229", "20241301", "2024", "2024013a", "00000000"] {
            assert_eq!(date(bad), None, "{bad}");
        }
        assert_eq!(time_of_day("09"), Some(32_400.0));
        assert_eq!(time_of_day("093005.25"), Some(34_205.25));
        assert_eq!(time_of_day("09:30:05"), Some(34_205.0));
        for bad in ["", "9", "240000", "0960", "09300a"] {
            assert_eq!(time_of_day(bad), None, "{bad}");
        }
        let noon = date("20240131").map(|d| d + 43_200.0);
        assert_eq!(date_time("20240131120000.000000", None), noon);
        assert_eq!(date_time("20240131120000+0100", None), noon);
        assert_eq!(date_time("20240131120000+0100", Some(7200.0)), noon.map(|t| t + 3600.0));
        assert_eq!(date_time("20240131", None), date("20240131"));
        assert_eq!(age_years("006M"), Some(0.5));
        assert_eq!(age_years("000D"), Some(0.0));
        for unknown in ["Y", "0Y", "000Y"] {
            assert_eq!(age_years(unknown), None, "{unknown}");
        }
    }
}
