//! HTTP for other machines: TLS, and a token that every request has to carry.

use super::server::Caller;
use crate::audit::{Audit, Event, Node};
use crate::config::Http;
use crate::fault::{Code, Fault};
use crate::sys::tls;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Shortest token, in characters.
const SHORTEST: usize = 32;
/// Largest file of a token.
const LARGEST: u64 = 4096;
/// Handshakes at a time; more callers wait.
const HANDSHAKES: usize = 32;
/// A handshake takes at most this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept of the token: enough to know it when it comes.
#[derive(Clone, Copy)]
pub(super) struct Token([u8; 32]);

impl Token {
    /// The token in a file, blanks around it not counted.
    fn read(path: &Path) -> Result<Token, Fault> {
        let wrong = |why: &str| Fault::new(Code::ConfigInvalid, format!("`http.token`: {}: {why}", path.display()));
        let file = std::fs::File::open(path).map_err(|e| wrong(&e.to_string()))?;
        let mode = file.metadata().map_err(|e| wrong(&e.to_string()))?.permissions().mode();
        if mode & 0o007 != 0 {
            return Err(wrong("everybody on this machine can read it: chmod o= it"));
        }
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(|e| wrong(&e.to_string()))?;
        let token = text.trim();
        if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong(&format!("not {SHORTEST} printable characters or more in one line")));
        }
        Ok(Token::of(token))
    }

    fn of(text: &str) -> Token {
        Token(Sha256::digest(text).into())
    }

    /// Whether a header names it. What is compared are digests: how far they agree tells nothing of the token.
    fn opens(&self, authorization: Option<&str>) -> bool {
        let given = authorization.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        given.is_some_and(|(_, token)| Token::of(token.trim()).0 == self.0)
    }
}

/// Callers whose handshake is done.
pub(super) struct Secured {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl Secured {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Where other machines are listened for, and what they have to know; none when nowhere. To be called inside a runtime.
pub(super) async fn listen(config: &Http) -> Result<Option<(Secured, Token)>, Fault> {
    let Some(address) = config.remote.0 else { return Ok(None) };
    let token = Token::read(&config.token)?;
    let acceptor = TlsAcceptor::from(tls::server("http", &config.tls_certificate, &config.tls_key, Path::new(""))?);
    let failed = |e: std::io::Error| Fault::new(Code::ConfigListen, format!("`http.remote`: {address}: {e}")).caused_by(e);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (done, ready) = mpsc::channel(HANDSHAKES);
    tokio::spawn(shake_hands(listener, acceptor, done));
    Ok(Some((Secured { ready, address }, token)))
}

/// Handshakes beside each other, so that a slow caller keeps nobody waiting.
async fn shake_hands(listener: TcpListener, acceptor: TlsAcceptor, done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    while let Ok(place) = places.clone().acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!("http: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, done) = (acceptor.clone(), done.clone());
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                // Fails when the server has ended.
                Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, "no TLS: {error}"),
                Err(_) => tracing::debug!(%peer, "no TLS within {} s", PATIENCE.as_secs()),
            }
        });
    }
}

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(caller) => caller,
            // The listening task ends with the runtime only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// The same answers, for those who know the token.
pub(super) fn guarded(router: Router, token: Token, audit: Audit) -> Router {
    router.layer(from_fn_with_state((token, audit), guard))
}

async fn guard(
    State((token, audit)): State<(Token, Audit)>,
    ConnectInfo(Caller(peer)): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if token.opens(authorization) {
        return next.run(request).await;
    }
    tracing::warn!(%peer, "a request without the token was refused");
    if audit.is_on() {
        let node = Node { name: String::new(), address: peer.ip().to_string() };
        let told = move || audit.record(&Event::Refused { node: &node, why: "a web request without the token" });
        // It waits for a disk. A panic there was told by the hook.
        let _ = tokio::task::spawn_blocking(told).await;
    }
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "send the token\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_private_and_known_again() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("token");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        let good = "0123456789abcdef0123456789abcdef";
        for (text, mode) in [(good, 0o644), ("short", 0o600), ("", 0o600), ("0123456789abcdef 0123456789abcdef", 0o600)] {
            write(text, mode);
            assert_eq!(Token::read(&path).err().expect("refused").code, Code::ConfigInvalid, "{text} {mode:o}");
        }
        write(&format!("{good}\n"), 0o640);
        let token = Token::read(&path).expect("good");
        for (header, opens) in [
            (Some(format!("Bearer {good}")), true),
            (Some(format!("bearer  {good}")), true),
            (Some(format!("Basic {good}")), false),
            (Some(format!("Bearer {good}0")), false),
            (Some("Bearer ".to_owned()), false),
            (Some(good.to_owned()), false),
            (None, false),
        ] {
            assert_eq!(token.opens(header.as_deref()), opens, "{header:?}");
        }
    }
}
