//! Identifiers of C-FIND (PS3.4 annex C): the one question whether an instance is there. Implicit VR little endian.

/// The identifier that asks for one instance by all its unique keys, so that peers without relational queries answer too.
pub fn image_identifier(study_uid: &str, series_uid: &str, sop_instance_uid: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    put(&mut out, (0x0008, 0x0018), sop_instance_uid, 0);
    put(&mut out, (0x0008, 0x0052), "IMAGE", b' ');
    put(&mut out, (0x0020, 0x000D), study_uid, 0);
    put(&mut out, (0x0020, 0x000E), series_uid, 0);
    out
}

fn put(out: &mut Vec<u8>, tag: (u16, u16), text: &str, pad: u8) {
    let odd = text.len() % 2;
    out.extend_from_slice(&tag.0.to_le_bytes());
    out.extend_from_slice(&tag.1.to_le_bytes());
    out.extend_from_slice(&((text.len() + odd) as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.extend(std::iter::repeat_n(pad, odd));
}

/// The SOP Instance UID (0008,0018) in an identifier that came back; none when it is not there, or the bytes are no data set up to it.
pub fn sop_instance_of(identifier: &[u8]) -> Option<&str> {
    let mut rest = identifier;
    loop {
        let (head, tail) = rest.split_at_checked(8)?;
        let tag = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (value, tail) = tail.split_at_checked(length)?;
        if tag == (0x0008, 0x0018) {
            return std::str::from_utf8(value).ok().map(|text| text.trim_matches(['\0', ' ']));
        }
        if tag > (0x0008, 0x0018) {
            return None;
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_instance_asked_for_is_found_in_the_answer() {
        let asked = image_identifier("1.2", "1.2.3", "1.2.3.45");
        assert_eq!((asked.len() % 2, sop_instance_of(&asked)), (0, Some("1.2.3.45")));
        let mut with_charset = b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100".to_vec();
        with_charset.extend(&asked);
        assert_eq!(sop_instance_of(&with_charset), Some("1.2.3.45"));
        assert_eq!(sop_instance_of(&asked[16..]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = sop_instance_of(&bytes);
        }
    }
}
