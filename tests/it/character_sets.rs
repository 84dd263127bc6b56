//! Patient names in any character set leave as they came: the same bytes, under the same Specific Character Set.

use crate::need;
use crate::serve::daemon::{Daemon, World};
use crate::support::ct::Ct;
use crate::support::on_path;
use std::path::Path;
use std::process::Command;
use stunetd::config::Format;

const CHARACTER_SET: u32 = 0x0008_0005;
const STUDY_DESCRIPTION: u32 = 0x0008_1030;
const PATIENT_NAME: u32 = 0x0010_0010;

/// Specific Character Set, the name's bytes, and the name as it reads; PS3.5 annexes H to K have most of them.
const CASES: &[(&str, &[u8], Option<&str>)] = &[
    ("", b"Adams^John Robert Quincy^^Rev.^B.A.", Some("Adams^John Robert Quincy^^Rev.^B.A.")),
    ("ISO_IR 100", b"Buc^J\xe9r\xf4me", Some("Buc^Jérôme")),
    ("ISO_IR 101", b"Wa\xb3\xeasa", Some("Wałęsa")),
    ("ISO_IR 109", b"\xa1aga\xfda", None),
    ("ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", Some("Διονυσιος")),
    ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", Some("قباني^لنزار")),
    ("ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", Some("שרון^דבורה")),
    ("ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3", None),
    ("ISO_IR 148", b"\xc7avu\xfeo\xf0lu", Some("Çavuşoğlu")),
    ("ISO_IR 166", b"\xb9\xc2\xd2\xb3\xd1\xb4", None),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东=".as_bytes(), Some("Wang^XiaoDong=王^小东=")),
    ("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", Some("Wang^XiaoDong=王^小东=")),
    ("GBK", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", Some("Wang^XiaoDong=王^小东=")),
    // The second byte of a character is a backslash.
    ("GB18030", b"\x81\x5c^\x81\x5c", Some("乗^乗")),
    (
        "\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        Some("Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        Some("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        Some("Hong^Gildong=洪^吉洞=홍^길동"),
    ),
    ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", Some("Zhang^XiaoDong=张^小东=")),
    ("ISO 2022 IR 6\\ISO 2022 IR 100\\ISO 2022 IR 144", b"\x1b-AJ\xe9r\xf4me^\x1b-L\xb8\xd2\xd0\xdd", Some("Jérôme^Иван")),
    // What nobody may write and somebody does: Latin-1 and UTF-8 without saying so, a term that does not exist.
    ("", b"M\xfcller^J\xf6rg", None),
    ("", "Müller^Jörg".as_bytes(), None),
    ("ISO_IR 999", b"M\xfcller", None),
];

/// The top-level elements of an explicit VR little endian file, as (tag, VR, value), file meta information left out.
fn elements(file: &Path) -> Vec<(u32, [u8; 2], Vec<u8>)> {
    let bytes = std::fs::read(file).expect("file");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    let mut at = 144 + number(140) as usize;
    let mut out = Vec::new();
    while at < bytes.len() {
        let tag = u32::from(bytes[at]) << 16 | u32::from(bytes[at + 1]) << 24 | u32::from(bytes[at + 2]) | u32::from(bytes[at + 3]) << 8;
        let vr = [bytes[at + 4], bytes[at + 5]];
        let (start, length) = if [b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC"].contains(&&vr) {
            (at + 12, number(at + 8) as usize)
        } else {
            (at + 8, usize::from(bytes[at + 6]) | usize::from(bytes[at + 7]) << 8)
        };
        out.push((tag, vr, bytes[start..start + length].to_vec()));
        at = start + length;
    }
    out
}

/// Writes a file anew with these elements in place of its own.
fn rewrite(file: &Path, changed: &[(u32, &[u8; 2], &[u8])]) {
    let head = std::fs::read(file).expect("file");
    let head = &head[..144 + u32::from_le_bytes(head[140..144].try_into().expect("four")) as usize];
    let mut all = elements(file);
    all.retain(|(tag, ..)| changed.iter().all(|(other, ..)| other != tag));
    all.extend(changed.iter().map(|(tag, vr, value)| (*tag, **vr, value.to_vec())));
    all.sort_by_key(|(tag, ..)| *tag);
    let mut out = head.to_vec();
    for (tag, vr, mut value) in all {
        value.resize(value.len() + value.len() % 2, b' ');
        out.extend([(tag >> 16) as u8, (tag >> 24) as u8, tag as u8, (tag >> 8) as u8]);
        out.extend(vr);
        if [b"OB", b"OW", b"SQ"].contains(&&vr) {
            out.extend([0, 0]);
            out.extend((value.len() as u32).to_le_bytes());
        } else {
            out.extend((value.len() as u16).to_le_bytes());
        }
        out.extend(value);
    }
    std::fs::write(file, out).expect("written");
}

fn value_of(file: &Path, tag: u32) -> Option<Vec<u8>> {
    elements(file).into_iter().find(|(t, ..)| *t == tag).map(|(_, _, value)| value)
}

/// The value as it stands in a file: padded to an even length with a blank.
fn padded(value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    value.resize(value.len() + value.len() % 2, b' ');
    value
}

#[test]
fn names_leave_as_they_came() {
    let mut world = World::new();
    world.configure = Box::new(|config| config.output.formats = vec![Format::Seg, Format::LabelMap]);
    let daemon = Daemon::start(&world);
    let dump = need!(on_path("dcmdump"), "dcmtk is not here");
    for (number, (set, name, reads)) in CASES.iter().enumerate() {
        let number = number as u32 + 1;
        let staging = tempfile::tempdir().expect("folder");
        Ct::new(number, 3).write(staging.path());
        for entry in std::fs::read_dir(staging.path()).expect("folder") {
            let file = entry.expect("entry").path();
            let mut changed: Vec<(u32, &[u8; 2], &[u8])> = vec![(PATIENT_NAME, b"PN", name), (STUDY_DESCRIPTION, b"LO", name)];
            if !set.is_empty() {
                changed.push((CHARACTER_SET, b"CS", set.as_bytes()));
            }
            rewrite(&file, &changed);
            stunetd::sys::durable::rename(&file, &world.incoming().join(file.file_name().expect("name"))).expect("moved");
        }
        let folder = daemon.next_result();
        for object in ["seg.dcm", "labelmap.dcm"] {
            let file = world.output().join(&folder).join(object);
            let said = format!("{set} {object}");
            assert_eq!(value_of(&file, PATIENT_NAME), Some(padded(name)), "{said}");
            assert_eq!(value_of(&file, STUDY_DESCRIPTION), Some(padded(name)), "{said}");
            assert_eq!(value_of(&file, CHARACTER_SET).unwrap_or_default(), padded(set.as_bytes()), "{said}");
            if let Some(reads) = reads {
                let out = Command::new(&dump).args(["+U8", "-q", "+L", "+P", "0010,0010"]).arg(&file).output().expect("dcmdump");
                let text = String::from_utf8_lossy(&out.stdout).into_owned();
                // A dcmtk without character set conversion says so and prints nothing.
                if text.is_empty() {
                    crate::support::note_skipped(&said, "dcmdump can not convert this character set");
                } else {
                    assert!(text.contains(&format!("[{reads}]")), "{said}: {text}");
                }
            }
        }
    }
    daemon.end().expect("a clean end");
}
