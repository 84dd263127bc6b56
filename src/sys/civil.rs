//! The calendar: moments as people and certificates write them, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01 00:00 of a moment of the Gregorian calendar; `None` when there is none such.
pub fn seconds(year: i64, month: i64, day: i64, of_day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = [31, 28 + i64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last = *days.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if !(0..=9999).contains(&year) || !(1..=last).contains(&day) || !(0..=86_400).contains(&of_day) {
        return None;
    }
    // Years that start in March, eras of 400 years (Howard Hinnant's `days_from_civil`).
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some((era * 146_097 + day_of_era - 719_468) * 86_400 + of_day)
}

/// A moment by RFC 3339, in UTC, to the millisecond.
pub fn rfc3339(wall: SystemTime) -> String {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let unix = i64::try_from(since.as_secs()).unwrap_or(0);
    let (days, s) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z", s / 3600, s / 60 % 60, s % 60, since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_back() {
        for (year, month, day, of_day, unix, text) in [
            (1970, 1, 1, 0, 0, "1970-01-01T00:00:00.000Z"),
            (2000, 2, 29, 86_399, 951_868_799, "2000-02-29T23:59:59.000Z"),
            (2026, 12, 31, 3661, 1_798_678_861, "2026-12-31T01:01:01.000Z"),
        ] {
            assert_eq!(seconds(year, month, day, of_day), Some(unix));
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(unix.unsigned_abs())), text);
        }
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(7)), "1970-01-01T00:00:00.007Z");
        for (year, month, day) in [(2025, 2, 29), (2026, 0, 1), (2026, 13, 1), (2026, 1, 0), (-1, 1, 1)] {
            assert_eq!(seconds(year, month, day, 0), None);
        }
    }
}
