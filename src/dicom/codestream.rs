//! What a compressed frame says about its own size, before a codec sees it.

/// Width and height in the header of a JPEG, JPEG-LS or JPEG 2000 codestream; `None` if it is another kind, or too far in for the bytes given.
pub fn dimensions(head: &[u8]) -> Option<(u32, u32)> {
    match head {
        [0xFF, 0x4F, 0xFF, 0x51, rest @ ..] => jpeg_2000_size(rest),
        [0xFF, 0xD8, rest @ ..] => jpeg_frame(rest),
        _ => None,
    }
}

/// The SIZ segment (ISO/IEC 15444-1 A.5.1) behind its marker: Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz.
fn jpeg_2000_size(segment: &[u8]) -> Option<(u32, u32)> {
    let field = |at: usize| segment.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    Some((field(4)?.saturating_sub(field(12)?), field(8)?.saturating_sub(field(16)?)))
}

/// The frame header (ISO/IEC 10918-1 B.2.2; 14495-1 C.2.2 for JPEG-LS): walks the marker segments before it.
fn jpeg_frame(mut rest: &[u8]) -> Option<(u32, u32)> {
    loop {
        let [0xFF, marker, tail @ ..] = rest else { return None };
        if *marker == 0xFF {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes([*tail.first()?, *tail.get(1)?]));
        let is_frame = matches!(marker, 0xC0..=0xCF | 0xF7) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        if is_frame {
            let [_, _, _precision, y0, y1, x0, x1, ..] = tail else { return None };
            let (rows, columns) = (u16::from_be_bytes([*y0, *y1]), u16::from_be_bytes([*x0, *x1]));
            // 0 rows: the number follows the first scan (DNL), or in an LSE segment.
            return (rows > 0 && columns > 0).then_some((columns.into(), rows.into()));
        }
        if *marker == 0xDA || length < 2 {
            return None;
        }
        rest = tail.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_size_or_says_nothing() {
        let siz =
            [&[0xFF, 0x4F, 0xFF, 0x51, 0, 47, 0, 0][..], &36u32.to_be_bytes(), &40u32.to_be_bytes(), &[0; 4], &8u32.to_be_bytes()].concat();
        assert_eq!(dimensions(&siz), Some((36, 32)));
        let jpeg = [0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2, 0xFF, 0xC3, 0, 11, 12, 0, 32, 0, 36, 1];
        assert_eq!(dimensions(&jpeg), Some((36, 32)));
        let jpeg_ls = [0xFF, 0xD8, 0xFF, 0xF7, 0, 11, 12, 0, 32, 0, 36, 1];
        assert_eq!(dimensions(&jpeg_ls), Some((36, 32)));
        for cut in 0..jpeg.len() - 1 {
            dimensions(&jpeg[..cut]);
            assert_eq!(dimensions(&siz[..cut]), None);
        }
        assert_eq!(dimensions(&[0xFF, 0xD8, 0xFF, 0xE0, 0, 0]), None);
    }
}
