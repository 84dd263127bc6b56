//! A small DICOM writer for tests: elements in any encoding, a CT slice to change at will.

use std::io::Write;

/// How a data set is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Implicit,
    Explicit,
    BigEndian,
    Deflated,
}

pub const ENCODINGS: [Encoding; 4] = [Encoding::Implicit, Encoding::Explicit, Encoding::BigEndian, Encoding::Deflated];

impl Encoding {
    pub fn uid(self) -> &'static str {
        match self {
            Encoding::Implicit => "1.2.840.10008.1.2",
            Encoding::Explicit => "1.2.840.10008.1.2.1",
            Encoding::BigEndian => "1.2.840.10008.1.2.2",
            Encoding::Deflated => "1.2.840.10008.1.2.1.99",
        }
    }
}

#[derive(Clone)]
pub enum Content {
    Text(String),
    Words(Vec<u16>),
    Bytes(Vec<u8>),
    /// Items, and whether lengths are left undefined.
    Items(Vec<Vec<Element>>, bool),
}

#[derive(Clone)]
pub struct Element {
    pub tag: (u16, u16),
    pub vr: &'static str,
    pub content: Content,
}

pub fn text(group: u16, element: u16, vr: &'static str, value: &str) -> Element {
    Element { tag: (group, element), vr, content: Content::Text(value.into()) }
}

pub fn word(group: u16, element: u16, value: u16) -> Element {
    Element { tag: (group, element), vr: "US", content: Content::Words(vec![value]) }
}

pub fn items(group: u16, element: u16, items: Vec<Vec<Element>>, undefined: bool) -> Element {
    Element { tag: (group, element), vr: "SQ", content: Content::Items(items, undefined) }
}

fn u16_bytes(value: u16, big: bool) -> [u8; 2] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn u32_bytes(value: u32, big: bool) -> [u8; 4] {
    if big { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn tag_bytes(tag: (u16, u16), big: bool) -> Vec<u8> {
    [u16_bytes(tag.0, big), u16_bytes(tag.1, big)].concat()
}

/// Elements as bytes, in the order given.
pub fn data_set(elements: &[Element], encoding: Encoding) -> Vec<u8> {
    let big = encoding == Encoding::BigEndian;
    let mut out = Vec::new();
    for element in elements {
        let mut undefined = false;
        let mut value = match &element.content {
            Content::Text(text) => text.as_bytes().to_vec(),
            Content::Words(words) => words.iter().flat_map(|w| u16_bytes(*w, big)).collect(),
            Content::Bytes(bytes) => bytes.clone(),
            Content::Items(list, open) => {
                undefined = *open;
                let mut out = Vec::new();
                for item in list {
                    let content = data_set(item, encoding);
                    out.extend(tag_bytes((0xFFFE, 0xE000), big));
                    out.extend(u32_bytes(if *open { u32::MAX } else { content.len() as u32 }, big));
                    out.extend(content);
                    if *open {
                        out.extend(tag_bytes((0xFFFE, 0xE00D), big));
                        out.extend([0; 4]);
                    }
                }
                if *open {
                    out.extend(tag_bytes((0xFFFE, 0xE0DD), big));
                    out.extend([0; 4]);
                }
                out
            }
        };
        if value.len() % 2 == 1 {
            value.push(if element.vr == "UI" || element.vr == "OB" { 0 } else { b' ' });
        }
        let length = if undefined { u32::MAX } else { value.len() as u32 };
        out.extend(tag_bytes(element.tag, big));
        if encoding == Encoding::Implicit {
            out.extend(u32_bytes(length, big));
        } else {
            out.extend(element.vr.as_bytes());
            if ["OB", "OW", "SQ", "UN", "UT"].contains(&element.vr) {
                out.extend([0, 0]);
                out.extend(u32_bytes(length, big));
            } else {
                out.extend(u16_bytes(length as u16, big));
            }
        }
        out.extend(value);
    }
    out
}

/// A Part 10 file around a data set that is encoded already (deflated here when asked).
pub fn part10(body: &[u8], encoding: Encoding) -> Vec<u8> {
    let mut out = vec![0; 128];
    out.extend(b"DICM");
    out.extend(data_set(&[text(2, 0x10, "UI", encoding.uid())], Encoding::Explicit));
    if encoding == Encoding::Deflated {
        let mut encoder = flate2::write::DeflateEncoder::new(&mut out, flate2::Compression::best());
        encoder.write_all(body).expect("deflate");
        encoder.finish().expect("deflate");
    } else {
        out.extend(body);
    }
    out
}

/// A file with these elements.
pub fn file(elements: &[Element], encoding: Encoding) -> Vec<u8> {
    part10(&data_set(elements, encoding), encoding)
}

/// An axial CT slice of 4 x 6 pixels at z = `5 * k`, its elements in order; pixel values are `100 * k + index`.
pub fn ct_slice(k: u16) -> Vec<Element> {
    let private = vec![text(0x0029, 0x1010, "LO", "nested private")];
    vec![
        text(0x0008, 0x0005, "CS", "ISO_IR 100"),
        text(0x0008, 0x0008, "CS", "ORIGINAL\\PRIMARY\\AXIAL"),
        text(0x0008, 0x0016, "UI", "1.2.840.10008.5.1.4.1.1.2"),
        text(0x0008, 0x0018, "UI", &format!("1.2.3.{k}")),
        text(0x0008, 0x0022, "DA", "20240131"),
        text(0x0008, 0x0032, "TM", "093505.5"),
        text(0x0008, 0x0060, "CS", "CT"),
        text(0x0008, 0x103E, "LO", "thorax"),
        items(0x0008, 0x1140, vec![vec![text(0x0008, 0x1155, "UI", "1.2.3.99")], vec![]], true),
        text(0x0010, 0x0010, "PN", "PHANTOM^ONE"),
        text(0x0010, 0x0020, "LO", "P-1"),
        text(0x0010, 0x1010, "AS", "045Y"),
        text(0x0018, 0x0050, "DS", "5"),
        text(0x0018, 0x0060, "DS", "120"),
        text(0x0020, 0x000D, "UI", "1.2.3.4"),
        text(0x0020, 0x000E, "UI", "1.2.3.5"),
        text(0x0020, 0x0011, "IS", "2"),
        text(0x0020, 0x0013, "IS", &(k + 1).to_string()),
        text(0x0020, 0x0032, "DS", &format!("-10.5\\-20\\{}", 5 * k)),
        text(0x0020, 0x0037, "DS", "1\\0\\0\\0\\1\\0"),
        text(0x0020, 0x0052, "UI", "1.2.3.6"),
        word(0x0028, 0x0002, 1),
        text(0x0028, 0x0004, "CS", "MONOCHROME2"),
        word(0x0028, 0x0010, 4),
        word(0x0028, 0x0011, 6),
        text(0x0028, 0x0030, "DS", "0.8\\0.7"),
        word(0x0028, 0x0100, 16),
        word(0x0028, 0x0101, 12),
        word(0x0028, 0x0102, 11),
        word(0x0028, 0x0103, 0),
        text(0x0028, 0x1052, "DS", "-1024"),
        text(0x0028, 0x1053, "DS", "1"),
        items(0x0040, 0x0275, vec![vec![text(0x0040, 0x1001, "SH", "RP 7"), items(0x0040, 0x0008, vec![private], false)]], false),
        Element { tag: (0x7FE0, 0x0010), vr: "OW", content: Content::Words((0..24).map(|i| 100 * k + i).collect()) },
    ]
}

/// The elements with some replaced (or added, in order); `None` removes.
pub fn with(mut elements: Vec<Element>, changes: Vec<((u16, u16), Option<Element>)>) -> Vec<Element> {
    for (tag, change) in changes {
        elements.retain(|e| e.tag != tag);
        elements.extend(change);
    }
    elements.sort_by_key(|e| e.tag);
    elements
}
