//! Reads the TOML document table by table, key by key: a mistake is noted with its line, and reading goes on.

use super::destination::Destination;
use super::schema::{Config, Dimse, Http, Intake, Jobs, Log, Model, Output, Retention, Spool, Stow, Training, Watch};
use super::select::Select;
use super::{audit, choices, destination, network, select, units};
use crate::fault::Code;
use crate::stunet::{DeviceChoice, Precision};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// A value with its place in the text.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// One mistake in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Mistake {
    /// Line from 1.
    pub line: usize,
    /// `config.unknown_key` or `config.invalid`.
    pub code: Code,
    /// What is wrong, and the nearest valid name of an unknown key.
    pub message: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

/// What can stand behind a key.
pub(super) trait FromToml: Sized {
    /// The keys of a table; empty for plain values.
    const KEYS: &'static [&'static str] = &[];

    /// The value, or `None` after noting what is wrong.
    fn read(value: Value<'_>, reader: &mut Reader) -> Option<Self>;
}

/// Plain values are read by serde.
macro_rules! plain {
    ($($type:ty),*) => {$(
        impl FromToml for $type {
            fn read(value: Value<'_>, reader: &mut Reader) -> Option<$type> {
                let at = value.span().start;
                match <$type>::deserialize(ValueDeserializer::from(value)) {
                    Ok(value) => Some(value),
                    Err(error) => {
                        reader.note(at, Code::ConfigInvalid, error.message().to_string());
                        None
                    }
                }
            }
        }
    )*};
}

plain!(bool, f64, String, PathBuf, units::Allowance, units::ByteSize, units::HumanDuration, units::Keep);
plain!(choices::After, choices::Format, choices::Irregular, choices::LogFormat, choices::LogLevel);
plain!(choices::Share, network::LoopbackAddress, network::Listen, network::AeTitle, network::Network, network::WebAddress);
plain!(select::Accept, select::PerStudy, select::Modality, select::Orientation, select::Pattern, select::Priority);
plain!(audit::AuditTransport, destination::DestinationKind, destination::Accepts, destination::Resend);

impl FromToml for DeviceChoice {
    fn read(value: Value<'_>, reader: &mut Reader) -> Option<DeviceChoice> {
        by_name(value, reader, str::parse)
    }
}

/// Those that studies are computed in; f64 is for checking a network.
impl FromToml for Precision {
    fn read(value: Value<'_>, reader: &mut Reader) -> Option<Precision> {
        let wrong = |name: &str| format!("`{name}` is not one of: auto, f32, bf16, f16");
        by_name(value, reader, |name| name.parse().ok().filter(|p| *p != Precision::F64).ok_or_else(|| wrong(name)))
    }
}

/// A value that another room reads from its name.
fn by_name<T>(value: Value<'_>, reader: &mut Reader, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let at = value.span().start;
    let read = match value.get_ref() {
        DeValue::String(name) => parse(name),
        other => Err(format!("expected a text in quotes, found {}", other.type_str())),
    };
    read.map_err(|why| reader.note(at, Code::ConfigInvalid, why)).ok()
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl FromToml for $type {
            fn read(value: Value<'_>, reader: &mut Reader) -> Option<$type> {
                let at = value.span().start;
                let read = i64::deserialize(ValueDeserializer::from(value)).ok().and_then(|n| <$type>::try_from(n).ok());
                if read.is_none() {
                    reader.note(at, Code::ConfigInvalid, "expected a whole number, not below 0".into());
                }
                read
            }
        }
    )*};
}

whole!(usize, u32);

impl<T: FromToml> FromToml for Option<T> {
    const KEYS: &'static [&'static str] = T::KEYS;

    fn read(value: Value<'_>, reader: &mut Reader) -> Option<Option<T>> {
        T::read(value, reader).map(Some)
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    const KEYS: &'static [&'static str] = T::KEYS;

    fn read(value: Value<'_>, reader: &mut Reader) -> Option<Vec<T>> {
        let (at, path) = (value.span().start, reader.path());
        match value.into_inner() {
            DeValue::Array(items) => {
                let before = reader.mistakes.len();
                let mut read = Vec::with_capacity(items.len());
                // A list inside a table of a list: what is noted of that table goes by the table's own place.
                let outer = std::mem::take(&mut reader.items);
                for item in items {
                    if !T::KEYS.is_empty() {
                        let line = reader.line(item.span().start);
                        reader.lines.insert((path.clone(), reader.items), line);
                    }
                    read.extend(T::read(item, reader));
                    reader.items += 1;
                }
                reader.items = outer;
                (reader.mistakes.len() == before).then_some(read)
            }
            DeValue::Table(_) => {
                reader.note(at, Code::ConfigInvalid, format!("`{path}` can be given several times: write [[{path}]]"));
                None
            }
            other => {
                reader.note(at, Code::ConfigInvalid, format!("expected a list, found {}", other.type_str()));
                None
            }
        }
    }
}

/// Where the reading stands: the text, the keys above, the lines of what was read, the mistakes.
pub(super) struct Reader {
    line_starts: Vec<usize>,
    above: Vec<&'static str>,
    /// Items read of the list that is being read.
    items: usize,
    lines: BTreeMap<(String, usize), usize>,
    mistakes: Vec<Mistake>,
}

/// The entries of a table that have not been taken yet; unknown ones have been noted.
pub(super) struct Entries<'t> {
    entries: Vec<(String, Value<'t>)>,
}

impl Reader {
    fn new(text: &str) -> Reader {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Reader { line_starts, above: Vec::new(), items: 0, lines: BTreeMap::new(), mistakes: Vec::new() }
    }

    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at)
    }

    /// The dotted name of the key that is being read.
    fn path(&self) -> String {
        self.above.join(".")
    }

    pub(super) fn note(&mut self, at: usize, code: Code, message: String) {
        let line = self.line(at);
        let path = self.path();
        let message = if path.is_empty() || message.contains(&format!("`{path}`")) { message } else { format!("`{path}`: {message}") };
        self.mistakes.push(Mistake { line, code, message });
    }

    /// The entries of a table with these keys; notes what else is in it.
    pub(super) fn table<'t>(&mut self, value: Value<'t>, keys: &'static [&'static str]) -> Option<Entries<'t>> {
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Table(table) => Some(self.entries(table, keys)),
            other => {
                self.note(at, Code::ConfigInvalid, format!("expected a table, found {}", other.type_str()));
                None
            }
        }
    }

    fn entries<'t>(&mut self, table: DeTable<'t>, keys: &'static [&'static str]) -> Entries<'t> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let (at, name) = (key.span().start, key.into_inner().into_owned());
            if keys.contains(&name.as_str()) {
                entries.push((name, value));
            } else {
                let message = format!("unknown key `{name}`{}{}", self.place(), hint(&name, keys));
                let line = self.line(at);
                self.mistakes.push(Mistake { line, code: Code::ConfigUnknownKey, message });
            }
        }
        Entries { entries }
    }

    fn place(&self) -> String {
        if self.above.is_empty() { String::new() } else { format!(" in [{}]", self.path()) }
    }
}

impl<'t> Entries<'t> {
    /// The value behind a key; `None` when the key is absent, or after noting that its value is wrong.
    pub(super) fn take<T: FromToml>(&mut self, key: &'static str, reader: &mut Reader) -> Option<T> {
        let i = self.entries.iter().position(|(name, _)| name == key)?;
        let (_, value) = self.entries.swap_remove(i);
        reader.above.push(key);
        let line = reader.line(value.span().start);
        reader.lines.insert((reader.path(), reader.items), line);
        let read = T::read(value, reader);
        reader.above.pop();
        read
    }
}

/// The configuration in a text, or all its mistakes in the order of their lines.
pub(super) fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let mut reader = Reader::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.note(at, Code::ConfigInvalid, error.message().lines().collect::<Vec<_>>().join("; "));
    }
    let span = document.span();
    let config = Config::read(Spanned::new(span, DeValue::Table(document.into_inner())), &mut reader).unwrap_or_default();
    if reader.mistakes.is_empty() {
        for (key, item, message) in config.check() {
            let line = reader.lines.get(&(key.to_string(), item)).copied().unwrap_or(1);
            reader.mistakes.push(Mistake { line, code: Code::ConfigInvalid, message: format!("`{key}`: {message}") });
        }
    }
    if reader.mistakes.is_empty() {
        return Ok(config);
    }
    reader.mistakes.sort_by_key(|m| m.line);
    reader.mistakes.dedup();
    Err(reader.mistakes)
}

/// The tables and their keys; the first is the top of the file.
pub(super) const TABLES: &[(&str, &[&str])] = &[
    ("", Config::KEYS),
    ("watch", Watch::KEYS),
    ("dimse", Dimse::KEYS),
    ("stow", Stow::KEYS),
    ("spool", Spool::KEYS),
    ("intake", Intake::KEYS),
    ("jobs", Jobs::KEYS),
    ("select", Select::KEYS),
    ("model", Model::KEYS),
    ("output", Output::KEYS),
    ("destination", Destination::KEYS),
    ("retention", Retention::KEYS),
    ("training", Training::KEYS),
    ("http", Http::KEYS),
    ("log", Log::KEYS),
];

/// Where a wrong key might belong: the nearest name in its table, or the table that has a key of this name.
fn hint(name: &str, keys: &[&str]) -> String {
    if let Some(near) = nearest(name, keys) {
        return format!("; did you mean `{near}`?");
    }
    match TABLES.iter().find(|(_, keys)| keys.contains(&name)) {
        Some(("", _)) => format!("; `{name}` belongs to the top of the file, above the first table"),
        Some((table, _)) => format!("; `{name}` belongs to [{table}]"),
        None => format!("; valid here: {}", keys.join(", ")),
    }
}

/// The name with the smallest edit distance, if it is near enough to be what was meant.
pub fn nearest<'k>(name: &str, keys: &[&'k str]) -> Option<&'k str> {
    let (distance, key) = keys.iter().map(|key| (edit_distance(name, key), *key)).min()?;
    (distance * 2 < name.chars().count().max(2) + 1).then_some(key)
}

/// Levenshtein distance with swaps of neighbours counted as one.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
