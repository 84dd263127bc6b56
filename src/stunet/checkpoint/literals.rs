//! Numbers and strings as a pickle writes them, text protocols included.

use super::error::{CheckpointError, malformed};
use super::pickle::{MAX_LONG, Machine};
use super::value::Object;

impl Machine<'_> {
    /// A two's complement integer of `n` bytes.
    pub fn long(&mut self, n: usize) -> Result<(), CheckpointError> {
        if n > MAX_LONG {
            return Err(CheckpointError::Limit(format!("an integer in the pickle has {n} bytes; {MAX_LONG} are allowed")));
        }
        let bytes = self.take(n)?;
        let object = if n <= 8 {
            let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [sign; 8];
            wide[..n].copy_from_slice(bytes);
            Object::Int(i64::from_le_bytes(wide))
        } else {
            Object::Long(bytes.into())
        };
        self.push(object)
    }

    /// `I` and `L` lines: decimal; `I00` and `I01` are truth values; an `L` may follow.
    pub fn text_integer(&mut self) -> Result<(), CheckpointError> {
        let text = self.line()?;
        let object = match (text, text.strip_suffix('L').unwrap_or(text)) {
            ("00", _) => Object::Bool(false),
            ("01", _) => Object::Bool(true),
            (_, digits) if digits.len() > MAX_LONG => {
                return Err(CheckpointError::Limit(format!("an integer has {} digits", digits.len())));
            }
            (_, digits) => match digits.parse() {
                Ok(n) => Object::Int(n),
                Err(_) if !digits.is_empty() && digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
                    Object::Opaque("an integer beyond 64 bits")
                }
                Err(_) => return Err(malformed("an integer in the pickle is none")),
            },
        };
        self.push(object)
    }

    pub fn utf8(&mut self, width: usize) -> Result<(), CheckpointError> {
        let bytes = self.sized(width)?;
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("a string in the pickle is not UTF-8"))?;
        self.push(Object::Str(text.into()))
    }

    pub fn binary(&mut self, width: usize) -> Result<(), CheckpointError> {
        let bytes = self.sized(width)?;
        self.push(Object::Bytes(bytes.into()))
    }

    /// Python 2's `str`: read as Latin-1, which keeps every byte.
    pub fn latin1(&mut self, width: usize) -> Result<(), CheckpointError> {
        let text: String = self.sized(width)?.iter().map(|&b| b as char).collect();
        self.push(Object::Str(text.into()))
    }

    /// `S'…'`: quoted, with Python's escapes.
    pub fn quoted_string(&mut self) -> Result<(), CheckpointError> {
        let line = self.line()?;
        self.charge(line.len())?;
        let inner = ['\'', '"'].iter().find_map(|&q| line.strip_prefix(q)?.strip_suffix(q));
        let inner = inner.ok_or_else(|| malformed("a string in the pickle has no quotes"))?;
        let text = unescape(inner, true).ok_or_else(|| malformed("a string in the pickle has a bad escape"))?;
        self.push(Object::Str(text.into()))
    }

    /// `V…`: only `\u` and `\U` are escapes.
    pub fn escaped_unicode(&mut self) -> Result<(), CheckpointError> {
        let line = self.line()?;
        self.charge(line.len())?;
        let text = unescape(line, false).ok_or_else(|| malformed("a string in the pickle has a bad escape"))?;
        self.push(Object::Str(text.into()))
    }
}

/// Python's string escapes; with `all` false only `\u` and `\U`.
fn unescape(text: &str, all: bool) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let kind = after.chars().next()?;
        let width = match kind {
            'u' => 4,
            'U' => 8,
            'x' if all => 2,
            _ => 0,
        };
        rest = &after[kind.len_utf8()..];
        match kind {
            _ if width > 0 => {
                out.push(char::from_u32(u32::from_str_radix(rest.get(..width)?, 16).ok()?)?);
                rest = &rest[width..];
            }
            _ if !all => {
                out.push('\\');
                out.push(kind);
            }
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            '\\' | '\'' | '"' => out.push(kind),
            _ => return None,
        }
    }
    out.push_str(rest);
    Some(out)
}
