//! `multipart/related` bodies (RFC 2387, RFC 2046 section 5.1), read as they arrive: no part is ever held whole.

use memchr::memmem;

/// Longest boundary (RFC 2046: 70 characters).
const MAX_BOUNDARY: usize = 70;
/// Longest header block of a part.
const MAX_HEADERS: usize = 16 * 1024;

/// What a body turns out to hold, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part begins; its header block as it stands, without the empty line.
    Begin(&'a [u8]),
    /// Bytes of the part.
    Data(&'a [u8]),
    /// The part is complete.
    End,
}

/// Why a body can not be read.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum MultipartError {
    /// The Content-Type names no usable boundary.
    #[error("the Content-Type names no boundary of 1 to 70 characters")]
    Boundary,
    /// A part's headers are too long or never end.
    #[error("a part's header block is longer than {MAX_HEADERS} bytes")]
    Headers,
    /// After a boundary stands neither a line end nor the closing dashes.
    #[error("a boundary is followed by neither a line end nor the closing dashes")]
    Delimiter,
    /// The body ended before its closing boundary.
    #[error("the body ends before its closing boundary")]
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    AfterBoundary,
    Headers,
    Body,
    Epilogue,
}

/// A push parser: feed it what arrives, in pieces of any size.
#[derive(Debug)]
pub struct Multipart {
    /// CR LF, two dashes, the boundary.
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    state: State,
}

impl Multipart {
    /// For a body with this Content-Type header.
    pub fn from_content_type(content_type: &str) -> Result<Multipart, MultipartError> {
        let boundary = content_type
            .split(';')
            .skip(1)
            .filter_map(|p| p.trim().split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))
            .map(|(_, value)| value.trim().trim_matches('"'))
            .ok_or(MultipartError::Boundary)?;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return Err(MultipartError::Boundary);
        }
        // A body may open with its first boundary: the line end before it is then imagined.
        Ok(Multipart { delimiter: [b"\r\n--", boundary.as_bytes()].concat(), buffer: b"\r\n".to_vec(), state: State::Preamble })
    }

    /// Takes the next bytes and reports what they complete. Holds back at most a boundary's or a header block's length.
    pub fn feed(&mut self, bytes: &[u8], report: &mut impl FnMut(Event<'_>)) -> Result<(), MultipartError> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..];
            match self.state {
                State::Preamble | State::Body => {
                    let in_body = self.state == State::Body;
                    let found = memmem::find(rest, &self.delimiter);
                    // Without a boundary in sight, all but what may be its beginning is part of the body.
                    let sure = found.unwrap_or(rest.len().saturating_sub(self.delimiter.len() - 1));
                    if in_body && sure > 0 {
                        report(Event::Data(&rest[..sure]));
                    }
                    at += sure;
                    if found.is_none() {
                        break;
                    }
                    if in_body {
                        report(Event::End);
                    }
                    at += self.delimiter.len();
                    self.state = State::AfterBoundary;
                }
                State::AfterBoundary => {
                    // Spaces may stand between a boundary and its line end.
                    let blanks = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
                    match rest.get(blanks..blanks + 2) {
                        None if blanks > MAX_HEADERS => return Err(MultipartError::Headers),
                        None => break,
                        Some(b"--") if blanks == 0 => {
                            at += 2;
                            self.state = State::Epilogue;
                        }
                        // The line end stays: an empty header block is then CR LF CR LF too.
                        Some(b"\r\n") => {
                            at += blanks;
                            self.state = State::Headers;
                        }
                        Some(_) => return Err(MultipartError::Delimiter),
                    }
                }
                State::Headers => match memmem::find(rest, b"\r\n\r\n") {
                    Some(end) => {
                        report(Event::Begin(rest.get(2..end).unwrap_or_default()));
                        at += end + 4;
                        self.state = State::Body;
                    }
                    None if rest.len() > MAX_HEADERS => return Err(MultipartError::Headers),
                    None => break,
                },
                State::Epilogue => {
                    at = self.buffer.len();
                    break;
                }
            }
        }
        self.buffer.drain(..at);
        Ok(())
    }

    /// The body has ended.
    pub fn finish(self) -> Result<(), MultipartError> {
        if self.state == State::Epilogue { Ok(()) } else { Err(MultipartError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Header block and content of each part.
    type Parts = Vec<(Vec<u8>, Vec<u8>)>;

    /// The parts of a body that is fed in pieces of these sizes, over and over.
    fn parts(content_type: &str, body: &[u8], sizes: &[usize]) -> Result<Parts, MultipartError> {
        let mut parser = Multipart::from_content_type(content_type)?;
        let mut parts = Parts::new();
        let mut ended = 0;
        let mut sizes = sizes.iter().copied().cycle();
        let mut rest = body;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
            parser.feed(now, &mut |event| match event {
                Event::Begin(headers) => parts.push((headers.to_vec(), Vec::new())),
                Event::Data(bytes) => parts.last_mut().expect("a part has begun").1.extend_from_slice(bytes),
                Event::End => ended += 1,
            })?;
            rest = later;
        }
        parser.finish()?;
        assert_eq!(ended, parts.len());
        Ok(parts)
    }

    const TYPE: &str = "multipart/related; type=\"application/dicom\"; boundary=\"b-1\"";

    #[test]
    fn parts_of_every_shape() {
        let body = b"preamble\r\n--b-1\r\nContent-Type: application/dicom\r\n\r\none\r\n--b-1 \r\n\r\n\r\n--b-1\r\nA: b\r\n\r\n--b-2\r\n--b-1--\r\nend";
        let expected =
            [(b"Content-Type: application/dicom".to_vec(), b"one".to_vec()), (vec![], vec![]), (b"A: b".to_vec(), b"--b-2".to_vec())];
        for size in [1, 2, 3, 7, 1000] {
            assert_eq!(parts(TYPE, body, &[size]).expect("a body"), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn broken_bodies_have_a_reason() {
        let cases: [(&str, &[u8], MultipartError); 5] = [
            ("multipart/related", b"", MultipartError::Boundary),
            ("multipart/related; boundary=", b"", MultipartError::Boundary),
            (TYPE, b"--b-1\r\n\r\nhalf", MultipartError::Truncated),
            (TYPE, b"--b-1xx\r\n\r\n", MultipartError::Delimiter),
            (TYPE, &[b"--b-1\r\n".as_slice(), &[b'a'; 20_000]].concat(), MultipartError::Headers),
        ];
        for (content_type, body, expected) in cases {
            assert_eq!(parts(content_type, body, &[1000]), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(bodies in proptest::collection::vec(proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), any::<u8>()], 0..60), 1..5), sizes in proptest::collection::vec(1usize..20, 1..6)) {
            let mut whole = Vec::new();
            for b in &bodies {
                prop_assume!(memmem::find(b, b"--b-1").is_none());
                whole.extend_from_slice(b"--b-1\r\nX: y\r\n\r\n");
                whole.extend_from_slice(b);
                whole.extend_from_slice(b"\r\n");
            }
            whole.extend_from_slice(b"--b-1--");
            let read: Vec<Vec<u8>> = parts(TYPE, &whole, &sizes).expect("a body").into_iter().map(|(_, b)| b).collect();
            prop_assert_eq!(read, bodies);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parts(TYPE, &bytes, &[13]);
        }
    }
}
