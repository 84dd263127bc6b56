//! A tiny pickle and zip assembler: makes the files that PyTorch would write, and those that nobody should.

use std::io::Write;
use tempfile::NamedTempFile;

/// A pickle under construction.
pub struct Pickle {
    pub bytes: Vec<u8>,
}

impl Pickle {
    pub fn new(protocol: u8) -> Pickle {
        Pickle { bytes: vec![0x80, protocol] }
    }

    pub fn op(&mut self, ops: &[u8]) -> &mut Pickle {
        self.bytes.extend_from_slice(ops);
        self
    }

    /// BINUNICODE
    pub fn str(&mut self, text: &str) -> &mut Pickle {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }

    /// BININT, or LONG1 where that is too small.
    pub fn int(&mut self, n: i64) -> &mut Pickle {
        match i32::try_from(n) {
            Ok(n) => self.op(b"J").op(&n.to_le_bytes()),
            Err(_) => self.op(&[0x8a, 8]).op(&n.to_le_bytes()),
        }
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Pickle {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }

    fn tuple(&mut self, numbers: &[usize]) -> &mut Pickle {
        self.op(b"(");
        for &n in numbers {
            self.int(n as i64);
        }
        self.op(b"t")
    }

    /// A tensor as `torch.save` pickles it.
    pub fn tensor(&mut self, storage: &str, key: &str, numel: u64, offset: usize, shape: &[usize], strides: &[usize]) -> &mut Pickle {
        self.global("torch._utils", "_rebuild_tensor_v2").op(b"((").str("storage").global("torch", storage).str(key).str("cpu");
        self.int(numel as i64).op(b"tQ").int(offset as i64).tuple(shape).tuple(strides);
        self.op(&[0x89]).global("collections", "OrderedDict").op(b")RtR")
    }
}

impl Pickle {
    /// JSON as Python's dicts, lists, numbers, strings and None.
    pub fn json(&mut self, value: &serde_json::Value) -> &mut Pickle {
        use serde_json::Value as Json;
        match value {
            Json::Null => self.op(b"N"),
            Json::Bool(b) => self.op(if *b { b"\x88" } else { b"\x89" }),
            Json::Number(n) => match n.as_i64() {
                Some(n) => self.int(n),
                None => self.op(b"G").op(&n.as_f64().expect("a number").to_be_bytes()),
            },
            Json::String(s) => self.str(s),
            Json::Array(items) => {
                self.op(b"](");
                for v in items {
                    self.json(v);
                }
                self.op(b"e")
            }
            Json::Object(map) => {
                self.op(b"}(");
                for (k, v) in map {
                    self.str(k).json(v);
                }
                self.op(b"u")
            }
        }
    }
}

/// A whole checkpoint of a network: weights under `key`, and whatever else the dict holds.
pub fn network(architecture: &stunetd::stunet::Architecture, key: &str, rest: &serde_json::Value) -> Vec<u8> {
    network_of(architecture, key, rest, |i| (i % 97) as f32 / 97.0)
}

/// The same with numbers of one's own: all tensors are views on one storage, whose element `i` is `number(i)`.
pub fn network_of(
    architecture: &stunetd::stunet::Architecture,
    key: &str,
    rest: &serde_json::Value,
    number: impl Fn(u64) -> f32,
) -> Vec<u8> {
    let total = architecture.parameters();
    let mut pickle = Pickle::new(2);
    pickle.json(rest).op(b"(").str(key).op(b"}(");
    let mut at = 0;
    for (name, shape) in architecture.state_dict() {
        let shape: Vec<usize> = shape.into_iter().map(|n| n as usize).collect();
        let mut strides = vec![1; shape.len()];
        for axis in (0..shape.len() - 1).rev() {
            strides[axis] = strides[axis + 1] * shape[axis + 1];
        }
        pickle.str(&name).tensor("FloatStorage", "0", total, at, &shape, &strides);
        at += shape.iter().product::<usize>();
    }
    pickle.op(b"uu.");
    let numbers: Vec<u8> = (0..total).flat_map(|i| number(i).to_le_bytes()).collect();
    archive(&[("r/data.pkl", &pickle.bytes), ("r/data/0", &numbers)])
}

/// One tensor of a forged state dict.
pub struct Weight<'a> {
    pub name: &'a str,
    pub storage: &'a str,
    pub key: &'a str,
    pub numel: u64,
    pub offset: usize,
    pub shape: &'a [usize],
    pub strides: &'a [usize],
}

/// `{'state_dict': {name: tensor, …}}`
pub fn state_dict(weights: &[Weight]) -> Vec<u8> {
    let mut pickle = Pickle::new(2);
    pickle.op(b"}").str("state_dict").op(b"}(");
    for w in weights {
        pickle.str(w.name).tensor(w.storage, w.key, w.numel, w.offset, w.shape, w.strides);
    }
    pickle.op(b"us.");
    pickle.bytes
}

/// One entry of a zip archive, with every field free.
#[derive(Clone)]
pub struct Entry<'a> {
    pub name: &'a str,
    pub local_name: &'a str,
    pub data: &'a [u8],
    /// Bytes of a hole in the file instead of `data`.
    pub hole: u64,
    pub method: u16,
    pub flags: u16,
    pub crc: u32,
    pub size: u64,
    pub packed: u64,
    /// Instead of where it is.
    pub header: Option<u64>,
}

impl<'a> Entry<'a> {
    pub fn stored(name: &'a str, data: &'a [u8]) -> Entry<'a> {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let n = data.len() as u64;
        Entry { name, local_name: name, data, hole: 0, method: 0, flags: 0, crc: crc.sum(), size: n, packed: n, header: None }
    }

    pub fn hole(name: &'a str, bytes: u64, crc: u32) -> Entry<'a> {
        Entry { crc, hole: bytes, size: bytes, packed: bytes, ..Entry::stored(name, b"") }
    }

    /// `packed` is the deflated form of `size` bytes with this checksum.
    pub fn deflated(name: &'a str, packed: &'a [u8], size: u64, crc: u32) -> Entry<'a> {
        Entry { method: 8, size, crc, ..Entry::stored(name, packed) }
    }
}

pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A part of a file.
pub enum Piece {
    Bytes(Vec<u8>),
    Hole(u64),
}

/// The archive in pieces; sizes and offsets beyond 32 bits go into zip64 fields, and then the end record is zip64 too.
pub fn pieces(entries: &[Entry]) -> Vec<Piece> {
    let (mut out, mut central, mut at) = (Vec::new(), Vec::new(), 0u64);
    let big = |n: u64| n >= 0xffff_ffff;
    let low = |n: u64| if big(n) { u32::MAX } else { n as u32 };
    let mut zip64 = false;
    for e in entries {
        let header = e.header.unwrap_or(at);
        let mut extra = Vec::new();
        for n in [e.size, e.packed, header] {
            if big(n) {
                extra.extend_from_slice(&n.to_le_bytes());
            }
        }
        if !extra.is_empty() {
            let mut field = vec![1, 0];
            field.extend_from_slice(&(extra.len() as u16).to_le_bytes());
            field.append(&mut extra);
            extra = field;
            zip64 = true;
        }
        let mut local = b"PK\x03\x04".to_vec();
        for n in [45, e.flags, e.method, 0, 0] {
            local.extend_from_slice(&n.to_le_bytes());
        }
        for n in [e.crc, low(e.packed), low(e.size)] {
            local.extend_from_slice(&n.to_le_bytes());
        }
        local.extend_from_slice(&(e.local_name.len() as u16).to_le_bytes());
        local.extend_from_slice(&[0, 0]);
        local.extend_from_slice(e.local_name.as_bytes());
        local.extend_from_slice(e.data);
        at += local.len() as u64 + e.hole;
        out.push(Piece::Bytes(local));
        if e.hole > 0 {
            out.push(Piece::Hole(e.hole));
        }

        central.extend_from_slice(b"PK\x01\x02");
        for n in [45, 45, e.flags, e.method, 0, 0] {
            central.extend_from_slice(&n.to_le_bytes());
        }
        for n in [e.crc, low(e.packed), low(e.size)] {
            central.extend_from_slice(&n.to_le_bytes());
        }
        for n in [e.name.len(), extra.len(), 0, 0, 0] {
            central.extend_from_slice(&(n as u16).to_le_bytes());
        }
        central.extend_from_slice(&[0; 4]);
        central.extend_from_slice(&low(header).to_le_bytes());
        central.extend_from_slice(e.name.as_bytes());
        central.extend_from_slice(&extra);
    }
    let (start, len, count) = (at, central.len() as u64, entries.len() as u64);
    if zip64 || big(start) {
        let end64 = start + len;
        central.extend_from_slice(b"PK\x06\x06");
        central.extend_from_slice(&44u64.to_le_bytes());
        central.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for n in [count, count, len, start] {
            central.extend_from_slice(&n.to_le_bytes());
        }
        central.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        central.extend_from_slice(&end64.to_le_bytes());
        central.extend_from_slice(&1u32.to_le_bytes());
    }
    central.extend_from_slice(&end_record(count as u16, len as u32, low(start)));
    out.push(Piece::Bytes(central));
    out
}

pub fn end_record(count: u16, len: u32, start: u32) -> Vec<u8> {
    let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
    end.extend_from_slice(&count.to_le_bytes());
    end.extend_from_slice(&count.to_le_bytes());
    end.extend_from_slice(&len.to_le_bytes());
    end.extend_from_slice(&start.to_le_bytes());
    end.extend_from_slice(&[0, 0]);
    end
}

/// The archive as bytes; for entries without holes.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    pieces(entries)
        .into_iter()
        .flat_map(|p| match p {
            Piece::Bytes(b) => b,
            Piece::Hole(_) => panic!("a hole needs a file"),
        })
        .collect()
}

pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    zip(&entries.iter().map(|(name, data)| Entry::stored(name, data)).collect::<Vec<_>>())
}

pub fn write(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("file");
    file.write_all(bytes).expect("write");
    file
}
