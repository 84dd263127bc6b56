//! Sizes and times as people write them: `"8 GiB"`, `"30 s"`.

use serde::{Deserializer, de};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes, written with a unit: `"512 MiB"`, `"8 GiB"`, `"1 TB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time, written with a unit: `"500 ms"`, `"30 s"`, `"5 min"`, `"2 h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// How long something is kept: a time, or `"forever"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(pub Option<Duration>);

impl Keep {
    /// So many days.
    pub const fn days(days: u64) -> Keep {
        Keep(Some(Duration::from_secs(days * 86_400)))
    }
}

impl FromStr for Keep {
    type Err = String;
    fn from_str(text: &str) -> Result<Keep, String> {
        match text {
            "forever" => Ok(Keep(None)),
            _ => text.parse().map(|HumanDuration(time)| Keep(Some(time))).map_err(|why: String| format!("{why}, or \"forever\"")),
        }
    }
}

/// Memory that may be used: a number of bytes, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance(pub Option<u64>);

impl FromStr for Allowance {
    type Err = String;
    fn from_str(text: &str) -> Result<Allowance, String> {
        match text {
            "auto" => Ok(Allowance(None)),
            _ => text.parse().map(|ByteSize(bytes)| Allowance(Some(bytes))).map_err(|why: String| format!("{why}, or \"auto\"")),
        }
    }
}

/// Largest unit first within a family, so that printing finds the shortest exact form.
const BYTES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// In milliseconds.
const TIMES: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// `"1.5 GiB"` in the unit's base: digits with an optional fraction, optional blanks, a unit of the table.
fn parse(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let names = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let value: f64 = number.parse().map_err(|_| format!("expected a number with a unit, such as \"{example}\""))?;
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => format!("a unit is missing: write for example \"{example}\" (units: {})", names()),
            _ => format!("unknown unit `{unit}` (units: {})", names()),
        });
    };
    let base = value * *factor as f64;
    // Exactly representable and far beyond any sensible setting.
    if base > (1u64 << 53) as f64 { Err("the number is too large".into()) } else { Ok(base.round() as u64) }
}

fn show(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, factor) = units.iter().find(|(_, factor)| value > 0 && value.is_multiple_of(*factor)).unwrap_or(&units[units.len() - 1]);
    write!(f, "{} {name}", value / factor)
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<ByteSize, String> {
        parse(text, BYTES, "8 GiB").map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, BYTES, f)
    }
}

impl FromStr for HumanDuration {
    type Err = String;
    fn from_str(text: &str) -> Result<HumanDuration, String> {
        parse(text, TIMES, "30 s").map(|ms| HumanDuration(Duration::from_millis(ms)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0.as_millis() as u64, TIMES, f)
    }
}

/// Deserialises by `FromStr`; a bare number is told that a unit is missing.
pub(super) fn from_text<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    struct Text<T>(std::marker::PhantomData<T>);
    impl<T: FromStr<Err = String>> de::Visitor<'_> for Text<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text in quotes")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            number.to_string().parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Text(std::marker::PhantomData))
}

macro_rules! by_text {
    ($($name:ty),*) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                $crate::config::units::from_text(deserializer)
            }
        }
    )*};
}
pub(super) use by_text;

by_text!(Allowance, ByteSize, HumanDuration, Keep);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [("8 GiB", 8 << 30), ("8GiB", 8 << 30), ("1.5 KiB", 1536), ("10 MB", 10_000_000), ("7 B", 7)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for (text, ms) in [("30 s", 30_000), ("2min", 120_000), ("250 ms", 250), ("0 s", 0)] {
            assert_eq!(text.parse(), Ok(HumanDuration(Duration::from_millis(ms))), "{text}");
        }
        for bad in ["", "8", "GiB", "8 gib", "-1 s", "1e9 s", "99999999999 TiB", "1..5 s"] {
            assert!(bad.parse::<ByteSize>().is_err() && bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printing_is_read_back(value in 0u64..1 << 50) {
            prop_assert_eq!(ByteSize(value).to_string().parse(), Ok(ByteSize(value)));
            let time = HumanDuration(Duration::from_millis(value));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
