//! Dates and times in results. They come from the job, so that the same job always writes the same bytes.

use crate::dicom::CopiedAttributes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// When a job was taken up, as its results say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobDates {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub unix_seconds: i64,
    /// Minutes that local time is ahead of UTC.
    pub utc_offset_minutes: i32,
}

impl JobDates {
    /// From the wall clock, in UTC.
    pub fn utc(wall: SystemTime) -> JobDates {
        let seconds = wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        JobDates { unix_seconds: i64::try_from(seconds).unwrap_or(0), utc_offset_minutes: 0 }
    }

    /// In the time zone that the source's Timezone Offset From UTC (0008,0201) names, if it has one: all dates of an object
    /// that carries the attribute are in that zone.
    pub(super) fn in_zone_of(self, copied: &CopiedAttributes) -> JobDates {
        let zone = copied.elements.iter().find(|e| e.tag == (0x0008, 0x0201));
        let offset = zone.and_then(|e| std::str::from_utf8(&e.value).ok()).and_then(zone_minutes);
        JobDates { utc_offset_minutes: offset.unwrap_or(self.utc_offset_minutes), ..self }
    }

    /// DICOM date: `YYYYMMDD`.
    pub fn date(self) -> String {
        let (year, month, day, _) = self.civil();
        format!("{year:04}{month:02}{day:02}")
    }

    /// DICOM time: `HHMMSS`.
    pub fn time(self) -> String {
        let (.., second) = self.civil();
        format!("{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
    }

    /// RFC 3339, with the offset.
    pub fn rfc3339(self) -> String {
        let (year, month, day, s) = self.civil();
        let (sign, offset) = (if self.utc_offset_minutes < 0 { '-' } else { '+' }, self.utc_offset_minutes.unsigned_abs());
        let zone = if offset == 0 { "Z".to_owned() } else { format!("{sign}{:02}:{:02}", offset / 60, offset % 60) };
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{zone}", s / 3600, s / 60 % 60, s % 60)
    }

    /// Year, month, day and second of the day in local time (Howard Hinnant's `civil_from_days`).
    fn civil(self) -> (i64, i64, i64, i64) {
        let local = self.unix_seconds + i64::from(self.utc_offset_minutes) * 60;
        let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        (year_of_era + era * 400 + i64::from(month <= 2), month, day, second)
    }
}

/// `±HHMM` as minutes.
fn zone_minutes(text: &str) -> Option<i32> {
    let text = text.trim_matches(['\0', ' ']);
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    (hours <= 14 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::RawElement;

    #[test]
    fn known_moments() {
        for (unix_seconds, utc_offset_minutes, date, time, rfc) in [
            (0, 0, "19700101", "000000", "1970-01-01T00:00:00Z"),
            (951_782_399, 0, "20000228", "235959", "2000-02-28T23:59:59Z"),
            (951_782_400, 0, "20000229", "000000", "2000-02-29T00:00:00Z"),
            (1_798_761_599, 90, "20270101", "012959", "2027-01-01T01:29:59+01:30"),
            (1_798_761_600, -300, "20261231", "190000", "2026-12-31T19:00:00-05:00"),
            (-1, 0, "19691231", "235959", "1969-12-31T23:59:59Z"),
        ] {
            let d = JobDates { unix_seconds, utc_offset_minutes };
            assert_eq!((d.date().as_str(), d.time().as_str(), d.rfc3339().as_str()), (date, time, rfc));
        }
    }

    #[test]
    fn the_sources_zone_wins() {
        let d = JobDates { unix_seconds: 0, utc_offset_minutes: 60 };
        let with = |value: &[u8]| CopiedAttributes { elements: vec![RawElement { tag: (8, 0x201), vr: *b"SH", value: value.to_vec() }] };
        assert_eq!(d.in_zone_of(&with(b"-0130 ")).utc_offset_minutes, -90);
        for bad in [&b""[..], b"0130", b"+1", b"+99999", "+1é3".as_bytes(), b"+2500"] {
            assert_eq!(d.in_zone_of(&with(bad)).utc_offset_minutes, 60);
        }
        assert_eq!(d.in_zone_of(&CopiedAttributes::default()).utc_offset_minutes, 60);
    }
}
