//! Who a result is: UIDs that depend on what it was made from and how, and on nothing else.

use super::Settings;
use crate::dicom::{CopiedAttributes, Uid};
use sha2::{Digest, Sha256};

/// Version of the rules below; a change of them gives new UIDs.
const SCHEME: u64 = 1;

/// Version of the program that writes.
pub const WRITER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The identity of one result: volume, model, settings, writer, the copied patient and study attributes, and what is odd about the
/// source. The same identity gives the same UIDs, so a PACS sees a second sending as the same object.
#[derive(Clone)]
pub struct Identity {
    base: Sha256,
}

impl Identity {
    /// `volume_key` names the voxels, `model_digest` the weights and their manifest; `settings` are those in force; `copied` and `warnings`
    /// are what objects repeat and tell of the source.
    pub fn new(volume_key: &[u8; 32], model_digest: &str, settings: &Settings, copied: &CopiedAttributes, warnings: &[String]) -> Identity {
        let mut base = Sha256::new();
        base.update(SCHEME.to_le_bytes());
        field(&mut base, volume_key);
        field(&mut base, model_digest.as_bytes());
        field(&mut base, settings.canonical().as_bytes());
        field(&mut base, WRITER_VERSION.as_bytes());
        field(&mut base, &copied_digest(copied));
        warnings.iter().for_each(|warning| field(&mut base, warning.as_bytes()));
        Identity { base }
    }

    /// The UID of a role: `instance/seg`, `series/seg`, `dimension/seg`, `tracking/3`, …
    pub fn uid(&self, role: &str) -> Uid {
        Uid::from_digest(&self.digest(role))
    }

    /// A number of a role, below `limit`.
    pub fn number(&self, role: &str, limit: u32) -> u32 {
        let digest = self.digest(role);
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]) % limit
    }

    /// The identity in hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.digest("identity"))
    }

    fn digest(&self, role: &str) -> [u8; 32] {
        let mut hash = self.base.clone();
        field(&mut hash, role.as_bytes());
        hash.finalize().into()
    }
}

/// Names copied attributes: their tags, representations and bytes.
fn copied_digest(copied: &CopiedAttributes) -> [u8; 32] {
    let mut hash = Sha256::new();
    for element in &copied.elements {
        hash.update(element.tag.0.to_le_bytes());
        hash.update(element.tag.1.to_le_bytes());
        hash.update(element.vr);
        field(&mut hash, &element.value);
    }
    hash.finalize().into()
}

/// A field with its length before it, so that no two lists of fields give the same bytes.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dicom::RawElement;
    use crate::series::Irregular;
    use std::collections::BTreeSet;

    #[test]
    fn every_ingredient_and_every_role_changes_the_uid() {
        let settings = Settings {
            step: 0.5,
            mirror: false,
            skip_air: false,
            precision: "f32".into(),
            irregular: Irregular::Refuse,
            assume_mbq: false,
        };
        let copied = |elements: &[((u16, u16), &[u8])]| CopiedAttributes {
            elements: elements.iter().map(|(tag, value)| RawElement { tag: *tag, vr: *b"LO", value: value.to_vec() }).collect(),
        };
        let one = copied(&[((0x10, 0x20), b"ab")]);
        let base = Identity::new(&[1; 32], "m", &settings, &one, &[]);
        assert_eq!(base.uid("instance/seg"), Identity::new(&[1; 32], "m", &settings.clone(), &one, &[]).uid("instance/seg"));
        let others = [
            Identity::new(&[2; 32], "m", &settings, &one, &[]),
            Identity::new(&[1; 32], "n", &settings, &one, &[]),
            Identity::new(&[1; 32], "m", &Settings { step: 0.25, ..settings.clone() }, &one, &[]),
            Identity::new(&[1; 32], "m", &Settings { mirror: true, ..settings.clone() }, &one, &[]),
            Identity::new(&[1; 32], "m", &Settings { skip_air: true, ..settings.clone() }, &one, &[]),
            Identity::new(&[1; 32], "m", &Settings { precision: "bf16".into(), ..settings.clone() }, &one, &[]),
            Identity::new(&[1; 32], "m", &Settings { irregular: Irregular::Resample, ..settings.clone() }, &one, &[]),
            Identity::new(&[1; 32], "m", &Settings { assume_mbq: true, ..settings.clone() }, &one, &[]),
            Identity::new(&[1; 32], "m", &settings, &copied(&[((0x10, 0x20), b"ac")]), &[]),
            Identity::new(&[1; 32], "m", &settings, &copied(&[((0x10, 0x20), b"a"), ((0x10, 0x21), b"b")]), &[]),
            Identity::new(&[1; 32], "m", &settings, &CopiedAttributes::default(), &[]),
            Identity::new(&[1; 32], "m", &settings, &one, &["age_unknown".into()]),
        ];
        let mut uids: BTreeSet<Uid> = others.iter().map(|i| i.uid("instance/seg")).collect();
        uids.extend(["instance/seg", "series/seg", "instance/labelmap", "tracking/1", "tracking/11"].map(|r| base.uid(r)));
        assert_eq!(uids.len(), others.len() + 5);
    }
}
