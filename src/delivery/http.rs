//! HTTP/1.1 towards destinations: one request a connection, its body streamed, its answer read with limits. Small on purpose: what matters
//! here is to know whether the whole body had been sent when a connection was lost, and to follow no redirect with a patient's data.

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// Longest answer that is read.
const MAX_ANSWER: u64 = 4 << 20;
/// Most header lines of an answer.
const MAX_HEADERS: usize = 100;

/// A service on the network.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address, an IPv6 one without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What requests are below, without a slash at its end.
    pub base: String,
    /// TLS, for `https`.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long it may be silent.
    pub timeout: Duration,
}

/// A request.
pub struct Request<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// What follows the base.
    pub path: String,
    /// Header lines.
    pub headers: Vec<(&'a str, String)>,
    /// The body and its length.
    pub body: Option<(&'a mut dyn Read, u64)>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There is no connection.
    #[error("{0}")]
    Unreachable(String),
    /// It was lost.
    #[error("{what}")]
    Lost {
        /// How.
        what: String,
        /// The whole body had been sent.
        whole: bool,
    },
}

impl Endpoint {
    /// Sends a request and reads the answer.
    pub fn exchange(&self, request: Request<'_>) -> Result<Answer, HttpError> {
        let socket = self.connect().map_err(|e| HttpError::Unreachable(format!("no connection: {e}")))?;
        match &self.tls {
            None => self.talk(socket, request),
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone());
                let name = name.map_err(|_| HttpError::Unreachable("its name can not be in a certificate".into()))?;
                let mut socket = socket;
                let connection = ClientConnection::new(tls.clone(), name).and_then(|mut connection| {
                    connection.complete_io(&mut socket).map(|_| connection).map_err(|e| rustls::Error::General(e.to_string()))
                });
                let connection = connection.map_err(|e| HttpError::Unreachable(format!("no TLS: {e}")))?;
                self.talk(StreamOwned::new(connection, socket), request)
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(self.timeout))?;
                    socket.set_write_timeout(Some(self.timeout))?;
                    socket.set_nodelay(true)?;
                    return Ok(socket);
                }
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    fn talk<S: Read + Write>(&self, mut stream: S, request: Request<'_>) -> Result<Answer, HttpError> {
        let Request { method, path, headers, body } = request;
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut head = format!("{method} {}{path} HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n", self.base, self.port);
        for (name, value) in &headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some((_, length)) = &body {
            head += &format!("Content-Length: {length}\r\n");
        }
        head += "\r\n";
        let sent = stream.write_all(head.as_bytes()).and_then(|()| body.map_or(Ok(()), |(body, length)| send(body, length, &mut stream)));
        let whole = sent.is_ok();
        // A server that refuses may answer and close before it has read everything.
        let mut bytes = Vec::new();
        let read = Read::by_ref(&mut stream).take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(HttpError::Lost { what: "the answer is too long".into(), whole });
        }
        match parse(&bytes) {
            Some(answer) => Ok(answer),
            None => {
                let what = sent.err().or(read.err()).map_or("the connection was closed without an answer".into(), |e| e.to_string());
                Err(HttpError::Lost { what, whole })
            }
        }
    }
}

fn send(body: &mut dyn Read, length: u64, stream: &mut impl Write) -> io::Result<()> {
    let copied = io::copy(&mut body.take(length), stream)?;
    if copied < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "our file is shorter than it was"));
    }
    stream.flush()
}

/// The final answer in what came back; none when it is not whole.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut rest = bytes;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(rest).ok()? else { return None };
        let status = response.code?;
        let value = |name: &str| {
            let header = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok().map(|v| v.trim().to_ascii_lowercase())
        };
        let (chunked, said) = (value("transfer-encoding").is_some_and(|v| v.ends_with("chunked")), value("content-length"));
        rest = rest.get(length..)?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = match said {
            _ if chunked => unchunked(rest)?,
            Some(said) => rest.get(..said.parse().ok()?)?.to_vec(),
            None => rest.to_vec(),
        };
        return Some(Answer { status, body });
    }
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(rest).ok()? else { return None };
        if size == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let whole = |status, body: &str| Some(Answer { status, body: body.into() });
        for (text, answer) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", whole(200, "[]")),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[]", None),
            ("HTTP/1.1 204 No Content\r\n\r\n", whole(204, "")),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 409 Conflict\r\n\r\n{}", whole(409, "{}")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n1;x=y\r\n]\r\n0\r\n\r\n", whole(200, "[1]")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n", None),
            ("HTTP/1.1 200 OK\r\n", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes()), answer, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), chunks in any::<bool>()) {
            let head: &[u8] = if chunks { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"HTTP/1.1 " };
            let _ = parse(&[head, &bytes].concat());
        }
    }
}
