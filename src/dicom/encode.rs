//! Explicit VR little endian, written (PS3.5 section 7 and annex A.2).
//!
//! Raw values pass through untouched, so names in any character set leave as they came. Our own texts are ASCII, which
//! every specific character set of DICOM includes.

use super::{RawElement, Uid};
use dicom_core::{Tag, VR};

/// An encoder of data elements. At the top level elements may come in any order, and a later one takes the place of an
/// earlier one with the same tag; inside items they must come in ascending order.
#[derive(Clone, Default)]
pub struct Encoder {
    out: Vec<u8>,
    depth: usize,
    starts: Vec<(Tag, usize)>,
}

impl Encoder {
    /// Nothing yet.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// A text value; several are joined by `\`. Control characters and what is not ASCII become `_`.
    pub fn text(&mut self, tag: Tag, vr: VR, text: &str) {
        let clean: String = text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '_' }).collect();
        self.element(tag, vr, clean.as_bytes());
    }

    /// One text value of at most `max` characters: `\` would start a second one, and becomes `_` too.
    pub fn one(&mut self, tag: Tag, vr: VR, text: &str, max: usize) {
        self.text(tag, vr, &shortened(text, max).replace('\\', "_"));
    }

    /// A UID.
    pub fn uid(&mut self, tag: Tag, uid: &Uid) {
        self.element(tag, VR::UI, uid.as_str().as_bytes());
    }

    /// Decimal strings, each at most 16 characters; see [`decimal_string`].
    pub fn decimals(&mut self, tag: Tag, values: &[f64]) {
        let texts: Vec<String> = values.iter().map(|&v| decimal_string(v)).collect();
        self.element(tag, VR::DS, texts.join("\\").as_bytes());
    }

    /// Unsigned shorts.
    pub fn us(&mut self, tag: Tag, values: &[u16]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.element(tag, VR::US, &bytes);
    }

    /// Unsigned longs.
    pub fn ul(&mut self, tag: Tag, values: &[u32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.element(tag, VR::UL, &bytes);
    }

    /// An attribute tag as value.
    pub fn at(&mut self, tag: Tag, value: Tag) {
        let [g, e] = [value.0.to_le_bytes(), value.1.to_le_bytes()];
        self.element(tag, VR::AT, &[g[0], g[1], e[0], e[1]]);
    }

    /// A raw element of a source file, byte for byte. A VR that does not exist is written as UN.
    pub fn raw(&mut self, element: &RawElement) {
        let vr = VR::from_binary(element.vr).unwrap_or(VR::UN);
        self.element(Tag(element.tag.0, element.tag.1), vr, &element.value);
    }

    /// A sequence: the closure writes its items with [`Encoder::item`]. Lengths are defined.
    pub fn sequence(&mut self, tag: Tag, items: impl FnOnce(&mut Encoder)) {
        self.begin(tag);
        self.tag(tag);
        self.out.extend_from_slice(b"SQ\0\0");
        self.measured(items);
    }

    /// An item of a sequence: the closure writes its elements, tags ascending.
    pub fn item(&mut self, elements: impl FnOnce(&mut Encoder)) {
        self.tag(Tag(0xFFFE, 0xE000));
        self.measured(elements);
    }

    /// A code sequence with one item (PS3.3 section 8). Values over 16 characters become a Long Code Value.
    pub fn code(&mut self, tag: Tag, code: Concept<'_>) {
        self.code_with(tag, code, |_| {});
    }

    /// A code sequence with one item that holds more than the code: the closure writes what comes after Code Meaning.
    pub fn code_with(&mut self, tag: Tag, code: Concept<'_>, more: impl FnOnce(&mut Encoder)) {
        use dicom_dictionary_std::tags;
        self.sequence(tag, |s| {
            s.item(|e| {
                let long = code.value.len() > 16;
                if !long {
                    e.one(tags::CODE_VALUE, VR::SH, code.value, 16);
                }
                e.one(tags::CODING_SCHEME_DESIGNATOR, VR::SH, code.scheme, 16);
                e.one(tags::CODE_MEANING, VR::LO, code.meaning, 64);
                if long {
                    e.text(tags::LONG_CODE_VALUE, VR::UC, code.value);
                }
                more(e);
            });
        });
    }

    /// Elements encoded before, appended as they are (inside items).
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Whether a top-level element was written.
    pub fn has(&self, tag: Tag) -> bool {
        self.starts.iter().any(|&(t, _)| t == tag)
    }

    /// The bytes as they were written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The top-level elements in ascending order, the last of each tag.
    pub fn into_data_set(self) -> Vec<u8> {
        let ends = self.starts.iter().skip(1).map(|&(_, s)| s).chain([self.out.len()]);
        let last: std::collections::BTreeMap<Tag, (usize, usize)> =
            self.starts.iter().zip(ends).map(|(&(tag, start), end)| (tag, (start, end))).collect();
        last.values().flat_map(|&(start, end)| &self.out[start..end]).copied().collect()
    }

    fn element(&mut self, tag: Tag, vr: VR, value: &[u8]) {
        self.begin(tag);
        // A short length field can not say more than this; PS3.5 6.2.2 sends such values as UN.
        let vr = if !long_length(vr) && value.len() > 0xFFFE { VR::UN } else { vr };
        self.tag(tag);
        self.out.extend_from_slice(&vr.to_bytes());
        let padded = value.len() + value.len() % 2;
        if long_length(vr) {
            self.out.extend_from_slice(&[0, 0]);
            self.out.extend_from_slice(&(padded as u32).to_le_bytes());
        } else {
            self.out.extend_from_slice(&(padded as u16).to_le_bytes());
        }
        self.out.extend_from_slice(value);
        if padded > value.len() {
            self.out.push(if matches!(vr, VR::UI | VR::OB | VR::UN) { 0 } else { b' ' });
        }
    }

    fn begin(&mut self, tag: Tag) {
        if self.depth == 0 {
            self.starts.push((tag, self.out.len()));
        }
    }

    fn tag(&mut self, tag: Tag) {
        self.out.extend_from_slice(&tag.0.to_le_bytes());
        self.out.extend_from_slice(&tag.1.to_le_bytes());
    }

    fn measured(&mut self, content: impl FnOnce(&mut Encoder)) {
        let at = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.depth += 1;
        content(self);
        self.depth -= 1;
        let length = (self.out.len() - at - 4) as u32;
        self.out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A coded concept, borrowed: Code Value, Coding Scheme Designator, Code Meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concept<'a> {
    /// Code Value (0008,0100), or Long Code Value when it has more than 16 characters.
    pub value: &'a str,
    /// Coding Scheme Designator (0008,0102).
    pub scheme: &'a str,
    /// Code Meaning (0008,0104).
    pub meaning: &'a str,
}

/// `DCM` concepts by their value.
pub const fn dcm<'a>(value: &'a str, meaning: &'a str) -> Concept<'a> {
    Concept { value, scheme: "DCM", meaning }
}

/// The first `max` characters of a text.
pub fn shortened(text: &str, max: usize) -> &str {
    text.char_indices().nth(max).map_or(text, |(end, _)| &text[..end])
}

/// A Decimal String of at most 16 characters (PS3.5 6.2): the shortest text that reads back as the same number where one
/// fits, else the nearest that fits. Not finite: empty, which means unknown.
pub fn decimal_string(value: f64) -> String {
    if !value.is_finite() {
        return String::new();
    }
    // Minus zero is no position.
    let value = value + 0.0;
    let exact = format!("{value}");
    if exact.len() <= 16 {
        return exact;
    }
    let candidates = (0..=16).flat_map(|precision| {
        let fixed = format!("{value:.precision$}");
        // ".5" is a valid Decimal String, and one digit better than "0.5".
        let bare = fixed.replacen("0.", ".", usize::from(value.abs() < 1.0));
        [bare, fixed, format!("{value:.precision$e}")]
    });
    let error = |text: &str| text.parse::<f64>().map_or(f64::INFINITY, |v| (v - value).abs());
    candidates
        .filter(|t| t.len() <= 16)
        .min_by(|a, b| error(a).total_cmp(&error(b)).then(a.len().cmp(&b.len())))
        .unwrap_or_else(|| format!("{value:.0e}"))
}

fn long_length(vr: VR) -> bool {
    use VR::*;
    matches!(vr, OB | OD | OF | OL | OV | OW | SQ | SV | UC | UN | UR | UT | UV)
}

/// Preamble, magic code and file meta information (PS3.10 section 7) of a file in this transfer syntax.
pub fn file_meta(sop_class: &str, sop_instance: &Uid, transfer_syntax: &str) -> Vec<u8> {
    use dicom_dictionary_std::tags;
    let mut meta = Encoder::new();
    meta.element(tags::FILE_META_INFORMATION_VERSION, VR::OB, &[0, 1]);
    meta.text(tags::MEDIA_STORAGE_SOP_CLASS_UID, VR::UI, sop_class);
    meta.uid(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, sop_instance);
    meta.text(tags::TRANSFER_SYNTAX_UID, VR::UI, transfer_syntax);
    meta.text(tags::IMPLEMENTATION_CLASS_UID, VR::UI, IMPLEMENTATION_CLASS_UID);
    meta.text(tags::IMPLEMENTATION_VERSION_NAME, VR::SH, concat!("STUNETD_", env!("CARGO_PKG_VERSION")));
    let meta = meta.into_data_set();
    let mut group = Encoder::new();
    group.ul(tags::FILE_META_INFORMATION_GROUP_LENGTH, &[meta.len() as u32]);
    [vec![0; 128], b"DICM".to_vec(), group.into_data_set(), meta].concat()
}

/// Implementation Class UID (0002,0012) of everything this program writes.
pub const IMPLEMENTATION_CLASS_UID: &str = "2.25.61068762127859911981032459492881369312";

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_dictionary_std::tags;
    use proptest::prelude::*;

    #[test]
    fn elements_are_sorted_and_the_last_one_wins() {
        let mut e = Encoder::new();
        e.text(tags::PATIENT_ID, VR::LO, "abc");
        e.text(tags::MODALITY, VR::CS, "CT");
        e.sequence(tags::SEGMENT_SEQUENCE, |s| s.item(|i| i.us(tags::SEGMENT_NUMBER, &[7])));
        e.text(tags::MODALITY, VR::CS, "SEG");
        assert!(e.has(tags::PATIENT_ID) && !e.has(tags::SEGMENT_NUMBER));
        let object = dicom_object::InMemDicomObject::read_dataset_with_ts(
            e.into_data_set().as_slice(),
            &dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN.erased(),
        )
        .expect("parses");
        let read: Vec<_> = object.iter().map(|e| e.header().tag).collect();
        assert_eq!(read, [tags::MODALITY, tags::PATIENT_ID, tags::SEGMENT_SEQUENCE]);
        assert_eq!(object.element(tags::MODALITY).expect("there").to_str().expect("text"), "SEG");
        let items = object.element(tags::SEGMENT_SEQUENCE).expect("there").items().expect("items");
        assert_eq!(items[0].element(tags::SEGMENT_NUMBER).expect("there").to_int::<u16>().expect("number"), 7);
    }

    #[test]
    fn decimal_strings_of_known_numbers() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.75, "0.75"),
            (-1234.5, "-1234.5"),
            (1.0 / 3.0, ".333333333333333"),
            (-1.0 / 3.0, "-.33333333333333"),
            (1e-20, "1e-20"),
            (f64::NAN, ""),
        ] {
            assert_eq!(decimal_string(value), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn decimal_strings_fit_and_are_near(v in prop_oneof![-2000.0f64..2000.0, -1.0f64..1.0, proptest::num::f64::NORMAL]) {
            let text = decimal_string(v);
            prop_assert!(text.len() <= 16 && !text.is_empty(), "{text}");
            let back: f64 = text.parse().unwrap();
            prop_assert!((back - v).abs() <= v.abs() * 1e-8 || (v.abs() < 1.0 && (back - v).abs() < 1e-14), "{v} {text}");
            if v.abs() < 2000.0 {
                prop_assert!((back - v).abs() < 1e-10);
            }
        }

        #[test]
        fn what_sixteen_characters_can_say_is_kept(mantissa in -9_999_999_999_999i64..9_999_999_999_999, digits in 0usize..12) {
            let source = format!("{}", mantissa as f64 / 10f64.powi(digits as i32));
            prop_assume!(source.len() <= 16);
            let value: f64 = source.parse().unwrap();
            prop_assert_eq!(decimal_string(value).parse::<f64>().unwrap(), value);
        }
    }
}
