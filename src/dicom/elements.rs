//! The index of a data set's elements that the guard makes, and reading values from it.

use super::error::DicomError;
use super::guard::Encoding;
use super::pixel_location::PixelLocation;
use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// A data set as far as its pixel data: every element with its place, short values kept.
#[derive(Default)]
pub struct DataSet {
    /// Transfer Syntax UID without padding.
    pub transfer_syntax: String,
    /// Where the pixel data lies, if there is any.
    pub pixels: Option<PixelLocation>,
    /// Where the deflate stream starts in the file, for the deflated transfer syntax.
    pub deflated_at: Option<u64>,
    pub(super) encoding: Encoding,
    pub(super) elements: Vec<Element>,
    pub(super) kept: Vec<u8>,
}

impl std::fmt::Debug for DataSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataSet({} elements, {})", self.elements.len(), super::error::printable_uid(&self.transfer_syntax))
    }
}

/// One element or item of the index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub tag: Tag,
    pub vr: [u8; 2],
    /// Declared length; all ones if undefined.
    pub length: u32,
    /// Start of the value in `DataSet::kept`.
    pub kept: Option<u32>,
    /// Index of the next element on the same level.
    pub next: u32,
}

impl DataSet {
    pub(super) fn push(&mut self, mut element: Element, value: Option<&[u8]>) {
        if let Some(value) = value {
            element.kept = Some(self.kept.len() as u32);
            self.kept.extend_from_slice(value);
        }
        element.next = self.elements.len() as u32 + 1;
        self.elements.push(element);
    }

    /// Ends the level that the element at `index` opened.
    pub(super) fn close(&mut self, index: usize) {
        self.elements[index].next = self.elements.len() as u32;
    }

    /// Refuses a root with a tag that occurs twice: readers would differ on which one counts.
    pub(super) fn check_unique(&self) -> Result<(), DicomError> {
        let mut all: Vec<Tag> = self.root().elements().map(|v| v.tag()).collect();
        all.sort_unstable();
        match all.windows(2).find(|w| w[0] == w[1]) {
            Some(twice) => Err(DicomError::Corrupt(format!("{} occurs twice", twice[0]))),
            None => Ok(()),
        }
    }

    /// SOP Class UID of the root, if it is there and not empty.
    pub fn sop_class(&self) -> Option<String> {
        self.root().text(tags::SOP_CLASS_UID)
    }

    pub(super) fn root_is_big_endian(&self) -> bool {
        self.encoding == Encoding::ExplicitBe
    }

    /// The top level.
    pub fn root(&self) -> Level<'_> {
        Level { set: self, first: 0, end: self.elements.len() as u32 }
    }
}

/// The elements of one level: the root, or an item of a sequence.
#[derive(Clone, Copy)]
pub struct Level<'a> {
    set: &'a DataSet,
    first: u32,
    end: u32,
}

impl<'a> Level<'a> {
    /// The elements in file order.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            (at < self.end).then(|| {
                let value = Value { set: self.set, index: at };
                at = value.element().next.max(at + 1);
                value
            })
        })
    }

    /// The element with that tag.
    pub fn get(self, tag: Tag) -> Option<Value<'a>> {
        self.elements().find(|v| v.tag() == tag)
    }

    /// The items of the sequence with that tag; none if it is absent.
    pub fn items(self, tag: Tag) -> impl Iterator<Item = Level<'a>> {
        self.get(tag).into_iter().flat_map(|v| v.items())
    }

    /// The first item of the sequence with that tag.
    pub fn item(self, tag: Tag) -> Option<Level<'a>> {
        self.items(tag).next()
    }

    /// The value as text without padding; `None` if absent or empty.
    pub fn text(self, tag: Tag) -> Option<String> {
        self.get(tag)?.text()
    }

    /// The values of a text element, each without padding; empty if absent.
    pub fn texts(self, tag: Tag) -> Vec<String> {
        self.text(tag).map_or_else(Vec::new, |t| t.split('\\').map(|v| v.trim().to_owned()).collect())
    }

    /// The first number; `None` if absent, not a number or not finite.
    pub fn number(self, tag: Tag) -> Option<f64> {
        self.get(tag)?.numbers()?.first().copied()
    }

    /// Exactly `N` finite numbers.
    pub fn numbers<const N: usize>(self, tag: Tag) -> Option<[f64; N]> {
        self.get(tag)?.numbers()?.try_into().ok()
    }

    /// The first number, if it is whole and not negative.
    pub fn count(self, tag: Tag) -> Option<u32> {
        self.number(tag).filter(|n| n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(n)).map(|n| n as u32)
    }

    /// The first number, if it is whole.
    pub fn integer(self, tag: Tag) -> Option<i32> {
        self.number(tag).filter(|n| n.fract() == 0.0 && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(n)).map(|n| n as i32)
    }

    /// An element of a private block by its creator (PS3.5 section 7.8.1), or, when `orphan` and the creator is lost, of block 10.
    pub fn private(self, group: u16, creator: &str, element: u8, orphan: bool) -> Option<Value<'a>> {
        let block = self
            .elements()
            .filter(|v| v.tag().0 == group && (0x10..=0xFF).contains(&v.tag().1))
            .find(|v| v.text().as_deref() == Some(creator));
        let block = match block {
            Some(value) => value.tag().1,
            None if orphan => 0x10,
            None => return None,
        };
        self.get(Tag(group, block << 8 | u16::from(element)))
    }
}

/// One element's value.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    set: &'a DataSet,
    index: u32,
}

impl<'a> Value<'a> {
    fn element(self) -> &'a Element {
        &self.set.elements[self.index as usize]
    }

    /// The tag.
    pub fn tag(self) -> Tag {
        self.element().tag
    }

    /// The two letters of the value representation; from the dictionary in implicit VR.
    pub fn vr(self) -> [u8; 2] {
        self.element().vr
    }

    /// The value's bytes as they stand in the file; `None` if they were too long to keep, or for a sequence.
    pub fn bytes(self) -> Option<&'a [u8]> {
        let element = self.element();
        let start = element.kept? as usize;
        self.set.kept.get(start..start + element.length as usize)
    }

    /// The items of a sequence; none for another element.
    pub fn items(self) -> impl Iterator<Item = Level<'a>> {
        let children = Level { set: self.set, first: self.index + 1, end: self.element().next };
        children.elements().filter(|v| v.tag() == Tag(0xFFFE, 0xE000)).map(|v| Level {
            set: v.set,
            first: v.index + 1,
            end: v.element().next,
        })
    }

    /// The value as text without padding; bytes that are not UTF-8 become replacement characters. `None` if empty or not kept.
    pub fn text(self) -> Option<String> {
        let text = String::from_utf8_lossy(self.bytes()?);
        let text = text.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace());
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Whether numbers are big endian here.
    pub(super) fn big_endian(self) -> bool {
        self.set.encoding == Encoding::ExplicitBe
    }

    /// The value as finite numbers: binary by its value representation, anything else as decimal text. `None` if one is not a number.
    pub fn numbers(self) -> Option<Vec<f64>> {
        let bytes = self.bytes()?;
        let big = self.big_endian();
        macro_rules! binary {
            ($t:ty) => {
                bytes
                    .chunks_exact(size_of::<$t>())
                    .map(|c| {
                        let c = c.try_into().ok()?;
                        Some(if big { <$t>::from_be_bytes(c) } else { <$t>::from_le_bytes(c) } as f64)
                    })
                    .collect::<Option<Vec<f64>>>()?
            };
        }
        let numbers = match &self.vr() {
            b"US" | b"OW" => binary!(u16),
            b"SS" => binary!(i16),
            b"UL" => binary!(u32),
            b"SL" => binary!(i32),
            b"UV" | b"OV" => binary!(u64),
            b"SV" => binary!(i64),
            b"FL" => binary!(f32),
            b"FD" => binary!(f64),
            _ => self
                .text()?
                .split('\\')
                .map(|t| t.trim_matches(|c: char| c == '\0' || c.is_ascii_whitespace()).parse().ok())
                .collect::<Option<Vec<f64>>>()?,
        };
        (!numbers.is_empty() && numbers.iter().all(|n| n.is_finite())).then_some(numbers)
    }
}
