//! Numbers as people read them.

use std::time::Duration;

/// A duration in the largest unit that says enough.
pub fn age(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// Seconds, however few.
pub fn seconds(s: f64) -> String {
    match s {
        s if s <= 0.0 => "0 s".to_owned(),
        s if s < 0.0005 => format!("{:.0} µs", 1e6 * s),
        s if s < 0.9995 => format!("{:.0} ms", 1e3 * s),
        s if s < 9.95 => format!("{s:.1} s"),
        s => age(Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)),
    }
}

/// Bytes in the unit that fits.
pub fn bytes(bytes: u64) -> String {
    match bytes as f64 / (1u64 << 20) as f64 {
        mib if mib < 1023.5 => format!("{mib:.0} MiB"),
        mib if mib < 10.0 * 1024.0 => format!("{:.1} GiB", mib / 1024.0),
        mib => format!("{:.0} GiB", mib / 1024.0),
    }
}

/// A share of 1.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit() {
        for (s, text) in
            [(0.0, "0 s"), (0.0002, "200 µs"), (0.25, "250 ms"), (0.9996, "1.0 s"), (9.94, "9.9 s"), (12.7, "12 s"), (400.0, "6 min")]
        {
            assert_eq!(seconds(s), text);
        }
        assert_eq!([age(Duration::from_secs(7200)), age(Duration::from_secs(172_800))], ["2 h", "2 d"]);
        for (n, text) in [(0, "0 MiB"), (3 << 20, "3 MiB"), (1 << 30, "1.0 GiB"), (40 << 30, "40 GiB")] {
            assert_eq!(bytes(n), text);
        }
        assert_eq!([percent(0.256), percent(7.0)], ["26 %", "100 %"]);
    }
}
