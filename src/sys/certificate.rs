//! What of an X.509 certificate (RFC 5280) a daemon has to know by itself: when it ends. Everything else is rustls's.

use super::civil;

/// The end of validity of a certificate in DER, in seconds since 1970; none when it is no certificate.
pub fn not_after(der: &[u8]) -> Option<i64> {
    let (certificate, _) = expect(SEQUENCE, der)?;
    let (mut rest, _) = expect(SEQUENCE, certificate)?;
    // The version is only there from version 2 on.
    if let Some((VERSION, _, after)) = element(rest) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = expect(tag, rest)?.1;
    }
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, text)
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        // Up to 2^24 bytes: no certificate is longer.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of the first element, which has to have this tag, and what follows.
fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 stands for 1950, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z").filter(|d| d.iter().all(u8::is_ascii_digit))?;
    let number = |part: &[u8]| part.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => (number(&digits[..2]) + if digits[0] < b'5' { 2000 } else { 1900 }, &digits[2..]),
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| number(&rest[at..at + 2]);
    let (hour, minute, second) = (part(4), part(6), part(8));
    (hour < 24 && minute < 60 && second <= 60).then_some(())?;
    civil::seconds(year, part(0), part(2), hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        match content.len() {
            short @ 0..0x80 => out.push(short as u8),
            long => out.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        out.extend(content);
        out
    }

    fn certificate(end: &[u8], issuer: usize) -> Vec<u8> {
        let validity = [wrapped(UTC_TIME, b"200101000000Z"), end.to_vec()].concat();
        let parts = [
            wrapped(VERSION, &wrapped(INTEGER, &[2])),
            wrapped(INTEGER, &[1, 2, 3]),
            wrapped(SEQUENCE, b"algorithm"),
            wrapped(SEQUENCE, &vec![0; issuer]),
            wrapped(SEQUENCE, &validity),
            wrapped(SEQUENCE, b"subject"),
        ];
        wrapped(SEQUENCE, &wrapped(SEQUENCE, &parts.concat()))
    }

    #[test]
    fn the_end_is_found_in_both_forms() {
        let end = civil::seconds(2049, 12, 31, 86_399);
        assert_eq!(not_after(&certificate(&wrapped(UTC_TIME, b"491231235959Z"), 5)), end);
        assert_eq!(not_after(&certificate(&wrapped(GENERALIZED_TIME, b"20491231235959Z"), 500)), end);
        assert_eq!(not_after(&certificate(&wrapped(UTC_TIME, b"500101000000Z"), 5)), civil::seconds(1950, 1, 1, 0));
    }

    #[test]
    fn what_is_none_harms_nobody() {
        let whole = certificate(&wrapped(UTC_TIME, b"491231235959Z"), 300);
        // Cut off anywhere before its end, and with every byte of its frame changed.
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "{length}");
        }
        for (at, byte) in (0..40).flat_map(|at| [0, 0x30, 0x7F, 0x84, 0xFF].map(|byte| (at, byte))) {
            let mut other = whole.clone();
            other[at] = byte;
            let _ = not_after(&other);
        }
        for end in [&b"491331235959Z"[..], b"491231245959Z", b"4912312359Z", b"49123123595xZ", b"491231235959"] {
            assert_eq!(not_after(&certificate(&wrapped(UTC_TIME, end), 5)), None);
        }
    }
}
