//! STOW-RS (PS3.18 section 10.5): `POST /dicom-web/studies` and `/dicom-web/studies/{study}`.
//!
//! The body streams through a few buffers into the spool: its size is bounded by the disk, not by memory. The answer is
//! sent when every stored object is on disk, and says of each object what became of it.

use super::server::Caller;
use crate::audit::Node;
use crate::config;
use crate::dicom::{Identity, Uid};
use crate::intake::dimse::Status;
use crate::intake::multipart::MultipartError;
use crate::intake::reception::{Reception, Refused};
use crate::intake::stow::{DICOM, Outcomes, Store, StowError, StowLimits};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Pieces of a body between the network and the disk.
const PIECES: usize = 8;
/// Seconds after which a caller that was sent away may come again.
const COME_AGAIN: &str = "30";

/// What the requests share.
#[derive(Clone)]
struct Stow {
    reception: Arc<Reception>,
    config: config::Stow,
    places: Arc<Semaphore>,
}

/// The routes.
pub(super) fn routes(reception: Arc<Reception>, config: &config::Stow) -> Router {
    let stow = Stow { reception, config: config.clone(), places: Arc::new(Semaphore::new(config.max_requests)) };
    Router::new().route("/dicom-web/studies", post(any_study)).route("/dicom-web/studies/{study}", post(one_study)).with_state(stow)
}

async fn any_study(State(stow): State<Stow>, ConnectInfo(caller): ConnectInfo<Caller>, headers: HeaderMap, body: Body) -> Response {
    store(stow, None, caller, headers, body).await
}

async fn one_study(
    State(stow): State<Stow>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(study): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match Uid::parse(&study) {
        Ok(study) => store(stow, Some(study), caller, headers, body).await,
        Err(_) => refuse(StatusCode::BAD_REQUEST, "the study in the address is not a UID"),
    }
}

async fn store(stow: Stow, study: Option<Uid>, caller: Caller, headers: HeaderMap, body: Body) -> Response {
    let Ok(place) = stow.places.clone().try_acquire_owned() else {
        return later("too many requests are open");
    };
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = text(header::CONTENT_TYPE).to_owned();
    if !is_dicom_multipart(&content_type) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send multipart/related; type=\"application/dicom\"");
    }
    if !accepts_json(text(header::ACCEPT)) {
        return refuse(StatusCode::NOT_ACCEPTABLE, "the answer is application/dicom+json");
    }
    let limits = StowLimits { body: stow.config.max_body.0, parts: stow.config.max_parts };
    if text(header::CONTENT_LENGTH).parse::<u64>().is_ok_and(|length| length > limits.body) {
        return failed(&StowError::Body(limits.body));
    }
    if !stow.reception.has_room() {
        return later("the disk is full");
    }

    let (pieces, mut arriving) = mpsc::channel::<Bytes>(PIECES);
    let reception = stow.reception.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let _place = place;
        let from = Node { name: String::new(), address: caller.0.ip().to_string() };
        let mut store = Store::begin(&reception, &content_type, study, limits, from)?;
        while let Some(piece) = arriving.blocking_recv() {
            store.feed(&piece)?;
        }
        store.finish()
    });
    let silent = forward(body, pieces, &stow.config).await;
    match writing.await {
        Ok(Ok(outcomes)) => answer(outcomes),
        Ok(Err(StowError::Multipart(MultipartError::Truncated))) if silent => {
            refuse(StatusCode::REQUEST_TIMEOUT, "nothing came for too long")
        }
        Ok(Err(error)) => failed(&error),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "storing panicked"),
    }
}

/// Hands the body on, piece by piece. Whether it ended because nothing came any more.
async fn forward(mut body: Body, pieces: mpsc::Sender<Bytes>, config: &config::Stow) -> bool {
    loop {
        match tokio::time::timeout(config.idle.0, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                // Trailers are of no use here.
                let Ok(data) = frame.into_data() else { continue };
                if pieces.send(data).await.is_err() {
                    return false;
                }
            }
            Ok(Some(Err(_)) | None) => return false,
            Err(_) => return true,
        }
    }
}

/// `multipart/related`, whose root type is, if given, `application/dicom` (RFC 2387, PS3.18 section 8.6).
fn is_dicom_multipart(content_type: &str) -> bool {
    let mut parameters = content_type.split(';').map(str::trim);
    let essence = parameters.next().unwrap_or_default();
    let root = parameters.filter_map(|p| p.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("type"));
    essence.eq_ignore_ascii_case("multipart/related")
        && root.is_none_or(|(_, value)| value.trim().trim_matches('"').eq_ignore_ascii_case(DICOM))
}

fn accepts_json(accept: &str) -> bool {
    let mut ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    accept.trim().is_empty()
        || ranges.any(|range| ["*/*", "application/*", "application/dicom+json", "application/json"].contains(&range.as_str()))
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

fn later(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, COME_AGAIN)], format!("{why}\n")).into_response()
}

fn failed(error: &StowError) -> Response {
    let status = match error {
        StowError::Multipart(_) => StatusCode::BAD_REQUEST,
        StowError::Body(_) | StowError::Parts(_) => StatusCode::PAYLOAD_TOO_LARGE,
    };
    refuse(status, &error.to_string())
}

/// The Store Instances Response Module (PS3.18 annex I) in the DICOM JSON model (annex F).
fn answer(outcomes: Outcomes) -> Response {
    let Outcomes { stored, refused, other_type } = outcomes;
    let status = match (stored.len(), refused.len()) {
        (0, 0) => return refuse(StatusCode::BAD_REQUEST, "the body has no parts"),
        (_, 0) => StatusCode::OK,
        (0, all) if all == other_type => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (0, _) => StatusCode::CONFLICT,
        _ => StatusCode::ACCEPTED,
    };
    let (known, unknown): (Vec<Refused>, Vec<Refused>) = refused.into_iter().partition(|refused| refused.identity.is_some());
    let sequences = [
        ("00081198", known.iter().filter_map(|r| r.identity.as_ref().map(|i| reference(i, Some(reason(r.status))))).collect()),
        ("00081199", stored.iter().map(|identity| reference(identity, None)).collect::<Vec<Value>>()),
        ("0008119A", unknown.iter().map(|r| json!({ "00081197": reason(r.status) })).collect()),
    ];
    // Retrieve URL is empty: nothing can be fetched from here.
    let mut document = Map::from_iter([("00081190".to_owned(), json!({ "vr": "UR" }))]);
    for (tag, items) in sequences.into_iter().filter(|(_, items)| !items.is_empty()) {
        document.insert(tag.to_owned(), json!({ "vr": "SQ", "Value": items }));
    }
    (status, [(header::CONTENT_TYPE, "application/dicom+json")], Value::Object(document).to_string()).into_response()
}

fn reference(identity: &Identity, reason: Option<Value>) -> Value {
    let mut item = json!({
        "00081150": { "vr": "UI", "Value": [identity.sop_class_uid.as_str()] },
        "00081155": { "vr": "UI", "Value": [identity.sop_instance_uid.as_str()] },
    });
    let (tag, value) = reason.map_or_else(|| ("00081190", json!({ "vr": "UR" })), |reason| ("00081197", reason));
    item[tag] = value;
    item
}

fn reason(status: Status) -> Value {
    json!({ "vr": "US", "Value": [status.code()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_and_accepted_answers() {
        for (text, fits) in [
            ("multipart/related; type=\"application/dicom\"; boundary=x", true),
            ("Multipart/Related;boundary=x;TYPE=application/dicom", true),
            ("multipart/related; boundary=x", true),
            ("multipart/related; type=\"application/dicom+json\"; boundary=x", false),
            ("multipart/form-data; boundary=x", false),
            ("application/dicom", false),
            ("", false),
        ] {
            assert_eq!(is_dicom_multipart(text), fits, "{text}");
        }
        for (text, fits) in [("", true), ("*/*", true), ("text/html, application/dicom+json;q=0.5", true), ("application/dicom+xml", false)]
        {
            assert_eq!(accepts_json(text), fits, "{text}");
        }
    }
}
