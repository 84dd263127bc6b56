//! The HTTP server, on threads of its own.

use super::page::page;
use super::{remote, stow};
use crate::audit::Audit;
use crate::config;
use crate::fault::{Code, Fault};
use crate::intake::reception::Reception;
use crate::pipeline::{Snapshot, Status};
use axum::Router;
use axum::extract::State;
use axum::extract::connect_info::Connected;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use std::net::SocketAddr;
use std::sync::Arc;

/// Threads that answer requests.
const WORKERS: usize = 2;

/// The running server; stops when dropped.
pub struct Server {
    address: SocketAddr,
    remote: Option<SocketAddr>,
    // Dropped with the server, which ends its threads.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    /// Where it listens; the port that the system chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for other machines.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub SocketAddr);

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, tokio::net::TcpListener>) -> Caller {
        Caller(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, remote::Secured>> for Caller {
    fn connect_info(stream: IncomingStream<'_, remote::Secured>) -> Caller {
        Caller(*stream.remote_addr())
    }
}

/// Binds the addresses and answers until the server is dropped. With `receives`, objects are taken too.
pub fn serve(
    config: &config::Http,
    status: Status,
    receives: Option<(Arc<Reception>, &config::Stow)>,
    audit: Audit,
) -> Result<Server, Fault> {
    let listen = config.listen.get();
    let failed = |e: std::io::Error| Fault::new(Code::ConfigListen, format!("{listen}: {e}")).caused_by(e);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("web")
        .enable_io()
        .enable_time()
        .build()
        .map_err(failed)?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind(listen)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/", get(front))
        .route("/status.json", get(snapshot))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(status);
    let router = match receives {
        Some((reception, config)) => router.merge(stow::routes(reception, config)),
        None => router,
    };
    let secured = runtime.block_on(remote::listen(config))?;
    let remote = secured.as_ref().map(|(listener, _)| listener.address());
    let guarded = router.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = async move {
        tokio::select! {
            result = axum::serve(listener, router.into_make_service_with_connect_info::<Caller>()) => if let Err(e) = result { tracing::error!("http: {e}") },
            result = beyond(secured, guarded, audit) => if let Err(e) = result { tracing::error!("http: {e}") },
            _ = stopped => {}
        }
    };
    std::thread::Builder::new().name("web".into()).spawn(move || runtime.block_on(run)).map_err(failed)?;
    Ok(Server { address, remote, _stop: stop })
}

/// Answers other machines, if anywhere.
async fn beyond(secured: Option<(remote::Secured, remote::Token)>, router: Router, audit: Audit) -> std::io::Result<()> {
    match secured {
        Some((listener, token)) => {
            let router = remote::guarded(router, token, audit);
            axum::serve(listener, router.into_make_service_with_connect_info::<Caller>()).await
        }
        None => std::future::pending().await,
    }
}

/// What every page says to browsers: nothing from elsewhere, no scripts, not to be kept.
const HEADERS: [(header::HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

async fn front(State(status): State<Status>) -> Response {
    let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    match looked(status).await {
        Some(snapshot) => (HEADERS, html, page(&snapshot).into_string()).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn snapshot(State(status): State<Status>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match looked(status).await.and_then(|snapshot| serde_json::to_string(&snapshot).ok()) {
        Some(text) => (HEADERS, json, text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The ledger is asked, which may have to wait for its disk.
async fn looked(status: Status) -> Option<Snapshot> {
    tokio::task::spawn_blocking(move || status.snapshot()).await.ok()
}

async fn metrics(State(status): State<Status>) -> Response {
    status.bring_up_to_date();
    match status.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn livez(State(status): State<Status>) -> String {
    let now = status.clock.monotonic();
    let mut text = "live\n".to_string();
    for beat in status.board.beats() {
        let seconds = now.saturating_duration_since(beat.since).as_secs();
        text += beat.post.name();
        if let Some(job) = beat.job {
            text += &format!(" job {job}");
        }
        text += &format!(" for {seconds} s");
        if let Some(progress) = beat.progress {
            text += &format!(", {} of {}", progress.done, progress.of);
        }
        text.push('\n');
    }
    text
}

async fn readyz(State(status): State<Status>) -> (StatusCode, &'static str) {
    if status.metrics.draining.get() != 0 {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else if status.metrics.ready.get() == 0 {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}
