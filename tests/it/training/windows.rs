//! The night window, over every change of the clocks of several zones.

use proptest::prelude::*;
use std::time::{Duration, SystemTime};
use stunetd::config::Windows;

const ZONES: [&str; 8] = [
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Pacific/Apia",
];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

fn at(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(after) => SystemTime::UNIX_EPOCH + Duration::from_secs(after),
        Err(_) => SystemTime::UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()),
    }
}

fn when(text: &str) -> SystemTime {
    SystemTime::try_from(text.parse::<jiff::Timestamp>().expect("a time")).expect("a time")
}

/// What the clock on the wall shows: days since some Monday, and minutes.
fn wall(zone: &jiff::tz::TimeZone, seconds: i64) -> (i64, i64) {
    let local = zone.to_datetime(jiff::Timestamp::from_second(seconds).expect("in range"));
    let monday = jiff::civil::date(1996, 1, 1);
    let days = (local.date() - monday).get_days();
    (i64::from(days), i64::from(local.hour()) * 60 + i64::from(local.minute()))
}

#[test]
fn nights_are_shorter_and_longer_with_the_clocks() {
    let windows = Windows::parse(&["Mon-Fri 20:00-06:00", "Sat,Sun 00:00-24:00"], "Europe/Berlin").expect("windows");
    // A Wednesday in winter: 20:00 is 19:00 UTC.
    assert!(!windows.is_open(when("2026-01-14T18:59:59Z")) && windows.is_open(when("2026-01-14T19:00:00Z")));
    assert!(windows.is_open(when("2026-01-15T04:59:59Z")) && !windows.is_open(when("2026-01-15T05:00:00Z")));
    assert_eq!(windows.next_change(when("2026-01-15T12:00:00Z")), Some(when("2026-01-15T19:00:00Z")));
    // From Friday night through the weekend, and through a night of 23 hours (29 March 2026), to midnight on Monday.
    assert_eq!(windows.next_change(when("2026-03-27T20:00:00Z")), Some(when("2026-03-29T22:00:00Z")));
    assert_eq!(windows.next_change(when("2026-10-23T19:00:00Z")), Some(when("2026-10-25T23:00:00Z")));
    assert!(windows.is_open(when("2026-10-25T22:59:59Z")) && !windows.is_open(when("2026-10-25T23:00:00Z")));
}

#[test]
fn a_skipped_hour_swallows_and_a_repeated_one_opens_once() {
    // New York, 8 March 2026: 02:00 becomes 03:00 at 07:00 UTC. 1 November: 02:00 becomes 01:00 at 06:00 UTC.
    let windows = Windows::parse(&["daily 22:00-02:30"], "America/New_York").expect("windows");
    assert!(windows.is_open(when("2026-03-08T06:59:59Z")) && !windows.is_open(when("2026-03-08T07:00:00Z")));
    let windows = Windows::parse(&["daily 02:30-05:00"], "America/New_York").expect("windows");
    assert!(!windows.is_open(when("2026-03-08T06:59:59Z")) && windows.is_open(when("2026-03-08T07:00:00Z")));
    let windows = Windows::parse(&["daily 22:00-01:30"], "America/New_York").expect("windows");
    assert_eq!(windows.next_change(when("2026-11-01T04:00:00Z")), Some(when("2026-11-01T05:30:00Z")));
    assert!(!windows.is_open(when("2026-11-01T06:10:00Z")), "01:10 comes again, the window is over");
    let windows = Windows::parse(&["Sun 01:00-02:00"], "America/New_York").expect("windows");
    assert_eq!(windows.next_change(when("2026-11-01T05:00:00Z")), Some(when("2026-11-01T07:00:00Z")), "two hours");
}

#[test]
fn what_is_no_window_is_refused() {
    for bad in [
        "",
        "Mon",
        "20:00-06:00",
        "Mon 20-06",
        "Mon 20:00",
        "Mon 24:00-06:00",
        "Mon 20:60-21:00",
        "Mon 20:00-24:01",
        "Mon 2:00-3:00",
        "Mo 20:00-21:00",
        "Mon-Xyz 20:00-21:00",
        "Mon,,Tue 20:00-21:00",
        "Mon 20:00-21:00-22:00",
        "Mon +1:00-02:00",
    ] {
        assert!(Windows::parse(&[bad], "Europe/Berlin").is_err(), "{bad:?}");
    }
    assert!(Windows::parse(&["Mon 20:00-21:00"], "Europe/Atlantis").is_err());
    assert!(Windows::parse(&vec!["Mon 20:00-21:00"; 65], "UTC").is_err());
    let none = Windows::parse(&Vec::<String>::new(), "UTC").expect("no windows");
    assert!(!none.is_open(at(0)) && none.next_change(at(0)).is_none());
    let always = Windows::parse(&["daily 00:00-24:00"], "UTC").expect("windows");
    assert!(always.is_open(at(1_700_000_000)) && always.next_change(at(1_700_000_000)).is_none());
    let round = Windows::parse(&["sat-mon 08:00-09:00"], "UTC").expect("windows");
    let open: Vec<bool> = (0..7).map(|day| round.is_open(when(&format!("2026-01-{:02}T08:30:00Z", 12 + day)))).collect();
    assert_eq!(open, [true, false, false, false, false, true, true]);
}

/// The definition, minute by minute: which spans begin and end as the clock on the wall is watched.
fn watched(zone: &jiff::tz::TimeZone, days: [bool; 7], start: i64, end: i64, from: i64, minutes: i64) -> Vec<bool> {
    let shown: Vec<(i64, i64)> = (0..minutes).map(|minute| wall(zone, from + minute * 60)).collect();
    let first = |day: i64, minute: i64| {
        let (day, minute) = (day + minute / 1440, minute % 1440);
        shown.iter().position(|now| *now >= (day, minute)).unwrap_or(shown.len())
    };
    let mut open = vec![false; shown.len()];
    for day in shown[0].0 - 3..=shown[0].0 + minutes / 1440 + 3 {
        if days[day.rem_euclid(7) as usize] {
            open[first(day, start).min(minutes as usize)..first(day, end).max(first(day, start))].fill(true);
        }
    }
    open
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// At every change of every zone from 1996 to 2037, windows are open exactly when the definition says so.
    #[test]
    fn windows_are_what_the_clock_on_the_wall_says(
        zone in 0usize..ZONES.len(), days in proptest::collection::vec(any::<bool>(), 7), start in 0i64..1440, length in 1i64..=1440,
        near in proptest::bool::ANY,
    ) {
        // Half of the windows lie where clocks change, in the small hours.
        let start = if near { start % 240 } else { start };
        let end = start + length;
        prop_assume!(days.iter().any(|day| *day) && !(end > 1440 && end % 1440 > start));
        let zone = ZONES[zone];
        let names: Vec<&str> = DAYS.iter().zip(&days).filter(|(_, on)| **on).map(|(name, _)| *name).collect();
        let end_shown = if end == 1440 { 1440 } else { end % 1440 };
        let clock = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let text = format!("{} {}-{}", names.join(","), clock(start), clock(end_shown));
        let windows = Windows::parse(&[&text], zone).expect(&text);
        let zone = jiff::tz::TimeZone::get(zone).expect("zone");
        let days: [bool; 7] = days.try_into().expect("seven");
        let (first, last) = (820_454_400i64, 2_145_916_800i64);
        let changes: Vec<i64> = zone.following(jiff::Timestamp::from_second(first).expect("time")).map(|t| t.timestamp().as_second()).take_while(|t| *t < last).collect();
        let places = changes.iter().copied().step_by(changes.len() / 12 + 1).chain([1_000_000_020]);
        for change in places {
            // Three days before, so that what is open at the change has begun within sight.
            let (from, minutes) = (change.div_euclid(60) * 60 - 3 * 86_400, 5 * 1440);
            let expected = watched(&zone, days, start, end, from, minutes);
            // What was open before the watching began is not known for a day and a bit.
            for minute in 2 * 1440..minutes {
                let now = at(from + minute * 60);
                let open = windows.is_open(now);
                prop_assert_eq!(open, expected[minute as usize], "{} at {}", text, from + minute * 60);
                if minute % 97 == 0 && let Some(next) = windows.next_change(now) {
                    prop_assert_eq!(windows.is_open(next), !open);
                    prop_assert_eq!(windows.is_open(next - Duration::from_secs(1)), open);
                }
            }
        }
    }
}
