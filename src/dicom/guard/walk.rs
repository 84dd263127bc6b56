//! The walk over a data set (PS3.5 section 7): one loop, an explicit stack, every length checked against the bytes that are left.

use super::{ClassFilter, DicomError, Limits, Source};
use crate::dicom::elements::{DataSet, Element};
use crate::dicom::pixel_location::{Encapsulated, Fragment, PixelLocation};
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

/// How elements are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Implicit VR little endian.
    #[default]
    ImplicitLe,
    /// Explicit VR little endian.
    ExplicitLe,
    /// Explicit VR big endian.
    ExplicitBe,
}

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = 0xFFFF_FFFF;
/// Values up to this length are kept.
const KEPT: u64 = 4096;
/// Offset tables up to this length are kept.
const KEPT_TABLE: u64 = 1 << 20;
/// Points of a contour up to this length are kept.
const KEPT_CONTOUR: u64 = 16 << 20;
/// Bytes of the first fragment that are kept, to look at the codestream's own header.
const CODESTREAM_HEAD: usize = 2048;

/// Whether the two letters are a value representation (PS3.5 section 6.2).
pub(super) fn is_vr(vr: [u8; 2]) -> bool {
    #[rustfmt::skip]
    const SHORT: [&[u8; 2]; 21] = [b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"];
    SHORT.contains(&&vr) || vr_has_long_length(vr)
}

/// Whether the length of such an element has four bytes after two reserved ones.
pub(crate) fn vr_has_long_length(vr: [u8; 2]) -> bool {
    #[rustfmt::skip]
    const LONG: [&[u8; 2]; 13] = [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
    LONG.contains(&&vr)
}

/// What is open around the current position.
struct Level {
    kind: Kind,
    /// No content lies at or beyond this offset.
    limit: u64,
    /// Closed by a delimiter instead of by its length.
    undefined: bool,
    encoding: Encoding,
    /// The element that it belongs to.
    owner: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Root,
    Sequence,
    Item,
}

/// One element header.
#[derive(Clone, Copy)]
struct Head {
    tag: Tag,
    vr: [u8; 2],
    length: u32,
    value: u64,
}

struct Walk<'w, 's> {
    source: &'w mut Source<'s>,
    limits: &'w Limits,
    data: &'w mut DataSet,
    stack: Vec<Level>,
    position: u64,
    /// The last tag of the root, to see disorder.
    last: Option<Tag>,
    disorder: bool,
}

/// Walks the data set at `start` up to the end of its pixel data, and fills `data` as far as it comes.
pub(super) fn data_set(
    source: &mut Source,
    start: u64,
    limits: &Limits,
    accept: ClassFilter,
    data: &mut DataSet,
) -> Result<(), DicomError> {
    let root = Level { kind: Kind::Root, limit: source.end(), undefined: true, encoding: data.encoding, owner: usize::MAX };
    let mut walk = Walk { source, limits, data, stack: vec![root], position: start, last: None, disorder: false };
    let ended = walk.run(accept);
    // A refused file keeps what was read; open sequences then reach to the end of the index.
    while walk.stack.len() > 1 {
        walk.pop();
    }
    ended?;
    if walk.disorder { data.check_unique() } else { Ok(()) }
}

impl Walk<'_, '_> {
    fn run(&mut self, accept: ClassFilter) -> Result<(), DicomError> {
        loop {
            while self.stack.last().is_some_and(|l| !l.undefined && self.position >= l.limit) {
                self.pop();
            }
            let Some(level) = self.stack.last() else { return Ok(()) };
            let (kind, encoding, undefined, limit) = (level.kind, level.encoding, level.undefined, level.limit);
            let Some(head) = self.head(encoding, limit)? else {
                return match kind {
                    Kind::Root => Ok(()),
                    _ => Err(DicomError::Corrupt(format!("{} is never closed", self.owner_name()))),
                };
            };
            if self.data.elements.len() >= self.limits.elements {
                return Err(DicomError::Corrupt(format!("more than {} elements", self.limits.elements)));
            }
            match (kind, head.tag) {
                (Kind::Sequence, ITEM) => self.open(&head, Kind::Item, encoding)?,
                (Kind::Sequence, SEQUENCE_END) | (Kind::Item, ITEM_END) => {
                    // A delimiter inside a defined length is superfluous, yet written by some.
                    self.position = head.value;
                    if undefined {
                        self.pop();
                    }
                }
                (Kind::Sequence, tag) => {
                    return Err(DicomError::Corrupt(format!("{tag} stands where an item of {} should", self.owner_name())));
                }
                (_, Tag(0xFFFE, _)) => return Err(DicomError::Corrupt(format!("{} outside a sequence", head.tag))),
                (_, tag) => {
                    if kind == Kind::Root {
                        self.disorder |= self.last.is_some_and(|last| last >= tag);
                        self.last = Some(tag);
                        if matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA) {
                            return self.pixel_data(&head, limit);
                        }
                    }
                    self.element(&head, encoding, limit)?;
                    if kind == Kind::Root && tag == tags::SOP_CLASS_UID {
                        accept(self.data.sop_class().as_deref().unwrap_or_default())?;
                    }
                }
            }
        }
    }

    /// The element header at the position; `None` at the clean end of what there is.
    fn head(&mut self, encoding: Encoding, limit: u64) -> Result<Option<Head>, DicomError> {
        let position = self.position;
        let room = limit.saturating_sub(position).min(12) as usize;
        let bytes = self.source.at(position, room)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let cut = || DicomError::Truncated("the file ends inside the header of an element".into());
        let &[a, b, c, d, w, x, y, z] = bytes.get(..8).ok_or_else(cut)? else { return Err(cut()) };
        let big = encoding == Encoding::ExplicitBe;
        let u16_of = |p: [u8; 2]| if big { u16::from_be_bytes(p) } else { u16::from_le_bytes(p) };
        let u32_of = |p: [u8; 4]| if big { u32::from_be_bytes(p) } else { u32::from_le_bytes(p) };
        let tag = Tag(u16_of([a, b]), u16_of([c, d]));
        if tag.0 == 0xFFFE {
            return Ok(Some(Head { tag, vr: *b"  ", length: u32_of([w, x, y, z]), value: position + 8 }));
        }
        if encoding == Encoding::ImplicitLe {
            return Ok(Some(Head { tag, vr: implicit_vr(tag), length: u32_of([w, x, y, z]), value: position + 8 }));
        }
        let vr = [w, x];
        if !is_vr(vr) {
            return Err(DicomError::Corrupt(format!("{tag} has no value representation")));
        }
        if !vr_has_long_length(vr) {
            return Ok(Some(Head { tag, vr, length: u32::from(u16_of([y, z])), value: position + 8 }));
        }
        let &[e, f, g, h] = bytes.get(8..12).ok_or_else(cut)? else { return Err(cut()) };
        Ok(Some(Head { tag, vr, length: u32_of([e, f, g, h]), value: position + 12 }))
    }

    /// An element that is not root pixel data: kept, skipped, or opened as a sequence.
    fn element(&mut self, head: &Head, encoding: Encoding, limit: u64) -> Result<(), DicomError> {
        // A system that did not know a tag passes it on as UN; its value stays what the dictionary says (PS3.5 section 6.2.2).
        let known;
        let (head, encoding) = if &head.vr == b"UN" && encoding == Encoding::ExplicitLe && head.tag.0.is_multiple_of(2) {
            known = Head { vr: implicit_vr(head.tag), ..*head };
            (&known, if &known.vr == b"SQ" { Encoding::ImplicitLe } else { encoding })
        } else {
            (head, encoding)
        };
        if head.length == UNDEFINED {
            return match &head.vr {
                b"SQ" => self.open(head, Kind::Sequence, encoding),
                // PS3.5 section 6.2.2: the content of UN with undefined length is implicit VR little endian.
                b"UN" => self.open(head, Kind::Sequence, Encoding::ImplicitLe),
                b"OB" | b"OW" => {
                    self.position = head.value;
                    self.data.push(element_of(head), None);
                    self.fragments(limit, encoding, None)
                }
                _ if encoding == Encoding::ImplicitLe => self.open(head, Kind::Sequence, encoding),
                _ => Err(DicomError::Corrupt(format!("{} has an undefined length", head.tag))),
            };
        }
        self.check_length(head, limit)?;
        let length = u64::from(head.length);
        if &head.vr == b"SQ" && self.starts_with_item(head, encoding)? {
            return self.open(head, Kind::Sequence, encoding);
        }
        let kept = match head.tag {
            EXTENDED_OFFSETS | EXTENDED_LENGTHS => KEPT_TABLE,
            CONTOUR_DATA => KEPT_CONTOUR,
            _ => KEPT,
        };
        let keep = length <= kept;
        if !keep {
            self.data.push(element_of(head), None);
            // An inflated source only knows its end when it gets there.
            self.expect_byte_at(head.value + length - 1, head.tag)?;
        } else {
            if self.data.kept.len() + length as usize > self.limits.kept_bytes {
                return Err(DicomError::Corrupt(format!("header values of more than {} bytes", self.limits.kept_bytes)));
            }
            let bytes = self.source.at(head.value, length as usize)?;
            if (bytes.len() as u64) < length {
                return Err(DicomError::Truncated(format!("the file ends inside {}", head.tag)));
            }
            self.data.push(element_of(head), Some(bytes));
        }
        self.position = head.value + length;
        Ok(())
    }

    fn pixel_data(&mut self, head: &Head, limit: u64) -> Result<(), DicomError> {
        self.data.push(element_of(head), None);
        let mut location = PixelLocation { tag: head.tag, vr: head.vr, offset: head.value, length: 0, encapsulated: None };
        if head.length == UNDEFINED {
            self.position = head.value;
            let mut frames = Encapsulated::default();
            self.fragments(limit, Encoding::ExplicitLe, Some(&mut frames))?;
            location.length = self.position - head.value;
            location.encapsulated = Some(frames);
        } else {
            location.length = u64::from(head.length);
            if location.length > limit.saturating_sub(head.value) {
                return Err(DicomError::Truncated(format!(
                    "pixel data of {} bytes, {} are left",
                    head.length,
                    limit.saturating_sub(head.value)
                )));
            }
            if head.length > 0 {
                self.expect_byte_at(head.value + location.length - 1, head.tag)?;
            }
        }
        self.data.pixels = Some(location);
        Ok(())
    }

    /// Walks encapsulated fragments (PS3.5 annex A.4) and their delimiter; records them when asked.
    fn fragments(&mut self, limit: u64, encoding: Encoding, mut record: Option<&mut Encapsulated>) -> Result<(), DicomError> {
        let mut count = 0;
        loop {
            let Some(head) = self.head(encoding, limit)? else {
                return Err(DicomError::Truncated("the file ends between two fragments of pixel data".into()));
            };
            self.position = head.value;
            match head.tag {
                ITEM if head.length != UNDEFINED => {}
                SEQUENCE_END => return Ok(()),
                tag => return Err(DicomError::Corrupt(format!("{tag} stands between two fragments of pixel data"))),
            }
            let length = u64::from(head.length);
            if length > limit.saturating_sub(head.value) {
                return Err(DicomError::Truncated(format!("a fragment of {length} bytes, {} are left", limit.saturating_sub(head.value))));
            }
            if let Some(record) = record.as_deref_mut() {
                if count == 0 {
                    if length > KEPT_TABLE {
                        return Err(DicomError::Corrupt(format!("an offset table of {length} bytes")));
                    }
                    let table = self.source.at(head.value, length as usize)?;
                    record.offsets = table.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
                } else {
                    if count == 1 {
                        record.head = self.source.at(head.value, head.length.min(CODESTREAM_HEAD as u32) as usize)?.to_vec();
                    }
                    record.fragments.push(Fragment { offset: head.value, length: head.length });
                }
            }
            count += 1;
            if count > self.limits.fragments {
                return Err(DicomError::Corrupt(format!("more than {} fragments", self.limits.fragments)));
            }
            if length > 0 {
                self.expect_byte_at(head.value + length - 1, tags::PIXEL_DATA)?;
            }
            self.position = head.value + length;
        }
    }

    /// Refuses a length that reaches past the enclosing level, or past what any value may have.
    fn check_length(&self, head: &Head, limit: u64) -> Result<(), DicomError> {
        let (length, left) = (u64::from(head.length), limit.saturating_sub(head.value));
        let is_sequence = &head.vr == b"SQ";
        if length <= left && (length <= self.limits.value_bytes || is_sequence) {
            return Ok(());
        }
        if length > self.limits.value_bytes || limit < self.source.end() {
            return Err(DicomError::Corrupt(format!("{} claims {length} bytes, {left} are left", head.tag)));
        }
        Err(DicomError::Truncated(format!("the file ends inside {}", head.tag)))
    }

    /// Whether a defined-length SQ really holds items: the VR of an implicit element is only the dictionary's opinion.
    fn starts_with_item(&mut self, head: &Head, encoding: Encoding) -> Result<bool, DicomError> {
        if encoding != Encoding::ImplicitLe || head.length == 0 {
            return Ok(true);
        }
        Ok(self.source.at(head.value, 4)? == [0xFE, 0xFF, 0x00, 0xE0])
    }

    fn expect_byte_at(&mut self, offset: u64, tag: Tag) -> Result<(), DicomError> {
        if offset < self.source.end() && !self.source.inflates() {
            return Ok(());
        }
        if self.source.at(offset, 1)?.is_empty() {
            return Err(DicomError::Truncated(format!("the file ends inside {tag}")));
        }
        Ok(())
    }

    fn open(&mut self, head: &Head, kind: Kind, encoding: Encoding) -> Result<(), DicomError> {
        if self.stack.len() > 2 * self.limits.depth {
            return Err(DicomError::Corrupt(format!("sequences nested deeper than {}", self.limits.depth)));
        }
        let parent = self.stack.last().map_or(self.source.end(), |l| l.limit);
        let undefined = head.length == UNDEFINED;
        if !undefined {
            let left = parent.saturating_sub(head.value);
            if u64::from(head.length) > left {
                let message = format!("{} claims {} bytes, {left} are left", head.tag, head.length);
                return Err(if parent < self.source.end() { DicomError::Corrupt(message) } else { DicomError::Truncated(message) });
            }
        }
        let limit = if undefined { parent } else { head.value + u64::from(head.length) };
        self.stack.push(Level { kind, limit, undefined, encoding, owner: self.data.elements.len() });
        self.data.push(element_of(head), None);
        self.position = head.value;
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(level) = self.stack.pop()
            && let Some(owner) = self.data.elements.get(level.owner)
        {
            debug_assert!(owner.next > level.owner as u32);
            self.data.close(level.owner);
        }
    }

    fn owner_name(&self) -> String {
        self.stack
            .iter()
            .rev()
            .find(|l| l.kind == Kind::Sequence)
            .and_then(|l| self.data.elements.get(l.owner))
            .map_or_else(|| "a sequence".into(), |e| e.tag.to_string())
    }
}

const EXTENDED_OFFSETS: Tag = Tag(0x7FE0, 0x0001);
const EXTENDED_LENGTHS: Tag = Tag(0x7FE0, 0x0002);
const CONTOUR_DATA: Tag = Tag(0x3006, 0x0050);

fn element_of(head: &Head) -> Element {
    Element { tag: head.tag, vr: head.vr, length: head.length, kept: None, next: 0 }
}

/// The dictionary's value representation; UN for what it does not know.
fn implicit_vr(tag: Tag) -> [u8; 2] {
    if tag.1 == 0 {
        return *b"UL";
    }
    let vr = StandardDataDictionary.by_tag(tag).map_or(VR::UN, |entry| entry.vr().relaxed());
    let bytes = vr.to_string();
    match bytes.as_bytes() {
        &[a, b] => [a, b],
        _ => *b"UN",
    }
}
