//! When training may run: weekly windows by the wall clock of a place.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use std::time::SystemTime;

/// Most windows in a list.
const MAX_WINDOWS: usize = 64;
/// Days that a search for the next change looks ahead: a week and what touches its ends.
const HORIZON: usize = 9;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES: u16 = 24 * 60;

/// One window: it begins on some days of the week and ends the same day or the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    /// Monday first.
    days: [bool; 7],
    /// Minutes after midnight.
    start: u16,
    /// Minutes after that midnight, up to two days.
    end: u16,
}

/// Windows in a time zone.
///
/// A window is open from the first instant at which the clock on the wall shows its start, or later, to the first at which it
/// shows its end, or later: what a skipped hour swallows begins or ends at the skip, and an hour that comes twice does not open a
/// closed window again.
#[derive(Clone, Debug)]
pub struct Windows {
    zone: TimeZone,
    windows: Vec<Window>,
}

impl Windows {
    /// Reads windows like `Mon-Fri 20:00-06:00`, `Sat,Sun 00:00-24:00` or `daily 22:00-05:30` and the IANA name of a zone.
    /// An end that is not after its start is on the next day.
    pub fn parse(windows: &[impl AsRef<str>], zone: &str) -> Result<Windows, String> {
        if windows.len() > MAX_WINDOWS {
            return Err(format!("{} windows; at most {MAX_WINDOWS} are accepted", windows.len()));
        }
        let zone = TimeZone::get(zone).map_err(|_| format!("{zone:?} is not a time zone; names are like Europe/Berlin"))?;
        let read = |text: &str| window(text).ok_or_else(|| format!("{text:?} is not a window; they are like `Mon-Fri 20:00-06:00`"));
        Ok(Windows { zone, windows: windows.iter().map(|text| read(text.as_ref())).collect::<Result<_, _>>()? })
    }

    /// Whether training may run at this time.
    pub fn is_open(&self, at: SystemTime) -> bool {
        Timestamp::try_from(at).is_ok_and(|at| self.spans(at).any(|(start, end)| start <= at && at < end))
    }

    /// When that next changes; none if it never does.
    pub fn next_change(&self, at: SystemTime) -> Option<SystemTime> {
        let at = Timestamp::try_from(at).ok()?;
        let mut spans: Vec<_> = self.spans(at).filter(|(_, end)| *end > at).collect();
        spans.sort_unstable();
        let (first, mut end) = *spans.first()?;
        if first > at {
            return first.try_into().ok();
        }
        for (start, later) in spans {
            if start > end {
                return end.try_into().ok();
            }
            end = end.max(later);
        }
        // Open as far as one can see: all week long.
        None
    }

    /// The spans of time that windows are open around and after this time. May overlap.
    fn spans(&self, at: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let first = self.zone.to_datetime(at).date().checked_sub(2.days()).ok();
        let dates = std::iter::successors(first, |date| date.tomorrow().ok()).take(HORIZON + 3);
        dates.flat_map(move |date| {
            let today = date.weekday().to_monday_one_offset() as usize - 1;
            self.windows
                .iter()
                .filter(move |window| window.days[today])
                .filter_map(move |window| Some((self.first_instant(date, window.start)?, self.first_instant(date, window.end)?)))
        })
    }

    /// The first instant at which the clock on the wall shows this time, or a later one of that day or after.
    fn first_instant(&self, date: Date, minutes: u16) -> Option<Timestamp> {
        let date = (0..minutes / MINUTES).try_fold(date, |date, _| date.tomorrow().ok())?;
        let minutes = minutes % MINUTES;
        let time = Time::new((minutes / 60) as i8, (minutes % 60) as i8, 0, 0).ok()?;
        let ambiguous = self.zone.to_ambiguous_timestamp(DateTime::from_parts(date, time));
        match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => {
                let after = ambiguous.later().ok()?.checked_add(1.second()).ok()?;
                self.zone.preceding(after).next().map(|skip| skip.timestamp())
            }
            _ => ambiguous.earlier().ok(),
        }
    }
}

fn window(text: &str) -> Option<Window> {
    let (days, hours) = text.trim().split_once(char::is_whitespace)?;
    let (start, end) = hours.trim().split_once('-')?;
    let (start, end) = (minutes(start)?, minutes(end)?);
    (start < MINUTES).then_some(())?;
    let end = if end <= start { end + MINUTES } else { end };
    Some(Window { days: weekdays(days)?, start, end })
}

/// `HH:MM`, up to 24:00.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse::<u16>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= MINUTES).then_some(hours * 60 + minutes)
}

/// `daily`, days with commas, ranges of them; a range may go round the end of the week.
fn weekdays(text: &str) -> Option<[bool; 7]> {
    if text.eq_ignore_ascii_case("daily") {
        return Some([true; 7]);
    }
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let count = (last + 7 - first) % 7;
        (0..=count).for_each(|i| days[(first + i) % 7] = true);
    }
    Some(days)
}
