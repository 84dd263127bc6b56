//! A second reader of segmentation objects, written from the standard for explicit VR little endian files: elements and items
//! (PS3.5 section 7), bits (PS3.5 annex D), functional groups (PS3.3 C.7.6.16). Shares no code with the one under test.

use std::collections::BTreeMap;

pub type Tag = (u16, u16);

/// The elements of a data set or item.
#[derive(Debug, Default)]
pub struct Set(pub BTreeMap<Tag, Element>);

#[derive(Debug)]
pub struct Element {
    pub bytes: Vec<u8>,
    pub items: Vec<Set>,
}

impl Set {
    pub fn bytes(&self, tag: Tag) -> &[u8] {
        &self.0.get(&tag).unwrap_or_else(|| panic!("{tag:04x?} is missing")).bytes
    }

    pub fn text(&self, tag: Tag) -> String {
        String::from_utf8_lossy(self.bytes(tag)).trim_end_matches([' ', '\0']).to_owned()
    }

    pub fn us(&self, tag: Tag) -> Vec<u16> {
        self.bytes(tag).chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
    }

    pub fn ul(&self, tag: Tag) -> Vec<u32> {
        self.bytes(tag).chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    pub fn decimals(&self, tag: Tag) -> Vec<f64> {
        self.text(tag).split('\\').map(|v| v.trim().parse().unwrap_or_else(|_| panic!("{v:?} is no decimal string"))).collect()
    }

    pub fn items(&self, tag: Tag) -> &[Set] {
        self.0.get(&tag).map_or(&[], |e| &e.items)
    }
}

/// Reads a file: meta group first, then the data set. Panics on anything that the standard does not allow in explicit VR
/// little endian: elements out of order, odd lengths, unknown value representations, lengths that do not add up.
pub fn read(file: &[u8]) -> Set {
    assert_eq!(&file[128..132], b"DICM");
    elements(&file[132..])
}

fn elements(mut data: &[u8]) -> Set {
    let mut set = Set::default();
    let mut last = (0, 0);
    while !data.is_empty() {
        let tag = (u16::from_le_bytes([data[0], data[1]]), u16::from_le_bytes([data[2], data[3]]));
        assert!(tag > last || last == (0, 0), "{tag:04x?} after {last:04x?}");
        last = tag;
        let vr = [data[4], data[5]];
        let (length, head) = match &vr {
            b"OB" | b"OW" | b"SQ" | b"UC" | b"UN" | b"UT" | b"OF" | b"OD" | b"OL" | b"UR" => {
                assert_eq!(&data[6..8], &[0, 0]);
                (u32::from_le_bytes([data[8], data[9], data[10], data[11]]) as usize, 12)
            }
            b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS" | b"LO" | b"LT" | b"PN" | b"SH" | b"SL"
            | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US" => (u16::from_le_bytes([data[6], data[7]]).into(), 8),
            other => panic!("{tag:04x?}: value representation {other:?}"),
        };
        assert_eq!(length % 2, 0, "{tag:04x?} has an odd length");
        let value = &data[head..head + length];
        data = &data[head + length..];
        let items = if &vr == b"SQ" { items(value) } else { vec![] };
        if &vr == b"DS" {
            value.split(|b| *b == b'\\').for_each(|v| assert!(v.len() <= 16, "{tag:04x?}: decimal string of {} characters", v.len()));
        }
        set.0.insert(tag, Element { bytes: value.to_vec(), items });
    }
    set
}

fn items(mut data: &[u8]) -> Vec<Set> {
    let mut all = vec![];
    while !data.is_empty() {
        assert_eq!(&data[..4], &[0xFE, 0xFF, 0x00, 0xE0], "an item");
        let length = u32::from_le_bytes([data[4], data[5], data[6], data[7]]) as usize;
        all.push(elements(&data[8..8 + length]));
        data = &data[8 + length..];
    }
    all
}

/// A voxel of a segment: its segment number and place in the patient.
pub struct Voxel {
    pub segment: u16,
    pub point: [f64; 3],
    pub source: String,
}

/// Every labelled voxel of an object, each frame placed by its own functional groups.
pub fn voxels(set: &Set) -> Vec<Voxel> {
    let (rows, columns) = (set.us((0x28, 0x10))[0] as usize, set.us((0x28, 0x11))[0] as usize);
    let bits = set.us((0x28, 0x100))[0] as usize;
    let pixels = set.bytes((0x7FE0, 0x10));
    let shared = &set.items((0x5200, 0x9229))[0];
    let orientation = shared.items((0x20, 0x9116))[0].decimals((0x20, 0x37));
    let spacing = shared.items((0x28, 0x9110))[0].decimals((0x28, 0x30));
    let frames = set.items((0x5200, 0x9230));
    assert_eq!(set.text((0x28, 0x08)), frames.len().to_string());
    let all_bits = frames.len() * rows * columns * bits;
    assert_eq!(pixels.len(), all_bits.div_ceil(16) * 2, "pixel data are padded to an even length and no more");
    let mut out = vec![];
    for (f, frame) in frames.iter().enumerate() {
        let position = frame.items((0x20, 0x9113))[0].decimals((0x20, 0x32));
        let source = frame.items((0x08, 0x9124))[0].items((0x08, 0x2112))[0].text((0x08, 0x1155));
        let own = frame.items((0x62, 0x0A)).first().map(|s| s.us((0x62, 0x0B))[0]);
        for row in 0..rows {
            for column in 0..columns {
                let n = (f * rows + row) * columns + column;
                let segment = match bits {
                    1 if pixels[n / 8] >> (n % 8) & 1 == 1 => own.expect("segment"),
                    1 => 0,
                    8 => pixels[n].into(),
                    _ => u16::from_le_bytes([pixels[2 * n], pixels[2 * n + 1]]),
                };
                if segment != 0 {
                    let point = std::array::from_fn(|a| {
                        position[a] + orientation[a] * spacing[1] * column as f64 + orientation[3 + a] * spacing[0] * row as f64
                    });
                    out.push(Voxel { segment, point, source: source.clone() });
                }
            }
        }
    }
    out
}

/// Centroid and number of voxels of each segment.
pub fn centroids(voxels: impl IntoIterator<Item = (u16, [f64; 3])>) -> BTreeMap<u16, ([f64; 3], usize)> {
    let mut sums: BTreeMap<u16, ([f64; 3], usize)> = BTreeMap::new();
    for (segment, point) in voxels {
        let (sum, n) = sums.entry(segment).or_default();
        (0..3).for_each(|a| sum[a] += point[a]);
        *n += 1;
    }
    sums.into_iter().map(|(s, (sum, n))| (s, (sum.map(|v| v / n as f64), n))).collect()
}
