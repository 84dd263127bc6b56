//! DICOM unique identifiers (PS3.5 section 9).

use std::fmt;

/// A unique identifier: 1 to 64 characters of digits and dots, components without leading zeros.
///
/// A UID from outside is never used as a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(String);

/// Why a text is not a UID.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("not a valid DICOM UID")]
pub struct UidError;

impl Uid {
    /// Reads a UID, without trailing padding (NUL or space). Leading zeros in a component are tolerated: they exist in the wild.
    pub fn parse(text: &str) -> Result<Uid, UidError> {
        let text = text.trim_matches(|c| c == '\0' || c == ' ');
        let valid = !text.is_empty()
            && text.len() <= 64
            && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if valid { Ok(Uid(text.to_owned())) } else { Err(UidError) }
    }

    /// The UID `2.25.<decimal>` of a UUIDv8 made from the first 16 bytes of a digest (PS3.5 B.2).
    pub fn from_digest(digest: &[u8; 32]) -> Uid {
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        Uid(format!("2.25.{}", uuid::Builder::from_custom_bytes(bytes).into_uuid().as_u128()))
    }

    /// The text without padding.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Uid {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_standard_and_the_wild_have() {
        for good in ["1.2.840.10008.1.2", "2.25.0", "1.02.3", "1.2.3\0", "1.2.3 "] {
            assert!(Uid::parse(good).is_ok(), "{good:?}");
        }
        for bad in ["", "1..2", ".1", "1.", "1.2.a", "../../etc", &"1.".repeat(40), "1.2.3\n"] {
            assert!(Uid::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn digest_becomes_a_version_8_uuid() {
        let uid = Uid::from_digest(&[0xff; 32]);
        let value: u128 = uid.as_str()[5..].parse().expect("decimal");
        let id = uuid::Uuid::from_u128(value);
        assert_eq!((id.get_version_num(), id.get_variant()), (8, uuid::Variant::RFC4122));
        assert!(uid.as_str().len() <= 44);
    }
}
