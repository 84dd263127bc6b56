//! Text in the character sets of PS3.3 C.12.1.1.2, decoded for selection rules and for people. Results never use this: they copy bytes.

use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

/// Decodes a text value by the Specific Character Set of its file. What can not be decoded becomes replacement characters; an unknown set is
/// read as UTF-8.
pub fn decode(bytes: &[u8], specific_character_set: Option<&str>) -> String {
    let sets: Vec<&str> = specific_character_set.unwrap_or("").split('\\').map(str::trim).collect();
    // With code extensions the first set is what a value starts in, the escaped ones follow (PS3.5 section 6.1.2.5).
    let escaped = sets.iter().skip(1).find_map(|set| match *set {
        "ISO 2022 IR 87" | "ISO 2022 IR 159" | "ISO 2022 IR 13" => Some(("ISO_IR 87", &b""[..])),
        "ISO 2022 IR 149" => Some(("ISO_IR 149", &b"\x1b$)C"[..])),
        "ISO 2022 IR 58" => Some(("GBK", &b"\x1b$)A"[..])),
        _ => None,
    });
    let (code, escape) = escaped.unwrap_or((sets.first().copied().unwrap_or(""), b""));
    let bytes = without(bytes, escape);
    let decoded = SpecificCharacterSet::from_code(if code.is_empty() { "ISO_IR 6" } else { code }).and_then(|set| set.decode(&bytes).ok());
    let text = decoded.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned());
    text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned()
}

fn without(bytes: &[u8], escape: &[u8]) -> Vec<u8> {
    if escape.is_empty() {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        match rest.strip_prefix(escape) {
            Some(after) => rest = after,
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_single_and_escaped_sets() {
        assert_eq!(decode(b"M\xFCller ", Some("ISO_IR 100")), "Müller");
        assert_eq!(decode("日本\0".as_bytes(), Some("ISO_IR 192")), "日本");
        assert_eq!(decode(b"\x1b$)C\xB1\xE8\xC8\xF1\xC1\xDF", Some("\\ISO 2022 IR 149")), "김희중");
        assert_eq!(decode(b"\x1b$B;3ED\x1b(B^", Some("\\ISO 2022 IR 87")), "山田^");
        assert_eq!(decode(b"plain", None), "plain");
        assert_eq!(decode(b"odd\xFF", Some("ISO-8859-1")), "odd\u{FFFD}");
    }
}
