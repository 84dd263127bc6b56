//! The way to the repository: messages over TLS (RFC 5425) or, to this machine only, over TCP (RFC 6587), each after its length.
//!
//! Syslog has no acknowledgement. What it has is the end of a connection: our side says that it is done and the other one does so only after
//! it has read to that point (RFC 5425 section 4.4: close_notify is answered; a socket that is closed with unread bytes is reset). So each
//! batch has a connection of its own, and counts as read when the other side ends it in good order.

use crate::config;
use crate::config::AuditTransport;
use crate::fault::Fault;
use crate::sys::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// The repository and how it is reached.
pub struct Line {
    address: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    timeout: Duration,
}

impl Line {
    /// As the configuration says. Certificates that can not be used are `config.invalid`.
    pub fn new(config: &config::Audit) -> Result<Line, Fault> {
        let tls = match config.transport {
            AuditTransport::Tcp => None,
            AuditTransport::Tls => {
                let client = tls::client("audit", &config.tls_ca, &config.tls_certificate, &config.tls_key)?;
                let host = config.host().to_owned();
                let name =
                    ServerName::try_from(host).map_err(|e| tls::wrong("audit.repository", config.repository.as_ref(), &e.to_string()))?;
                Some((client, name))
            }
        };
        Ok(Line { address: config.repository.clone(), tls, timeout: config.timeout.0 })
    }

    /// Sends messages; when this returns Ok the repository has read them all.
    pub fn send<'m>(&self, messages: impl Iterator<Item = &'m [u8]>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(format!("{} ", message.len()).into_bytes());
            bytes.extend(message);
        }
        let socket = self.connect()?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(self.timeout))?;
        socket.set_write_timeout(Some(self.timeout))?;
        match &self.tls {
            None => {
                let mut socket = socket;
                socket.write_all(&bytes)?;
                socket.shutdown(Shutdown::Write)?;
                until_end(&mut socket)
            }
            Some((config, name)) => {
                let connection = ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, socket);
                stream.write_all(&bytes)?;
                stream.conn.send_close_notify();
                stream.flush()?;
                while stream.conn.wants_write() {
                    stream.conn.write_tls(&mut stream.sock)?;
                }
                stream.sock.shutdown(Shutdown::Write)?;
                until_end(&mut stream)
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Waits until the other side has ended the connection in good order.
fn until_end(stream: &mut impl Read) -> io::Result<()> {
    let mut answer = [0; 256];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(()),
            // Nothing is expected, and what comes says nothing.
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // The end of the connection below TLS, without close_notify: it was not reset, so all was read.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}
