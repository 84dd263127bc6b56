//! What daemon and decode worker say to each other: frames of little-endian numbers over a stream socket, each with its length in front.
//! Both ends are the same binary.

use super::codec::{Codec, CodecError, FrameSpec};
use std::io::{self, Read, Write};

/// Most frames of a batch.
pub(super) const MAX_FRAMES: usize = 64;
/// Longest message, length field excluded.
const MAX_MESSAGE: usize = 8 + MAX_FRAMES * FrameJob::BYTES;
/// Longest text in an answer.
const MAX_TEXT: usize = 300;

/// One frame to decode: where it lies in the arena and where its pixels go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameJob {
    pub codec: Codec,
    pub spec: FrameSpec,
    /// Offset and length of the code stream.
    pub input: (u64, u64),
    /// Offset of the decoded frame.
    pub output: u64,
}

impl FrameJob {
    const BYTES: usize = 30;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.codec.to_byte(), self.spec.word]);
        out.extend(self.spec.rows.to_le_bytes());
        out.extend(self.spec.columns.to_le_bytes());
        for number in [self.input.0, self.input.1, self.output] {
            out.extend(number.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8; FrameJob::BYTES]) -> Option<FrameJob> {
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let spec = FrameSpec { word: bytes[1], rows: short(2), columns: short(4) };
        matches!(spec.word, 1 | 2 | 4).then_some(())?;
        Some(FrameJob { codec: Codec::from_byte(bytes[0])?, spec, input: (long(6), long(14)), output: long(22) })
    }
}

/// Sends a batch. `arena` is the arena's length now.
pub(super) fn send_batch(to: &mut impl Write, arena: usize, jobs: &[FrameJob]) -> io::Result<()> {
    let mut body = Vec::with_capacity(8 + jobs.len() * FrameJob::BYTES);
    body.extend((arena as u64).to_le_bytes());
    jobs.iter().for_each(|job| job.encode(&mut body));
    send(to, &body)
}

/// Receives a batch: the arena's length and the frames. `None` when the daemon has gone.
pub(super) fn receive_batch(from: &mut impl Read) -> io::Result<Option<(usize, Vec<FrameJob>)>> {
    let Some(body) = receive(from, MAX_MESSAGE)? else { return Ok(None) };
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let (arena, jobs) = body.split_first_chunk::<8>().ok_or_else(broken)?;
    let (jobs, rest) = jobs.as_chunks::<{ FrameJob::BYTES }>();
    let arena = usize::try_from(u64::from_le_bytes(*arena)).map_err(|_| broken())?;
    let jobs = jobs.iter().map(FrameJob::decode).collect::<Option<_>>().filter(|_| rest.is_empty());
    Ok(Some((arena, jobs.ok_or_else(broken)?)))
}

/// How a batch ended: all frames decoded, or the first one that was not and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Decoded,
    Failed { frame: usize, kind: Failure, text: String },
}

/// Kinds of [`CodecError`], and a panic of the codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Broken,
    Mismatch,
    Short,
    Panicked,
}

impl Failure {
    const ALL: [Failure; 4] = [Failure::Broken, Failure::Mismatch, Failure::Short, Failure::Panicked];

    pub(super) fn of(error: &CodecError) -> Failure {
        match error {
            CodecError::Broken(_) => Failure::Broken,
            CodecError::Mismatch { .. } => Failure::Mismatch,
            CodecError::Short { .. } => Failure::Short,
        }
    }
}

/// Sends an answer.
pub(super) fn send_answer(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut body = Vec::new();
    match answer {
        Answer::Decoded => body.push(0),
        Answer::Failed { frame, kind, text } => {
            body.push(1 + Failure::ALL.iter().position(|k| k == kind).unwrap_or(0) as u8);
            body.extend((*frame as u32).to_le_bytes());
            body.extend(text.bytes().take(MAX_TEXT));
        }
    }
    send(to, &body)
}

/// Receives an answer. The text is a worker's: shortened and without control characters. `None` when the worker has gone.
pub(super) fn receive_answer(from: &mut impl Read) -> io::Result<Option<Answer>> {
    let Some(body) = receive(from, 5 + MAX_TEXT)? else { return Ok(None) };
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    match body.as_slice() {
        [0] => Ok(Some(Answer::Decoded)),
        [kind, a, b, c, d, text @ ..] => {
            let kind = *Failure::ALL.get(usize::from(*kind).wrapping_sub(1)).ok_or_else(broken)?;
            let frame = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            let text = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
            Ok(Some(Answer::Failed { frame, kind, text }))
        }
        _ => Err(broken()),
    }
}

fn send(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let mut message = (body.len() as u32).to_le_bytes().to_vec();
    message.extend(body);
    to.write_all(&message)
}

fn receive(from: &mut impl Read, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < 4 {
        match from.read(&mut length[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_come_back() {
        let job = |i: u16| FrameJob {
            codec: Codec::Jpeg2000,
            spec: FrameSpec { rows: 512 + i, columns: 7, word: 2 },
            input: (64, 1 << 33),
            output: u64::MAX - 1,
        };
        let jobs: Vec<_> = (0..MAX_FRAMES as u16).map(job).collect();
        let mut wire = Vec::new();
        send_batch(&mut wire, 1 << 34, &jobs).unwrap();
        assert_eq!(receive_batch(&mut wire.as_slice()).unwrap(), Some((1 << 34, jobs)));
        for answer in [Answer::Decoded, Answer::Failed { frame: 3, kind: Failure::Panicked, text: "why × so".into() }] {
            let mut wire = Vec::new();
            send_answer(&mut wire, &answer).unwrap();
            assert_eq!(receive_answer(&mut wire.as_slice()).unwrap(), Some(answer));
        }
        assert_eq!(receive_batch(&mut [].as_slice()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn hostile_messages_end_in_an_error_or_a_message(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let framed = [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat();
            for wire in [&bytes, &framed] {
                let _ = receive_batch(&mut wire.as_slice());
                if let Ok(Some(Answer::Failed { text, .. })) = receive_answer(&mut wire.as_slice()) {
                    prop_assert!(text.chars().all(|c| !c.is_control()));
                }
            }
        }
    }
}
